"""The report on Unlearning-Leaks: first screen, tables, figures, files."""

import math
from typing import Any

import numpy as np

from jaxunlearn.analyses.base import SMALL_AUC
from jaxunlearn.analyses.leaks.measures import FeatureMetrics, Leaks
from jaxunlearn.attacks.leaks import features
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.registry import METRICS
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import pair_figures
from jaxunlearn.report.section import Section

STEM = "leaks"
WIDTH = 150
SHOWN = 20  # records that the report lists
ATTACKS = {"dt": "decision tree", "rf": "random forest", "lr": "logistic regression", "mlp": "network",
           "threshold": "threshold"}  # fmt: skip
ASKED, FOUND, NOT_FOUND, ACTION = "What was asked", "What was found", "What could not be found", "What to do"
FILES = (
    ("leaks.npz", "per target record: deleted, ids, score and probability of every attack, distance"),
    ("leaks.json", "per feature: every number with its interval"),
    ("leaks.csv", "target records, those the attack is surest of first"),
)


def report_metrics(leaks: Leaks) -> FeatureMetrics:
    """Returns the feature fixed in advance; for a threshold attack, which may lack it, the distance."""
    return leaks.features.get(leaks.report_feature) or next(iter(leaks.features.values()))


def summary(leaks: Leaks) -> tuple[tuple[str, str], ...]:
    """Returns questions and answers in the order of the first screen."""
    return (
        (ASKED, question_text(leaks)), (FOUND, answer_text(leaks)), (NOT_FOUND, limitations_text(leaks)),
        (ACTION, action(leaks)),
    )  # fmt: skip


def question_text(leaks: Leaks) -> str:
    """Describes what the attacker knows and wants."""
    target, main = leaks.published.target, report_metrics(leaks)
    deleted, num_shadow = int(target.deleted.sum()), len(leaks.published.shadow.deleted)
    num_negatives = number_format.count(len(target.deleted) - deleted)
    conditions = "" if leaks.defence == "none" else f" What is published of them is defended ({leaks.defence})."
    private = leaks.published.about.get("privacy", "")
    conditions += f" The models are trained with differential privacy: {private}." if private else ""
    shadow_models = "other models" if "shadow side" in leaks.published.about else "models of its own"
    return (
        f"Someone sees the answers of a model before and after records were deleted from it.{conditions} Can this "
        f"person tell {number_format.count(deleted)} deleted records from {num_negatives} never used for training? The "
        f"attack is a {ATTACKS[leaks.attack]} trained on {number_format.count(num_shadow)} records of {shadow_models}; "
        f"the feature {main.name} was fixed in advance."
    )


def answer_text(leaks: Leaks) -> str:
    """Says how much the attack gains from both versions over the original alone."""
    main, base = report_metrics(leaks), leaks.features[features.CLASSICAL]
    gain = main.metrics["gain"]
    auc_original = f"AUC {number_format.bare(base.metrics['auc'])} from the original alone"
    auc_both = f"{number_format.bare(main.metrics['auc'])} from both versions ({main.name})"
    units = f"{number_format.rate(leaks.confidence_level)} intervals, {gain.method}"
    if math.isnan(gain.low):
        return (
            f"The attack has {auc_original} and {auc_both}, without intervals: give the record sets of more than one "
            "model."
        )
    if gain.low > 0:
        verb = "Seeing both versions raises the attack"
    elif gain.high < 0:
        verb = "Seeing both versions is worth less than the original alone"
    else:
        verb = "Seeing both versions is not distinguishable from seeing the original alone"
    sentences = [
        f"{verb}: {auc_original}, {auc_both}, a difference of {number_format.bare(gain, signed=True)} ({units})."
    ]
    rate = main.metrics["tpr_at_fpr_1e-2"]
    sentences.append(
        f"With one false alarm in a hundred it recognises {number_format.rate(rate.value)} of the deleted records. For "
        f"{number_format.rate(main.metrics['deg_count'].value)} of all records the attacker is surer of the truth "
        "than with the original alone."
    )
    alternatives = {
        name: feature for name, feature in leaks.features.items() if name not in (main.name, features.CLASSICAL)
    }
    if alternatives:
        best = max(alternatives, key=lambda name: alternatives[name].metrics["auc"].value)
        if alternatives[best].metrics["auc"].value > main.metrics["auc"].value:
            best_auc = number_format.bare(alternatives[best].metrics["auc"])
            sentences.append(
                f"The best of {len(alternatives) + 1} features, an optimistic maximum: {best}, AUC {best_auc}."
            )
    return " ".join(sentences)


