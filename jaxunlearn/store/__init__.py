"""The run folder and user-given array files. Only `store`, `data` and `report/page` open files.

    run       lock, run.json, stages                   outputs   which files belong to the run folder
    chunks    populations (orbax)                      logits    memory-mapped logits; axes: their rows and classes
    files     atomic writes, checksums, fingerprints   npy       checks .npy headers and archives before reading
    arrays, published_layout, signal_files    user-given arrays, logits in the published layout, losses of texts

Example: `with open_run("runs/digits") as run: claim(run, "shadows", run.path("stage.json"), facts, version=1)`.
"""

from jaxunlearn.store import arrays, axes, chunks, files, logits, published_layout, signal_files
from jaxunlearn.store.run import (
    STAGES,
    Run,
    begin,
    claim,
    fingerprint_of,
    load_cached,
    load_intact,
    open_run,
    read_claim,
    save_cached,
    status,
    versions,
)

__all__ = [
    "Run",
    "STAGES",
    "arrays",
    "axes",
    "begin",
    "chunks",
    "claim",
    "files",
    "fingerprint_of",
    "load_cached",
    "load_intact",
    "logits",
    "open_run",
    "published_layout",
    "read_claim",
    "save_cached",
    "signal_files",
    "status",
    "versions",
]
