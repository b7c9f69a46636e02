"""The rows of a GPU bench as text: lines, a table in markdown, and the defaults that they support."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxunlearn import progress

from ..timing import number
from . import peaks, table

Row = dict[str, Any]


def share(row: Mapping[str, Any]) -> str:
    """Returns `31 %`, or "" if there is nothing to compare with."""
    return "" if row.get("share") is None else f"{100 * row['share']:.3g} %"


def line(row: Mapping[str, Any]) -> str:
    """Returns one row as text: value, smallest and largest window, share of the peak, name, and details."""
    if row["status"] != "ok":
        return f"{'failed':>11} {'':19} {'':7} {row['name']}  [{row['message'][:200]}]"
    spread = f"({number(row['low'])} .. {number(row['high'])})" if row.get("rounds", 1) > 1 else ""
    facts = "; ".join(details(row))
    return f"{number(row['value']):>11} {spread:19} {share(row):>7} {row['name']}  [{row['unit']}" + (
        f"; {facts}]" if facts else "]"
    )


def details(row: Mapping[str, Any]) -> list[str]:
    """Lists kernels, bytes, memory, compiling, and the shares of kinds of kernels."""
    facts = []
    if row.get("kernels"):
        facts.append(f"{number(row['kernels'])} kernels per step")
    if row.get("bytes_per_sample"):
        facts.append(f"{row['bytes_per_sample'] / 1e6:.3g} MB per sample")
    if row.get("peak_bytes") and row.get("predicted_bytes"):
        sizes = [progress.size(row[key] or 0) for key in ("peak_bytes", "peak_bytes_before", "predicted_bytes")]
        facts.append("memory {} ({} before training), predicted {}".format(*sizes))
    elif row.get("predicted_bytes"):
        facts.append(f"memory predicted {progress.size(row['predicted_bytes'])}")
    if row.get("compile_seconds"):
        # Only section 2 compiles without cached autotuning.
        note = "" if row["section"] == 2 else ", autotuning partly remembered"
        facts.append(f"compiled in {row['compile_seconds']:.1f} s{note}")
    if row.get("kinds"):
        kinds = ", ".join(f"{kind} {100 * fraction:.0f} %" for kind, fraction in row["kinds"].items())
        facts.append(f"busy {100 * row['busy']:.0f} %: {kinds}")
    return facts


def ordered(rows: Iterable[Row], quick: bool) -> list[Row]:
    """Returns the newest row of every name, in the order of the table, with shares of the peaks among them."""
    newest = {row["name"]: row for row in rows}
    index_of = {name: index for index, name in enumerate(
        name for measurement in table.measurements(quick, "any") for name in measurement.names)}  # fmt: skip
    order = sorted(newest.values(), key=lambda row: (row["section"], index_of.get(row["name"], len(index_of))))
    return peaks.with_shares(order)


def by_machine(rows: Iterable[Row], quick: bool) -> list[list[Row]]:
    """Groups rows by device, version of jax and XLA flags, each group `ordered`."""
    machines: dict[Any, list[Row]] = {}
    for row in rows:
        if row["quick"] == quick:
            machines.setdefault((row["device"], row["versions"].get("jax"), row.get("xla_flags")), []).append(row)
    return [ordered(machine_rows, quick) for machine_rows in machines.values()]


def text(rows: Sequence[Row]) -> str:
    """Returns all rows as text under the headings of their sections."""
    lines = []
    for section, title in table.SECTIONS.items():
        section_rows = [row for row in rows if row["section"] == section]
        lines += [f"\n{section}. {title}", *map(line, section_rows)] if section_rows else []
    return "\n".join(lines).strip()


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table of one machine for the docs: machine and versions, then its rows by section."""
    newest = rows[-1]
    versions = newest["versions"]
    heading = f"{newest['device']}; python {versions.get('python', '?')}, jax {versions.get('jax', '?')}"
    heading += f"; {newest['time'][:10]}"
    heading += f"; XLA_FLAGS {newest['xla_flags']}" if newest.get("xla_flags") else ""
    if newest["quick"]:
        heading += "; --quick: sizes and windows too small to conclude from"
    lines = [heading, "", "| what | value | of the peak | windows | |", "| --- | --- | --- | --- | --- |"]
    for section, title in table.SECTIONS.items():
        section_rows = [row for row in rows if row["section"] == section]
        lines += [f"| **{section}. {title}** | | | | |"] if section_rows else []
        lines += map(_cells, section_rows)
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
      default: the engine's current mapping of this class, in words.
    """

    network: str
    best: Row
    rivals: list[Row]
    default: str


# Class of networks -> (sections, fragment of the rows' names, current choice of `experiments.choose_policy` on a GPU).
CLASSES = {
    "dense networks (Location MLP)": ((5,), "Location MLP", "vmap"),
    "tiny convolutions (digits CNN)": ((5,), "digits CNN", "vmap, im2col"),
    "ResNet-sized networks (ResNet-18)": ((3, 4), "", "8 members side by side, unrolled"),
    "the fast recipe (airbench)": ((6,), ": step", "8 members side by side, unrolled"),
}


def proposals(rows: Sequence[Row]) -> list[Proposal]:
    """Returns the fastest row of every class of which at least two ways were measured."""
    fastest = []
    for network, (sections, fragment, default) in CLASSES.items():
        candidates = [
            row
            for row in rows
            if row["section"] in sections and fragment in row["name"] and row["status"] == "ok" and "mapping" in row
        ]
        for ways in _comparable(candidates):
            if len(ways) > 1:
                best, *rivals = sorted(ways, key=lambda row: _cost(row))
                fastest.append(Proposal(network, best, rivals, default))
    return fastest


def _comparable(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups rows of the same work: model-steps/s with equal members, microseconds per sample with equal recipe."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(_work(row), []).append(row)
    return list(groups.values())


def _work(row: Row) -> Any:
    return row["members"] if row["unit"] == "model-steps/s" else (row.get("batch"), row.get("augment"))


def _cost(row: Row) -> float:
    return -row["value"] if row["unit"] == "model-steps/s" else row["value"]


def way(row: Mapping[str, Any]) -> str:
    """Returns mapping, form, members side by side and arithmetic of a row, in words."""
    group = "" if row["mapping"] == "vmap" else f", {row['members']} side by side" if row["members"] > 1 else ""
    is_small = row["section"] == 5
    return f"{row['mapping']}{'' if is_small else group}, conv {row['conv']}, {row['arithmetic']}"


def proposal(rows: Sequence[Row]) -> str:
    """Returns a proposal of defaults with the rows that support it."""
    fastest = proposals(rows)
    if not fastest:
        return "No class of networks has two ways that were measured: nothing to propose."
    lines = []
    for finding in fastest:
        lines.append(f"{finding.network}: {way(finding.best)}  (default today: {finding.default})")
        lines.append(f"    {number(finding.best['value'])} {finding.best['unit']}: {finding.best['name']}")
        ratios = [_cost(rival) / _cost(finding.best) if finding.best["unit"] != "model-steps/s" else
                  finding.best["value"] / rival["value"] for rival in finding.rivals]  # fmt: skip
        lines += [
            f"    {ratio:.2f} times as slow: {rival['name']}"
            for ratio, rival in zip(ratios, finding.rivals, strict=True)
        ]
    return "\n".join(lines)
