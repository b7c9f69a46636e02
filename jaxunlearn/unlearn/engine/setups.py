"""Everything that decides about the numbers of a method on M members, before anything runs: rows, streams, modes.

Host side; what comes of it is traced by `running`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, population
from jaxunlearn.population import Lifting, Resident, Stream
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Method, Phase, Pools, Reads
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.engine import tasks

Tree = Any


class Setup(NamedTuple):
    """Everything that decides about the numbers of M members, and where they run.

    Attributes:
      network: the model; `data`: resident inputs and labels.
      build: {name: number} -> Method; called with plain numbers on the host and with traced scalars inside.
      hyper: name -> [M] float64, the hyperparameters that may differ between members (float32 inside).
      originals: flax variables with leading M: what each member starts from.
      forget, retain: [M][n] rows of each member; validation: [p] rows of all.
      numbers: [M] int32, what keys are derived from; part: [M] int32 part of an ensemble.
      key: root key of the role.
      lifting: how members are mapped.
      bn: "auto" (the method's own), "frozen", "recalibrate", "faithful" or "first_epoch" (training mode in the first
        epoch only, as code that forgets to switch back after an evaluation does).
      batch: rows per step where a stream does not say; augment: whether inputs are augmented.
      budget: bytes that a program may need per device; 0 = not checked.
      kinds: [N_all] int32 subclasses where these are forgotten, and the groups of texts; empty = the labels (of texts:
        one group). `test`: rows, see `Pools`.
    """

    network: Network
    data: Resident
    build: Callable[[Mapping[str, Any]], Method]
    hyper: Mapping[str, np.ndarray]
    originals: Tree
    forget: Sequence[np.ndarray]
    retain: Sequence[np.ndarray]
    validation: np.ndarray
    numbers: np.ndarray
    part: np.ndarray
    key: jax.Array
    lifting: Lifting
    bn: str = "auto"
    batch: int = 64
    augment: bool = True
    budget: int = 0
    kinds: np.ndarray = np.zeros(0, np.int32)
    test: np.ndarray = np.zeros(0, np.int32)


def structure(setup: Setup) -> Method:
    """The method of member 0: its phases have the same shape for all."""
    return _concrete(setup, 0)


def _concrete(setup: Setup, member: int) -> Method:
    return setup.build({name: float(values[member]) for name, values in setup.hyper.items()})


def policy(setup: Setup) -> str:
    """The BatchNorm policy in force."""
    return structure(setup).bn if setup.bn == "auto" else setup.bn


def phases(setup: Setup) -> tuple[tuple[Phase, str], ...]:
    """The phases of member 0 with the mode that each runs in: "train", "eval" or "first_epoch"."""
    mode = {"frozen": "eval", "first_epoch": "first_epoch"}.get(policy(setup), "train")
    return tuple((phase, phase.mode or mode) for phase in structure(setup).phases)


def pools_of(setup: Setup, member: int, index: int, name: str) -> Pools:
    """The rows of one member; the generator depends on the role, the member's number, the phase and the stream."""
    seed = np.asarray(jax.random.key_data(setup.key)).ravel()
    rng = np.random.default_rng([*map(int, seed), int(setup.numbers[member]), index, keys.name_hash(name)])
    labels = np.asarray(setup.data.labels)
    if labels.ndim > 1:  # next tokens of texts
        labels = setup.kinds if len(setup.kinds) else np.zeros(len(labels), np.int32)
    return Pools(
        np.asarray(setup.forget[member], np.int32), np.asarray(setup.retain[member], np.int32),
        np.asarray(setup.validation, np.int32), labels, int(setup.part[member]), rng,
        setup.kinds if len(setup.kinds) else labels, np.asarray(setup.test, np.int32),
    )  # fmt: skip


def rows_of(reads: Reads, pools: Pools) -> list[np.ndarray]:
    """The segments of row numbers that a stream reads.

    Raises:
      ConfigError: an unknown name of rows.
    """
    segments = reads.rows if isinstance(reads.rows, tuple) else (reads.rows,)
    found = []
    for one in segments:
        if callable(one):
            found.append(np.asarray(one(pools), np.int32))
            continue
        parts = []
        for name in one.split("+"):
            if name not in ("forget", "retain", "validation"):
                raise errors.unknown("rows", name, ("forget", "retain", "validation"))
            parts.append(getattr(pools, name))
        found.append(np.concatenate(parts))
    return found


def streams_of(
    setup: Setup, index: int, reads_of: Callable[[Phase], Mapping[str, Reads]], prefix: str
) -> dict[str, Stream]:
    """Streams with leading M of one phase or estimate, each member's rows from its own numbers."""
    members = range(len(setup.numbers))
    methods = [_concrete(setup, member) for member in members]
    found = {}
    for name, reads in tasks.sized(reads_of(methods[0].phases[index]), setup.batch).items():
        parts = [
            rows_of(reads_of(methods[member].phases[index])[name], pools_of(setup, member, index, prefix + name))
            for member in members
        ]
        found[name] = population.from_rows(parts, reads.batch)
    return found


def estimate_streams(setup: Setup, index: int, which: str) -> dict[str, dict[str, Stream]]:
    """Streams of all estimates of a phase; `which` is "estimates" or "every_epoch"."""
    phase = phases(setup)[index][0]
    return {
        name: streams_of(setup, index, lambda one, name=name: getattr(one, which)[name].reads, f"{name}.")  # type: ignore[misc]
        for name in getattr(phase, which)
    }


def stage_of(setup: Setup, index: int) -> tasks.Stage:
    """One phase ready to be traced."""
    phase, mode = phases(setup)[index]
    net = network.widened(setup.network) if phase.widen else setup.network
    augment = setup.augment and structure(setup).augment
    return tasks.Stage(net, setup.build, index, mode, setup.key, setup.batch, augment)


def constants_of(setup: Setup, index: int, memory: Tree, estimates: Tree) -> dict[str, Any]:
    """Constants of all members in a phase; every leaf with a leading M."""
    forget = np.zeros((len(setup.numbers), len(np.asarray(setup.data.labels))), bool)
    for line, rows in zip(forget, setup.forget, strict=True):
        line[np.asarray(rows)] = True
    return {
        "number": np.asarray(setup.numbers, np.int32),
        "hyper": {name: np.asarray(values, np.float32) for name, values in setup.hyper.items()},
        "forget": forget,
        "reference": setup.originals,
        "memory": memory,
        "estimates": estimates,
        "epoch_streams": estimate_streams(setup, index, "every_epoch"),
    }


def steps_of(setup: Setup, index: int) -> np.ndarray:
    """[M] steps per epoch of a phase with moves, at least 1."""
    driver, reads = next(iter(tasks.sized(phases(setup)[index][0].reads, setup.batch).items()))
    stream = streams_of(setup, index, lambda one: {driver: one.reads[driver]}, "")[driver]
    return np.maximum(-(-np.asarray(stream.num_rows) // reads.batch), 1)


def epochs_of(setup: Setup, index: int) -> int:
    """Epochs of a phase: no more than the member with the fewest steps per epoch needs to reach `stop`; 0 = an edit."""
    phase = phases(setup)[index][0]
    if not phase.moves or not phase.stop:
        return phase.epochs if phase.moves else 0
    return min(phase.epochs, -(-phase.stop // int(steps_of(setup, index).min())))
