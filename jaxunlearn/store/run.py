"""The run folder: one lock, one run.json, one manifest per stage.

    run.json  log.jsonl  outputs.jsonl  split.npz  populations/ROLE/chunk_*/  logits/  scores/  findings.json  report/

A stage's manifest contains its fingerprint and the facts behind it. Equal fingerprints mean reuse; a different one
stops the command and shows which facts differ. Results are never mixed, nor overwritten without --overwrite.
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
        """Returns the path of an output that another subpackage will write, and registers it in outputs.jsonl."""
        path = self.root.joinpath(*parts)
        files.note(path)
        return path

    def delete(self, *patterns: str) -> None:
        """Deletes the registered outputs that match a pattern; other files stay."""
        outputs.delete(self.root, patterns)

    def log(self, event: dict[str, Any]) -> None:
        """Appends an event to log.jsonl."""
        files.append_json_line(self.root / "log.jsonl", event)


_TARGETS = ("original", "retrained", "population_in", "shadow_origin", "reference", "snapshots")
_KINDS = (("populations", ""), ("logits", ".*"))

# The registered outputs that --overwrite=STAGE deletes.
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
    """Returns the patterns of outputs that --overwrite=STAGE deletes.

    Args:
      stage: of `STAGES` or `owned`, a single role unlearned:METHOD or extracted:ROLE, or "all".
      owned: further stages, of analyses.

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
    """Creates or reopens a run folder and holds its lock while the block runs.

    Args:
      workdir: the folder; created if missing.
      overwrite: stages whose outputs are deleted first.
      owned: patterns of outputs by stage of analyses; see `patterns`.

    Raises:
      StoreError: the folder cannot be written, is neither empty nor a run folder, or is in use by another process.
      ConfigError: unknown stage.

    Example:
      >>> from jaxunlearn import store
      >>> with store.open_run("my_run") as run:
      ...     run.log({"event": "message", "text": "hello"})
      ...     run.path("log.jsonl").is_file()
      True
    """
    deletions = [pattern for stage in overwrite for pattern in patterns(stage, owned)]
    root = begin(workdir).root
    with files.writing(root / ".lock"):
        lock = open(root / ".lock", "a+")  # noqa: SIM115 - stays open during the run: closing it frees the lock
    with lock:
        _lock(lock, root)
        if deletions and not (root / files.OUTPUTS).is_file():
            raise errors.StoreError(
                f"{root} has no {files.OUTPUTS}, which lists what --overwrite may delete (earlier versions kept none). "
                f"Delete by hand ({', '.join(deletions[:4])}), or choose another --workdir."
            )
        outputs.tidy(root)
        outputs.delete(root, deletions)
        yield Run(root)


def begin(workdir: str) -> Run:
    """Creates or finds a run folder without locking it: for outputs that belong to no stage.

    Raises:
      StoreError: the folder cannot be created, or is neither empty nor a run folder.

    Example:
      >>> from jaxunlearn import store
      >>> store.begin("my_folder").path("report", "report.html").name
      'report.html'
    """
    workdir = os.fspath(workdir)
    if "\0" in workdir:
        raise errors.StoreError(f"{workdir!r} cannot be a folder: it contains a NUL. Choose another --workdir.")
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
    """Returns the versions of packages that may affect results, and the devices.

    Example:
      >>> from jaxunlearn import store
      >>> {"jax", "numpy", "device"} <= set(store.versions())
      True
    """
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
    """Keeps run.json up to date while the block runs: settings, versions, device and status.

    The status is running, done, failed or interrupted. A run whose status is `running` while its folder is not locked
    was killed; the same command continues it.

    Args:
      run: the run folder.
      settings: all settings, as plain values.
      overrides: those that were set on the command line.

    Example:
      >>> from jaxunlearn import store
      >>> from jaxunlearn.store import files
      >>> with store.open_run("my_run") as run, store.status(run, {"seed": 42}, {}):
      ...     files.read_json(run.path("run.json"))["status"]
      'running'
    """
    start = time.monotonic()

    def write(word: str) -> None:
        facts = {"status": word, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "versions": versions()}
        seconds = round(time.monotonic() - start, 3)
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


