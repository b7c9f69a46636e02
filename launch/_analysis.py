"""The launcher of every analysis: flags from its settings; input is a run or a file of arrays, output the answer."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from jaxunlearn import errors, progress, settings

from . import _entry, _seeds

ONLY_ARRAYS = ("out", "probabilities")


class Verb(NamedTuple):
    """Facts of an analysis that its launcher needs before jax is imported; `Analysis` has the same.

    Attributes:
      name: of ANALYSES; section: of its settings, "" = it has none.
      flag: for a file of arrays; compat: its setting in the section compat, "" = it has none.
      help_text: help text of the flag.
      other_inputs: (flag, help text) of other kinds of arrays.
    """

    name: str
    section: str
    flag: str
    compat: str
    help_text: str
    other_inputs: tuple[tuple[str, str], ...] = ()


def define(verb: Verb) -> Callable[[flags.FlagValues], None]:
    """Returns a function that adds the flags of an analysis: its file of arrays, and every setting of its section."""

    def add(values: flags.FlagValues) -> None:
        for flag, about in ((verb.flag, verb.help_text), *verb.other_inputs):
            flags.DEFINE_string(flag, "", f"{about}; needs no config", flag_values=values)
        flags.DEFINE_string("out", "", f"folder for the results of --{verb.flag} (default: runs/<its name>)",
                            flag_values=values)  # fmt: skip
        flags.DEFINE_bool("probabilities", False, f"the outputs in --{verb.flag} are softmax or sigmoid probabilities",
                          flag_values=values)  # fmt: skip
        flags.DEFINE_integer(
            "seed", None, "seed of all random draws (default: the config's; 0 for arrays)", flag_values=values
        )
        _seeds.define(values)
        if verb.compat:
            flags.DEFINE_string("compat", None, "corrected, or faithful to published quirks", flag_values=values)
        for field in _fields(verb):
            about = f"{field.metadata['help']} (default: {_default_text(field.default)})"
            _definer(_kind(verb, field.name))(field.name, None, about, flag_values=values)

    return add


def alone(verb: Verb) -> Callable[[flags.FlagValues], str]:
    """Returns a function that names the run folder of a file of arrays; "" for a call with a config."""
    return lambda values: _entry.folder_of(values[_arrays_flag(verb, values)].value, values["out"].value)


def _arrays_flag(verb: Verb, values: Any) -> str:
    """Returns the flag that gives arrays; without arrays the verb's main one.

    Raises:
      ConfigError: two kinds of arrays.
    """
    flags_with_value = [flag for flag in (verb.flag, *(flag for flag, _ in verb.other_inputs)) if values[flag].value]
    if len(flags_with_value) > 1:
        raise errors.ConfigError(f"give --{flags_with_value[0]} or --{flags_with_value[1]}, not both.")
    return flags_with_value[0] if flags_with_value else verb.flag


# (settings, workdir, stages to overwrite, whether it is a dry run, settings of the command line) -> text to print.
Run = Callable[[settings.Settings, str, tuple[str, ...], bool, Any], str]


def command(verb: Verb, run: Run | None = None) -> Callable[[_entry.CommandLine], None]:
    """Returns the command of an analysis: plans or analyses, then prints the answer and where the files are.

    Args:
      verb: the analysis.
      run: runs the analysis of a config whose models are not those of the audit (default: `runs.drivers.run_input`).
    """

    def single(request: _entry.CommandLine) -> None:
        flag = _arrays_flag(verb, request.flags)
        path, has_config = request.flags[flag].value, request.flags["config"].value is not None
        if path and has_config:
            raise errors.ConfigError(f"give --config (a run) or --{flag} (arrays), not both.")
        if flag != verb.flag and request.flags["probabilities"].value:
            raise errors.ConfigError(f"--probabilities belongs to --{verb.flag}.")
        for name in [field.name for field in _fields(verb) if field.metadata["of_runs"]] if path else ONLY_ARRAYS:
            if request.flags[name].present:
                raise errors.ConfigError(
                    f"--{name} belongs to --config: the models of --{flag} are made already."
                    if path
                    else f"--{name} belongs to --{verb.flag}. With a config, results go to --workdir."
                )
        run_settings = with_flags(verb, request)
        if path:
            from jaxunlearn.runs.drivers import array_input

            progress.show(
                array_input.run(
                    verb.name,
                    path,
                    run_settings,
                    request.workdir,
                    request.overwrite,
                    request.dry_run,
                    request.flags["probabilities"].value,
                    flag,
                )
            )
            return
        with_config = _run_of(verb) if run is None else run
        progress.show(with_config(*request._replace(settings=run_settings).of_run()))

    def work(request: _entry.CommandLine) -> None:
        if not _seeds.are_given(request):  # arrays and flags are checked by `single`, in its order
            single(request)
            return
        findings = "findings.json" if verb.name == "audit" else f"report/{verb.name}_findings.json"
        _seeds.run(request, with_flags(verb, request), verb.section or verb.name, findings, single)

    return work


def _run_of(verb: Verb) -> Run:
    from jaxunlearn.runs.drivers import run_input

    return functools.partial(run_input.run, run_input.job_of(verb.name))


def with_flags(verb: Verb, request: _entry.CommandLine) -> settings.Settings:
    """Returns the settings with those given as flags: --fdr=0.1 is short for --config.audit.fdr=0.1.

    Raises:
      ConfigError: a value of the wrong type or out of range.
    """
    flag_values = {field.name: request.flags[field.name] for field in _fields(verb)}
    changes = {name: _value(verb, name, flag.value) for name, flag in flag_values.items() if flag.present}
    values, has_config = settings.to_dict(request.settings), request.flags["config"].value is not None
    if "alphas" in changes and "report_alpha" not in changes:
        changes["report_alpha"] = 0.0  # as it fits the levels given
    if verb.section:
        values[verb.section] = {**values[verb.section], **changes}
    if verb.compat and request.flags["compat"].present:
        values["compat"][verb.compat] = request.flags["compat"].value
    if request.flags["seed"].present:
        values["seed"] = request.flags["seed"].value
    elif not has_config:
        values["seed"] = 0
    return settings.resolve(values)


def change(verb: Verb) -> Callable[[_entry.CommandLine], settings.Settings]:
    """Returns a function that applies a command line's flags to its settings; see `with_flags`."""
    return functools.partial(with_flags, verb)


def _section(verb: Verb) -> Any:
    return typing.get_type_hints(settings.Settings)[verb.section]


def _fields(verb: Verb) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(_section(verb)) if verb.section else ()


def _kind(verb: Verb, name: str) -> Any:
    return typing.get_type_hints(_section(verb))[name]


def _definer(kind: Any) -> Callable[..., Any]:
    if typing.get_origin(kind) is tuple:
        return flags.DEFINE_list
    if isinstance(kind, types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    return {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}.get(
        kind, flags.DEFINE_string
    )


def _value(verb: Verb, name: str, value: Any) -> Any:
    """Converts a flag's value to the type of its setting: words of a list to numbers if it holds numbers."""
    kind = _kind(verb, name)
    if typing.get_origin(kind) is not tuple:
        return value
    item = typing.get_args(kind)[0]
    try:
        return tuple(word.strip() if item is str else item(word) for word in value)
    except ValueError as error:
        raise errors.ConfigError(f"--{name}={','.join(value)}: expected numbers, separated by commas.") from error


def _default_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"
