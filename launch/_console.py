"""The console command: `jaxunlearn VERB ...` runs the launcher of that name; alone, it lists all. Imports no jax."""

import ast
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jaxunlearn

FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit code of all launchers: 0 done, 1 bug, 2 user error, 130 interrupted.

    Args:
      arguments: the words after `jaxunlearn`: a verb and its flags, --version, --help, or nothing.
    """
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help", "help"):
        return _printed(listing())
    if verb == "--version":
        return _printed(f"jaxunlearn {jaxunlearn.__version__}")
    from . import _entry  # absl and ml_collections take a while, and only a launcher needs them

    if verb not in verbs():
        return _entry.guarded(lambda: _refuse(verb))
    module = importlib.import_module(f".{verb}", __package__)
    argv = [f"jaxunlearn {verb}", *rest]
    if hasattr(module, "main"):
        return module.main(argv)
    optional = {name: getattr(module, name, None) for name in ("define", "alone")}
    return _entry.main(module.command, module.__doc__ or "", argv, **optional)


def _printed(text: str) -> int:
    """Prints a text, whose reader may stop early (`| head`), and returns the exit code."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _refuse(verb: str) -> None:
    from jaxunlearn import errors

    raise errors.unknown("verb", verb, verbs())


def verbs() -> dict[str, str]:
    """Returns every verb with its sentence, the first line of its launcher; reads the files without importing them."""
    files = sorted(FOLDER.glob("[a-z]*.py"))
    return {file.stem: (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]
            for file in files}  # fmt: skip


def configs() -> list[str]:
    """Returns the names of the configs that come with the package."""
    return sorted(file.stem for file in (FOLDER.parent / "configs").glob("*.py"))


def listing() -> str:
    """Returns the text of a call without a verb: usage, the verbs, the available configs."""
    about = verbs()
    width = max(map(len, about))
    lines = [f"  {verb:{width}}  {sentence}" for verb, sentence in about.items()]
    usage = "jaxunlearn VERB --help explains a verb and its flags; jaxunlearn --version prints the version."
    names = f"--config takes a file or one of these names, as in --config=digits:smoke: {', '.join(configs())}."
    return "\n".join(["jaxunlearn VERB [flags]", "", *lines, "", usage, textwrap.fill(names, 120)])