def load_intact(run: Run, path: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Reads the arrays of a reproducible file; None if it is missing or damaged. Logs and deletes damaged files.

    Args:
      run: the run folder.
      path: .npz within it.
      names: of arrays that it must contain.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import store
      >>> from jaxunlearn.store import files
      >>> with store.open_run("my_run") as run:
      ...     files.write_npz(run.path("split.npz"), rows=np.arange(3))
      ...     store.load_intact(run, run.path("split.npz"), ["rows"])
      {'rows': array([0, 1, 2])}
    """
    if not os.path.lexists(path):
        return None
    try:
        arrays = files.read_npz(path)
    except errors.StoreError:
        arrays = {}
    if set(names) <= set(arrays):
        return arrays
    progress.Reporter(run.log).log(f"{path} is damaged; it is made again")
    files.remove(path)
    return None


def load_cached(run: Run, path: Path, facts: Any, names: Iterable[str] = ()) -> dict[str, np.ndarray] | None:
    """Reads arrays that `save_cached` wrote for equal facts; None if there are none. Logs and deletes damaged files.

    Args:
      run: the run folder.
      path: .npz within it.
      facts: everything that determines the arrays, as plain values.
      names: of arrays that it must contain.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import store
      >>> with store.open_run("my_run") as run:
      ...     arrays = store.save_cached(run.path("scores.npz"), {"seed": 1}, {"auc": np.array(0.9)})
      ...     store.load_cached(run, run.path("scores.npz"), {"seed": 2}) is None
      True
    """
    arrays = load_intact(run, path, ("fingerprint", *names))
    if arrays is None or str(arrays.pop("fingerprint")) != files.fingerprint(facts):
        return None
    return arrays


def save_cached(path: Path, facts: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes arrays with the fingerprint of their facts, for `load_cached` to find; returns the arrays.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import store
      >>> with store.open_run("my_run") as run:
      ...     store.save_cached(run.path("auc.npz"), {"seed": 1}, {"auc": np.array([0.9])})
      {'auc': array([0.9])}
    """
    files.write_npz(path, fingerprint=np.asarray(files.fingerprint(facts)), **arrays)
    return dict(arrays)


def claim(run: Run, stage: str, path: Path, facts: Mapping[str, Any], version: int) -> None:
    """Claims a stage's manifest for these facts.

    Args:
      run: the run folder.
      stage: the name that --overwrite knows.
      path: the manifest (JSON).
      facts: everything that determines the stage's results: settings and fingerprints of its inputs; plain values.
      version: of the stage's code; increase it when results change.

    Raises:
      StoreError: the folder has results of other facts; the message shows the differences and the two solutions.

    Example:
      >>> from jaxunlearn import store
      >>> with store.open_run("my_run") as run:
      ...     store.claim(run, "shadows", run.path("stage.json"), {"seed": 1}, version=1)
      ...     store.claim(run, "shadows", run.path("stage.json"), {"seed": 2}, version=1)
      Traceback (most recent call last):
      jaxunlearn.errors.StoreError: ... contains results of stage 'shadows' made with other settings:
        seed: stored 1, now 2
      Choose another --workdir, or delete them with --overwrite=shadows.
    """
    flat = _flat(facts, version)
    fingerprint = files.fingerprint(flat)
    try:
        if files.read_json(path).get("fingerprint") == fingerprint:
            return
    except FileNotFoundError:
        files.write_json(path, {"stage": stage, "fingerprint": fingerprint, "facts": flat})
        return
    _, stored_facts = read_claim(path)
    new_facts = json.loads(json.dumps(escapes.strict_json(flat)))
    differences = [
        name for name in sorted({*stored_facts, *new_facts}) if stored_facts.get(name) != new_facts.get(name)
    ]
    text = "\n".join(
        f"  {name}: stored {stored_facts.get(name)!r}, now {new_facts.get(name)!r}" for name in differences[:12]
    )
    raise errors.StoreError(
        f"{run.root} contains results of stage '{stage}' made with other settings:\n{text}\n"
        f"Choose another --workdir, or delete them with --overwrite={stage}."
    )


def fingerprint_of(facts: Mapping[str, Any], version: int) -> str:
    """Computes the fingerprint that `claim` gives a stage of these facts; reads and writes nothing.

    Example:
      >>> from jaxunlearn import store
      >>> store.fingerprint_of({"seed": 1}, version=1) == store.fingerprint_of({"seed": 1}, version=2)
      False
    """
    return files.fingerprint(_flat(facts, version))


def _flat(facts: Mapping[str, Any], version: int) -> dict[str, Any]:
    return _flatten({**facts, "stage_version": version})


def read_claim(path: Path) -> tuple[str, dict[str, Any]]:
    """Returns fingerprint and facts of a stage's manifest.

    Raises:
      StoreError: damaged: fingerprint and facts do not agree. FileNotFoundError: there is no such file.

    Example:
      >>> from jaxunlearn import store
      >>> with store.open_run("my_run") as run:
      ...     store.claim(run, "shadows", run.path("stage.json"), {"seed": 1}, version=1)
      ...     store.read_claim(run.path("stage.json"))[1]
      {'seed': 1, 'stage_version': 1}
    """
    manifest = files.read_json(path)
    fingerprint, facts = manifest.get("fingerprint"), manifest.get("facts")
    if not isinstance(fingerprint, str) or not isinstance(facts, dict) or files.fingerprint(facts) != fingerprint:
        raise files.damaged(path, "its fingerprint does not fit its facts")
    return fingerprint, facts


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
