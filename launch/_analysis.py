"""The launcher of every analysis: flags from its settings, a run folder or a file of arrays in, the answer out."""

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
    """What a launcher needs to know of its analysis before jax is imported; `Analysis` has the same.

    Attributes:
      name: of ANALYSES; section: of its settings, "" = it has none.
      flag: for a file of arrays; compat: its setting in the section compat, "" = it has none.
      about: help text of the flag.
      further: (flag, help text) of other kinds of arrays.
    """

    name: str
    section: str
    flag: str
    compat: str
    about: str
    further: tuple[tuple[str, str], ...] = ()


def define(verb: Verb) -> Callable[[flags.FlagValues], None]:
    """Returns what adds the flags of an analysis: its file of arrays, and every setting of its section."""

    def add(values: flags.FlagValues) -> None:
        for flag, about in ((verb.flag, verb.about), *verb.further):
            flags.DEFINE_string(flag, "", f"{about}; needs no config", flag_values=values)
        flags.DEFINE_string("out", "", f"folder for the results of --{verb.flag}; runs/<its name> if not given",
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
            about = f"{field.metadata['help']} (default: {_shown(field.default)})"
            _definer(_kind(verb, field.name))(field.name, None, about, flag_values=values)

    return add


def alone(verb: Verb) -> Callable[[flags.FlagValues], str]:
    """Returns what names the run folder of a file of arrays; empty for a call with a config."""
    return lambda values: _entry.folder_of(values[_given(verb, values)].value, values["out"].value)


def _given(verb: Verb, values: Any) -> str:
    """The flag of the arrays that were given; the verb's own where there are none.

    Raises:
      ConfigError: two kinds of arrays.
    """
    given = [flag for flag in (verb.flag, *(flag for flag, _ in verb.further)) if values[flag].value]
    if len(given) > 1:
        raise errors.ConfigError(f"give --{given[0]} or --{given[1]}, not both.")
    return given[0] if given else verb.flag


# (settings, workdir, stages to overwrite, whether it is a dry run, settings of the command line) -> what is printed.
Run = Callable[[settings.Settings, str, tuple[str, ...], bool, Any], str]


def command(verb: Verb, run: Run | None = None) -> Callable[[_entry.Request], None]:
    """Returns the command of an analysis: plans or analyses, then prints the answer and where the files are.

    Args:
      verb: the analysis.
      run: what is done with a config, where its models are not those of the audit (`runs.drivers.run_input`).
    """

    def single(request: _entry.Request) -> None:
        flag = _given(verb, request.flags)
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
        chosen = changed(verb, request)
        if path:
            from jaxunlearn.runs.drivers import array_input

            progress.show(array_input.run(verb.name, path, chosen, request.workdir, request.overwrite, request.dry_run,
                                  request.flags["probabilities"].value, flag))  # fmt: skip
            return
        with_config = _run_of(verb) if run is None else run
        progress.show(with_config(chosen, request.workdir, request.overwrite, request.dry_run, request.overrides))

    def work(request: _entry.Request) -> None:
        if not _seeds.are_given(request):
            single(request)
            return
        findings = "findings.json" if verb.name == "audit" else f"report/{verb.name}_findings.json"
        _seeds.run(request, changed(verb, request), verb.section or verb.name, findings, single)

    return work


def _run_of(verb: Verb) -> Run:
    from jaxunlearn.runs.drivers import run_input

    return functools.partial(run_input.run, run_input.job_of(verb.name))


def changed(verb: Verb, request: _entry.Request) -> settings.Settings:
    """The settings with those that were given as flags: --fdr=0.1 is short for --config.audit.fdr=0.1.

    Raises:
      ConfigError: a value of the wrong type or out of range.
    """
    given = {field.name: request.flags[field.name] for field in _fields(verb)}
    own = {name: _value(verb, name, flag.value) for name, flag in given.items() if flag.present}
    whole, has_config = settings.to_dict(request.settings), request.flags["config"].value is not None
    if "alphas" in own and "report_alpha" not in own:
        own["report_alpha"] = 0.0  # as it fits the levels given
    if verb.section:
        whole[verb.section] = {**whole[verb.section], **own}
    if verb.compat and request.flags["compat"].present:
        whole["compat"][verb.compat] = request.flags["compat"].value
    if request.flags["seed"].present:
        whole["seed"] = request.flags["seed"].value
    elif not has_config:
        whole["seed"] = 0
    return settings.resolve(whole)


def change(verb: Verb) -> Callable[[_entry.Request], settings.Settings]:
    """Returns what gives the settings of a command line its flags; see `changed`."""
    return functools.partial(changed, verb)


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
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    return {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}.get(
        kind, flags.DEFINE_string
    )


def _value(verb: Verb, name: str, value: Any) -> Any:
    """A flag's value as the setting has it: words of a list as numbers where it holds numbers."""
    kind = _kind(verb, name)
    if typing.get_origin(kind) is not tuple:
        return value
    item = typing.get_args(kind)[0]
    try:
        return tuple(word.strip() if item is str else item(word) for word in value)
    except ValueError as error:
        raise errors.ConfigError(f"--{name}={','.join(value)}: expected numbers, separated by commas.") from error


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"
