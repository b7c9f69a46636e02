"""Rules of style for a machine to check: names of variables, first lines of docstrings, documented parameters."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "jaxunlearn").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
ROOMS = sorted({"/".join(path.relative_to(ROOT).parts[:-1]) for path in FILES})
# A variable is named by what it holds. These say what was done to it, or nothing.
NO_NAMES = {"one", "found", "chosen", "own", "asked", "given", "made", "said", "wanted", "told", "seen"}
# First words that end like a verb and are none, where they stand as the first word of a first line.
NOUN = re.compile(r"^\w+s (of|for|in|with|without|that|which|whose|by|at|on|as|from|to be)\b")
VERB = re.compile(r"^(Is|Has|Does|[A-Z][a-z]+(-[a-z]+)?s)\b")
MOST_UNEXPLAINED = 3  # parameters that need no Args section

pytestmark = pytest.mark.parametrize("room", ROOMS)


def nodes(room):
    """(where, node) of everything in the files of a folder."""
    for path in sorted((ROOT / room).glob("*.py")):
        yield from (
            (f"{path.name}:{getattr(node, 'lineno', 0)}", node) for node in ast.walk(ast.parse(path.read_text()))
        )


def functions(room):
    """(where, function) of every function, nested ones too."""
    return ((where, node) for where, node in nodes(room) if isinstance(node, ast.FunctionDef))


def parameters(function):
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_variables_are_named_by_what_they_hold(room):
    bad = set()
    for where, node in nodes(room):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NO_NAMES:
            bad.add(f"{where} {node.id}")
        if isinstance(node, ast.arg) and node.arg in NO_NAMES:
            bad.add(f"{where} {node.arg}")
    assert not bad, "\n".join(sorted(bad))


def test_first_lines_of_docstrings_have_a_verb(room):
    bad = []
    for where, function in functions(room):
        text = ast.get_docstring(function)
        is_property = any("property" in ast.dump(decorator) for decorator in function.decorator_list)
        if text and not is_property and (not VERB.match(text) or NOUN.match(text)):
            bad.append(f"{where} {function.name}: {text.splitlines()[0]}")
    assert not bad, "\n".join(bad)


def test_functions_with_many_parameters_explain_them(room):
    bad = []
    for where, function in functions(room):
        text = ast.get_docstring(function)
        if text and not function.name.startswith("_") and len(parameters(function)) > MOST_UNEXPLAINED:
            documented = text.partition("Args:\n")[2]
            missing = [name for name in parameters(function) if not re.search(rf"\b{name}\b", documented)]
            if missing:
                bad.append(f"{where} {function.name}: {', '.join(missing)}")
    assert not bad, "\n".join(bad)
