"""The run folder: the only room, with `data` and the report page, that opens files.

`run` (lock, run.json, stages), `chunks` (populations by orbax), `logits` (memory-mapped), `files` (atomic writes),
`arrays` (what a user brings).
"""

from jaxunlearn.store import arrays, chunks, files, logits
from jaxunlearn.store.run import STAGES, Run, claim, open_run, status, versions
