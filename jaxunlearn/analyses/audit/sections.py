"""Sections of the report on an audit: title, text, table, figure and findings of each result."""

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
# Scores drawn as curves; the tables list all. Of logits, then of texts: at most 8 of each.
CURVES = ("iam_on", "iam_off", "rmia_on", "lira_on", "emia_r", "unleak", "confidence",
          "lm_iam", "lm_rmia", "lm_lira", "lm_ratio", "lm_zlib", "lm_min_k", "lm_loss", "random")  # fmt: skip
FIRST = ("iam_on", "iam_off", "lm_iam")  # compared with the plain score in words


def scoreboard(
    board: scoreboard_records.Scoreboard, role: str, name: str, design: Design, decisive_score: str = ""
) -> list[Section]:
    """Returns a table of all scores, log-log ROC curves and histograms.

    Args:
      board: metrics of all scores.
      role: the audited role; empty = a user's arrays.
      name: of the files.
      design: which originals the audited models start from.
      decisive_score: the score named first, fixed beforehand; empty = the first of `CURVES` that is available.
    """
    groups, sets, samples = next(iter(board.scored.values.values())).shape
    truth = board.scored.truth
    assert truth is not None
    num_forgotten = int((~truth).sum())
    decisive_score = decisive_score or next((score for score in CURVES if score in board.table), "")
    statements = [
        f"{sets} forget set(s), {num_forgotten:,} forgotten and {truth.size - num_forgotten:,} retained samples "
        f"pooled, {groups} group(s) of shadow models. Positive = retained.",
        sentences.best_score({score: row["auc"] for score, row in board.table.items()}, primary=decisive_score),
        sentences.resolution(num_forgotten, truth.size - num_forgotten),
    ]
    statements = list(filter(None, statements))
    statements += [sentences.compare(score, board.plain, gain) for score, gain in board.gains.items() if score in FIRST]
    if board.scored.skipped:
        statements.append(
            "Skipped: " + "; ".join(f"{score} {why}" for score, why in board.scored.skipped.items()) + "."
        )
    table = Table(
        f"Scores against exact retraining ({role})" if role else "Scores against the truth given",
        f"Pooled over {sets} forget set(s) of {samples:,} samples. {_over_groups(board, design)}",
        ("score", *headers(COLUMNS)),
        tuple((score, *(row[column] for column in COLUMNS)) for score, row in board.table.items()),
        baselines=("random",),
    )
    findings = tuple(finding for row in board.table.values() for finding in row.values()) + tuple(board.gains.values())
    names = [score for score in CURVES if score in board.scored.values] or list(board.scored.values)[:8]
    curve_data = {score: (board.scored.values[score][0].reshape(-1), truth.reshape(-1)) for score in names}
    densities = {score: value for score, value in curve_data.items() if score != "random"} or curve_data
    title = "How well does each score tell forgotten from retained?"
    return [
        Section(name, title, " ".join(statements), table, None, findings),
        Section(
            f"{name}_roc", "ROC on logarithmic axes",
            "Retained samples recognised against forgotten samples mistaken for retained; shadow group 0.",
            figure=curves.roc(curve_data),
        ),
        Section(
            f"{name}_histograms", "How the scores are distributed", "Higher = still looks trained on; shadow group 0.",
            figure=curves.histograms(densities),
        ),
    ]  # fmt: skip


def _over_groups(board: scoreboard_records.Scoreboard, design: Design) -> str:
    """Explains ± and [ ] in a table of scores."""
    first = next(iter(board.table.values()))["auc"]
    return sentences.over_groups(design, first.confidence_level, first.method)


def scoreui_sections(result: scoreui.ScoreuiResult, is_texts: bool = False) -> list[Section]:
    """Returns table and curves of ScoreUI: of trainings of classifiers, or of the steps of one training on texts."""
    if not result.table:
        return []
    trainings, snapshots = next(iter(result.curves.values())).shape
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
        tuple((score, *(row[column] for column in LEVEL_COLUMNS)) for score, row in result.table.items()),
        baselines=("random",),
    )
    bands = {
        score: (values.mean(0), values.min(0), values.max(0))
        for score, values in result.curves.items()
        if score in CURVES and score != "random"
    }
    preferred = next((score for score in FIRST if score in result.table), "")
    ranking = sentences.largest_correlation({score: row["spearman"] for score, row in result.table.items()}, preferred)
    text = f"{ranking} A score should rise with the steps for every text." if is_texts else (
        f"{ranking} Snapshots of training from weights that never saw the samples; a score should rise with the epochs "
        "for every sample."
    )  # fmt: skip
    if result.skipped:
        text += f" Left out: {', '.join(result.skipped)}."
    findings = tuple(finding for row in result.table.values() for finding in row.values())
    figure = curves.scoreui(result.degrees, bands)
    return [Section("scoreui", "Does the score grow with the amount of training?", text, table, figure, findings)]


