"""Entry points: `python -m launch.<verb> --config=configs/<experiment>.py`.

The first module of ours that a command imports: an interrupt during the imports that follow leaves no traceback.
"""

import os
import signal
import sys


def _leave(signum: int, frame: object) -> None:
    """Ends a process that has not begun to work, or has ended its work."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if sys.argv[:1] == ["-m"]:  # python -m launch.VERB is looking for the verb; nobody else who imports us is touched
    signal.signal(signal.SIGINT, _leave)