def limitations_text(leaks: Leaks) -> str:
    """States the limits of these arrays and of this attacker."""
    target, statements = leaks.published.target, []
    negatives = int((~target.deleted).sum())
    if negatives < 1000:
        statements.append(
            f"{number_format.count(negatives)} records never used for training show false alarm rates in steps of "
            f"1/{number_format.count(negatives)}: nothing is known about rarer ones."
        )
    if target.unit is None:
        statements.append(
            "Which records share a model is not known, so intervals treat records as independent and are too short "
            "(give target_set)."
        )
    elif len(np.unique(target.repeat)) == 1:
        statements.append(
            "Intervals are over target sets; how much another attacker's shadow models would matter can only be "
            "measured with several repeats."
        )
    statements.append("Another attacker may find more: this is a lower bound on what is revealed.")
    if leaks.defence == "top_k" and target.original.shape[1] == 2:
        statements.append(
            "With two classes top_k = 1 publishes the whole posterior: the second entry follows from the first."
        )
    return " ".join(statements)


def action(leaks: Leaks) -> str:
    """Recommends what the owner of the model should do."""
    gain, auc = (report_metrics(leaks).metrics[name] for name in ("gain", "auc"))
    is_leaking = auc.low > 0.5 and gain.low > 0
    if math.isnan(gain.low):
        return "Measure several record sets (target_set), so that the difference has an interval."
    if is_leaking and leaks.defence == "label":
        return "Even labels reveal the deletion here: answer from one version only, or train with differential privacy."
    if is_leaking:
        return (
            "Do not let the same people query both versions with full posteriors: publish labels only (--defence=label "
            "measures that), batch deletions (a group hides its records), or train with differential privacy."
        )
    if auc.low > 0.5:
        return "The leak comes from the original, not from the deletion: reduce its overfitting first."
    if auc.high > SMALL_AUC:
        return (
            f"Nothing can be concluded: by its interval the AUC of this attack may be anything up to "
            f"{number_format.number(auc.high, bare=True)}. Attack more record sets, or more records of each."
        )
    return (
        f"This attack shows no leak: its AUC is at most {number_format.number(auc.high, bare=True)} "
        f"({number_format.rate(leaks.confidence_level)} interval). That is no proof that nothing leaks: try other "
        "attacks (--attack=rf, lr, mlp, threshold) and more records before relying on it."
    )


def sections(leaks: Leaks) -> list[Section]:
    """Returns all sections of the report."""
    report_sections = [_features(leaks), _distances(leaks)]
    if leaks.published.utility:
        report_sections.append(_overfitting(leaks))
    report_sections.append(_records(leaks))
    return report_sections


def _features(leaks: Leaks) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name, feature in leaks.features.items():
        metrics = feature.metrics
        rows.append((
            name, metrics["auc"], metrics["gain"] if name != features.CLASSICAL else "", metrics["accuracy"],
            metrics["tpr_at_fpr_1e-2"], metrics["deg_count"] if name != features.CLASSICAL else "",
            metrics["deg_rate"] if name != features.CLASSICAL else "", feature.shadow_auc,
        ))  # fmt: skip
    repeats = len(np.unique(leaks.published.target.repeat))
    deviation = f"± standard deviation over {repeats} repeats; " if repeats > 1 else ""
    units = f"{number_format.rate(leaks.confidence_level)} interval over {report_metrics(leaks).metrics['auc'].n} units"
    caption = (
        f"Target records; {deviation}[{units}]. {features.CLASSICAL} sees the original alone; gain = AUC minus its "
        "AUC. DegCount = share of records for which the attacker is surer of the truth with both versions, DegRate = "
        "how much surer on average. High = more is revealed."
    )
    titles = (METRICS[name].title for name in ("auc", "gain", "accuracy", "tpr_at_fpr_1e-2", "deg_count", "deg_rate"))
    header = ("feature", *titles, "AUC on shadow records")
    table = Table("", caption, header, tuple(rows), baselines=(features.CLASSICAL,))
    curves = {}
    target = leaks.published.target
    is_first_repeat = target.repeat == target.repeat.min()
    for name, feature in leaks.features.items():
        points = roc.curve(feature.score[is_first_repeat], target.deleted[is_first_repeat])
        curves[name] = (points.fpr, points.tpr, roc.area(points))
    floor = min(0.1, 1 / max(int((~target.deleted[is_first_repeat]).sum()), 1))
    findings = tuple(finding for feature in leaks.features.values() for finding in feature.metrics.values())
    text = f"The attack is a {ATTACKS[leaks.attack]} per feature, trained on shadow records."
    return Section("leaks_features", "What do both versions together reveal?", text, table,
                   pair_figures.roc(curves, floor), findings)  # fmt: skip


