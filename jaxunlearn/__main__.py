"""The command `jaxunlearn`, also `python -m jaxunlearn`: a verb, then its flags."""

import sys

from jaxunlearn.launch import leave_quietly


def main() -> int:
    """Runs this process's command line and returns its exit code."""
    leave_quietly()
    sys.path.insert(0, "")  # as `python -m` does: finds my_module:my_method in the working directory
    from jaxunlearn.launch import _console

    return _console.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
