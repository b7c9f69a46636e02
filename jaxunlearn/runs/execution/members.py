"""Finished members of a role in the run folder: chunks of them, stored and read back.

Training and recording share these: what is damaged is removed and said, and its members count as missing.
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


def folder_of(run: store.Run, spec: roles.RoleSpec) -> Path:
    """Where the chunks of a role lie."""
    return run.path("populations", spec.name)


def finished(folder: Path, reporter: progress.Reporter, spec: roles.RoleSpec) -> set[int]:
    """Members of the folder that are finished, whoever wants them; damaged chunks are removed, and both is said."""
    whole, damaged = chunks.finished(folder, spec.fingerprint)
    discard(damaged, reporter)
    covered = {int(member) for chunk in whole for member in chunk.member_ids}
    there = len(covered.intersection(spec.member_ids.tolist()))
    if there:
        reporter.say(f"{spec.name}: {there} of {len(spec.membership)} members are finished already")
    return covered


def discard(damaged: list[Path], reporter: progress.Reporter) -> None:
    """Removes damaged chunks, and says so."""
    for path in damaged:
        reporter.say(f"{path} is damaged (cut short or altered); what it held is trained again")
        store.files.remove(path)


def diverged(run: store.Run, spec: roles.RoleSpec) -> dict[int, int]:
    """Member -> step at which its loss stopped being finite."""
    whole, _ = chunks.finished(folder_of(run, spec), spec.fingerprint)
    found = {}
    for chunk in whole:
        found.update({int(m): int(s) for m, s in chunk.manifest["diverged"].items() if int(m) < len(spec.membership)})
    return dict(sorted(found.items()))


def template(experiment: experiments.Experiment, members: int, epochs: int) -> dict[str, Tree]:
    """Shapes of what a finished chunk of so many members and epochs holds."""
    one = {
        "variables": population.variables(jax.eval_shape(experiment.task.init, keys.root(0))),
        "diverged_at": jax.ShapeDtypeStruct((), np.int32),
    }
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), one)
    history = jax.ShapeDtypeStruct((members, epochs), np.float32)
    return {**stacked, "history": {"loss": history, "accuracy": history}}


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
    """Stores members after `epoch` epochs; every leaf with a leading [m], `facts` go into the chunk's manifest."""
    tree = {"variables": variables, "diverged_at": diverged_at, "history": history}
    frozen = {
        int(member): int(step) for member, step in zip(ids, diverged_at, strict=True) if step != training.NOT_DIVERGED
    }
    name = f"chunk_{chunks.chunk_name(ids)}"
    chunks.save(folder / name, tree, ids, fingerprint, epoch=epoch, diverged=frozen, **facts)


def load_chunk(experiment: experiments.Experiment, chunk: chunks.Chunk, epochs: int = 0) -> dict[str, Tree]:
    """A finished chunk: `variables`, `diverged_at` [m], `history` [m, epochs]; verified.

    `epochs` is what its role was trained for; 0 = train.epochs of this experiment.
    """
    return chunks.load(chunk, template(experiment, len(chunk.member_ids), epochs or experiment.settings.train.epochs))


def load(experiment: experiments.Experiment, folder: Path, fingerprint: str, member_ids: np.ndarray) -> Tree:
    """The kept flax variables of finished members, leading axis in the order of `member_ids` (repeats allowed).

    Args:
      experiment: of the same architecture, number of classes and shape of inputs.
      folder: a role's folder, of this run or of another one.
      fingerprint: of the role, as its stage.json says.
      member_ids: [m] global numbers.

    Raises:
      StoreError: a member is not finished there, or its chunk is damaged.
    """
    wanted = np.asarray(member_ids).tolist()
    fragments: list[Tree] = []
    places: dict[int, int] = {}
    for chunk in chunks.finished(folder, fingerprint)[0]:
        rows = [i for i, member in enumerate(chunk.member_ids.tolist()) if member in wanted and member not in places]
        if rows:
            # Another run may have trained for other epochs than this one: a finished chunk knows its own.
            variables = load_chunk(experiment, chunk, chunk.manifest["epoch"])["variables"]
            fragments.append(trees.take(variables, np.asarray(rows)))
            places.update({member: len(places) + k for k, member in enumerate(chunk.member_ids[rows].tolist())})
    missing = [member for member in wanted if member not in places]
    if missing:
        raise errors.StoreError(
            f"{folder} holds no finished member {missing[0]}; members {min(wanted)} to {max(wanted)} are needed. "
            "Run the command that trains them again: it continues where it stopped."
        )
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *fragments)
    return trees.take(joined, np.asarray([places[member] for member in wanted]))
