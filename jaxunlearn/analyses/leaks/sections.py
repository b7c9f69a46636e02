"""What Unlearning-Leaks says: the first screen, tables, figures, files. Numbers only."""

import math
from typing import Any

import numpy as np

from jaxunlearn.analyses.leaks.measures import STATISTICS, FeatureMetrics, Leaks
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
    ("leaks.csv", "target records, those that give themselves away most first"),
)


def report_metrics(found: Leaks) -> FeatureMetrics:
    """The feature chosen beforehand; of a threshold attack, which does not know all, the distance."""
    return found.features.get(found.report_feature) or next(iter(found.features.values()))


def summary(found: Leaks) -> tuple[tuple[str, str], ...]:
    """Question and answer, in the order of the first screen."""
    return ((ASKED, asked(found)), (FOUND, in_words(found)), (NOT_FOUND, not_found(found)), (ACTION, action(found)))


def asked(found: Leaks) -> str:
    """What the attacker knows and wants."""
    target, main = found.inputs.target, report_metrics(found)
    deleted, known = int(target.deleted.sum()), len(found.inputs.shadow.deleted)
    others = number_format.count(len(target.deleted) - deleted)
    shown = "" if found.defence == "none" else f" What is published of them is defended ({found.defence})."
    private = found.inputs.about.get("privacy", "")
    shown += f" The models are trained with differential privacy: {private}." if private else ""
    foreign = "other models" if "shadow side" in found.inputs.about else "models of its own"
    return (
        f"Someone sees the answers of a model before and after records were deleted from it.{shown} Can this person "
        f"tell {number_format.count(deleted)} deleted records from {others} that nobody trained on? The attack is a "
        f"{ATTACKS[found.attack]} trained on {number_format.count(known)} records of {foreign}; the feature "
        f"{main.name} was chosen before any number was seen."
    )


def in_words(found: Leaks) -> str:
    """The answer: the pair against the original alone."""
    main, base = report_metrics(found), found.features[features.CLASSICAL]
    gain = main.metrics["gain"]
    first = f"AUC {number_format.bare(base.metrics['auc'])} from the original alone"
    second = f"{number_format.bare(main.metrics['auc'])} from both versions ({main.name})"
    units = f"{number_format.rate(found.confidence_level)} intervals, {gain.method}"
    if math.isnan(gain.low):
        return f"The attack has {first} and {second}, without intervals: give the record sets of more than one model."
    if gain.low > 0:
        verb = "Seeing both versions raises the attack"
    elif gain.high < 0:
        verb = "Seeing both versions is worth less than the original alone"
    else:
        verb = "Seeing both versions is not distinguishable from seeing the original alone"
    sentences = [f"{verb}: {first}, {second}, a difference of {number_format.bare(gain, signed=True)} ({units})."]
    rate = main.metrics["tpr_at_fpr_1e-2"]
    sentences.append(
        f"With one false alarm in a hundred it recognises {number_format.rate(rate.value)} of the deleted records. For "
        f"{number_format.rate(main.metrics['deg_count'].value)} of all records the attacker is surer of the truth "
        "than with "
        f"the original alone."
    )
    others = {name: one for name, one in found.features.items() if name not in (main.name, features.CLASSICAL)}
    if others:
        best = max(others, key=lambda name: others[name].metrics["auc"].value)
        if others[best].metrics["auc"].value > main.metrics["auc"].value:
            shown = number_format.bare(others[best].metrics["auc"])
            sentences.append(f"The best of {len(others) + 1} features, a maximum that flatters: {best}, AUC {shown}.")
    return " ".join(sentences)


