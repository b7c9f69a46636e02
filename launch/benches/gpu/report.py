"""The rows of a GPU bench for people: lines, a table in markdown, and the defaults that they speak for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxunlearn import progress

from ..timing import number
from . import peaks, table

Row = dict[str, Any]


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
        sizes = [progress.size(row[key] or 0) for key in ("peak_bytes", "peak_bytes_before", "predicted_bytes")]
        found.append("memory {} ({} before training), predicted {}".format(*sizes))
    elif row.get("predicted_bytes"):
        found.append(f"memory predicted {progress.size(row['predicted_bytes'])}")
    if row.get("compile_seconds"):
        # Only section 2 compiles without remembered autotuning.
        note = "" if row["section"] == 2 else ", autotuning partly remembered"
        found.append(f"compiled in {row['compile_seconds']:.1f} s{note}")
    if row.get("kinds"):
        kinds = ", ".join(f"{kind} {100 * part:.0f} %" for kind, part in row["kinds"].items())
        found.append(f"busy {100 * row['busy']:.0f} %: {kinds}")
    return found


def ordered(rows: Iterable[Row], quick: bool) -> list[Row]:
    """The newest row of every name, in the order of the table, with shares of the peaks that are among them."""
    newest = {row["name"]: row for row in rows}
    places = {name: place for place, name in enumerate(
        name for one in table.measurements(quick, "any") for name in one.names)}  # fmt: skip
    order = sorted(newest.values(), key=lambda row: (row["section"], places.get(row["name"], len(places))))
    return peaks.with_shares(order)


def by_machine(rows: Iterable[Row], quick: bool) -> list[list[Row]]:
    """Rows of every device, version of jax and XLA flags apart, each `ordered`."""
    machines: dict[Any, list[Row]] = {}
    for row in rows:
        if row["quick"] == quick:
            machines.setdefault((row["device"], row["versions"].get("jax"), row.get("xla_flags")), []).append(row)
    return [ordered(own, quick) for own in machines.values()]


def text(rows: Sequence[Row]) -> str:
    """All rows under the headings of their sections."""
    lines = []
    for section, title in table.SECTIONS.items():
        own = [row for row in rows if row["section"] == section]
        lines += [f"\n{section}. {title}", *map(line, own)] if own else []
    return "\n".join(lines).strip()


def markdown(rows: Sequence[Row]) -> str:
    """The table of one machine for the docs: machine and versions, then its rows under headings of their sections."""
    last = rows[-1]
    versions = last["versions"]
    head = (
        f"{last['device']}; python {versions.get('python', '?')}, jax {versions.get('jax', '?')}; {last['time'][:10]}"
    )
    head += f"; XLA_FLAGS {last['xla_flags']}" if last.get("xla_flags") else ""
    if last["quick"]:
        head += "; --quick: sizes and windows too small to conclude from"
    lines = [head, "", "| what | value | of the peak | windows | |", "| --- | --- | --- | --- | --- |"]
    for section, title in table.SECTIONS.items():
        own = [row for row in rows if row["section"] == section]
        lines += [f"| **{section}. {title}** | | | | |"] if own else []
        lines += map(_cells, own)
    return "\n".join(lines)


def _cells(row: Row) -> str:
    if row["status"] != "ok":
        return f"| {row['name']} | failed | | | {row['message'][:120].replace('|', '/')} |"
    spread = f"{number(row['low'])} .. {number(row['high'])}" if row.get("rounds", 1) > 1 else ""
    facts = "; ".join(details(row)).replace("|", "/")
    return f"| {row['name']} | {number(row['value'])} {row['unit']} | {share(row)} | {spread} | {facts} |"


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


# Class of networks -> (sections, part of the rows' names, how `experiments.choose_policy` maps it on a GPU today).
CLASSES = {
    "dense networks (Location MLP)": ((5,), "Location MLP", "vmap"),
    "tiny convolutions (digits CNN)": ((5,), "digits CNN", "vmap, im2col"),
    "ResNet-sized networks (ResNet-18)": ((3, 4), "", "8 members side by side, unrolled"),
    "the fast recipe (airbench)": ((6,), ": step", "8 members side by side, unrolled"),
}


def proposals(rows: Sequence[Row]) -> list[Proposal]:
    """The fastest row of every class of which at least two ways were measured."""
    found = []
    for network, (sections, part, default) in CLASSES.items():
        own = [row for row in rows if row["section"] in sections and part in row["name"] and row["status"] == "ok"
               and "mapping" in row]  # fmt: skip
        for ways in _comparable(own):
            if len(ways) > 1:
                best, *rivals = sorted(ways, key=lambda row: _cost(row))
                found.append(Proposal(network, best, rivals, default))
    return found


def _comparable(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same work: model-steps per second with as many members, microseconds per sample of one recipe."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(_work(row), []).append(row)
    return list(groups.values())


def _work(row: Row) -> Any:
    return row["members"] if row["unit"] == "model-steps/s" else (row.get("batch"), row.get("augment"))


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
