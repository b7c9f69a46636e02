"""The rows of a GPU bench for people: lines, a table in markdown, and the defaults that they speak for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxunlearn import progress
from launch.benches.gpu import table

Row = dict[str, Any]


def number(value: float) -> str:
    """Three digits, without an exponent from 0.001 to a million."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(row: Mapping[str, Any]) -> str:
    """`31 %`, or nothing where there is nothing to compare with."""
    return "" if row.get("share") is None else f"{100 * row['share']:.3g} %"


def line(row: Mapping[str, Any]) -> str:
    """One row: value, smallest and largest window, share of the peak, name, and what else was seen."""
    if row["status"] != "ok":
        return f"{'failed':>11} {'':19} {'':7} {row['name']}  [{row['message'][:200]}]"
    spread = f"({number(row['low'])} .. {number(row['high'])})" if row.get("rounds", 1) > 1 else ""
    facts = "; ".join(details(row))
    return f"{number(row['value']):>11} {spread:19} {share(row):>7} {row['name']}  [{row['unit']}" + (
        f"; {facts}]" if facts else "]"
    )


def details(row: Mapping[str, Any]) -> list[str]:
    """Kernels, bytes, memory, compiling, and where the time goes."""
    found = []
    if row.get("kernels"):
        found.append(f"{number(row['kernels'])} kernels per step")
    if row.get("bytes_per_sample"):
        found.append(f"{row['bytes_per_sample'] / 1e6:.3g} MB per sample")
    if row.get("peak_bytes") and row.get("predicted_bytes"):
        found.append(f"memory {progress.size(row['peak_bytes'])}, predicted {progress.size(row['predicted_bytes'])}")
    elif row.get("predicted_bytes"):
        found.append(f"memory predicted {progress.size(row['predicted_bytes'])}")
    if row.get("compile_seconds"):
        found.append(f"compiled in {row['compile_seconds']:.1f} s")
    if row.get("kinds"):
        kinds = ", ".join(f"{kind} {100 * part:.0f} %" for kind, part in row["kinds"].items())
        found.append(f"busy {100 * row['busy']:.0f} %: {kinds}")
    return found


def text(rows: Sequence[Row]) -> str:
    """All rows under the headings of their sections."""
    lines = []
    for section, title in table.SECTIONS.items():
        own = [row for row in rows if row["section"] == section]
        lines += [f"\n{section}. {title}", *map(line, own)] if own else []
    return "\n".join(lines).strip()


def markdown(rows: Sequence[Row]) -> str:
    """The table for the docs: one line per row, the machine and the versions above it."""
    if not rows:
        return "no rows"
    versions = rows[-1]["versions"]
    head = f"{rows[-1]['device']}; python {versions['python']}, jax {versions['jax']}; {rows[-1]['time'][:10]}"
    if rows[-1]["quick"]:
        head += "; --quick: sizes and windows too small to conclude from"
    lines = [head, "", "| what | value | of the peak | windows | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        if row["status"] != "ok":
            lines.append(f"| {row['name']} | failed | | | {row['message'][:120].replace('|', '/')} |")
            continue
        spread = f"{number(row['low'])} .. {number(row['high'])}" if row.get("rounds", 1) > 1 else ""
        facts = "; ".join(details(row)).replace("|", "/")
        lines.append(f"| {row['name']} | {number(row['value'])} {row['unit']} | {share(row)} | {spread} | {facts} |")
    return "\n".join(lines)


class Proposal(NamedTuple):
    """The fastest way measured for one class of networks.

    Attributes:
      network: the class, in words.
      best: its row; `rivals`: the others, fastest first.
      default: how the engine maps this class today, as (mapping, conv, group) where that is fixed.
    """

    network: str
    best: Row
    rivals: list[Row]
    default: str


# Class of networks -> (section, part of the rows' names, how `workbench.choose_policy` maps it on a GPU today).
CLASSES = {
    "dense networks (Location MLP)": (5, "Location MLP", "vmap"),
    "tiny convolutions (digits CNN)": (5, "digits CNN", "vmap, im2col"),
    "ResNet-sized networks (ResNet-18)": (4, "", "8 members side by side, unrolled"),
    "the fast recipe (airbench)": (6, ": step", "8 members side by side, unrolled"),
}


def proposals(rows: Sequence[Row]) -> list[Proposal]:
    """The fastest row of every class of which at least two ways were measured."""
    found = []
    for network, (section, part, default) in CLASSES.items():
        own = [row for row in rows if row["section"] == section and part in row["name"] and row["status"] == "ok"]
        for ways in _comparable(own):
            if len(ways) > 1:
                best, *rivals = sorted(ways, key=lambda row: _cost(row))
                found.append(Proposal(network, best, rivals, default))
    return found


def _comparable(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same work: microseconds per sample are, model-steps per second only with as many members."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["members"] if row["unit"] == "model-steps/s" else None, []).append(row)
    return list(groups.values())


def _cost(row: Row) -> float:
    return -row["value"] if row["unit"] == "model-steps/s" else row["value"]


def way(row: Mapping[str, Any]) -> str:
    """Mapping, form, members side by side and arithmetic of a row, in words."""
    group = "" if row["mapping"] == "vmap" else f", {row['members']} side by side" if row["members"] > 1 else ""
    is_small = row["section"] == 5
    return f"{row['mapping']}{'' if is_small else group}, conv {row['conv']}, {row['arithmetic']}"


def proposal(rows: Sequence[Row]) -> str:
    """A proposal of defaults with the rows that support it."""
    found = proposals(rows)
    if not found:
        return "No class of networks has two ways that were measured: nothing to propose."
    lines = []
    for one in found:
        lines.append(f"{one.network}: {way(one.best)}  (default today: {one.default})")
        lines.append(f"    {number(one.best['value'])} {one.best['unit']}: {one.best['name']}")
        ratios = [_cost(rival) / _cost(one.best) if one.best["unit"] != "model-steps/s" else
                  one.best["value"] / rival["value"] for rival in one.rivals]  # fmt: skip
        lines += [
            f"    {ratio:.2f} times as slow: {rival['name']}" for ratio, rival in zip(ratios, one.rivals, strict=True)
        ]
    return "\n".join(lines)
