"""Numbers as text: digits, thousands separators, per cent and missing values.

Every number of a report is formatted here, so that terminal tables, web pages and sentences agree to the digit. The
estimate keeps its leading zero (0.912); std and interval drop it (± .003, [.905, .919]) and are rounded to the same
decimal place, because more digits would only pretend precision.
"""

import math
from typing import NamedTuple

from jaxunlearn.records import Finding

MISSING = "–"


class FormattedFinding(NamedTuple):
    """The texts of a finding: estimate, std, interval and retrained value; empty where there is none."""

    value: str
    std: str
    interval: str
    retrained: str


def decimals(value: float, digits: int) -> int:
    """Returns the number of decimals of a value: `digits` below 10, one fewer per further power of ten, at least 0."""
    size = abs(value)
    if not math.isfinite(size) or size < 10:
        return digits
    return max(0, digits - int(math.log10(size)))


def number(
    value: float, digits: int = 3, *, percent: bool = False, bare: bool = False, places: int | None = None
) -> str:
    """Formats one number.

    Args:
      value: NaN becomes a dash, infinity ∞; a nonzero number too small for its decimals becomes a power of ten (2e-5),
        because 0.000 would be wrong.
      digits: decimals of a number below 10, larger numbers get fewer; with `percent`, of every number.
      percent: print 100 times the value (without the % sign, which the column title has).
      bare: leave out the zero before the point.
      places: exact number of decimals, instead of `digits`.

    Example:
      >>> from jaxunlearn.report import number_format
      >>> [number_format.number(value) for value in (0.912, 12345.6, 2e-5, float("nan"))]
      ['0.912', '12,346', '2e-5', '–']
    """
    value = float(value) * (100.0 if percent else 1.0)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if places is None:
        places = digits if percent else decimals(value, digits)
    if value and abs(value) < 0.5 * 10.0**-places:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{places}f}"
    if bare and text.startswith(("0.", "-0.")):
        text = text.replace("0.", ".", 1)
    return text


def count(value: int) -> str:
    """Formats a whole number with thousands separators: 12,345."""
    return f"{int(value):,}"


def cost(value: float) -> str:
    """Formats seconds or epochs with one or two decimals; empty for NaN (not measured)."""
    return "" if math.isnan(value) else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


def rate(value: float) -> str:
    """Formats a rate, level or fraction for a sentence: 5 %, 0.1 %, 33.3 %."""
    value = float(value)
    return MISSING if math.isnan(value) else f"{100 * value:.3g} %"


def bare(finding: Finding, signed: bool = False) -> str:
    """Formats a finding for a sentence: .480 [.393, .564]; with `signed`, positive values get a plus."""
    sign = "+" if signed and finding.value > 0 else ""
    return f"{sign}{number(finding.value, bare=True)} {format_finding(finding).interval}".rstrip()


def format_finding(finding: Finding, digits: int = 3, *, percent: bool = False) -> FormattedFinding:
    """Formats a finding's value, std, interval and retrained value, all rounded to the same decimal place.

    Args:
      finding: a std or interval of NaN, and a retrained value of None, give empty strings.
      digits: decimals of an estimate below 10; of every number in per cent.
      percent: print 100 times every number.
    """
    places = digits if percent else decimals(float(finding.value), digits)

    def qualifier(value: float) -> str:
        return number(value, percent=percent, bare=not percent, places=places)

    std = "" if math.isnan(finding.std) else f"± {qualifier(finding.std)}"
    unknown = math.isnan(finding.low) or math.isnan(finding.high)
    interval = "" if unknown else f"[{qualifier(finding.low)}, {qualifier(finding.high)}]"
    retrained = "" if finding.retrained is None else f"retrained {qualifier(finding.retrained)}"
    return FormattedFinding(number(finding.value, percent=percent, places=places), std, interval, retrained)


def long(finding: Finding, digits: int = 3, *, percent: bool = False) -> str:
    """Formats a finding in one line, in full: `0.912 ± .003 [.905, .919]; retrained .500`.

    Example:
      >>> from jaxunlearn.records import Finding
      >>> from jaxunlearn.report import number_format
      >>> number_format.long(Finding(0.912, 0.905, 0.919, std=0.003))
      '0.912 ± .003 [.905, .919]'
    """
    texts = format_finding(finding, digits, percent=percent)
    line = " ".join(text for text in texts[:3] if text)
    return f"{line}; {texts.retrained}" if texts.retrained else line
