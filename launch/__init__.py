"""Entry points: `python -m launch.VERB --config=digits` in a checkout, `jaxunlearn VERB --config=digits` if installed.

When installed, this folder is `jaxunlearn.launch`; its own imports are relative, so that both work. A command imports
this module first: an interrupt during the later imports leaves no traceback.
"""

import os
import signal
import sys


def _leave(signum: int, frame: object) -> None:
    """Ends a process that has not started its work, or has finished it."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def leave_quietly() -> None:
    """Lets an interrupt end this process without a traceback, until a launcher starts its work."""
    signal.signal(signal.SIGINT, _leave)


if sys.argv[:1] == ["-m"]:  # while python -m launch.VERB imports the verb; no effect on other imports of this package
    leave_quietly()
