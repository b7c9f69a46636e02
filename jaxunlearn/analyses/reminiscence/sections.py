"""The report on the Reminiscence Attack: first screen, tables, figures, files."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.analyses.base import SMALL_AUC
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
    """Results of the Reminiscence Attack.

    Attributes:
      roles: title -> Attack, in the order of the tables; control: title of the retrained models, or "".
      trials: title -> RoleTrials, for the result file.
      threshold: accuracy at which a probe set counts as learned.
      confidence_level: of intervals; about: provenance, empty for a user's arrays.
    """

    roles: dict[str, Attack]
    control: str
    trials: dict[str, Any]
    threshold: float
    confidence_level: float
    about: dict[str, str]


def judged(reminiscence: Reminiscence) -> dict[str, Finding]:
    """Returns the finding that decides about each method: its excess over the control, or else its AUC.

    Not the accuracy of the attack: its decision may be that forgotten classes are relearned later.
    """
    findings = {}
    for name, attack in reminiscence.roles.items():
        if name in (*KNOWN, reminiscence.control):
            continue
        finding = attack.metrics.get("rea_excess") or attack.metrics.get("auc")
        if finding is not None:
            findings[name] = finding
    return findings


def least_sets(reminiscence: Reminiscence) -> int:
    """Returns the number of forget sets that a comparison with the control needs; 0 without comparisons."""
    confidence_levels = [
        finding.confidence_level for finding in judged(reminiscence).values() if finding.metric == "rea_excess"
    ]
    return measures.least_sets(max(confidence_levels)) if confidence_levels else 0


def verdict(finding: Finding) -> str:
    """Returns `residual`, `nothing shown` or `not known` for an AUC whose 0.5 means "relearned no sooner".

    Example:
      >>> from jaxunlearn.analyses.reminiscence import sections
      >>> from jaxunlearn.records import Finding
      >>> sections.verdict(Finding(0.9, 0.8, 1.0)), sections.verdict(Finding(0.6, 0.4, 0.8))
      ('residual', 'nothing shown')
    """
    if math.isnan(finding.low):
        return "not known"
    return "residual" if finding.low > 0.5 else "nothing shown"


def summary(reminiscence: Reminiscence) -> tuple[tuple[str, str], ...]:
    """Returns questions and answers in the order of the first screen."""
    return (
        (ASKED, question_text(reminiscence)),
        (FOUND, answer_text(reminiscence)),
        (NOT_FOUND, limitations_text(reminiscence)),
        (ACTION, action(reminiscence)),
    )


def question_text(reminiscence: Reminiscence) -> str:
    """Describes what the attacker has and does."""
    trials = next((attack.trials for attack in reminiscence.roles.values() if attack.curve is not None), None)
    if trials is None:
        return (
            "Rows were to be forgotten. Someone has the model, fine-tunes it on rows that were kept, and then asks "
            "LiRA of each single row whether the model was trained on it."
        )
    models = reminiscence.about.get("attacked", "the models themselves")
    return (
        f"A class was to be forgotten. Someone has the model ({models}), shows it probes of that class together with "
        "rows that were kept, and watches how soon it recognises them. Probes of classes that no model ever saw are "
        "the yardstick: what was truly forgotten is learned no sooner. Per method and rate "
        f"{trials[0]} trials of the forgotten class, {trials[1]} of unseen ones; learning rate, threshold and "
        "direction are fitted on models of other forget sets."
    )


def answer_text(reminiscence: Reminiscence) -> str:
    """Sums up in words which models remember, compared with the control."""
    sentences = [*_class_wise(reminiscence), *_sample_wise(reminiscence)]
    return " ".join(sentences) if sentences else "Nothing was attacked."


def _class_wise(reminiscence: Reminiscence) -> list[str]:
    findings = judged(reminiscence)
    sentences = []
    control = reminiscence.roles.get(reminiscence.control)
    if control is not None and "rea_accuracy" in control.metrics:
        sentences.append(
            f"On retrained models, which never saw the class, the attack is right in "
            f"{number_format.bare(control.metrics['rea_accuracy'])} of trials (balanced; guessing: .5)."
        )
    groups = {kind: [name for name, finding in findings.items() if verdict(finding) == kind]
              for kind in ("residual", "nothing shown", "not known")}  # fmt: skip
    comparison = "retrained models relearn it" if control is not None else "classes that no model saw"
    for kind, text in (
        ("residual", f"The forgotten class is relearned sooner than {comparison} by"),
        ("nothing shown", f"No sooner than {comparison}, as far as these trials can show, by"),
        ("not known", "Unknown (too few forget sets, or no variation among them):"),
    ):
        if groups[kind]:
            names_with_auc = [f"{name} ({_of(reminiscence, name)})" for name in groups[kind]]
            sentences.append(f"{text} {', '.join(names_with_auc)}.")
    if findings:
        sentences.append(_meaning(reminiscence, len(findings), control is not None))
    return sentences


def _of(reminiscence: Reminiscence, name: str) -> str:
    return number_format.bare(judged(reminiscence)[name])


def _meaning(reminiscence: Reminiscence, count: int, has_control: bool) -> str:
    """Explains the numbers in brackets."""
    confidence_level = number_format.rate(reminiscence.confidence_level)
    if not has_control:
        return f"In brackets the AUC against unseen classes, .5 = no sooner ({confidence_level} intervals)."
    for_all = f", for all {count} together" if count > 1 else ""
    return f"In brackets the AUC against retrained models, .5 = no sooner ({confidence_level} intervals{for_all})."


def _sample_wise(reminiscence: Reminiscence) -> list[str]:
    memberships = {name: attack.membership for name, attack in reminiscence.roles.items() if attack.membership}
    if not memberships:
        return []
    statements = [
        f"{name} {number_format.bare(auc_findings['auc_before'])} as it is, "
        f"{number_format.bare(auc_findings['auc_after'])} after fine-tuning"
        for name, auc_findings in memberships.items()
    ]
    return [f"AUC with which LiRA tells forgotten rows from rows never used for training: {'; '.join(statements)}."]


def limitations_text(reminiscence: Reminiscence) -> str:
    """States the limits of these trials and of this attacker."""
    sentences = []
    if any(attack.curve is not None for attack in reminiscence.roles.values()):
        sets = max((finding.n or 0) for attack in reminiscence.roles.values() for finding in attack.metrics.values())
        sentences.append(
            f"Intervals are over {sets} forget set{'s' if sets != 1 else ''}"
            + (": with one there is no other model to fit a decision on." if sets == 1 else ".")
        )
        min_sets = least_sets(reminiscence)
        if reminiscence.control and sets < min_sets:
            sentences.append(
                f"At least {min_sets} are needed before a difference from retrained models is more than chance: models "
                "learn one class faster than another without remembering it."
            )
        if not reminiscence.control:
            sentences.append(
                "There is no retrained model among them, so a class that is easy to learn looks like one that was "
                "remembered: compare with .5 only where classes are alike."
            )
        sentences.append(
            "The column 'published' uses the best threshold and rate on the very trials it is evaluated on, so it "
            "exceeds .5 by chance."
        )
    slow_names = [
        name for name, attack in reminiscence.roles.items()
        if attack.curve is not None and max(attack.curve.forgotten.max(), attack.curve.unseen.max()) < 0.5
    ]  # fmt: skip
    if slow_names:
        sentences.append(
            f"Hardly any probe was learned at all on {', '.join(slow_names)}: larger rates (--learning_rates) or more "
            "steps may show what these trials cannot."
        )
    sentences.append("Another attacker may find more: a failed attack does not prove that anything was forgotten.")
    return " ".join(sentences)


def action(reminiscence: Reminiscence) -> str:
    """Recommends what the owner of the models should do."""
    findings = judged(reminiscence)
    if any(attack.membership for attack in reminiscence.roles.values()):
        return "Compare each method with the retrained models' line: what lies above it is left in the weights."
    residual = [name for name, finding in findings.items() if verdict(finding) == "residual"]
    if residual and not reminiscence.control:
        return (
            f"Attack retrained models as well before you conclude anything about {', '.join(residual)}: a class that "
            "is easy to learn comes back as soon as one that was remembered."
        )
    if residual:
        return (
            f"Do not hand out the weights of {', '.join(residual)}: what was forgotten comes back from a few probes. "
            "Retrain, or try METHOD+our (over-unlearning and Replay) and attack again."
        )
    if findings and all(verdict(finding) == "nothing shown" for finding in findings.values()):
        largest = max(finding.high for finding in findings.values())
        if largest > SMALL_AUC:
            return (
                f"Nothing can be concluded: by the intervals an AUC may be anything up to "
                f"{number_format.number(largest, bare=True)}. Attack models of more forget sets (split.forget.count)."
            )
        return "This attack shows no residual. Try other rates and more forget sets before relying on it."
    return "Attack models of several forget sets (split.forget.count), so that the numbers have intervals."


def sections(reminiscence: Reminiscence) -> list[Section]:
    """Returns all sections of the report."""
    report_sections = []
    if any(attack.curve is not None for attack in reminiscence.roles.values()):
        report_sections.append(_attacks(reminiscence))
    if any(attack.recovery is not None for attack in reminiscence.roles.values()):
        report_sections.append(_recovery(reminiscence))
    if any(attack.membership for attack in reminiscence.roles.values()):
        report_sections.append(_membership(reminiscence))
    return report_sections


def _attacks(reminiscence: Reminiscence) -> Section:
    names = [name for name, attack in reminiscence.roles.items() if attack.curve is not None]
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        metrics = reminiscence.roles[name].metrics
        rows.append((name, metrics.get("rea_excess", ""), *(metrics[statistic] for statistic in STATISTICS)))
    count = max(reminiscence.roles[name].metrics["auc"].n or 0 for name in names)
    caption = (
        f"[{number_format.rate(reminiscence.confidence_level)} interval over {count} forget sets]. AUC vs retrained = "
        "trials of the forgotten class against the same trials on the retrained model of the same set, each "
        "standardised by the unseen classes on its own model; intervals for all models together. ReA accuracy = "
        "forgotten against unseen classes, balanced, decision fitted on other sets' models; published = best threshold "
        "and rate on these very trials; steps = mean over sets of the median step at which "
        f"{number_format.rate(reminiscence.threshold)} of the probes are recognised. High = more is left; .5 = nothing."
    )
    header = ("models", *(METRICS[name].title for name in ("rea_excess", *STATISTICS)))
    table = Table("", caption, header, tuple(rows), baselines=(*KNOWN, reminiscence.control))
    curves = {name: reminiscence.roles[name].curve for name in names}
    findings = tuple(finding for name in names for finding in reminiscence.roles[name].metrics.values())
    text = "What was forgotten in name only is recognised after fewer steps than a class that no model ever saw."
    return Section("reminiscence_attack", "Is the forgotten class relearned too soon?", text, table,
                   relearning_figures.trajectories(curves), findings)  # fmt: skip


def _recovery(reminiscence: Reminiscence) -> Section:
    recoveries = {name: attack.recovery for name, attack in reminiscence.roles.items() if attack.recovery is not None}
    rows: list[tuple[Cell, ...]] = []
    for name, recovery in recoveries.items():
        steps = measures.returned_after(recovery)
        num_returned = int(np.isfinite(steps).sum())
        median = float(np.median(steps[np.isfinite(steps)])) if num_returned else float("nan")
        rows.append((name, float(recovery.before.mean()), float(recovery.accuracy[:, -1].mean()),
                     float(recovery.accuracy.max(1).mean()), f"{num_returned} of {len(steps)}", median))  # fmt: skip
    header = ("models", "before", "after", "highest", "sets with half recovered", "median steps")
    steps = max(recovery.accuracy.shape[1] for recovery in recoveries.values())
    caption = (
        f"Accuracy on forgotten rows while the model is fine-tuned for {number_format.count(int(steps))} steps on "
        "retained rows alone; means over forget sets; steps until half of the forgotten rows are recognised, over the "
        "sets where that happened."
    )
    control = recoveries.get(reminiscence.control)
    if control is not None and control.before.mean() > 0.5:
        text = (
            "Most of these rows are answered correctly by models that never saw them: only what lies above that counts."
        )
    else:
        text = "Forgotten rows that come back without being shown were hidden, not removed."
    curves = {name: role_recovery.accuracy.mean(0) for name, role_recovery in recoveries.items()}
    figure = relearning_figures.recovery(curves, next(iter(recoveries.values())).per_epoch)
    table = Table("", caption, header, tuple(rows), baselines=(*KNOWN, reminiscence.control))
    return Section("reminiscence_recovery", "What comes back from retained rows alone?", text,
                   table, figure)  # fmt: skip


def _membership(reminiscence: Reminiscence) -> Section:
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    for name, attack in reminiscence.roles.items():
        if attack.membership:
            rows.append((name, attack.membership["auc_before"], attack.membership["auc_after"]))
            findings += attack.membership.values()
    caption = (
        "AUC of LiRA, forgotten rows against rows never used for training; "
        f"[{number_format.rate(reminiscence.confidence_level)} interval over forget sets]. Retrained models never saw "
        "the forgotten rows: .5 is expected there."
    )
    header = ("models", *(METRICS[name].title for name in ("auc_before", "auc_after")))
    table = Table("", caption, header, tuple(rows), baselines=(*KNOWN, reminiscence.control))
    text = "Fine-tuning on retained rows can bring back what unlearning only covered up."
    return Section("reminiscence_rows", "Does LiRA find forgotten rows?", text, table, None, tuple(findings))


def plain(reminiscence: Reminiscence) -> dict[str, Any]:
    """Returns the content of reminiscence.json."""

    def numbers(findings: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
        return {name: [finding.value, finding.low, finding.high] for name, finding in findings}

    return {
        "control": reminiscence.control,
        "confidence_level": reminiscence.confidence_level,
        "threshold": reminiscence.threshold,
        "roles": {
            name: {
                "trials": list(attack.trials),
                **numbers(list(attack.metrics.items())), **numbers(list(attack.membership.items())),
                **({} if attack.curve is None else {"rate": attack.curve.rate}),
                **({} if attack.recovery is None else {"steps_until_back": measures.returned_after(attack.recovery)
                                                       .tolist()}),
            }
            for name, attack in reminiscence.roles.items()
        },
    }  # fmt: skip


def arrays(reminiscence: Reminiscence) -> dict[str, np.ndarray]:
    """Returns the content of reminiscence.npz, trials in the layout that --trajectories reads."""
    lists: dict[str, list[np.ndarray]] = {}
    for name, attack in reminiscence.roles.items():
        trials = reminiscence.trials[name].trials
        if trials is None:
            continue
        columns = {
            "accuracy": trials.accuracy, "forgotten": trials.forgotten, "set": trials.unit, "rate": trials.rate,
            "model": np.full(len(trials.unit), name), "score": attack.scores,
            "called_forgotten": attack.is_called_forgotten, "judged": attack.is_judged,
        }  # fmt: skip
        for key, values in columns.items():
            lists.setdefault(key, []).append(np.asarray(values))
    joined = {key: np.concatenate(values) for key, values in lists.items()}
    for name, attack in reminiscence.roles.items():
        if attack.recovery is not None:
            joined[f"recovery__{name}"] = attack.recovery.accuracy
    return joined
