"""Rules of style for a machine to check: variables, first lines of docstrings, documented parameters and fields."""

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
# An entry of a section: one or several names, then their explanation; further names may follow a semicolon.
ENTRY = re.compile(r"^  ([\w*]+(?:, [\w*]+)*): ")
FURTHER = re.compile(r"; `?(\w+(?:, \w+)*)`?: ")
VALUES = {"None", "published", "faithful", "neither"}  # what a colon after a semicolon may explain as well

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


def section(node, name):
    """The lines of one section of a docstring, such as Args, without its heading."""
    match = re.search(rf"^{name}:\n((?:  .*\n?|\n)+)", ast.get_docstring(node) or "", re.MULTILINE)
    return match.group(1).splitlines() if match else []


def documented(lines):
    """The names that a section explains; entries that cannot be read are among them."""
    names = []
    for line in lines:
        entry = ENTRY.match(line)
        if entry:
            names += entry.group(1).split(", ")
        elif re.match(r"  \S", line):
            names.append(line.strip())
        names += [name for match in FURTHER.finditer(line) for name in match.group(1).split(", ")]
    return [name.lstrip("*") for name in names if name not in VALUES]


def fields(cls):
    """Annotated fields, properties, and attributes that methods assign."""
    names = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)}
    names |= {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
    stored = (node for node in ast.walk(cls) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return names | {node.attr for node in stored if getattr(node.value, "id", "") == "self"}


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


def test_documented_arguments_are_parameters(room):
    bad = []
    for where, function in functions(room):
        arguments = function.args
        known = {"self", "cls", *parameters(function)}
        known |= {argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument}
        unknown = [name for name in documented(section(function, "Args")) if name not in known]
        if unknown:
            bad.append(f"{where} {function.name}: {', '.join(unknown)}")
    assert not bad, "\n".join(bad)


def test_documented_fields_are_fields_and_no_field_is_left_out(room):
    bad = []
    for where, cls in ((where, node) for where, node in nodes(room) if isinstance(node, ast.ClassDef)):
        lines = section(cls, "Attributes")
        unknown = [name for name in documented(lines) if name not in fields(cls)]
        declared = [node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)]
        is_module = any("Module" in ast.unparse(base) for base in cls.bases)  # networks share most of their fields
        if lines and not is_module:
            unknown += [name for name in declared if not re.search(rf"\b{name}\b", "\n".join(lines))]
        if unknown:
            bad.append(f"{where} {cls.name}: {', '.join(unknown)}")
    assert not bad, "\n".join(bad)