def _distances(leaks: Leaks) -> Section:
    target = leaks.published.target
    rows: list[tuple[Cell, ...]] = []
    for kind, name in ((target.deleted, "deleted"), (~target.deleted, "never trained on")):
        distances = leaks.distance[kind]
        quantiles = (float(np.quantile(distances, share)) for share in (0.1, 0.5, 0.9))
        rows.append((name, len(distances), *quantiles, float(distances.mean())))
    table = Table("", "Euclidean distance between the two published posteriors of a record.",
                  ("records", "number", "10 %", "median", "90 %", "mean"), tuple(rows))  # fmt: skip
    text = "Where the answers to deleted records change more than others, no classifier is needed to tell them apart."
    return Section("leaks_distances", "How much do the answers change?", text, table,
                   pair_figures.distances(leaks.distance, target.deleted))  # fmt: skip


def _overfitting(leaks: Leaks) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for side, utility in leaks.published.utility.items():
        gap = utility.train - utility.test
        rows.append((side, len(gap), float(utility.train.mean()), float(utility.test.mean()), float(gap.min()),
                     float(gap.mean()), float(gap.max())))  # fmt: skip
    header = ("side", "original models", "train accuracy", "test accuracy", "smallest gap", "mean gap", "largest gap")
    caption = "Accuracy on the records of the set and on records of the same side never used for training."
    text = "Overfitted models leak more even without a second version."
    return Section("leaks_overfitting", "How overfitted are the original models?", text,
                   Table("", caption, header, tuple(rows)))  # fmt: skip


def records_table(leaks: Leaks, max_rows: int = 0) -> Table:
    """Tabulates the target records, the most certainly deleted ones first; at most `max_rows`, 0 = all."""
    target, main, base = leaks.published.target, report_metrics(leaks), leaks.features[features.CLASSICAL]
    names = target.ids if target.ids is not None else np.arange(len(target.deleted))
    unit = target.unit if target.unit is not None else np.full(len(names), -1)
    order = np.argsort(-main.score, kind="stable")
    rows = []
    for row in order[: max_rows or None]:
        rows.append((
            str(names[row]), int(unit[row]) if target.unit is not None else "",
            "deleted" if target.deleted[row] else "never trained on", float(main.probability[row]),
            float(base.probability[row]), float(leaks.distance[row]),
        ))  # fmt: skip
    header = ("record", "set", "truth", f"P(deleted), {main.name}", "P(deleted), original alone", "distance")
    return Table("", "The most certain first.", header, tuple(rows))


def _records(leaks: Leaks) -> Section:
    main, target = report_metrics(leaks), leaks.published.target
    order = np.argsort(-main.score, kind="stable")[:SHOWN]
    num_correct = int(target.deleted[order].sum())
    text = (
        f"Of the {len(order)} records that the attacker is surest of, {num_correct} were deleted. All are in leaks.csv."
    )
    return Section(
        "leaks_records", "Which records are revealed most clearly?", text, records_table(leaks, SHOWN), printed=False
    )


def plain(leaks: Leaks) -> dict[str, Any]:
    """Returns the content of leaks.json."""
    return {
        "attack": leaks.attack, "defence": leaks.defence, "chosen": report_metrics(leaks).name,
        "records": {"shadow": len(leaks.published.shadow.deleted), "target": len(leaks.published.target.deleted)},
        "features": {
            name: {
                **{key: [finding.value, finding.low, finding.high, finding.std]
                   for key, finding in feature.metrics.items()},
                "shadow_auc": feature.shadow_auc,
            }
            for name, feature in leaks.features.items()
        },
        "utility": {side: {"train": utility.train.tolist(), "test": utility.test.tolist()}
                    for side, utility in leaks.published.utility.items()},
    }  # fmt: skip


def arrays(leaks: Leaks) -> dict[str, np.ndarray]:
    """Returns the content of leaks.npz."""
    target = leaks.published.target
    columns = {"deleted": target.deleted, "repeat": target.repeat, "distance": leaks.distance}
    if target.unit is not None:
        columns["set"] = target.unit
    if target.ids is not None:
        columns["ids"] = target.ids
    for name, feature in leaks.features.items():
        columns |= {f"{name}__score": feature.score, f"{name}__probability": feature.probability}
    return columns
