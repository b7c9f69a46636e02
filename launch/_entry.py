"""Shared code of all launchers: flags, config files, errors in one line, exit codes. Imports no jax.

Exit codes: 0 done, 1 bug (with traceback), 2 user error (one message), 130 interrupted, 143 terminated. stdout carries
results, stderr progress.
"""

import contextlib
import hashlib
import os
import platform
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from jaxunlearn import checks, errors, escapes, settings

from . import _console, _settings_text

ROOT = Path(__file__).resolve().parent.parent  # holds launch/ and configs/: the checkout, or the installed package
PACKAGE = __package__ or ""  # "launch" in a checkout, "jaxunlearn.launch" under the command `jaxunlearn`
# `python -m` finds PACKAGE from this folder: the checkout, or the folder of installed packages.
HOME = Path(sys.modules[PACKAGE.partition(".")[0]].__file__ or "").resolve().parents[1]
# Words separated (or followed) by commas: names of scores, folders, my_module:my_score; no numbers or quotes.
WORDS = re.compile(r"[A-Za-z_./~][^,'\"()\[\]]*(,[A-Za-z_./~][^,'\"()\[\]]*)*,?")


class CommandLine(NamedTuple):
    """One parsed command line."""

    settings: settings.Settings
    workdir: str
    dry_run: bool
    overwrite: tuple[str, ...]
    overrides: dict[str, Any]
    flags: Any  # further flags of the verb

    def of_run(self) -> tuple[settings.Settings, str, tuple[str, ...], bool, dict[str, Any]]:
        """Returns what every driver of a run folder takes: settings, folder, --overwrite, --dry_run, overrides."""
        return self.settings, self.workdir, self.overwrite, self.dry_run, self.overrides


def main(command: Callable[[CommandLine], None], doc: str, argv: list[str] | None = None,
         define: Callable[[flags.FlagValues], None] | None = None,
         alone: Callable[[flags.FlagValues], str] | None = None,
         change: Callable[[CommandLine], settings.Settings] | None = None) -> int:  # fmt: skip
    """Runs a launcher: parses, resolves the config, calls `command`, and returns the exit code.

    Args:
      command: does the work; raises UserError for errors that the user can fix.
      doc: the launcher's help text.
      argv: the command line with the program's name; sys.argv if None.
      define: adds the verb's own flags.
      alone: for a verb that also works without a config: returns its run folder if the flags ask for that, else "".
      change: for a verb whose flags are settings: returns the settings with these, for --print_config.
    """
    argv = list(sys.argv if argv is None else argv)
    prepare_process()

    def work() -> None:
        request = parse(argv, doc, define, alone)
        if request is None:
            return
        if request.flags["print_config"].value:
            print(_settings_text.yaml(request.settings if change is None else change(request)), end="")
            return
        command(request)

    return guarded(work)


class Terminated(KeyboardInterrupt):
    """SIGTERM: the scheduler's or the system's interrupt."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise while the block runs; restores the previous handlers afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, frame: object) -> None:
        raise Terminated

    def on_unraisable(event: Any) -> None:
        # An interrupt raised inside a destructor or a callback of the garbage collector would be printed and lost.
        if not issubclass(event.exc_type, KeyboardInterrupt):
            return hook(event)
        number = signal.SIGTERM if issubclass(event.exc_type, Terminated) else signal.SIGINT
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    handlers = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
              signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}  # fmt: skip
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def guarded(work: Callable[[], None]) -> int:
    """Runs `work` and returns the exit code; a user error is one message, a bug keeps its traceback."""
    try:
        with _signals():
            work()
        return 0
    except errors.UserError as error:
        print(escapes.escaped(as_called(f"error: {error}")), file=sys.stderr)
        return 2
    except Terminated:
        print("terminated; run the same command again to continue", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - the outermost frame: a bug keeps its traceback and its own exit code
        traceback.print_exc()
        print("\nThis is a bug in jaxunlearn: please report it with the lines above.", file=sys.stderr)
        return 1


def as_called(text: str) -> str:
    """Returns a text with commands written as the user calls them: `python -m launch.audit` or `jaxunlearn audit`."""
    if PACKAGE == "launch":
        return text
    text = re.sub(rf"(?:python -m )?\blaunch\.({'|'.join(_console.verbs())})\b", r"jaxunlearn \1", text)
    return re.sub(r"--config=configs/(\w+)\.py", r"--config=\1", text)


def prepare_process() -> None:
    """Sets what must be set before jax is imported: one CPU device per core, and the compilation cache.

    A user's own values take precedence (XLA_FLAGS, JAX_COMPILATION_CACHE_DIR; an empty value of the latter turns the
    cache off).
    """
    xla_flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_force_host_platform_device_count={cores()}".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(settings.cache_folder() / "xla" / _processor())
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """Returns a name of this kind of processor: machines that share a home folder must not mix compiled code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = ""
    return f"{platform.machine()}-{hashlib.blake2s(features.encode(), digest_size=4).hexdigest()}"


