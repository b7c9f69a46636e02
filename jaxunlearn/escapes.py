"""Escapes user-given text and numbers for terminals, spreadsheets, Markdown and JSON.

Reports contain names that users chose (classes, arrays, approaches, folders). None of them may move a terminal's
cursor, run as a spreadsheet formula, or start a tag or a math formula; and NaN or infinity must not break JSON.
"""

import math
import re
from typing import Any

import numpy as np

# Control characters except tab and newline, marks of the writing direction, line separators, lone surrogates.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters that start a formula in spreadsheets, including their full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# A plain number, optionally with a unit (-10 %, +1.5e-3, -1,234 MiB): no spreadsheet runs it.
_NUMBER = re.compile(
    r"[+-]?(?:inf|(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?: ?(?:%|m?s|min|h|B|[KMGT]iB))?)",
    re.ASCII,
)


def visible(text: str) -> str:
    r"""Replaces invisible characters and terminal controls by their codes: ESC becomes \x1b.

    Example:
      >>> from jaxunlearn import escapes
      >>> print(escapes.visible("cat" + chr(27)))
      cat\x1b
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escaped(text: str) -> str:
    r"""Escapes everything unprintable but newlines, so that the content of a file cannot control the terminal.

    Example:
      >>> from jaxunlearn import escapes
      >>> print(escapes.escaped("cat" + chr(27) + chr(9)))
      cat\x1b\t
    """
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def spreadsheet(text: str) -> str:
    """Escapes text for a CSV cell: puts an apostrophe before anything that a spreadsheet would run as a formula.

    Example:
      >>> from jaxunlearn import escapes
      >>> escapes.spreadsheet("=1+1"), escapes.spreadsheet("-0.5")
      ("'=1+1", '-0.5')
    """
    is_harmless = not text.startswith(_FORMULA) or _NUMBER.fullmatch(text)
    return visible(text) if is_harmless else f"'{visible(text)}"


def markdown(text: str) -> str:
    """Escapes text for GitHub's Markdown: tags, emphasis, code, links, table bars and formulas become plain text.

    Example:
      >>> from jaxunlearn import escapes
      >>> escapes.markdown("a|b") == "a" + chr(92) + "|b"
      True
    """
    text = re.sub(r"([\\|*`<&$])", r"\\\1", visible(text)).replace("](", r"]\(")
    # An underscore inside a word (iam_on) is plain text; at its edge it would start or end emphasis.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)


def strict_json(value: Any) -> Any:
    """Converts nested values to strict JSON types: NaN to null, infinity to "inf" or "-inf", arrays to lists.

    `number` reads numbers back.

    Example:
      >>> from jaxunlearn import escapes
      >>> escapes.strict_json({"auc": float("nan"), "epsilon": (1.5, float("inf"))})
      {'auc': None, 'epsilon': [1.5, 'inf']}
    """
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    if hasattr(value, "__array__"):  # of NumPy, also its scalars, or of JAX
        return strict_json(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def number(value: float | str | None) -> float:
    """Reads a number that `strict_json` wrote.

    Example:
      >>> from jaxunlearn import escapes
      >>> [escapes.number(value) for value in (None, "inf", 2)]
      [nan, inf, 2.0]
    """
    return math.nan if value is None else float(value)