def counts(sweep: sweeps.Sweep, design: Design) -> list[Section]:
    """Returns AUC against the number of shadow models as table and figure."""
    table = Table(
        "AUC against the number of shadow models per group",
        "Groups per column: "
        + ", ".join(f"{value}: {n}" for value, n in zip(sweep.values, sweep.groups, strict=True))
        + f". {_of_sweep(sweep, design)}",
        ("score", *(f"S = {value}" for value in sweep.values)),
        tuple((name, *aucs) for name, aucs in sweep.lines.items()),
        baselines=("random",),
    )
    figure = curves.against_shadows(sweep.values, sweep.lines)
    findings = tuple(finding for aucs in sweep.lines.values() for finding in aucs)
    lead = "AUC by number of shadow models; the paper on IAM reports that one is nearly enough for IAM."
    text = lead + _left_out(sweep)
    return [Section("shadow_sweep", "How many shadow models are needed?", text, table, figure, findings)]


def _left_out(sweep: sweeps.Sweep) -> str:
    """Lists the curves that a sweep lacks, with the reasons."""
    return "".join(f" Left out: {name} ({reason})." for name, reason in sweep.skipped.items())


def _of_sweep(sweep: sweeps.Sweep, design: Design) -> str:
    first = next((aucs[0] for aucs in sweep.lines.values() if aucs), Finding(0.0))
    return sentences.over_groups(design, first.confidence_level, first.method)


def sensitivity(sweep: sweeps.Sweep, design: Design) -> list[Section]:
    """Returns AUC against interpolation steps, per e1 and e2, as table and figure."""
    table = Table(
        "AUC of IAM against interpolation steps", f"2 steps mean no interpolation. {_of_sweep(sweep, design)}",
        ("line", *(f"I = {value}" for value in sweep.values)),
        tuple((name, *aucs) for name, aucs in sweep.lines.items()),
    )  # fmt: skip
    curves_of = {name: aucs for name, aucs in sweep.lines.items() if name.startswith("iam_on")} or sweep.lines
    figure = curves.sensitivity(sweep.values, dict(list(curves_of.items())[:8]))
    findings = tuple(finding for aucs in sweep.lines.values() for finding in aucs)
    text = "Shows how the AUC of IAM changes with its constants." + _left_out(sweep)
    return [Section("sensitivity", "How sensitive is IAM to its constants?", text, table, figure, findings)]


def sources(boards: dict[str, scoreboard_records.Scoreboard], design: Design) -> list[Section]:
    """Tabulates AUC with one column per source of shadow models."""
    names = list(dict.fromkeys(name for board in boards.values() for name in board.table))
    rows = tuple(
        (name, *(board.table[name]["auc"] if name in board.table else "–" for board in boards.values()))
        for name in names
    )
    table = Table(
        "AUC by score and source",
        _over_groups(next(iter(boards.values())), design),
        ("score", *(f"{name} ↑" for name in boards)),
        rows,
        ("random",),
    )
    findings = tuple(row["auc"] for board in boards.values() for row in board.table.values())
    text = "The same audited models, judged with shadow models of other runs."
    return [Section("shadow_sources", "AUC by source of the shadow models", text, table, None, findings)]


def pooled_row(role: str, class_metrics: Any) -> tuple[Cell, ...]:
    """Returns the row of all forget sets: pooled, with t intervals over forget sets, except for standard deviations."""

    def finding(value: Any, by_set: Any, metric: str) -> Finding:
        interval = intervals.mean(np.asarray(by_set), metric=metric, of=role, against="forget sets")
        return dataclasses.replace(interval, value=float(value), method="t over forget sets")

    pooled, by_set = class_metrics.pooled, class_metrics.classes
    cells: list[Cell] = [role, "all"]
    cells += [finding(getattr(pooled, name), getattr(by_set, name), name) for name in ("auc", "weighted_bce")]
    for kind in ("retained", "forgotten"):
        pooled_scores, set_scores = getattr(pooled, kind), getattr(by_set, kind)
        cells.append(finding(pooled_scores.mean, set_scores.mean, f"{kind} mean"))
        cells.append(float(pooled_scores.std))
        cells.append(finding(pooled_scores.tail, set_scores.tail, f"{kind} tail"))
    return tuple(cells)