def not_found(found: Leaks) -> str:
    """The limits of these arrays and of this attacker."""
    target, said = found.inputs.target, []
    negatives = int((~target.deleted).sum())
    if negatives < 1000:
        said.append(
            f"{number_format.count(negatives)} records that nobody trained on show false alarm rates in steps of "
            f"1/{number_format.count(negatives)}: nothing is known of rarer ones."
        )
    if target.unit is None:
        said.append(
            "Which records share a model is not known, so intervals take records for independent and are too short "
            "(target_set says it)."
        )
    elif len(np.unique(target.repeat)) == 1:
        said.append(
            "Intervals are over target sets; how much another attacker's shadow models would change takes repeats."
        )
    said.append("Another attacker may find more: this is a lower bound of what is revealed.")
    if found.defence == "top_k" and target.original.shape[1] == 2:
        said.append(
            "With two classes top_k = 1 publishes the whole posterior: the second entry follows from the first."
        )
    return " ".join(said)


def action(found: Leaks) -> str:
    """What follows for the owner of the model."""
    gain, auc = (report_metrics(found).metrics[name] for name in ("gain", "auc"))
    leaks = auc.low > 0.5 and gain.low > 0
    if math.isnan(gain.low):
        return "Measure several record sets (target_set), so that the difference has an interval."
    if leaks and found.defence == "label":
        return "Even labels reveal the deletion here: answer from one version only, or train with differential privacy."
    if leaks:
        return (
            "Do not let the same people query both versions with full posteriors: publish labels only (--defence=label "
            "measures that), batch deletions (a group hides its records), or train with differential privacy."
        )
    if auc.low > 0.5:
        return "Not the deletion, but the original alone gives records away: look at its overfitting first."
    return (
        f"This attack shows no leak: its AUC is at most {number_format.number(auc.high, bare=True)} "
        f"({number_format.rate(found.confidence_level)} interval). That is no proof that nothing leaks: try other "
        "attacks (--attack=rf, "
        "lr, mlp, threshold) and more records before relying on it."
    )


def sections(found: Leaks) -> list[Section]:
    """All sections of the report."""
    made = [_features(found), _distances(found)]
    if found.inputs.utility:
        made.append(_overfitting(found))
    made.append(_records(found))
    return made


def _features(found: Leaks) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name, one in found.features.items():
        numbers = one.metrics
        rows.append((
            name, numbers["auc"], numbers["gain"] if name != features.CLASSICAL else "", numbers["accuracy"],
            numbers["tpr_at_fpr_1e-2"], numbers["deg_count"] if name != features.CLASSICAL else "",
            numbers["deg_rate"] if name != features.CLASSICAL else "", one.shadow_auc,
        ))  # fmt: skip
    repeats = len(np.unique(found.inputs.target.repeat))
    spread = f"± standard deviation over {repeats} repeats; " if repeats > 1 else ""
    units = f"{number_format.rate(found.confidence_level)} interval over {report_metrics(found).metrics['auc'].n} units"
    caption = (
        f"Target records; {spread}[{units}]. "
        f"{features.CLASSICAL} sees the original alone; gain = AUC minus its AUC. DegCount = share of records of whose "
        "truth the attacker is surer with both versions, DegRate = how much surer on average. High = more is revealed."
    )
    titles = (METRICS[name].title for name in ("auc", "gain", "accuracy", "tpr_at_fpr_1e-2", "deg_count", "deg_rate"))
    header = ("feature", *titles, "AUC on shadow records")
    table = Table("", caption, header, tuple(rows), baselines=(features.CLASSICAL,))
    curves = {}
    target = found.inputs.target
    first = target.repeat == target.repeat.min()
    for name, one in found.features.items():
        points = roc.curve(one.score[first], target.deleted[first])
        curves[name] = (points.fpr, points.tpr, roc.area(points))
    floor = min(0.1, 1 / max(int((~target.deleted[first]).sum()), 1))
    findings = tuple(finding for one in found.features.values() for finding in one.metrics.values())
    text = f"The attack is a {ATTACKS[found.attack]} per feature, trained on shadow records."
    return Section("leaks_features", "What do both versions together reveal?", text, table,
                   pair_figures.roc(curves, floor), findings)  # fmt: skip


