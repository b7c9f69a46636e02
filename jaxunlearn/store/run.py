"""The run folder: one lock, one run.json, one manifest per stage.

    run.json  log.jsonl  outputs.jsonl  split.npz  populations/ROLE/chunk_*/  logits/  scores/  findings.json  report/

A stage's manifest holds its fingerprint and the facts behind it. The same fingerprint means reuse, another one stops
the command and shows which facts differ; nothing is ever mixed or overwritten unasked.
"""

import contextlib
import fcntl
import glob
import json
import os
import platform
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, escapes, progress
from jaxunlearn.store import files, outputs


class Run(NamedTuple):
    """An open run folder, locked by this process."""

    root: Path

    def path(self, *parts: str) -> Path:
        """Returns a path inside the folder."""
        return self.root.joinpath(*parts)

    def output(self, *parts: str) -> Path:
        """Returns the path of an output that another room is about to write, and lists it as ours."""
        path = self.root.joinpath(*parts)
        files.note(path)
        return path

    def delete(self, *patterns: str) -> None:
        """Deletes the outputs that match a pattern; what is not ours stays."""
        outputs.delete(self.root, patterns)

    def log(self, event: dict[str, Any]) -> None:
        """Appends an event to log.jsonl."""
        files.append_json_line(self.root / "log.jsonl", event)


_TARGETS = ("original", "retrained", "population_in", "shadow_origin", "reference", "snapshots")
_KINDS = (("populations", ""), ("logits", ".*"))

# What --overwrite=STAGE deletes, of the outputs that are listed as ours.
STAGES: dict[str, tuple[str, ...]] = {
    "split": ("split.npz", "split.json"),
    "shadows": ("populations/shadow", "logits/shadow.*", "summary.json", "report/shadows*"),
    "targets": (*(f"{kind}/{role}{end}" for role in _TARGETS for kind, end in _KINDS), "targets.json"),
    **{role: tuple(f"{kind}/{role}{end}" for kind, end in _KINDS) for role in _TARGETS},
    "unlearned": (*(f"{kind}/unlearned:*" for kind, _ in _KINDS), "unlearned.json"),
    "extracted": (*(f"{kind}/extracted:*" for kind, _ in _KINDS), "extract.json"),
    "logits": ("logits",),
}


def patterns(stage: str, owned: Mapping[str, tuple[str, ...]] = {}) -> tuple[str, ...]:  # noqa: B006 - never changed
    """What --overwrite=STAGE deletes; besides the table's, every single role unlearned:METHOD or extracted:ROLE is one.

    `owned`: further stages, of analyses.

    Raises:
      ConfigError: unknown stage.
    """
    if stage.startswith(("unlearned:", "extracted:")):
        return tuple(f"{kind}/{glob.escape(stage)}{end}" for kind, end in (*_KINDS, ("populations", ".*")))
    if stage == "all":
        return ("*",)
    stages = {**STAGES, **owned}
    if stage not in stages:
        raise errors.unknown("stage for --overwrite", stage, [*stages, "all"])
    return stages[stage]


@contextlib.contextmanager
def open_run(
    workdir: str,
    overwrite: tuple[str, ...] = (),
    owned: Mapping[str, tuple[str, ...]] = {},  # noqa: B006
) -> Iterator[Run]:
    """Makes or reopens a run folder and holds its lock while the block runs.

    Args:
      workdir: the folder; made if it is not there.
      overwrite: stages whose outputs are deleted first.
      owned: what analyses own, by name; see `patterns`.

    Raises:
      StoreError: cannot be written, holds something and is no run folder, or another process works in it.
      ConfigError: unknown stage.
    """
    doomed = [pattern for stage in overwrite for pattern in patterns(stage, owned)]
    root = begin(workdir).root
    with files.writing(root / ".lock"):
        lock = open(root / ".lock", "a+")  # noqa: SIM115 - held open while the run lasts: closing it frees the lock
    with lock:
        _lock(lock, root)
        if doomed and not (root / files.OUTPUTS).is_file():
            raise errors.StoreError(
                f"{root} has no {files.OUTPUTS}, which lists what --overwrite may delete (earlier versions kept none). "
                f"Delete by hand ({', '.join(doomed[:4])}), or choose another --workdir."
            )
        outputs.tidy(root)
        outputs.delete(root, doomed)
        yield Run(root)


def begin(workdir: str) -> Run:
    """Makes or finds a run folder, without its lock: for outputs that no stage owns.

    Raises:
      StoreError: it cannot be made, or holds something and is no run folder.
    """
    workdir = os.fspath(workdir)
    if "\0" in workdir:
        raise errors.StoreError(f"{workdir!r} cannot be a folder: it holds a NUL. Choose another --workdir.")
    try:
        root = Path(workdir).expanduser().absolute()
    except RuntimeError as error:  # the home of an unknown user
        raise errors.StoreError(f"{workdir!r} cannot be a folder ({error}). Choose another --workdir.") from error
    outputs.claim(root)
    return Run(root)