def by_class(class_metrics: class_report.ClassReport, design: Design) -> list[Section]:
    """Returns over- and under-unlearning by class as table and figure."""
    header = ("role", "forget set", "AUC ↑", "weighted BCE ↓", "retained mean", "± sd", "lowest tenth",
              "forgotten mean", "± sd", "highest tenth")  # fmt: skip

    def cells(role: str, where: str, row: Any, index: Any = ...) -> tuple:
        retained, forgotten = row.retained, row.forgotten
        values = (
            row.auc,
            row.weighted_bce,
            retained.mean,
            retained.std,
            retained.tail,
            forgotten.mean,
            forgotten.std,
            forgotten.tail,
        )
        return (role, where, *(float(np.asarray(value)[index]) for value in values))

    rows = [pooled_row(role, role_metrics) for role, role_metrics in class_metrics.roles.items()]
    rows += [
        cells(role, name, role_metrics.classes, index)
        for role, role_metrics in class_metrics.roles.items()
        if role != "random"
        for index, name in enumerate(class_metrics.names)
    ]
    caption = (
        f"Membership by IAM-On, mean over {class_metrics.groups} group(s) of shadow models. [ ] 95 % interval over "
        f"{sentences.units(design)}. Compare with the row of exact retraining."
    )
    baselines = ("retrained", "original", "random")
    table = Table("Membership by forgotten class", caption, header, tuple(rows), baselines)
    statements = [
        "Forgotten above exact retraining: under-unlearning. Retained (lowest tenth) below it: over-unlearning."
    ]
    for role, gap in class_metrics.gaps.items():
        if role not in ("retrained", "random"):
            statements.append(
                f"{role}: under-unlearning {float(gap.under):+.3f}, over-unlearning {float(gap.over):+.3f} (worst "
                f"tenth {float(gap.over_tail):+.3f})."
            )
    pooled = [role_metrics.pooled for role_metrics in class_metrics.roles.values()]
    figure = verdict_bars.classes(
        list(class_metrics.roles),
        np.array([(row.retained.mean, row.retained.std) for row in pooled]),
        np.array([(row.forgotten.mean, row.forgotten.std) for row in pooled]),
    )
    findings = tuple(cell for row in rows for cell in row if isinstance(cell, Finding))
    return [
        Section("class_report", "Over- and under-unlearning by class", " ".join(statements), table, figure, findings)
    ]


def without_truth(scored: scoreboard_records.RoleScores) -> Section:
    """Tabulates the quantiles of scores that cannot be judged without the truth."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(float(np.quantile(values, q)) for q in quarters)) for name, values in scored.values.items()
    )
    header = ("score", "lowest", "quarter", "median", "three quarters", "highest")
    table = Table("Scores (no truth given)", "Higher = still looks trained on.", header, rows)
    text = "The file contains no `forgotten` array, so scores cannot be judged; they are in scores.npz."
    return Section("scores", "Scores", text, table)


def models(accuracies: Mapping[str, plausibility.Accuracy], doubts: Sequence[str]) -> Section:
    """Tabulates the accuracy of every model on its labels, which shows whether the arrays belong together."""
    rows: list[tuple[Cell, ...]] = []
    for name, accuracy in accuracies.items():
        overall = accuracy.by_model[:, 0]
        span = f"{overall.min():.3f} to {overall.max():.3f}" if len(overall) > 1 else ""
        means = map(float, accuracy.by_model.mean(0))
        rows.append((name, len(overall), accuracy.samples, *means, span, accuracy.shuffled))
    table = Table(
        "Accuracy of the models on their labels",
        "Means over models; shuffled = expected accuracy on shuffled labels.",
        ("logits", "models", "samples", "accuracy", "retained", "forgotten", "lowest to highest", "shuffled"),
        tuple(rows),
    )
    text = " ".join(doubts) or "Labels and models fit together, and no model is a copy of another."
    return Section("models", "Do the arrays belong together?", text, table)