def parse(
    argv: list[str],
    doc: str,
    define: Callable[[flags.FlagValues], None] | None,
    alone: Callable[[flags.FlagValues], str] | None = None,
) -> CommandLine | None:
    """Parses a command line into a Request; None if there is nothing to do (--help).

    Args:
      argv: the command line with the program's name.
      doc: the launcher's help text.
      define: adds the verb's own flags, or None.
      alone: returns the run folder of a call without a config, else ""; None if the verb needs one.
    """
    argv, name = _find_config(argv)
    argv = _quote_words(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "a config file, or the name of one that comes with the package, with an optional variant: "
        "digits:smoke", lock_config=True, flag_values=values, sys_argv=argv,
    )  # fmt: skip
    flags.DEFINE_string("workdir", "", "run folder (default: runs/<config>)", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "print the plan (members, steps, memory, time, files); do nothing",
                      flag_values=values)  # fmt: skip
    flags.DEFINE_list("overwrite", [], "stages whose results are deleted first", flag_values=values)
    flags.DEFINE_bool(
        "print_config", False, "print all settings as YAML, each with a sentence; do nothing", flag_values=values
    )
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    if define is not None:
        define(values)
    if any(argument in ("-h", "--help") for argument in argv[1:]):
        print(as_called(f"{doc.strip()}\n\nFlags:{values.get_help()}\n{_settings_text.listing()}"))
        return None
    _check_overrides(argv)
    try:
        positional = values(argv)
        config = values["config"].value
    except errors.UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        new_name = settings.current_name(error.flagname, list(values)).rsplit(".", 1)[-1]
        if new_name:
            raise errors.ConfigError(f"--{error.flagname} is now called --{new_name}.") from error
        # absl suggests similar spellings; a word of a longer name is just as likely (--attack: --miacr_attack).
        longer = [f"--{name}" for name in values if error.flagname in name.split("_")]
        hint = f". Did you mean {' or '.join(longer)}?" if longer and "Did you mean" not in str(error) else ""
        raise errors.ConfigError(_first_line(error) + hint) from error
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        raise errors.ConfigError(_first_line(error) + _renamed_in(str(error))) from error
    except (Exception, SystemExit) as error:  # a user's config file may raise anything
        raise errors.ConfigError(f"the config file cannot be read: {checks.describe_error(error)}.") from error
    if len(positional) > 1:
        raise errors.ConfigError(
            f"unexpected argument {positional[1]!r}. Settings are given as --config.group.name=value."
        )
    folder = alone(values) if alone is not None else ""
    if config is None and not folder:
        arrays = "" if alone is None else " For outputs of your own models, --help has the flag of their file."
        raise errors.ConfigError(f"no --config given. Try --config=digits.{arrays}")
    overrides = {} if config is None else dict(config_flags.get_override_values(values["config"]))
    config = settings.defaults() if config is None else config
    resolved = settings.resolve(config)
    return CommandLine(
        settings=resolved,
        workdir=values["workdir"].value or folder or f"runs/{name}",
        dry_run=values["dry_run"].value,
        overwrite=tuple(values["overwrite"].value),
        overrides=overrides,
        flags=values,
    )


def folder_of(path: str, out: str) -> str:
    """Returns the run folder for a user's arrays: `out`, else runs/<name of the file or folder>; "" without a path.

    For a folder inside a run folder (RUN/epsilon/MODE), the name is RUN-epsilon-MODE.
    """
    if not path or out:
        return out if path else ""
    try:
        parts = Path(path).expanduser().resolve().parts
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a NUL, the home of an unknown user
        raise errors.DataError(f"{path!r} is not a path ({error}).") from error
    start = len(parts) - 3 if len(parts) > 3 and parts[-2] == "epsilon" else len(parts) - 1
    return f"runs/{'-'.join(parts[start:]).removesuffix('.npz')}"


def _find_config(argv: list[str]) -> tuple[list[str], str]:
    """Resolves --config to an existing path: as given, in the checkout, or a config that comes with the package."""
    arguments, name = list(argv), "run"
    for i, argument in enumerate(argv):
        if argument == "--config" and i + 1 < len(argv):
            raise errors.ConfigError(f"write --config={argv[i + 1]} (with an equals sign).")
        if not argument.startswith("--config="):
            continue
        reference, _, variant = argument.removeprefix("--config=").partition(":")
        candidates = [Path(reference), ROOT / reference, ROOT / "configs" / f"{reference}.py"]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            names = _console.configs()
            raise errors.ConfigError(
                f"config file {reference!r} does not exist.{errors.nearest(Path(reference).stem, names)} "
                f"Known: {', '.join(names)}."
            )
        arguments[i] = f"--config={path}" + (f":{variant}" if variant else "")
        name = path.stem + (f"-{variant}" if variant else "")
    return arguments, name


def _quote_words(argv: list[str]) -> list[str]:
    """Writes a,b as ('a', 'b') if a setting is a list: otherwise the parser of flags would read one word."""
    defaults = settings.to_dict(settings.Settings())
    arguments = list(argv)
    for i, argument in enumerate(argv):
        name, _, value = argument.removeprefix("--config.").partition("=")
        if not argument.startswith("--config.") or not WORDS.fullmatch(value):
            continue
        setting: Any = defaults
        for word_of_name in name.split("."):
            setting = setting.get(word_of_name) if isinstance(setting, dict) else None
        if isinstance(setting, tuple):
            arguments[i] = f"--config.{name}={tuple(word for word in value.split(',') if word)!r}"
    return arguments


def _check_overrides(argv: list[str]) -> None:
    known = set(settings.field_names())
    for argument in argv[1:]:
        for prefix in ("--config.", "--noconfig."):
            if argument.startswith(prefix):
                name = argument.removeprefix(prefix).partition("=")[0]
                if name not in known:
                    raise settings.unknown_setting(name)


def _renamed_in(message: str) -> str:
    """Returns a hint if ml_collections' message quotes a former name of a setting, which a config file set."""
    key = re.search(r'Key "(\w+)" does not exist', message)
    return "".join(f" {old} is now called {new}." for old, new in settings.RENAMED.items()
                   if key and old.rsplit(".", 1)[-1] == key[1])  # fmt: skip


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if error.args else str(error)
    text = text.partition(" Other fields present")[0].strip(" '")  # ml_collections lists a whole section
    return text.splitlines()[0] if text else type(error).__name__
