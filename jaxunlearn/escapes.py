"""What names, texts and numbers become where a format would read more into them than they say.

A user's names stand in every report: of classes, arrays, approaches, folders. None of them may move a terminal's
cursor, run as a formula, start a tag or a formula of mathematics; and no number may make a file of JSON unreadable.
"""

import math
import re
from typing import Any

import numpy as np

# Controls but tab and newline, marks and overrides of the writing direction, line separators, halves of characters.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What a spreadsheet takes for the start of a formula, the wide forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# A plain number with at most a unit behind it (-10 %, +1.5e-3, -1,234 MiB), which no spreadsheet runs.
_NUMBER = re.compile(
    r"[+-]?(?:inf|(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?: ?(?:%|m?s|min|h|B|[KMGT]iB))?)",
    re.ASCII,
)


def visible(text: str) -> str:
    r"""Replaces characters that nobody sees, or that steer a terminal, by their codes: ESC becomes \x1b."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def spreadsheet(text: str) -> str:
    """Text for a cell of CSV: what a spreadsheet would run as a formula gets an apostrophe in front; numbers do not."""
    is_harmless = not text.startswith(_FORMULA) or _NUMBER.fullmatch(text)
    return visible(text) if is_harmless else f"'{visible(text)}"


def markdown(text: str) -> str:
    """Text for Markdown as GitHub reads it: tags, emphasis, code, links, table bars and formulas are plain text."""
    text = re.sub(r"([\\|*`<&$])", r"\\\1", visible(text)).replace("](", r"]\(")
    # An underscore inside a word (iam_on) is plain text; at its edge it would start or end emphasis.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)


def strict_json(value: Any) -> Any:
    """The same value in what JSON has: no NaN (null), no infinity ("inf", "-inf"), no arrays, scalars or tuples.

    `number` reads these back.
    """
    if isinstance(value, dict):
        return {key: strict_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return strict_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def number(value: float | str | None) -> float:
    """A number that `strict_json` has written."""
    return math.nan if value is None else float(value)
