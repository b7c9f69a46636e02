"""Architecture: who imports whom, who opens files, how long files are."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxunlearn"
FOUNDATION = ["escapes", "errors", "checks", "keys", "trees", "records", "arrays", "settings", "progress"]
ROOMS = {
    "store": [],
    "data": ["store"],
    "models": [],
    "scores": [],
    "metrics": [],
    "population": [],
    "unlearn": ["population", "metrics"],
    "attacks": ["population", "models", "scores"],
    "report": [],
    "analyses": ["scores", "attacks", "metrics", "report"],
    "runs": ["store", "data", "models", "scores", "metrics", "population", "unlearn", "attacks", "report", "analyses"],
}
THIRD = {
    "foundation": {"ml_collections", "numpy", "jax", "flax"},
    "settings": {"ml_collections"},
    "store": {"orbax", "numpy", "jax"},
    "data": {"tensorflow_datasets", "PIL", "sklearn", "numpy", "jax"},
    "models": {"numpy", "jax", "flax", "optax"},
    "scores": {"numpy", "jax", "scipy", "sklearn"},
    "metrics": {"numpy", "jax", "scipy", "sklearn"},
    "population": {"numpy", "jax", "flax", "optax"},
    "unlearn": {"numpy", "jax", "flax", "optax"},
    "attacks": {"numpy", "jax", "flax", "sklearn"},
    "report": {"numpy", "matplotlib"},
    "analyses": {"numpy", "jax"},
    "runs": {"numpy", "jax"},
}
# Slow to import: imported inside the functions that need them.
LAZY = {"orbax", "tensorflow_datasets", "PIL", "sklearn", "matplotlib"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """(module, is at the top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # launch/ is also jaxunlearn.launch: it knows itself by relative imports only
                assert path.is_relative_to(ROOT / "launch"), f"{path}: relative import"
                names = path.relative_to(ROOT).parent.parts[: 1 - node.level or None]
                module = ".".join([*names, *filter(None, [module])])
                assert names and not module.startswith("jaxunlearn"), f"{path}: an import out of launch/"
            else:
                assert module.partition(".")[0] not in ("launch", "configs"), f"{path} imports {module}: not installed"
            yield module, node in top
            yield from ((f"{module}.{alias.name}", node in top) for alias in node.names)


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return "foundation" if len(parts) == 1 else parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_back(path):
    room = room_of(path)
    allowed = set(FOUNDATION) | {room} | set(ROOMS.get(room, []))
    if path == PACKAGE / "__main__.py":
        allowed = {"launch"}  # the console command
    elif path == PACKAGE / "__init__.py":
        allowed = set(FOUNDATION) | set(ROOMS)  # it imports rooms when they are first used
    elif room == "foundation" and path.stem != "__init__":
        allowed = set(FOUNDATION[: FOUNDATION.index(path.stem)])
    elif room == "settings":  # a folder of the foundation
        allowed = {room, *FOUNDATION[: FOUNDATION.index(room)]}
    for module, is_top in imports(path):
        parts = module.split(".")
        if parts[0] == "jaxunlearn" and len(parts) > 1:
            assert parts[1] in allowed, f"{room} must not import {module}"
        elif parts[0] not in sys.stdlib_module_names and parts[0] != "jaxunlearn":
            assert parts[0] in THIRD[room], f"{room} must not import {module}"
            assert not (is_top and parts[0] in LAZY), f"{module} is slow to import: do it inside the function"


def folders_of(path):
    """Folder -> folders of the package that its files import, itself left out."""
    graph = {}
    for file in sorted(path.rglob("*.py")):
        folder = file.parent.relative_to(PACKAGE)
        for module, _ in imports(file):
            parts = module.split(".")
            if parts[0] != "jaxunlearn":
                continue
            path_of_module = PACKAGE.joinpath(*parts[1:])
            target_folder = path_of_module if path_of_module.is_dir() else path_of_module.parent
            if target_folder.is_dir() and target_folder.relative_to(PACKAGE) != folder and target_folder != PACKAGE:
                # `from jaxunlearn.room import folder` names the room on the way to the folder.
                if not (path_of_module.is_dir() and path_of_module.relative_to(PACKAGE) in folder.parents):
                    graph.setdefault(folder, set()).add(target_folder.relative_to(PACKAGE))
    return graph


def cycle_in(graph):
    """One cycle of folders as a list, or None."""
    finished = set()

    def walk(folder, trail):
        if folder in trail:
            return trail[trail.index(folder) :] + [folder]
        if folder in finished:
            return None
        for other in sorted(graph.get(folder, ())):
            cycle = walk(other, [*trail, folder])
            if cycle:
                return cycle
        finished.add(folder)
        return None

    return next((cycle for folder in sorted(graph) if (cycle := walk(folder, []))), None)


def test_no_two_folders_import_each_other():
    graph = folders_of(PACKAGE)
    assert graph[Path("runs/drivers")] >= {Path("analyses"), Path("runs/verbs")}  # the graph is not empty
    assert cycle_in({Path("a"): {Path("b")}, Path("b"): {Path("c")}, Path("c"): {Path("a")}}) is not None
    cycle = cycle_in(graph)
    assert not cycle, " -> ".join(map(str, cycle or ()))


@pytest.mark.parametrize("room", ["store", "data", "models", "scores", "metrics", "population", "unlearn", "attacks",
                                   "report"])  # fmt: skip
def test_no_analysis_is_known_below_its_level(room):
    """Rooms below level 5 serve analyses without knowing which ones exist."""
    from jaxunlearn.analyses import ANALYSES

    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in ANALYSES, f"{path}:{node.lineno} names the analysis {node.value!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_store_the_data_and_the_page_touch_files(path):
    if room_of(path) in ("store", "data") or path.relative_to(PACKAGE) == Path("report/page.py"):
        return
    forbidden = ("open", "open_memmap", "write_text", "read_text", "unlink", "mkdir", "savez", "np.save", "np.load")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            called = ast.unparse(node.func)
            assert name not in forbidden and called not in forbidden, f"{path}:{node.lineno} calls {called}"


@pytest.mark.parametrize("path", sorted((ROOT / "launch").rglob("*.py")), ids=lambda path: path.stem)
def test_launchers_import_each_other_in_a_way_that_holds_inside_the_package_too(path):
    for module, _ in imports(path):  # asserts on the way
        target = ROOT / module.replace(".", "/")
        if module.startswith("launch"):
            is_name = target.parent.with_suffix(".py").is_file()  # of something inside a module
            assert target.with_suffix(".py").is_file() or target.is_dir() or is_name, f"{path} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda path: path.stem)
def test_launchers_call_runs_only(path):
    allowed = {"runs", "analyses", "settings", "checks", "errors", "escapes", "progress", "store"}
    for module, _ in imports(path):
        parts = module.split(".")
        assert parts[0] != "jaxunlearn" or len(parts) == 1 or parts[1] in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_launchers_print_results_the_one_way_that_a_name_cannot_steer(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert path.stem == "bench" or "print" not in {getattr(call.func, "id", "") for call in calls}


def test_no_file_is_longer_than_400_lines():
    long = {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_launchers_answer_help_without_importing_jax(path):
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom launch import {path.stem} as verb, _entry\n"
        "code = _entry.main(verb.command, verb.__doc__, define=getattr(verb, 'define', None))\n"
        "assert 'jax' not in sys.modules, 'jax was imported'\nsys.exit(code)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "--config" in process.stdout


def test_every_config_resolves_in_every_variant():
    import importlib.util

    from jaxunlearn import settings

    for path in sorted((ROOT / "configs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert f"--config=configs/{path.stem}.py" in module.__doc__, f"{path}: the docstring must give the command"
        sizes = [settings.resolve(module.get_config(variant)).shadows.count for variant in ("smoke", "", "paper")]
        assert sizes == sorted(sizes), path


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by file name only: two files of the same name would hide each other."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("jaxunlearn.metrics.membership", ("features", "class_thresholds", "song_mittal")),
        ("jaxunlearn.metrics.conformal", ("calibrate", "predict", "evaluate")),
        ("jaxunlearn.metrics.epsilon", ("count", "epsilon_from_counts", "summarise")),
        ("jaxunlearn.models", ("blocks", "resnet", "build")),
        ("jaxunlearn.scores", ("iam", "lira", "rmia", "emia")),
        ("jaxunlearn.unlearn", ("saliency", "unsir", "descent", "network", "running", "losses", "transforms")),
    ],
)
def test_rooms_show_what_users_import_from_them(room, names):
    """Files move between folders; the names that users import from a room stay there."""
    module = importlib.import_module(room)
    assert [name for name in names if not hasattr(module, name)] == []
