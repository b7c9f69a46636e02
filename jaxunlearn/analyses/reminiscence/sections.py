"""What the Reminiscence Attack says: the first screen, tables, figures, files. Numbers only."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.analyses.reminiscence import measures
from jaxunlearn.analyses.reminiscence.measures import STATISTICS, Attack
from jaxunlearn.metrics.registry import METRICS
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import relearning_figures
from jaxunlearn.report.section import Section

STEM = "reminiscence"
WIDTH = 150
ASKED, FOUND, NOT_FOUND, ACTION = "What was asked", "What was found", "What could not be found", "What to do"
FILES = (
    ("reminiscence.npz", "per role: trials with their score, decision, forget set, rate and accuracy by step"),
    ("reminiscence.json", "per role: every number with its interval"),
)
KNOWN = ("original", "retrained")


class Reminiscence(NamedTuple):
    """Everything that was measured.

    Attributes:
      roles: title -> Attack, in the order of the tables; control: title of the retrained models, or "".
      trials: title -> what was attacked, for the file of results.
      threshold: accuracy at which a probe set counts as learned.
      confidence_level: of intervals; about: provenance, empty for a user's arrays.
    """

    roles: dict[str, Attack]
    control: str
    trials: dict[str, Any]
    threshold: float
    confidence_level: float
    about: dict[str, str]


def judged(found: Reminiscence) -> dict[str, Finding]:
    """Roles about which something is said -> the number that says it: the excess over the control, or the AUC.

    Not the accuracy of the attack: its decision may be that forgotten classes are relearned later.
    """
    shown = {}
    for name, attack in found.roles.items():
        if name in (*KNOWN, found.control):
            continue
        number = attack.metrics.get("rea_excess") or attack.metrics.get("auc")
        if number is not None:
            shown[name] = number
    return shown


def least_sets(found: Reminiscence) -> int:
    """The number of forget sets that a comparison with the control needs; 0 without comparisons."""
    levels = [number.confidence_level for number in judged(found).values() if number.metric == "rea_excess"]
    return measures.least_sets(max(levels)) if levels else 0


def verdict(number: Finding) -> str:
    """`residual`, `nothing shown` or `not known`; of both numbers that can say it, 0.5 means: no sooner."""
    if math.isnan(number.low):
        return "not known"
    return "residual" if number.low > 0.5 else "nothing shown"


def summary(found: Reminiscence) -> tuple[tuple[str, str], ...]:
    """Question and answer, in the order of the first screen."""
    return ((ASKED, asked(found)), (FOUND, in_words(found)), (NOT_FOUND, not_found(found)), (ACTION, action(found)))


def asked(found: Reminiscence) -> str:
    """What the attacker has and does."""
    trials = next((attack.trials for attack in found.roles.values() if attack.curve is not None), None)
    if trials is None:
        return (
            "Rows were to be forgotten. Someone has the model, fine-tunes it on rows that were kept, and then asks "
            "LiRA of each single row whether the model was trained on it."
        )
    whose = found.about.get("attacked", "the models themselves")
    return (
        "A class was to be forgotten. Someone has the model "
        f"({whose}), shows it probes of that class together with rows that were kept, "
        "and watches how soon it recognises them. Probes of classes that no model ever saw are the yardstick: what was "
        f"truly forgotten is learned no sooner. Per method and rate {trials[0]} trials of the forgotten class, "
        f"{trials[1]} of unseen ones; learning rate, threshold and direction are fitted on models of other forget sets."
    )


def in_words(found: Reminiscence) -> str:
    """The answer: which models remember, against the control."""
    sentences = [*_class_wise(found), *_sample_wise(found)]
    return " ".join(sentences) if sentences else "Nothing was attacked."


def _class_wise(found: Reminiscence) -> list[str]:
    shown = judged(found)
    sentences = []
    control = found.roles.get(found.control)
    if control is not None and "rea_accuracy" in control.metrics:
        sentences.append(
            f"On retrained models, which never saw the class, the attack is right in "
            f"{number_format.bare(control.metrics['rea_accuracy'])} of trials (balanced; guessing: .5)."
        )
    groups = {kind: [name for name, number in shown.items() if verdict(number) == kind]
              for kind in ("residual", "nothing shown", "not known")}  # fmt: skip
    than = "retrained models relearn it" if control is not None else "classes that no model saw"
    for kind, text in (
        ("residual", f"The forgotten class is relearned sooner than {than} by"),
        ("nothing shown", f"No sooner than {than}, as far as these trials can show, by"),
        ("not known", "Not known, for want of forget sets or because they all agree, of"),
    ):
        if groups[kind]:
            each = [f"{name} ({_of(found, name)})" for name in groups[kind]]
            sentences.append(f"{text} {', '.join(each)}.")
    if shown:
        sentences.append(_meaning(found, len(shown), control is not None))
    return sentences


def _of(found: Reminiscence, name: str) -> str:
    return number_format.bare(judged(found)[name])


def _meaning(found: Reminiscence, count: int, has_control: bool) -> str:
    """What the numbers in brackets are."""
    confidence_level = number_format.rate(found.confidence_level)
    if not has_control:
        return f"In brackets the AUC against unseen classes, .5 = no sooner ({confidence_level} intervals)."
    for_all = f", for all {count} together" if count > 1 else ""
    return f"In brackets the AUC against retrained models, .5 = no sooner ({confidence_level} intervals{for_all})."


def _sample_wise(found: Reminiscence) -> list[str]:
    rows = {name: attack.membership for name, attack in found.roles.items() if attack.membership}
    if not rows:
        return []
    each = [
        f"{name} {number_format.bare(numbers['auc_before'])} as it is, {number_format.bare(numbers['auc_after'])} "
        "after fine-tuning"
        for name, numbers in rows.items()
    ]
    return [f"AUC with which LiRA tells forgotten rows from rows nobody trained on: {'; '.join(each)}."]


def not_found(found: Reminiscence) -> str:
    """The limits of these trials and of this attacker."""
    sentences = []
    if any(attack.curve is not None for attack in found.roles.values()):
        sets = max((number.n or 0) for attack in found.roles.values() for number in attack.metrics.values())
        sentences.append(
            f"Intervals are over {sets} forget set{'s' if sets != 1 else ''}"
            + (": with one there is no other model to fit a decision on." if sets == 1 else ".")
        )
        least = least_sets(found)
        if found.control and sets < least:
            sentences.append(
                f"At least {least} are needed before a difference from retrained models is more than chance: models "
                "take to one class more than to another without remembering it."
            )
        if not found.control:
            sentences.append(
                "There is no retrained model among them, so a class that is easy to learn looks like one that was "
                "remembered: compare with .5 only where classes are alike."
            )
        sentences.append(
            "The column called published takes the best threshold and rate on the trials it is reported of; it is "
            "above .5 by chance alone."
        )
    slow = [
        name for name, attack in found.roles.items()
        if attack.curve is not None and max(attack.curve.forgotten.max(), attack.curve.unseen.max()) < 0.5
    ]  # fmt: skip
    if slow:
        sentences.append(
            f"Hardly any probe was learned at all on {', '.join(slow)}: larger rates (--learning_rates) or more steps "
            "may show what these trials cannot."
        )
    sentences.append("Another attacker may find more: an attack that fails proves nothing forgotten.")
    return " ".join(sentences)


def action(found: Reminiscence) -> str:
    """What follows for whoever is responsible."""
    shown = judged(found)
    if any(attack.membership for attack in found.roles.values()):
        return "Compare each method with the retrained models' line: what lies above it is left in the weights."
    residual = [name for name, number in shown.items() if verdict(number) == "residual"]
    if residual and not found.control:
        return (
            f"Attack retrained models as well before you conclude anything of {', '.join(residual)}: a class that is "
            "easy to learn comes back as soon as one that is remembered."
        )
    if residual:
        return (
            f"Do not hand out the weights of {', '.join(residual)}: what was forgotten comes back from a few probes. "
            "Retrain, or try METHOD+our (over-unlearning and Replay) and attack again."
        )
    if shown and all(verdict(number) == "nothing shown" for number in shown.values()):
        return "This attack shows no residual. Try other rates and more forget sets before relying on it."
    return "Attack models of several forget sets (split.forget.count), so that the numbers have intervals."


def sections(found: Reminiscence) -> list[Section]:
    """All sections of the report."""
    made = []
    if any(attack.curve is not None for attack in found.roles.values()):
        made.append(_attacks(found))
    if any(attack.recovery is not None for attack in found.roles.values()):
        made.append(_recovery(found))
    if any(attack.membership for attack in found.roles.values()):
        made.append(_membership(found))
    return made


def _attacks(found: Reminiscence) -> Section:
    names = [name for name, attack in found.roles.items() if attack.curve is not None]
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        numbers = found.roles[name].metrics
        rows.append((name, numbers.get("rea_excess", ""), *(numbers[one] for one in STATISTICS)))
    count = max(found.roles[name].metrics["auc"].n or 0 for name in names)
    caption = (
        f"[{number_format.rate(found.confidence_level)} interval over {count} forget sets]. AUC vs retrained = "
        "trials of the forgotten "
        "class against the same trials on the retrained model of the same set, each measured from the unseen "
        "classes on its own model; intervals for all models together. ReA accuracy = forgotten against unseen "
        "classes, balanced, decision fitted on other sets' models; published = best threshold and rate on these very "
        "trials; steps = mean over sets of the median step at which "
        f"{number_format.rate(found.threshold)} of the probes are recognised. High = more is left; .5 = nothing."
    )
    header = ("models", *(METRICS[name].title for name in ("rea_excess", *STATISTICS)))
    table = Table("", caption, header, tuple(rows), baselines=(*KNOWN, found.control))
    curves = {name: found.roles[name].curve for name in names}
    findings = tuple(number for name in names for number in found.roles[name].metrics.values())
    text = "What was forgotten in name only is recognised after fewer steps than a class that no model ever saw."
    return Section("reminiscence_attack", "Is the forgotten class relearned too soon?", text, table,
                   relearning_figures.trajectories(curves), findings)  # fmt: skip


def _recovery(found: Reminiscence) -> Section:
    lines = {name: attack.recovery for name, attack in found.roles.items() if attack.recovery is not None}
    rows: list[tuple[Cell, ...]] = []
    for name, recovery in lines.items():
        steps = measures.returned_after(recovery)
        back = int(np.isfinite(steps).sum())
        median = float(np.median(steps[np.isfinite(steps)])) if back else float("nan")
        rows.append((name, float(recovery.before.mean()), float(recovery.accuracy[:, -1].mean()),
                     float(recovery.accuracy.max(1).mean()), f"{back} of {len(steps)}", median))  # fmt: skip
    header = ("models", "before", "after", "highest", "half came back in", "median steps")
    steps = max(recovery.accuracy.shape[1] for recovery in lines.values())
    caption = (
        f"Accuracy on forgotten rows while the model is fine-tuned for {number_format.count(int(steps))} steps on "
        "retained "
        "rows alone; means over forget sets; steps until half of the forgotten rows are recognised, of the sets where "
        "that happened."
    )
    control = lines.get(found.control)
    if control is not None and control.before.mean() > 0.5:
        text = (
            "Most of these rows are answered rightly by models that never saw them: only what lies above that counts."
        )
    else:
        text = "Forgotten rows that come back without being shown were hidden, not removed."
    figure = relearning_figures.recovery({name: one.accuracy.mean(0) for name, one in lines.items()},
                                         next(iter(lines.values())).per_epoch)  # fmt: skip
    return Section("reminiscence_recovery", "What comes back from retained rows alone?", text,
                   Table("", caption, header, tuple(rows), baselines=(*KNOWN, found.control)), figure)  # fmt: skip


def _membership(found: Reminiscence) -> Section:
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    for name, attack in found.roles.items():
        if attack.membership:
            rows.append((name, attack.membership["auc_before"], attack.membership["auc_after"]))
            findings += attack.membership.values()
    caption = (
        "AUC of LiRA, forgotten rows against rows that nobody trained on; "
        f"[{number_format.rate(found.confidence_level)} interval over "
        "forget sets]. Retrained models never saw the forgotten rows: .5 is expected there."
    )
    header = ("models", *(METRICS[name].title for name in ("auc_before", "auc_after")))
    table = Table("", caption, header, tuple(rows), baselines=(*KNOWN, found.control))
    text = "Fine-tuning on retained rows can bring back what unlearning only covered up."
    return Section("reminiscence_rows", "Does LiRA find forgotten rows?", text, table, None, tuple(findings))


def plain(found: Reminiscence) -> dict[str, Any]:
    """What reminiscence.json holds."""

    def numbers(findings: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
        return {name: [one.value, one.low, one.high] for name, one in findings}

    return {
        "control": found.control, "confidence_level": found.confidence_level, "threshold": found.threshold,
        "roles": {
            name: {
                "trials": list(attack.trials),
                **numbers(list(attack.metrics.items())), **numbers(list(attack.membership.items())),
                **({} if attack.curve is None else {"rate": attack.curve.rate}),
                **({} if attack.recovery is None else {"steps_until_back": measures.returned_after(attack.recovery)
                                                       .tolist()}),
            }
            for name, attack in found.roles.items()
        },
    }  # fmt: skip


def arrays(found: Reminiscence) -> dict[str, np.ndarray]:
    """What reminiscence.npz holds; in the layout that --trajectories reads where there are trials."""
    kept: dict[str, list[np.ndarray]] = {}
    for name, attack in found.roles.items():
        trials = found.trials[name].trials
        if trials is None:
            continue
        columns = {
            "accuracy": trials.accuracy, "forgotten": trials.forgotten, "set": trials.unit, "rate": trials.rate,
            "model": np.full(len(trials.unit), name), "score": attack.scores, "called_forgotten": attack.called,
            "judged": attack.decided,
        }  # fmt: skip
        for key, values in columns.items():
            kept.setdefault(key, []).append(np.asarray(values))
    joined = {key: np.concatenate(values) for key, values in kept.items()}
    for name, attack in found.roles.items():
        if attack.recovery is not None:
            joined[f"recovery__{name}"] = attack.recovery.accuracy
    return joined
