"""The study of the conformal-guided loss: every method with and without it, weights side by side in one population.

METHOD+conformal at lamda = 0 (the method itself), ... -> UA, RA, TA, prediction sets, gain of UA over lamda = 0
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import settings, store
from jaxunlearn.metrics import intervals
from jaxunlearn.protocols import opening, workbench
from jaxunlearn.protocols.audit import publishing
from jaxunlearn.protocols.audit.presenting import Piece, timed
from jaxunlearn.protocols.evaluation import presenting, runs
from jaxunlearn.protocols.unlearned import listing, variants
from jaxunlearn.protocols.unlearned import runs as unlearned
from jaxunlearn.records import Finding
from jaxunlearn.report import tables
from jaxunlearn.report.cells import Cell, Table

STEM = "conformal_loss"
PUBLISHED = ("retrain", "finetune", "random_label", "salun")  # what the published code can wrap
COLUMNS = {
    "UA": "UA", "RA": "RA ↑", "TA": "TA ↑", "coverage_forget": "coverage D_f", "size_forget": "size D_f",
    "cr_forget": "CR D_f", "size_test": "size D_t", "cr_test": "CR D_t ↑", "recover_ratio": "recover ratio",
}  # fmt: skip


class Line(NamedTuple):
    """One row: the role as the evaluation names it, its method with all that is swept beside the weight, the weight."""

    role: str
    method: str
    lamda: float


def from_config(
    chosen: settings.Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Runs the study `conformal`; trains and unlearns first what is missing. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend, before any training.
    """
    bench, asked = runs.check(workbench.prepare(narrowed(chosen)))
    if dry_run:
        return listing.plan(bench, asked)
    with opening.opened(bench, chosen, workdir, overwrite, overrides) as (run, reporter, bench, plain, begun):
        found, said = runs.evaluate(run, reporter, bench, asked)
        piece = present(found, [line_of(one) for one in asked])
        conformal = bench.settings.unlearn.conformal
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "forget sets": f"{found.sets} ({chosen.split.forget.kind})",
            "loss": f"alpha {conformal.alpha:g}, delta {conformal.delta:g}, {conformal.batch} rows per step, "
            + ("pairwise" if variants.is_pairwise(chosen) else "per sample"),
            **timed(time.monotonic() - begun, store.versions()),
        }
        title = f"Conformal-guided unlearning on {chosen.data.name}"
        files = publishing.publish(run, title, piece.text, [piece], facts, list(piece.findings), plain, STEM)
        assert piece.table is not None
        notes = "".join(f"\nnote: {one}" for one in said)
        return f"{piece.text}\n\n{tables.text(piece.table, width=presenting.WIDTH)}{notes}\n\n{files}"


def narrowed(chosen: settings.Settings) -> settings.Settings:
    """The settings with every method wrapped, at least the weights 0 and the default, and prediction sets alone.

    `all` stands for the methods that the published code wraps.
    """
    given = chosen.unlearn.conformal
    usual = variants.usual_lamda(chosen)
    weights = tuple(dict.fromkeys(given.lamda or (0.0, usual)))
    if len(weights) == 1:
        weights = (0.0, usual) if weights[0] == 0 else (0.0, *weights)
    methods = PUBLISHED if "all" in chosen.unlearn.methods else chosen.unlearn.methods
    conformal = dataclasses.replace(given, enable=True, lamda=weights)
    unlearn = dataclasses.replace(chosen.unlearn, methods=methods, conformal=conformal)
    evaluate = dataclasses.replace(chosen.evaluate, metrics=("conformal",))
    targets = dataclasses.replace(chosen.targets, population_in=False, reference=0, snapshots=0)
    return dataclasses.replace(chosen, unlearn=unlearn, evaluate=evaluate, targets=targets)


def line_of(variant: variants.Variant) -> Line:
    """The row of a wrapped method."""
    weight = f"{variants.CONFORMAL}_lamda"
    others = [f"{name}={variant.chosen[name]:g}" for name in variant.swept if name != weight]
    method = variant.method.partition("+")[0] + ("@" + ",".join(others) if others else "")
    return Line(unlearned.shown(variant.role), method, float(variant.chosen[weight]))


def present(found: presenting.Evaluation, lines: list[Line]) -> Piece:
    """The table, with what the loss adds to UA and takes from TA over the smallest weight of the same method."""
    smallest = {one.method: min((two for two in lines if two.method == one.method), key=lambda two: two.lamda)
                for one in lines}  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    gains: dict[float, list[tuple[float, float]]] = {}
    known = [Line(role, role, np.nan) for role in ("original", "retrained") if role in found.roles]
    for line in known + lines:
        cells = [presenting.finding(found, line.role, name) for name in COLUMNS]
        every += cells
        gain: list[Cell] = ["", ""]
        start = smallest.get(line.method)
        if start is not None and line.lamda > start.lamda:
            apart = [_difference(found, line.role, start.role, name) for name in ("UA", "TA")]
            every += apart
            gain = [presenting.bare(one) for one in apart]
            gains.setdefault(line.lamda, []).append((apart[0].value, apart[1].value))
        weight = "" if np.isnan(line.lamda) else f"{line.lamda:g}"
        rows.append((line.method, weight, *(presenting.bare(cell) for cell in cells), *gain))
    caption = (
        f"Means over {found.sets} forget set(s) ± deviation, sets at alpha = {found.headline:g}; D_f forgotten, D_t "
        "test samples. Gains are over the smallest weight of the same method, paired by forget set."
    )
    header = ("method", "lambda", *COLUMNS.values(), "gain of UA", "gain of TA")
    said = [
        f"lambda {weight:g} changes UA by {100 * np.mean([one[0] for one in pairs]):+.1f} and TA by "
        f"{100 * np.mean([one[1] for one in pairs]):+.1f} points, mean over {len(pairs)} method(s)."
        for weight, pairs in sorted(gains.items())
    ]
    text = " ".join(said) or "One weight only: nothing to compare."
    table = Table("Methods with the conformal-guided loss", caption, header, tuple(rows), ("retrained", "original"))
    return Piece(STEM, "What the conformal-guided loss does", text, table, None, tuple(every))


def _difference(found: presenting.Evaluation, role: str, start: str, name: str) -> Finding:
    values = presenting.value_of(found, role, name) - presenting.value_of(found, start, name)
    made = intervals.mean(values, metric=f"gain of {name}", of=role, against=start)
    return intervals.with_spread(made, values[np.isfinite(values)])
