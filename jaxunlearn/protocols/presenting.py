"""What an audit found as pieces of a report: a title, a sentence or two, a table, a figure, findings."""

import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import progress, scores
from jaxunlearn.protocols import binui, class_report, evidence, scoreui, sweeps, verdicts
from jaxunlearn.records import Finding
from jaxunlearn.report import bars, curves, tables, words
from jaxunlearn.report.cells import Cell, Table

COLUMNS = {
    "auc": "AUC ↑",
    "balanced_accuracy": "bal. acc ↑",
    "tpr_at_fpr_1e-2": "TPR@FPR 1e-2 ↑",
    "tpr_at_fpr_1e-3": "TPR@FPR 1e-3 ↑",
    "tnr_at_fnr_1e-2": "TNR@FNR 1e-2 ↑",
    "tnr_at_fnr_1e-3": "TNR@FNR 1e-3 ↑",
}
LEVEL_COLUMNS = {"spearman": "Spearman ↑", "pearson": "Pearson ↑", "mse": "MSE ↓", "kl": "KL ↓"}
# Shown as curves; all scores stand in the tables.
CURVES = ("iam_on", "iam_off", "rmia_on", "lira_on", "emia_r", "unleak", "confidence", "random")


WORST = 12
WIDTH = 110
VERDICT = {2: "not forgotten", 1: "cannot tell", 0: "forgotten"}
ORIGIN = {
    "shadows": "shadow models in the unlearned model's place",
    "population": "population samples in the audited model",
}


class Piece(NamedTuple):
    """One section of a report.

    Attributes:
      name: of its files; title; text: a few sentences.
      table, figure: or None; findings: the numbers behind it.
    """

    name: str
    title: str
    text: str
    table: Table | None = None
    figure: Any = None
    findings: tuple[Finding, ...] = ()


def scoreboard(board: binui.Scoreboard, role: str, name: str) -> list[Piece]:
    """Table of all scores, log-log ROC, histograms."""
    groups, sets, samples = next(iter(board.scored.values.values())).shape
    truth = board.scored.truth
    forgotten = int((~truth).sum())
    said = [
        f"{sets} forget set(s), {forgotten:,} forgotten and {truth.size - forgotten:,} retained samples pooled, "
        f"{groups} group(s) of shadow models. Positive = retained; ± is the deviation over groups.",
        words.best_score({score: row["auc"] for score, row in board.table.items()}),
    ]
    said += [words.compare(score, "confidence", gain) for score, gain in board.gains.items() if score in CURVES[:2]]
    if board.scored.skipped:
        said.append("Skipped: " + "; ".join(f"{score} {why}" for score, why in board.scored.skipped.items()) + ".")
    table = Table(
        f"Scores against exact retraining ({role})" if role else "Scores against the truth given",
        f"Pooled over {sets} forget set(s) of {samples:,} samples; {_method(board)}.",
        ("score", *COLUMNS.values()),
        tuple((score, *(row[column] for column in COLUMNS)) for score, row in board.table.items()),
    )
    found = tuple(finding for row in board.table.values() for finding in row.values()) + tuple(board.gains.values())
    shown = [score for score in CURVES if score in board.scored.values] or list(board.scored.values)[:8]
    lines = {score: (board.scored.values[score][0].reshape(-1), truth.reshape(-1)) for score in shown}
    densities = {score: value for score, value in lines.items() if score != "random"} or lines
    return [
        Piece(name, "How well does each score tell forgotten from retained?", " ".join(said), table, None, found),
        Piece(
            f"{name}_roc", "ROC on logarithmic axes",
            "Retained samples recognised against forgotten samples mistaken for retained; shadow group 0.",
            figure=curves.roc(lines),
        ),
        Piece(
            f"{name}_histograms", "How the scores are distributed", "Higher = still looks trained on; shadow group 0.",
            figure=curves.histograms(densities),
        ),
    ]  # fmt: skip


