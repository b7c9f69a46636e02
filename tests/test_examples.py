"""The rooms say what they offer (`__all__`), every function among it has an example, and all examples run."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import jaxunlearn

MODULES = [
    module for module in pkgutil.walk_packages([str(Path(jaxunlearn.__file__).parent)], "jaxunlearn.")
    if not module.name.startswith(("jaxunlearn.launch", "jaxunlearn.configs", "jaxunlearn.__main__"))
]  # fmt: skip
ROOMS = sorted(module.name for module in MODULES if module.ispkg)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def offered(room):
    module = importlib.import_module(room)
    return {name: getattr(module, name) for name in getattr(module, "__all__", ())}


def files_of(room):
    """The modules that lie directly in a folder, its `__init__` and those directly in the package included."""
    names = [module.name for module in MODULES if not module.ispkg and module.name.rpartition(".")[0] == room]
    return [importlib.import_module(name) for name in (room, *names)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_offers_with_an_example_of_every_function(room):
    names = importlib.import_module(room).__all__
    assert list(names) == sorted(set(names)) and not [name for name in names if name.startswith("_")]
    assert offered(room).keys() == set(names)
    functions = {name: inspect.unwrap(thing) for name, thing in offered(room).items()}
    lacking = [
        name for name, function in functions.items()
        if inspect.isfunction(function) and function.__module__.startswith("jaxunlearn")
        and ">>>" not in (function.__doc__ or "")
    ]  # fmt: skip
    assert not lacking


@pytest.mark.parametrize("room", ["jaxunlearn", *ROOMS])
def test_examples_run(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(recurse=True), doctest.DocTestRunner(optionflags=FLAGS)
    for module in files_of(room):
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", "") == module.__name__ and callable(thing):
                for test in finder.find(thing, name, globs={}):
                    output = []
                    assert not runner.run(test, out=output.append).failed, "".join(output)
