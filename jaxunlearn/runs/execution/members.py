"""Finished members of a role in the run folder, stored and read back in chunks.

Training and recording share these functions: damaged chunks are deleted and logged, and their members count as missing.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.population import training
from jaxunlearn.runs import experiments, roles
from jaxunlearn.store import chunks

Tree = Any
ROUNDS = 4  # attempts to retrain members that are damaged when they are read back


def folder_of(run_folder: store.Run, spec: roles.RoleSpec) -> Path:
    """Returns the folder of a role's chunks."""
    return run_folder.path("populations", spec.name)


def finished_members(folder: Path, reporter: progress.Reporter, spec: roles.RoleSpec) -> set[int]:
    """Returns the ids of all finished members in `folder`. Deletes damaged chunks; logs both."""
    finished_chunks, damaged = chunks.finished(folder, spec.fingerprint)
    discard_damaged(damaged, reporter)
    member_ids = {int(member) for chunk in finished_chunks for member in chunk.member_ids}
    count = len(member_ids.intersection(spec.member_ids.tolist()))
    if count:
        reporter.log(f"{spec.name}: {count} of {len(spec.membership)} members are finished already")
    return member_ids


def discard_damaged(damaged: list[Path], reporter: progress.Reporter) -> None:
    """Deletes damaged chunks and logs their paths."""
    for path in damaged:
        reporter.log(f"{path} is damaged (cut short or altered); its members are trained again")
        store.files.remove(path)


def not_kept(names: str) -> errors.StoreError:
    """Returns the error for members that are damaged again after `ROUNDS` attempts."""
    return errors.StoreError(
        f"{names}: finished models were damaged when they were read back, {ROUNDS} times in a row. The disk of the run "
        "folder does not keep what is written to it; move the folder to another disk and run the same command again."
    )


def divergence_steps(run_folder: store.Run, spec: roles.RoleSpec) -> dict[int, int]:
    """Returns member id -> step at which its loss stopped being finite."""
    finished_chunks, _ = chunks.finished(folder_of(run_folder, spec), spec.fingerprint)
    steps = {}
    for chunk in finished_chunks:
        steps.update({int(m): int(s) for m, s in chunk.manifest["diverged"].items() if int(m) < len(spec.membership)})
    return dict(sorted(steps.items()))


def template(experiment: experiments.Experiment, members: int, epochs: int) -> dict[str, Tree]:
    """Returns the shapes of a finished chunk of `members` members trained for `epochs` epochs."""
    member_shapes = {
        "variables": population.variables(jax.eval_shape(experiment.task.init, keys.root(0))),
        "diverged_at": jax.ShapeDtypeStruct((), np.int32),
    }
    population_shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), member_shapes
    )
    history = jax.ShapeDtypeStruct((members, epochs), np.float32)
    return {**population_shapes, "history": {"loss": history, "accuracy": history}}


def store_chunk(
    folder: Path,
    fingerprint: str,
    ids: np.ndarray,
    variables: Tree,
    diverged_at: np.ndarray,
    history: dict[str, np.ndarray],
    epoch: int,
    **facts: Any,
) -> None:
    """Stores members after `epoch` epochs.

    Args:
      folder: of the role's chunks.
      fingerprint: of the role.
      ids: [m] member ids.
      variables: flax variables with a leading [m].
      diverged_at: [m] step at which the loss stopped being finite, or `training.NOT_DIVERGED`.
      history: name -> [m, epochs].
      epoch: number of epochs trained.
      facts: further plain values for the chunk's manifest.
    """
    tree = {"variables": variables, "diverged_at": diverged_at, "history": history}
    frozen = {
        int(member): int(step) for member, step in zip(ids, diverged_at, strict=True) if step != training.NOT_DIVERGED
    }
    name = f"chunk_{chunks.chunk_name(ids)}"
    chunks.save(folder / name, tree, ids, fingerprint, epoch=epoch, diverged=frozen, **facts)


def load_chunk(experiment: experiments.Experiment, chunk: chunks.Chunk, epochs: int = 0) -> dict[str, Tree]:
    """Loads and verifies a finished chunk: `variables`, `diverged_at` [m], `history` [m, epochs].

    `epochs` is the number of epochs that its role was trained for; 0 = train.epochs of this experiment.
    """
    return chunks.load(chunk, template(experiment, len(chunk.member_ids), epochs or experiment.settings.train.epochs))


def load(experiment: experiments.Experiment, folder: Path, fingerprint: str, member_ids: np.ndarray) -> Tree:
    """Loads the variables of finished members, leading axis in the order of `member_ids` (repeats allowed).

    Args:
      experiment: of the same architecture, number of classes and shape of inputs.
      folder: a role's folder, of this run or of another one.
      fingerprint: of the role, as in its stage.json.
      member_ids: [m] global numbers.

    Raises:
      StoreError: a member is not finished there, or its chunk is damaged.
    """
    requested = np.asarray(member_ids).tolist()
    requested_set = set(requested)
    fragments: list[Tree] = []
    index_of: dict[int, int] = {}
    for chunk in chunks.finished(folder, fingerprint)[0]:
        rows = [
            i
            for i, member in enumerate(chunk.member_ids.tolist())
            if member in requested_set and member not in index_of
        ]
        if rows:
            # Another run may have trained for other epochs than this one: each finished chunk stores its own.
            variables = load_chunk(experiment, chunk, chunk.manifest["epoch"])["variables"]
            fragments.append(trees.take(variables, np.asarray(rows)))
            index_of.update({member: len(index_of) + k for k, member in enumerate(chunk.member_ids[rows].tolist())})
    missing = [member for member in requested if member not in index_of]
    if missing:
        raise errors.StoreError(
            f"{folder} contains no finished member {missing[0]}; members {min(requested)} to {max(requested)} are "
            "needed. Run the command that trains them again: it continues where it stopped."
        )
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *fragments)
    return trees.take(joined, np.asarray([index_of[member] for member in requested]))
