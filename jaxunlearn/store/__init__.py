"""The run folder: the only room, with `data` and the report page, that opens files.

`run` (lock, run.json, stages), `chunks` (populations by orbax), `logits` (memory-mapped), `files` (atomic writes),
`arrays` and `approaches` (what a user brings).
"""

from jaxunlearn.store import approaches, arrays, chunks, files, logits
from jaxunlearn.store.run import STAGES, Run, claim, open_run, status, versions