def _method(board: binui.Scoreboard) -> str:
    first = next(iter(board.table.values()))["auc"]
    return f"{round(100 * first.level)} % intervals: {first.method}"


def levels(found: scoreui.Levels) -> list[Piece]:
    """Table and curves of ScoreUI."""
    if not found.table:
        return []
    trainings, snapshots = next(iter(found.curves.values())).shape
    table = Table(
        "Agreement with the amount of training",
        f"{trainings} training(s) of all target rows, {snapshots} snapshots each, truth b / B for every sample; mean "
        "over trainings, ± over shadow groups, intervals over trainings.",
        ("score", *LEVEL_COLUMNS.values()),
        tuple((score, *(row[column] for column in LEVEL_COLUMNS)) for score, row in found.table.items()),
    )
    lines = {
        score: (values.mean(0), values.min(0), values.max(0))
        for score, values in found.curves.items()
        if score in CURVES and score != "random"
    }
    best = next(iter(found.table))
    text = (
        f"{best} follows the amount of training best (Spearman {found.table[best]['spearman'].value:.3f}). Snapshots "
        "of training from weights that never saw the samples; a score should rise with the epochs for every sample."
    )
    findings = tuple(finding for row in found.table.values() for finding in row.values())
    figure = curves.scoreui(found.parts, lines)
    return [Piece("scoreui", "Does the score grow with how much was trained?", text, table, figure, findings)]


def counts(found: sweeps.Sweep) -> list[Piece]:
    """AUC against the number of shadow models."""
    table = Table(
        "AUC against the number of shadow models per group",
        "Groups per column: " + ", ".join(f"{value}: {n}" for value, n in zip(found.values, found.groups, strict=True)),
        ("score", *(f"S = {value}" for value in found.values)),
        tuple((name, *line) for name, line in found.lines.items()),
    )
    figure = curves.against_shadows(found.values, found.lines)
    findings = tuple(finding for line in found.lines.values() for finding in line)
    text = "How much an audit gains from more shadow models; published: one is nearly enough for IAM."
    return [Piece("shadow_sweep", "How many shadow models are needed?", text, table, figure, findings)]


def sensitivity(found: sweeps.Sweep) -> list[Piece]:
    """AUC against interpolation levels, per e1 and e2."""
    table = Table(
        "AUC of IAM against interpolation levels", "2 levels mean no interpolation.",
        ("line", *(f"I = {value}" for value in found.values)),
        tuple((name, *line) for name, line in found.lines.items()),
    )  # fmt: skip
    drawn = {name: line for name, line in found.lines.items() if name.startswith("iam_on")} or found.lines
    figure = curves.sensitivity(found.values, dict(list(drawn.items())[:8]))
    findings = tuple(finding for line in found.lines.values() for finding in line)
    text = "How much IAM depends on its constants."
    return [Piece("sensitivity", "What do the constants matter?", text, table, figure, findings)]


def sources(found: dict[str, binui.Scoreboard]) -> list[Piece]:
    """One column of AUC per source of shadows."""
    names = list(dict.fromkeys(name for board in found.values() for name in board.table))
    rows = tuple(
        (name, *(board.table[name]["auc"] if name in board.table else "–" for board in found.values()))
        for name in names
    )
    table = Table("AUC by source of the shadow models", "", ("score", *(f"{name} ↑" for name in found)), rows)
    findings = tuple(row["auc"] for board in found.values() for row in board.table.values())
    text = "The same audited models, judged with shadow models of other runs."
    return [Piece("shadow_sources", "Whose shadow models?", text, table, None, findings)]