def _distances(found: Leaks) -> Section:
    target = found.inputs.target
    rows: list[tuple[Cell, ...]] = []
    for kind, name in ((target.deleted, "deleted"), (~target.deleted, "never trained on")):
        own = found.distance[kind]
        rows.append((name, len(own), *(float(np.quantile(own, share)) for share in (0.1, 0.5, 0.9)), float(own.mean())))
    table = Table("", "Euclidean distance between the two published posteriors of a record.",
                  ("records", "number", "10 %", "median", "90 %", "mean"), tuple(rows))  # fmt: skip
    text = "Where deleted records move further than others, no classifier is needed to tell them."
    return Section("leaks_distances", "How far do answers move?", text, table,
                   pair_figures.distances(found.distance, target.deleted))  # fmt: skip


def _overfitting(found: Leaks) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for side, one in found.inputs.utility.items():
        gap = one.train - one.test
        rows.append((side, len(gap), float(one.train.mean()), float(one.test.mean()), float(gap.min()),
                     float(gap.mean()), float(gap.max())))  # fmt: skip
    header = ("side", "original models", "train accuracy", "test accuracy", "smallest gap", "mean gap", "largest gap")
    caption = "Accuracy on the records of the set and on records of the same side that nobody trains on."
    text = "Overfitted models give more away, also without a second version."
    return Section("leaks_overfitting", "How overfitted are the original models?", text,
                   Table("", caption, header, tuple(rows)))  # fmt: skip


def records_table(found: Leaks, most: int = 0) -> Table:
    """Target records by how sure the attacker is that they were deleted; `most` of them, 0 = all."""
    target, main, base = found.inputs.target, report_metrics(found), found.features[features.CLASSICAL]
    names = target.ids if target.ids is not None else np.arange(len(target.deleted))
    unit = target.unit if target.unit is not None else np.full(len(names), -1)
    order = np.argsort(-main.score, kind="stable")
    rows = []
    for place in order[: most or None]:
        rows.append((
            str(names[place]), int(unit[place]) if target.unit is not None else "",
            "deleted" if target.deleted[place] else "never trained on", float(main.probability[place]),
            float(base.probability[place]), float(found.distance[place]),
        ))  # fmt: skip
    header = ("record", "set", "truth", f"P(deleted), {main.name}", "P(deleted), original alone", "distance")
    return Table("", "The most certain first.", header, tuple(rows))


def _records(found: Leaks) -> Section:
    main, target = report_metrics(found), found.inputs.target
    order = np.argsort(-main.score, kind="stable")[:SHOWN]
    right = int(target.deleted[order].sum())
    text = f"Of the {len(order)} records that the attacker is surest of, {right} were deleted. All are in leaks.csv."
    return Section(
        "leaks_records", "Which records give themselves away?", text, records_table(found, SHOWN), printed=False
    )


def plain(found: Leaks) -> dict[str, Any]:
    """What leaks.json holds."""
    return {
        "attack": found.attack, "defence": found.defence, "chosen": report_metrics(found).name,
        "records": {"shadow": len(found.inputs.shadow.deleted), "target": len(found.inputs.target.deleted)},
        "features": {
            name: {
                **{key: [one.metrics[key].value, one.metrics[key].low, one.metrics[key].high, one.metrics[key].std]
                   for key in STATISTICS},
                "shadow_auc": one.shadow_auc,
            }
            for name, one in found.features.items()
        },
        "utility": {side: {"train": one.train.tolist(), "test": one.test.tolist()}
                    for side, one in found.inputs.utility.items()},
    }  # fmt: skip


def arrays(found: Leaks) -> dict[str, np.ndarray]:
    """What leaks.npz holds."""
    target = found.inputs.target
    kept = {"deleted": target.deleted, "repeat": target.repeat, "distance": found.distance}
    if target.unit is not None:
        kept["set"] = target.unit
    if target.ids is not None:
        kept["ids"] = target.ids
    for name, one in found.features.items():
        kept |= {f"{name}__score": one.score, f"{name}__probability": one.probability}
    return kept
