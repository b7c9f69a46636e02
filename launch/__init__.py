"""Entry points: `python -m launch.VERB --config=digits` in a checkout, `jaxunlearn VERB --config=digits` if installed.

Installed, this folder is `jaxunlearn.launch`; imports inside it are relative, so that it is the same code either way.
The first module of ours that a command imports: an interrupt during the imports that follow leaves no traceback.
"""

import os
import signal
import sys


def _leave(signum: int, frame: object) -> None:
    """Ends a process that has not begun to work, or has ended its work."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def leave_quietly() -> None:
    """Lets an interrupt end this process without a traceback, until a launcher begins to work."""
    signal.signal(signal.SIGINT, _leave)


if sys.argv[:1] == ["-m"]:  # python -m launch.VERB is looking for the verb; nobody else who imports us is touched
    leave_quietly()