def _lock(lock: Any, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise errors.StoreError(
            f"{root} is in use by another process ({lock.read().strip() or 'unknown'}). "
            "Wait for it, stop it, or choose another --workdir."
        ) from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()


def versions() -> dict[str, str]:
    """Versions of everything that may change numbers, and the machine."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    device = jax.local_devices()[0]
    return {
        "jaxunlearn": metadata.version("jaxunlearn") if _installed("jaxunlearn") else "checkout",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "device": f"{len(jax.local_devices())} x {device.device_kind} ({device.platform})",
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextlib.contextmanager
def status(run: Run, settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> Iterator[None]:
    """Keeps run.json while the block works: settings, versions, device, status (running, done, failed, interrupted).

    A run that says `running` while nobody holds the folder's lock was killed; the same command continues it.
    """
    begun = time.monotonic()

    def write(word: str) -> None:
        facts = {"status": word, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "versions": versions()}
        seconds = round(time.monotonic() - begun, 3)
        content = {**facts, "seconds": seconds, "settings": settings, "overrides": overrides}
        files.write_json(run.path("run.json"), content)

    write("running")
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(errors.StoreError):  # the disk may be full: the first error is the one to show
            write("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    write("done")


def stored(run: Run, path: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Arrays of a file that can be made again; None where it is missing, or damaged, which is said."""
    if not os.path.lexists(path):
        return None
    try:
        arrays = files.read_npz(path)
    except errors.StoreError:
        arrays = {}
    if set(names) <= set(arrays):
        return arrays
    progress.Reporter(run.log).say(f"{path} is damaged; it is made again")
    files.remove(path)
    return None


def kept(run: Run, path: Path, facts: Any, names: Iterable[str] = ()) -> dict[str, np.ndarray] | None:
    """Arrays that `keep` wrote for equal facts; None where there are none, or damaged ones, which is said."""
    arrays = stored(run, path, ("fingerprint", *names))
    if arrays is None or str(arrays.pop("fingerprint")) != files.fingerprint(facts):
        return None
    return arrays


def keep(path: Path, facts: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes arrays with what identifies them, for a later call that finds equal facts; returns them."""
    files.write_npz(path, fingerprint=np.asarray(files.fingerprint(facts)), **arrays)
    return dict(arrays)


def claim(run: Run, stage: str, path: Path, facts: Mapping[str, Any], version: int) -> None:
    """Claims a stage's manifest for these facts.

    Args:
      run: the run folder.
      stage: the name that --overwrite knows.
      path: the manifest (JSON).
      facts: what decides about the stage's numbers: settings and fingerprints of its inputs; plain values.
      version: of the stage's code; raise it when its numbers change.

    Raises:
      StoreError: the folder holds results of other facts; the message shows which differ and the two ways out.
    """
    flat = _flat(facts, version)
    wanted = files.fingerprint(flat)
    try:
        if files.read_json(path).get("fingerprint") == wanted:
            return
    except FileNotFoundError:
        files.write_json(path, {"stage": stage, "fingerprint": wanted, "facts": flat})
        return
    _, before = read_claim(path)
    now = json.loads(json.dumps(escapes.strict_json(flat)))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    shown = "\n".join(f"  {name}: stored {before.get(name)!r}, now {now.get(name)!r}" for name in changed[:12])
    raise errors.StoreError(
        f"{run.root} holds results of stage '{stage}' made with other settings:\n{shown}\n"
        f"Choose another --workdir, or delete them with --overwrite={stage}."
    )


def fingerprint_of(facts: Mapping[str, Any], version: int) -> str:
    """The fingerprint that `claim` gives a stage of these facts; nothing is read or stored."""
    return files.fingerprint(_flat(facts, version))


def _flat(facts: Mapping[str, Any], version: int) -> dict[str, Any]:
    return _flatten({**facts, "stage_version": version})


def read_claim(path: Path) -> tuple[str, dict[str, Any]]:
    """Returns fingerprint and facts of a stage's manifest.

    Raises:
      StoreError: damaged: fingerprint and facts do not belong together. FileNotFoundError: nothing is there.
    """
    manifest = files.read_json(path)
    found, facts = manifest.get("fingerprint"), manifest.get("facts")
    if not isinstance(found, str) or not isinstance(facts, dict) or files.fingerprint(facts) != found:
        raise files.damaged(path, "its fingerprint does not fit its facts")
    return found, facts


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
