"""What an audit found as sections of a report: a title, a sentence or two, a table, a figure, findings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn.analyses.audit.evidence import plausibility
from jaxunlearn.analyses.audit.scoring import class_report, scoreui, sweeps
from jaxunlearn.analyses.audit.scoring import scoreboard as scoreboard_records
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Design, Finding
from jaxunlearn.report import sentences
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import curves, verdict_bars
from jaxunlearn.report.section import Section

COLUMNS = ("auc", "balanced_accuracy", "tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3", "tnr_at_fnr_1e-2", "tnr_at_fnr_1e-3")
LEVEL_COLUMNS = ("spearman", "pearson", "mse", "kl")
# Shown as curves; all scores stand in the tables.
# Of logits, then of texts: no more than 8 of either.
CURVES = ("iam_on", "iam_off", "rmia_on", "lira_on", "emia_r", "unleak", "confidence",
          "lm_iam", "lm_rmia", "lm_lira", "lm_ratio", "lm_zlib", "lm_min_k", "lm_loss", "random")  # fmt: skip
FIRST = ("iam_on", "iam_off", "lm_iam")  # said to gain over the plain score or not


def scoreboard(
    board: scoreboard_records.Scoreboard, role: str, name: str, design: Design, chosen: str = ""
) -> list[Section]:
    """Table of all scores, log-log ROC, histograms.

    Args:
      board: what was found.
      role: whose models were audited; empty = given arrays.
      name: of the files.
      design: whose originals the audited models come from.
      chosen: the score that decides; where it is empty the first of `CURVES` is the one that was chosen beforehand.
    """
    groups, sets, samples = next(iter(board.scored.values.values())).shape
    truth = board.scored.truth
    assert truth is not None
    forgotten = int((~truth).sum())
    chosen = chosen or next((score for score in CURVES if score in board.table), "")
    said = [
        f"{sets} forget set(s), {forgotten:,} forgotten and {truth.size - forgotten:,} retained samples pooled, "
        f"{groups} group(s) of shadow models. Positive = retained.",
        sentences.best_score({score: row["auc"] for score, row in board.table.items()}, chosen=chosen),
        sentences.resolution(forgotten, truth.size - forgotten),
    ]
    said = list(filter(None, said))
    said += [sentences.compare(score, board.plain, gain) for score, gain in board.gains.items() if score in FIRST]
    if board.scored.skipped:
        said.append("Skipped: " + "; ".join(f"{score} {why}" for score, why in board.scored.skipped.items()) + ".")
    table = Table(
        f"Scores against exact retraining ({role})" if role else "Scores against the truth given",
        f"Pooled over {sets} forget set(s) of {samples:,} samples. {_over_groups(board, design)}",
        ("score", *headers(COLUMNS)),
        tuple((score, *(row[column] for column in COLUMNS)) for score, row in board.table.items()),
        baselines=("random",),
    )
    found = tuple(finding for row in board.table.values() for finding in row.values()) + tuple(board.gains.values())
    shown = [score for score in CURVES if score in board.scored.values] or list(board.scored.values)[:8]
    lines = {score: (board.scored.values[score][0].reshape(-1), truth.reshape(-1)) for score in shown}
    densities = {score: value for score, value in lines.items() if score != "random"} or lines
    return [
        Section(name, "How well does each score tell forgotten from retained?", " ".join(said), table, None, found),
        Section(
            f"{name}_roc", "ROC on logarithmic axes",
            "Retained samples recognised against forgotten samples mistaken for retained; shadow group 0.",
            figure=curves.roc(lines),
        ),
        Section(
            f"{name}_histograms", "How the scores are distributed", "Higher = still looks trained on; shadow group 0.",
            figure=curves.histograms(densities),
        ),
    ]  # fmt: skip


def _over_groups(board: scoreboard_records.Scoreboard, design: Design) -> str:
    """What ± and [ ] are in a table of scores."""
    first = next(iter(board.table.values()))["auc"]
    return sentences.over_groups(design, first.confidence_level, first.method)


def scoreui_sections(found: scoreui.Levels, is_texts: bool = False) -> list[Section]:
    """Table and curves of ScoreUI: of trainings of classifiers, or of the steps of one training on texts."""
    if not found.table:
        return []
    trainings, snapshots = next(iter(found.curves.values())).shape
    caption = (
        f"{snapshots} steps of one training; truth = share of the steps, the same for every text. One training: no "
        "interval."
        if is_texts else
        f"{trainings} training(s) of all target rows, {snapshots} snapshots each, truth b / B for every sample; mean "
        "over trainings, ± over shadow groups, intervals over trainings."
    )  # fmt: skip
    table = Table(
        "Agreement with the amount of training",
        caption,
        ("score", *headers(LEVEL_COLUMNS)),
        tuple((score, *(row[column] for column in LEVEL_COLUMNS)) for score, row in found.table.items()),
        baselines=("random",),
    )
    lines = {
        score: (values.mean(0), values.min(0), values.max(0))
        for score, values in found.curves.items()
        if score in CURVES and score != "random"
    }
    first = next((score for score in FIRST if score in found.table), "")
    told = sentences.largest_correlation({score: row["spearman"] for score, row in found.table.items()}, first)
    text = f"{told} A score should rise with the steps for every text." if is_texts else (
        f"{told} Snapshots of training from weights that never saw the samples; a score should rise with the epochs "
        "for every sample."
    )  # fmt: skip
    if found.skipped:
        text += f" Left out: {', '.join(found.skipped)}."
    findings = tuple(finding for row in found.table.values() for finding in row.values())
    figure = curves.scoreui(found.parts, lines)
    return [Section("scoreui", "Does the score grow with how much was trained?", text, table, figure, findings)]


def counts(found: sweeps.Sweep, design: Design) -> list[Section]:
    """AUC against the number of shadow models."""
    table = Table(
        "AUC against the number of shadow models per group",
        "Groups per column: "
        + ", ".join(f"{value}: {n}" for value, n in zip(found.values, found.groups, strict=True))
        + f". {_of_sweep(found, design)}",
        ("score", *(f"S = {value}" for value in found.values)),
        tuple((name, *line) for name, line in found.lines.items()),
        baselines=("random",),
    )
    figure = curves.against_shadows(found.values, found.lines)
    findings = tuple(finding for line in found.lines.values() for finding in line)
    said = "How much an audit gains from more shadow models; published: one is nearly enough for IAM."
    text = said + _left_out(found)
    return [Section("shadow_sweep", "How many shadow models are needed?", text, table, figure, findings)]


def _left_out(found: sweeps.Sweep) -> str:
    """Which lines of a sweep are missing, and why."""
    return "".join(f" Left out: {name} ({reason})." for name, reason in found.skipped.items())


def _of_sweep(found: sweeps.Sweep, design: Design) -> str:
    first = next((line[0] for line in found.lines.values() if line), Finding(0.0))
    return sentences.over_groups(design, first.confidence_level, first.method)


def sensitivity(found: sweeps.Sweep, design: Design) -> list[Section]:
    """AUC against interpolation levels, per e1 and e2."""
    table = Table(
        "AUC of IAM against interpolation levels", f"2 levels mean no interpolation. {_of_sweep(found, design)}",
        ("line", *(f"I = {value}" for value in found.values)),
        tuple((name, *line) for name, line in found.lines.items()),
    )  # fmt: skip
    drawn = {name: line for name, line in found.lines.items() if name.startswith("iam_on")} or found.lines
    figure = curves.sensitivity(found.values, dict(list(drawn.items())[:8]))
    findings = tuple(finding for line in found.lines.values() for finding in line)
    text = "How much IAM depends on its constants." + _left_out(found)
    return [Section("sensitivity", "What do the constants matter?", text, table, figure, findings)]


def sources(found: dict[str, scoreboard_records.Scoreboard], design: Design) -> list[Section]:
    """One column of AUC per source of shadows."""
    names = list(dict.fromkeys(name for board in found.values() for name in board.table))
    rows = tuple(
        (name, *(board.table[name]["auc"] if name in board.table else "–" for board in found.values()))
        for name in names
    )
    table = Table(
        "AUC by source of the shadow models",
        _over_groups(next(iter(found.values())), design),
        ("score", *(f"{name} ↑" for name in found)),
        rows,
        ("random",),
    )
    findings = tuple(row["auc"] for board in found.values() for row in board.table.values())
    text = "The same audited models, judged with shadow models of other runs."
    return [Section("shadow_sources", "Whose shadow models?", text, table, None, findings)]


def pooled_row(role: str, found: Any) -> tuple[Cell, ...]:
    """The row over all forget sets: pooled numbers, with t intervals over forget sets where they are not deviations."""

    def finding(whole: Any, each: Any, metric: str) -> Finding:
        spread = intervals.mean(np.asarray(each), metric=metric, of=role, against="forget sets")
        return dataclasses.replace(spread, value=float(whole), method="t over forget sets")

    all_of, each = found.pooled, found.classes
    cells: list[Cell] = [role, "all"]
    cells += [finding(getattr(all_of, name), getattr(each, name), name) for name in ("auc", "weighted_bce")]
    for kind in ("retained", "forgotten"):
        whole, parts = getattr(all_of, kind), getattr(each, kind)
        cells.append(finding(whole.mean, parts.mean, f"{kind} mean"))
        cells.append(float(whole.std))
        cells.append(finding(whole.tail, parts.tail, f"{kind} tail"))
    return tuple(cells)


def by_class(found: class_report.Report, design: Design) -> list[Section]:
    """Over- and under-unlearning."""
    header = ("role", "forget set", "AUC ↑", "weighted BCE ↓", "retained mean", "± sd", "lowest tenth",
              "forgotten mean", "± sd", "highest tenth")  # fmt: skip

    def cells(role: str, where: str, row: Any, place: Any = ...) -> tuple:
        kept, left = row.retained, row.forgotten
        numbers = (row.auc, row.weighted_bce, kept.mean, kept.std, kept.tail, left.mean, left.std, left.tail)
        return (role, where, *(float(np.asarray(number)[place]) for number in numbers))

    rows = [pooled_row(role, one) for role, one in found.roles.items()]
    rows += [
        cells(role, name, one.classes, place)
        for role, one in found.roles.items()
        if role != "random"
        for place, name in enumerate(found.names)
    ]
    caption = (
        f"Membership by IAM-On, mean over {found.groups} group(s) of shadow models. [ ] 95 % interval over "
        f"{sentences.units(design)}. Compare with the row of exact retraining."
    )
    baselines = ("retrained", "original", "random")
    table = Table("Membership by forgotten class", caption, header, tuple(rows), baselines)
    said = ["Forgotten above exact retraining: under-unlearning. Retained (lowest tenth) below it: over-unlearning."]
    for role, gap in found.gaps.items():
        if role not in ("retrained", "random"):
            said.append(
                f"{role}: under-unlearning {float(gap.under):+.3f}, over-unlearning {float(gap.over):+.3f} (worst "
                f"tenth {float(gap.over_tail):+.3f})."
            )
    pooled = [one.pooled for one in found.roles.values()]
    figure = verdict_bars.classes(
        list(found.roles),
        np.array([(row.retained.mean, row.retained.std) for row in pooled]),
        np.array([(row.forgotten.mean, row.forgotten.std) for row in pooled]),
    )
    findings = tuple(cell for row in rows for cell in row if isinstance(cell, Finding))
    return [Section("class_report", "Over- and under-unlearning by class", " ".join(said), table, figure, findings)]


def without_truth(scored: scoreboard_records.Scored) -> Section:
    """Scores without truth: what they look like."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(float(np.quantile(values, q)) for q in quarters)) for name, values in scored.values.items()
    )
    header = ("score", "lowest", "quarter", "median", "three quarters", "highest")
    table = Table("Scores (no truth given)", "Higher = still looks trained on.", header, rows)
    text = "The file holds no `forgotten` array, so scores cannot be judged; they are in scores.npz."
    return Section("scores", "Scores", text, table)


def models(accuracies: Mapping[str, plausibility.Accuracy], doubts: Sequence[str]) -> Section:
    """The accuracy of every model on its labels: whether the arrays belong together."""
    rows: list[tuple[Cell, ...]] = []
    for name, accuracy in accuracies.items():
        overall = accuracy.each[:, 0]
        span = f"{overall.min():.3f} to {overall.max():.3f}" if len(overall) > 1 else ""
        means = map(float, accuracy.each.mean(0))
        rows.append((name, len(overall), accuracy.samples, *means, span, accuracy.shuffled))
    table = Table(
        "Accuracy of the models on their labels",
        "Means over models; shuffled = what labels in any order would give.",
        ("logits", "models", "samples", "accuracy", "retained", "forgotten", "lowest to highest", "shuffled"),
        tuple(rows),
    )
    text = " ".join(doubts) or "Labels and models fit together, and no model is a copy of another."
    return Section("models", "Do the arrays belong together?", text, table)
