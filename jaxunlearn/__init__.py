"""jaxunlearn: sample-level auditing of machine unlearning, with populations of models trained as one program."""

import pathlib

__version__ = "0.1.0"

# The launchers and configs are jaxunlearn.launch and jaxunlearn.configs. Installed, they lie inside the package; in a
# checkout they lie next to it, and are found there whatever else is installed.
if not (pathlib.Path(__file__).parent / "launch").is_dir():
    __path__.append(str(pathlib.Path(__file__).parent.parent))
