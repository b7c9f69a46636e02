"""The command `jaxunlearn`, also as `python -m jaxunlearn`: the first word is a verb, the rest its flags."""

import sys

from jaxunlearn.launch import leave_quietly


def main() -> int:
    """Runs this process's command line and returns its exit code."""
    leave_quietly()
    sys.path.insert(0, "")  # as `python -m` does: my_module:my_method lies where the command is called
    from jaxunlearn.launch import _console

    return _console.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
