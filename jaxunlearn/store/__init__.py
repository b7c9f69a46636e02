"""The run folder: the only room, with `data` and the report page, that opens files.

`run` (lock, run.json, stages), `outputs` (which files are ours), `chunks` (populations by orbax), `logits`
(memory-mapped), `axes` (what their rows and classes are), `files` (atomic writes), `npy` (headers and archives, checked
first), `arrays`, `approaches` and `signal_files` (what a user brings).
"""

from jaxunlearn.store import approaches, arrays, axes, chunks, files, logits, signal_files
from jaxunlearn.store.run import (
    STAGES,
    Run,
    begin,
    claim,
    fingerprint_of,
    keep,
    kept,
    open_run,
    read_claim,
    status,
    stored,
    versions,
)
