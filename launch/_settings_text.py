"""Settings as text: the list in --help, and --print_config as YAML with a sentence for every setting.

Both are generated from the fields of `jaxunlearn.settings`. Imports no jax.
"""

import dataclasses
import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from jaxunlearn import settings

WIDTH, COLUMN = 120, 40  # of a line; column in which the sentences of --help begin


def listing() -> str:
    """Returns every setting by group: name, default, sentence, then range or choices."""
    lines = ["Settings, given as --config.GROUP.NAME=VALUE (lists as a,b,c), with defaults, ranges and choices:"]
    for name, about, fields in _groups(settings.Settings, ""):
        lines += ["", *textwrap.wrap(f"{name + ': ' if name else ''}{about}", WIDTH)]
        for setting in fields:
            left = f"  {name + '.' if name else ''}{setting.name} = {_plain(setting.default)}"
            text = textwrap.wrap(_sentence(setting), WIDTH - COLUMN)
            if len(left) >= COLUMN:
                lines.append(left)
            else:
                lines.append(f"{left:{COLUMN}}{text.pop(0)}")
            lines += [" " * COLUMN + line for line in text]
    return "\n".join(lines)


def yaml(run_settings: settings.Settings) -> str:
    """Returns settings as YAML that reads back as `settings.to_dict` (tuples as lists), with a comment above each.

    A value other than the default is followed by the default.
    """
    return "\n".join(_yaml_lines(run_settings, "")) + "\n"


def _yaml_lines(group: Any, indent: str) -> Iterator[str]:
    for setting in dataclasses.fields(group):
        value = getattr(group, setting.name)
        if dataclasses.is_dataclass(value):
            yield from ["", *_comment(_about(type(value)), indent), f"{indent}{setting.name}:"]
            yield from _yaml_lines(value, indent + "  ")
        else:
            default = "" if value == setting.default else f"  # default: {_scalar(setting.default)}"
            yield from _comment(_sentence(setting), indent)
            yield f"{indent}{setting.name}: {_scalar(value)}{default}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _groups(cls: Any, prefix: str) -> Iterator[tuple[str, str, list[Any]]]:
    """Yields (dotted name, sentence, fields) of a group, then of the groups in it."""
    kinds = typing.get_type_hints(cls)
    groups = [field for field in dataclasses.fields(cls) if dataclasses.is_dataclass(kinds[field.name])]
    fields = [field for field in dataclasses.fields(cls) if field not in groups]
    yield prefix, _about(cls), fields
    for group in groups:
        yield from _groups(kinds[group.name], f"{prefix}.{group.name}" if prefix else group.name)


def _about(cls: Any) -> str:
    return " ".join((cls.__doc__ or "").split())


def _sentence(setting: Any) -> str:
    """Returns the setting's help with its range or choices."""
    low, high, choices = (setting.metadata[name] for name in ("low", "high", "choices"))
    if choices:
        return f"{setting.metadata['help']} [{' | '.join(choices)}]"
    if low is not None and high is not None:
        return f"{setting.metadata['help']} [{_plain(low)} to {_plain(high)}]"
    if low is not None or high is not None:
        return f"{setting.metadata['help']} [{'at least' if high is None else 'at most'} {_plain(low or high or 0)}]"
    return setting.metadata["help"]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_plain, value)) or "(empty)"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return str(value) if value != "" else "(empty)"


def _scalar(value: Any) -> str:
    """Returns a value in YAML 1.1 and 1.2: strings quoted as in JSON, floats always with a point."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
        mantissa, letter, exponent = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{letter}{exponent}"
    return json.dumps(value)
