"""What users get: the wheel, the command `jaxunlearn`, both ways to call a launcher, and documentation that agrees."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from jaxunlearn.launch import _console, _entry
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import jaxunlearn
from jaxunlearn import settings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = set("audit bench data epsilon evaluate extract leaks reminisce shadows study targets unlearn".split())


def test_every_folder_of_code_is_a_package_of_the_wheel():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "jaxunlearn").rglob("*.py")}
    folders = {path.parent.relative_to(ROOT).parts for name in ("launch", "configs") for path in
              (ROOT / name).rglob("*.py")}  # fmt: skip
    packages |= {".".join(["jaxunlearn", *names]) for names in folders}
    assert sorted(listed) == sorted(packages)  # [tool.setuptools] packages in pyproject.toml


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["project"]["dynamic"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jaxunlearn.__version__"}
    assert f"## {jaxunlearn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lock_file_is_of_these_dependencies_and_of_no_private_index():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked_package = next(package for package in lock["package"] if package["name"] == "jaxunlearn")
    locked = locked_package["metadata"]["requires-dist"]
    parsed = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    extras = {(Requirement(text).name, name) for name, texts in PROJECT["project"]["optional-dependencies"].items()
              for text in texts}  # fmt: skip
    base = {entry["name"]: SpecifierSet(entry.get("specifier", "")) for entry in locked if "marker" not in entry}
    assert base == {canonicalize_name(needed.name): needed.specifier for needed in parsed}
    of_extras = {(entry["name"], entry["marker"].split("'")[1]) for entry in locked if "marker" in entry}
    assert of_extras == extras
    sources = {package["source"].get("registry", "https://pypi.org/simple") for package in lock["package"]}
    hosts = set(re.findall(r'url = "https?://([^/"]+)', (ROOT / "uv.lock").read_text()))
    assert sources == {"https://pypi.org/simple"} and hosts == {"files.pythonhosted.org"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_verb_the_command_lists_all_verbs_with_a_sentence_each(arguments, capsys):
    assert _console.main(arguments) == 0
    out = capsys.readouterr().out
    lines = dict(re.findall(r"^  (\w+) +(.+)$", out, re.MULTILINE))
    assert set(lines) == VERBS
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in lines.values())
    assert lines["shadows"] == ast.get_docstring(ast.parse((ROOT / "launch/shadows.py").read_text())).splitlines()[0]
    assert all(name in out for name in ("digits", "tiny_lm"))


def test_the_version_is_printed(capsys):
    assert _console.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxunlearn {jaxunlearn.__version__}\n"


def test_an_unknown_verb_is_an_error_of_the_users_with_the_nearest_name(capsys):
    assert _console.main(["shadow", "--config=digits"]) == 2
    streams = capsys.readouterr()
    assert "unknown verb 'shadow'. Did you mean 'shadows'? Known: audit, bench" in streams.err and not streams.out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb_gives_the_commands_as_they_are_called(verb, capsys):
    assert _console.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"jaxunlearn {verb}" in out
    assert "python -m launch" not in out and "configs/digits.py" not in out


def printed_count(capsys):
    """The number of shadow models in the settings that were printed."""
    return yaml.safe_load(capsys.readouterr().out)["shadows"]["count"]


@pytest.mark.parametrize("config", ["digits", "digits:smoke", "configs/digits.py:smoke"])
def test_a_config_that_comes_with_the_package_is_found_by_name_from_anywhere(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _console.main(["shadows", f"--config={config}", "--print_config"]) == 0
    assert printed_count(capsys) == (4 if config.endswith("smoke") else 64)


def test_a_file_is_taken_before_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs/digits.py").read_text().replace("config.shadows.count = 64", "config.shadows.count = 17")
    (tmp_path / "digits").mkdir()  # no file: the name is still that of a config
    (tmp_path / "mine.py").write_text(text)
    assert _console.main(["shadows", "--config=mine.py", "--print_config"]) == 0
    assert printed_count(capsys) == 17
    assert _console.main(["shadows", "--config=digits", "--print_config"]) == 0
    assert printed_count(capsys) == 64


def test_an_unknown_config_names_the_nearest_and_all(capsys):
    assert _console.main(["audit", "--config=digit"]) == 2
    message = capsys.readouterr().err
    assert "config file 'digit' does not exist. Did you mean 'digits'?" in message and "tiny_lm" in message


def test_errors_advise_the_command_that_the_user_called(tmp_path, monkeypatch, capsys):
    advice = "Run `python -m launch.targets --config=...`, or launch.unlearn --list. It is launch.benches.x."
    called = "Run `jaxunlearn targets --config=...`, or jaxunlearn unlearn --list. It is launch.benches.x."
    assert _entry.as_called(advice) == called
    from launch import _entry as of_checkout

    assert of_checkout.as_called(advice) == advice
    monkeypatch.chdir(tmp_path)
    assert _console.main(["bench", "conv", "--minutes=3"]) == 2
    assert "Call jaxunlearn bench gpu --minutes=..." in capsys.readouterr().err
    assert _console.main(["shadows"]) == 2
    assert "Try --config=digits." in capsys.readouterr().err


def test_listing_and_version_import_no_jax_and_no_flags():
    code = ("import sys; sys.argv = ['jaxunlearn']\nfrom jaxunlearn import __main__ as command\n"
            "assert command.main() == 0\nassert not {'jax', 'absl', 'numpy'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_before_a_launcher_works_leaves_no_traceback():
    code = ("import os, signal\nfrom jaxunlearn import launch\nlaunch.leave_quietly()\n"
            "os.kill(os.getpid(), signal.SIGINT)\nprint('still here')")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def anchors(page):
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in (link for link in links if not link.startswith("https://")):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not heading or heading in anchors(target), f"{page.name}: {link}; there are {sorted(anchors(target))}"


def test_the_readme_is_short_and_links_to_every_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 180
    assert [page.name for page in PAGES[1:] if f"({page.relative_to(ROOT)})" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_configs_that_a_page_names_exist(page):
    text = page.read_text()
    verbs = re.findall(r"\blaunch\.([a-z]\w*)", text) + re.findall(r"\bjaxunlearn ([a-z]\w*) --", text)
    assert set(verbs) <= VERBS | {"benches"}
    configs = re.findall(r"\bconfigs/([a-z]\w*)\.py", text) + re.findall(r"--config=([a-z]\w*)(?=[\s:`])", text)
    assert [name for name in configs if not (ROOT / "configs" / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    for name in re.findall(r"--config\.([a-z]\w*(?:\.[a-z]\w*)*)", page.read_text()):
        *groups, last = name.split(".")
        known = settings.to_dict(settings.Settings())
        for group in groups:
            known = known.get(group, {})
        assert last in known, f"{page.name}: --config.{name}"


def test_a_method_as_the_docs_write_it_is_one():
    page = ROOT / "docs" / "add_a_method.md"
    names = {}
    exec(re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[1], names)
    assert isinstance(names["my_method"](), names["Method"])


def run(*command, cwd, **environment):
    """Runs a command outside the checkout and of this process's paths; returns what it printed."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**outside, **environment}, capture_output=True, text=True
    )
    assert process.returncode == 0, f"{command}:\n{process.stdout}{process.stderr}"
    return process.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of a copy of the code, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in ("jaxunlearn", "launch", "configs", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    backend = "import sys; from setuptools import build_meta as build; build.build_"
    run(sys.executable, "-c", f"{backend}sdist(sys.argv[1])", folder, cwd=source)
    sdist = next(folder.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-c", f"{backend}wheel(sys.argv[1])", folder, cwd=unpacked)
    return sdist, next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_and_source_hold_all_code_and_the_wheel_nothing_outside_the_package(distributions):
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        sdist_names = {name.partition("/")[2] for name in archive.getnames()}
    names = set(zipfile.ZipFile(wheel).namelist())
    code = [path.relative_to(ROOT) for name in ("jaxunlearn", "launch", "configs") for path in
            (ROOT / name).rglob("*.py")]  # fmt: skip
    assert len(code) > 300
    for path in code:
        assert str(path) in sdist_names
        assert str(path if path.parts[0] == "jaxunlearn" else Path("jaxunlearn", path)) in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"jaxunlearn", f"jaxunlearn-{jaxunlearn.__version__}.dist-info"}


@pytest.mark.slow
def test_installed_from_the_wheel_the_command_works_from_any_folder(distributions, tmp_path):
    folder, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    # The new environment sees the packages of this one, but no checkout that is installed here for development.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=here).strip())
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    pip = (sys.executable, "-m", "pip", f"--python={python}", "install", "-q", "--no-deps", "--no-index")
    run(*pip, distributions[1], cwd=here)
    command = folder / "bin" / "jaxunlearn"

    assert run(command, "--version", cwd=here) == f"jaxunlearn {jaxunlearn.__version__}\n"
    listing = run(command, cwd=here)
    assert all(f"\n  {verb}" in listing for verb in VERBS)
    assert run(python, "-m", "jaxunlearn", cwd=here) == listing
    where = run(python, "-c", "import jaxunlearn.launch as launch; print(launch.__file__)", cwd=here)
    assert Path(where.strip()).is_relative_to(site)

    plan = run(command, "audit", "--config=digits:smoke", "--dry_run", cwd=here)
    assert "members" in plan and not (here / "runs").exists()
    draw = np.random.default_rng(0)
    arrays = {"unlearned": draw.normal(size=(40, 3)), "shadows": draw.normal(size=(4, 40, 3)),
              "labels": draw.integers(3, size=40), "forgotten": np.arange(40) < 10}  # fmt: skip
    np.savez(here / "my.npz", **arrays)
    assert "In short:" in run(command, "audit", "--evidence=my.npz", cwd=here)
    assert (here / "runs" / "my" / "report" / "report.html").is_file()

    # A user's own function is found in the working directory, as under `python -m`.
    (here / "own.py").write_text("def score(measured, options):\n    return measured.unlearned.log_odds\n")
    assert "\nown:score " in run(command, "audit", "--evidence=my.npz", "--scores=own:score", "--out=own", cwd=here)