def by_class(found: class_report.Report) -> list[Piece]:
    """Over- and under-unlearning."""
    header = ("role", "forget set", "AUC ↑", "weighted BCE ↓", "retained mean", "± sd", "lowest tenth",
              "forgotten mean", "± sd", "highest tenth")  # fmt: skip

    def cells(role: str, where: str, row: Any, place: Any = ...) -> tuple:
        kept, left = row.retained, row.forgotten
        numbers = (row.auc, row.weighted_bce, kept.mean, kept.std, kept.tail, left.mean, left.std, left.tail)
        return (role, where, *(float(np.asarray(number)[place]) for number in numbers))

    rows = [cells(role, "all", one.pooled) for role, one in found.roles.items()]
    rows += [
        cells(role, name, one.classes, place)
        for role, one in found.roles.items()
        if role != "random"
        for place, name in enumerate(found.names)
    ]
    caption = "Membership by IAM-On of shadow group 0. Compare with the row of exact retraining."
    table = Table("Membership by forgotten class", caption, header, tuple(rows))
    said = ["Forgotten above exact retraining: under-unlearning. Retained (lowest tenth) below it: over-unlearning."]
    for role, gap in found.gaps.items():
        if role not in ("retrained", "random"):
            said.append(
                f"{role}: under-unlearning {float(gap.under):+.3f}, over-unlearning {float(gap.over):+.3f} (worst "
                f"tenth {float(gap.over_tail):+.3f})."
            )
    pooled = [one.pooled for one in found.roles.values()]
    figure = bars.classes(
        list(found.roles),
        np.array([(row.retained.mean, row.retained.std) for row in pooled]),
        np.array([(row.forgotten.mean, row.forgotten.std) for row in pooled]),
    )
    return [Piece("class_report", "Over- and under-unlearning by class", " ".join(said), table, figure)]


