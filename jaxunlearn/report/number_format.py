"""Numbers as a report prints them: one place for digits, thousands, per cent and missing values.

Every number of a report passes through here, so that a terminal table, a web page and a sentence never disagree by a
digit. The estimate keeps its leading zero (0.912); what qualifies it drops it (± .003, [.905, .919]) and is rounded to
the same place as the estimate, because more digits than the estimate has would only pretend precision.
"""

import math
from typing import NamedTuple

from jaxunlearn.records import Finding

MISSING = "–"


class NumberParts(NamedTuple):
    """A finding, printed: the estimate and its three qualifications; empty strings where there is none."""

    value: str
    spread: str
    interval: str
    retrained: str


def decimals(value: float, digits: int) -> int:
    """How many decimals a value gets: `digits` below 10, one fewer per further power of ten, never below none."""
    size = abs(value)
    if not math.isfinite(size) or size < 10:
        return digits
    return max(0, digits - int(math.log10(size)))


def number(
    value: float, digits: int = 3, *, percent: bool = False, bare: bool = False, places: int | None = None
) -> str:
    """One number.

    Args:
      value: NaN is printed as a dash, infinity as its sign; a number too small for its decimals, but not zero, is
        printed as a power of ten (2e-5), because 0.000 would be a false statement.
      digits: decimals of a number below 10, larger numbers get fewer; of every number in per cent.
      percent: print 100 times the value (without the sign: the column says so).
      bare: leave out the zero before the point.
      places: exact number of decimals, instead of `digits`.
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
    """A whole number with thousands separated: 12,345."""
    return f"{int(value):,}"


def cost(value: float) -> str:
    """Seconds or epochs with a digit where it matters; nothing where they were not measured."""
    return "" if math.isnan(value) else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


def rate(value: float) -> str:
    """A rate, level or fraction as a sentence prints it: 5 %, 0.1 %, 33.3 %."""
    value = float(value)
    return MISSING if math.isnan(value) else f"{100 * value:.3g} %"


def bare(finding: Finding, signed: bool = False) -> str:
    """A finding as a sentence prints it: .480 [.393, .564]; `signed` puts a plus before a positive value."""
    sign = "+" if signed and finding.value > 0 else ""
    return f"{sign}{number(finding.value, bare=True)} {parts(finding).interval}".rstrip()


def parts(finding: Finding, digits: int = 3, *, percent: bool = False) -> NumberParts:
    """A finding's value, spread, interval and retrained value, all rounded to the same place.

    Args:
      finding: NaN spread or interval, and a retrained value of None, give empty strings.
      digits: decimals of an estimate below 10; of every number in per cent.
      percent: print 100 times every number.
    """
    places = digits if percent else decimals(float(finding.value), digits)

    def beside(value: float) -> str:
        return number(value, percent=percent, bare=not percent, places=places)

    spread = "" if math.isnan(finding.std) else f"± {beside(finding.std)}"
    unknown = math.isnan(finding.low) or math.isnan(finding.high)
    interval = "" if unknown else f"[{beside(finding.low)}, {beside(finding.high)}]"
    retrained = "" if finding.retrained is None else f"retrained {beside(finding.retrained)}"
    return NumberParts(number(finding.value, percent=percent, places=places), spread, interval, retrained)


def long(finding: Finding, digits: int = 3, *, percent: bool = False) -> str:
    """A finding in one line, everything it has: `0.912 ± .003 [.905, .919]; retrained .500`."""
    shown = parts(finding, digits, percent=percent)
    line = " ".join(part for part in shown[:3] if part)
    return f"{line}; {shown.retrained}" if shown.retrained else line