def decisions(found: dict[str, verdicts.Verdicts], truth: verdicts.Calibration | None) -> list[Piece]:
    """The verdict table, and how far its p-values can be trusted."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (role, int(one.counts.sum()), *(int(number) for number in one.counts)) for role, one in found.items()
    )
    first = next(iter(found.values()))
    table = Table(
        "Verdicts on the samples asked to be forgotten",
        f"Score {first.score}, false discovery rate {first.level:g} per forget set, null: "
        f"{len(first.null.values[0]):,} scores of {ORIGIN[first.null.calibration]}.",
        ("audited model", "samples", "not forgotten", "cannot tell", "forgotten"),
        rows,
    )
    said = [
        "Not forgotten: higher than models that never saw the data would score. Forgotten: lower than samples the "
        "model was trained on. Both controlled for multiple testing (Benjamini-Hochberg)."
    ]
    findings: tuple[Finding, ...] = ()
    drift = first.null.drift
    if drift is not None:
        said.append("The null of the shadow models, measured:")
        said.append(words.calibration_sentence(drift.rate, first.level, "population samples, which no model saw"))
        if first.null.calibration == "population":
            said.append("It was not used; the null is that of the population samples.")
        findings += (drift.rate,)
    elif scores.uses_original(first.score):
        said.append(
            f"{first.score} reads the original model: how far its null drifts cannot be measured on population samples."
        )
    if truth is not None:
        said.append(words.calibration_sentence(truth.rate, first.level))
        findings += (truth.rate,)
    pieces = [Piece(
        "verdicts", "Which samples are forgotten?", " ".join(said), table,
        bars.verdicts(list(found), np.stack([one.counts for one in found.values()])), findings,
    )]  # fmt: skip
    shown = truth or drift
    if shown is not None:
        pieces.append(Piece(
            "calibration", "Can the p-values be trusted?",
            f"P-values of samples that no audited model saw must be uniform: Kolmogorov-Smirnov distance "
            f"{shown.distance:.3f}, p = {shown.p_value:.2g}.",
            figure=bars.calibration(shown.p_out, first.level),
        ))  # fmt: skip
    return pieces


def worst(found: verdicts.Verdicts, rows: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = ()) -> Piece:
    """The requested samples that look most trained on, by their p-value.

    Args:
      found: of the audited role.
      rows: [N] numbers by which the user knows the samples.
      labels: [N].
      names: of the classes; may be empty.
    """
    asked = np.argwhere(found.codes >= 0)
    p_out = found.p_out[tuple(asked.T)]
    first = asked[np.lexsort((-found.values[tuple(asked.T)], p_out))][:WORST]
    cells: tuple[tuple[Cell, ...], ...] = tuple(
        (
            str(rows[sample]),
            str(number),
            names[labels[sample]] if names else str(labels[sample]),
            float(found.values[number, sample]),
            f"{found.p_out[number, sample]:.2g}",
            VERDICT[int(found.codes[number, sample])],
        )
        for number, sample in first
    )
    header = ("sample", "forget set", "class", f"{found.score}", "p (never seen)", "verdict")
    table = Table(
        "Samples that look most trained on", "p-values before the control for multiple testing.", header, cells
    )
    return Piece("worst", "Which samples should be looked at first?", "", table)


def answer(
    found: verdicts.Verdicts | None,
    retrained: verdicts.Verdicts | None,
    level: float,
    obstacle: str,
    *,
    audited: str = "",
    original: verdicts.Verdicts | None = None,
) -> str:
    """The first line: what the verdicts on the audited role say, beside exact retraining and no unlearning at all."""
    if found is None:
        return words.answer(None, level=level, obstacle=obstacle)
    sentence = words.answer(
        _counts(found),
        level=level,
        retrained=None if retrained is None else _counts(retrained),
        requested=found.p_in is not None,
        exact=audited == "retrained",
    )
    if original is not None:
        whole = int(original.counts.sum())
        sentence += f" Of the original model, which forgot nothing, it is {int(original.counts[0]):,} of {whole:,}."
    return f"Exact retraining, audited as if it were a method: {sentence}" if audited == "retrained" else sentence


def _counts(found: verdicts.Verdicts) -> words.Verdicts:
    remembered, unclear, forgotten = map(int, found.counts)
    return words.Verdicts(remembered, unclear, forgotten if found.p_in is not None else None)


def headline(pieces: list[Piece]) -> str:
    """The first line of a report without verdicts: the text of its first piece."""
    return pieces[0].text if pieces else "Nothing was measured."


def of_arrays(found: evidence.Audit) -> tuple[list[Piece], str]:
    """Pieces and first line of an audit of given arrays."""
    said = answer(found.verdicts, None, found.verdicts.level if found.verdicts else 0.05, found.undecided)
    pieces = scoreboard(found.board, "", "scores") if found.board is not None else [summary(found)]
    if found.verdicts is not None:
        made = decisions({"given model": found.verdicts}, None)
        made.insert(1, worst(found.verdicts, np.arange(len(found.labels)), found.labels))
        pieces = made + pieces
    return pieces, said


def summary(found: evidence.Audit) -> Piece:
    """Scores without truth: what they look like."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(float(np.quantile(one.values, q)) for q in (0.0, 0.25, 0.5, 0.75, 1.0)))
        for name, one in found.result.scores.items()
    )
    header = ("score", "lowest", "quarter", "median", "three quarters", "highest")
    table = Table("Scores (no truth given)", "Higher = still looks trained on.", header, rows)
    text = "The file holds no `forgotten` array, so scores cannot be judged; they are in scores.npz."
    return Piece("scores", "Scores", text, table)


def text(pieces: Iterable[Piece]) -> str:
    """What the terminal shows: every piece with a table, its sentences below."""
    shown = [
        f"{tables.text(piece.table)}\n\n{textwrap.fill(piece.text, WIDTH)}".rstrip()
        for piece in pieces
        if piece.table is not None
    ]
    return "\n\n\n".join(shown)


def provenance(options: scores.Options, seconds: float, versions: dict[str, Any], **facts: Any) -> dict[str, str]:
    """What a reader needs to repeat the audit."""
    constants = ", ".join(f"{name} {value:g}" for name, value in options.constants._asdict().items())
    return {
        **{name: str(value) for name, value in facts.items()},
        "constants": constants,
        "compat": options.compat,
        "IAM": f"{options.levels} levels, {options.family}, {options.spread} spread",
        "time": progress.duration(seconds),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }
