"""Studies: experiments that join several stages and end in one table.

`methods`: every unlearning method on every forget set, beside the originals (nothing unlearned) and exact retraining
(the goal): what it forgets and keeps (UA, RA, TA; of texts the losses), what IAM-On sees of it in single samples, what
it costs.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxunlearn import records, scores
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.audit.evidence import gather, text_run
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditSignals
from jaxunlearn.analyses.audit.scoring import binui
from jaxunlearn.analyses.base import CLASSES, TEXTS, Context, RecordedRun, require_units
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import closeness, variance
from jaxunlearn.metrics.ranking import pooled
from jaxunlearn.report import cells, number_format, sentences
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers.run_input import Job
from jaxunlearn.runs.verbs import unlearn
from jaxunlearn.settings import Settings

SCORE = {scores.LOGITS: "iam_on", scores.TOKENS: "lm_iam"}
STEM = "methods"
COLUMNS = ("iam_on_forgotten", "iam_on_retained", "auc", "moved", "retain_epochs", "seconds")


class MembershipSummary(NamedTuple):
    """What IAM-On sees of one role: Findings over forget sets.

    Attributes:
      forgotten, retained: mean membership score of the forgotten and of the retained samples.
      auc: how well the score tells them apart; 0.5 = the method left no difference.
    """

    forgotten: records.Finding
    retained: records.Finding
    auc: records.Finding


def report(run: RecordedRun, context: Context, made: unlearn.Summary | None) -> Report:
    """The table of all methods next to exact retraining."""
    assert made is not None
    asked = tuple(name for name in made.roles if name not in unlearn.NEEDED)
    audit = dataclasses.replace(run.settings.audit, unlearned=asked or ("retrained",))
    settings = dataclasses.replace(run.settings, audit=audit)
    signals = gather.gather(run._replace(settings=settings), context)
    seen = {name: see(signals, settings, name, one.diverged, made.design) for name, one in made.roles.items()}
    section = present(made, seen)
    return Report(
        title="Unlearning methods",
        answer=in_words(made, seen),
        sections=(section,),
        provenance={
            "forget sets": f"{len(signals.set_names)} ({settings.split.forget.kind})",
            "models": sentences.units(made.design),
            "shadow models": f"{settings.shadows.count}, {settings.audit.group_size or 1} per group",
        },
        stem=STEM,
        width=140,
    )


def narrowed(chosen: Settings) -> Settings:
    """The settings with only what IAM-On needs: no models for other scores."""
    targets = dataclasses.replace(chosen.targets, population_in=False, reference=0, snapshots=0)
    audit = dataclasses.replace(chosen.audit, scores=tuple(SCORE.values()))
    return dataclasses.replace(chosen, targets=targets, audit=audit)


def see(
    signals: AuditSignals, settings: Settings, role: str, diverged: dict[int, int], design: records.Design
) -> MembershipSummary:  # fmt: skip
    """IAM-On's view of one role, mean over groups of shadow models; forget sets whose model diverged are left out."""
    assert signals.forgotten is not None
    kept = [number for number in range(len(signals.forgotten)) if number not in diverged]
    if not kept:
        nothing = records.Finding(float("nan"), of=role)
        return MembershipSummary(nothing, nothing, nothing)
    if diverged:
        signals = audit_signals.only_sets(signals, kept)
    assert signals.forgotten is not None
    score = SCORE[signals.kind]
    values = binui.score_all(signals, [score], audit_signals.groups(signals, settings), role)[score]
    truth, confidence_level = ~signals.forgotten, settings.audit.confidence_level
    means = values.mean(0)
    by_set = [np.asarray([line[mask].mean() for line, mask in zip(means, masks, strict=True)])
              for masks in (signals.forgotten, truth)]  # fmt: skip
    forgotten, retained = (
        variance.mean(
            one, design._replace(sets=len(kept)), metric=f"iam_on {name}", of=role, confidence_level=confidence_level
        )
        for one, name in zip(by_set, ("forgotten", "retained"), strict=True)
    )
    auc = pooled.table(values, truth, confidence_level=confidence_level, of=role)["auc"]
    return MembershipSummary(forgotten, retained, auc)


def present(summary: unlearn.Summary, seen: dict[str, MembershipSummary]) -> Section:
    """The table of the study."""
    rows: list[tuple[cells.Cell, ...]] = []
    every: list[records.Finding] = []
    for name, one in summary.roles.items():
        found = [*unlearn.findings(name, one, summary.design), *seen[name]]
        every += found
        bare = [intervals.half(finding) for finding in found]
        moved = "" if np.isnan(one.moved) else f"{one.moved:.2g}"
        rows.append(
            (unlearn.shown(name), *bare, moved, number_format.cost(one.retain_epochs), number_format.cost(one.seconds))
        )
    meaning = (
        "Losses in nats per token, on texts to be forgotten, retained and held out"
        if unlearn.of_texts(summary)
        else "UA = 1 - accuracy on the forget set, RA and TA = accuracy on retained and held-out samples"
    )
    caption = (
        f"{meaning}; IAM-On = mean "
        "membership score (1 = looks trained on) of forgotten and of retained samples, AUC = how well it tells them "
        "apart; moved = relative change of the parameters; epochs = rows read in passes over the retained samples; "
        f"seconds for all forget sets. {sentences.plus_minus(summary.design)}"
    )
    header = ("method", *headers((*summary.roles["retrained"].metrics, *COLUMNS)))
    told = "The goal is to look like the retrained models: not 0, not 1."
    baselines = ("original", "retrained", *closeness.YARDSTICKS)
    table = cells.Table("", caption, header, tuple(rows), baselines)
    every += closeness.findings(unlearn.closest(summary))
    return Section(STEM, "Methods beside exact retraining", told, table, None, tuple(every))


def in_words(summary: unlearn.Summary, seen: dict[str, MembershipSummary]) -> str:
    """Whether a method is closest to retraining, and which did next to nothing or too much, in a few sentences."""
    goal, start = seen["retrained"], seen["original"]
    names = [name for name in summary.roles if name not in unlearn.NEEDED]
    if not names:
        return "No method was asked for."
    effect = start.forgotten.value - goal.forgotten.value
    reached = (
        {name: (start.forgotten.value - seen[name].forgotten.value) / effect for name in names} if effect > 0 else {}
    )
    said = []
    if math.isnan(goal.forgotten.value):
        said.append("The retrained models diverged, so there is nothing to compare with.")
    elif not math.isnan(start.forgotten.value):
        said.append(
            "Exact retraining takes the forgotten samples' membership score (IAM-On) from "
            f"{start.forgotten.value:.3f} to {goal.forgotten.value:.3f}, and forgotten from retained samples apart "
            f"with AUC {goal.auc.value:.3f}."
        )
    found = unlearn.closest(summary)
    over, unit = ("the three losses", "nats") if unlearn.of_texts(summary) else ("UA, RA and TA", sentences.POINTS)
    said.append(
        sentences.closest(found.gaps, found.untouched, found.gap_to_original, found.gap_to_best, found.best, over, unit)
    )
    idle = [unlearn.shown(name) for name, part in reached.items() if part < 0.1]
    if idle and effect > 0:
        said.append(f"Less than a tenth of that effect on forgotten samples: {', '.join(idle)}.")
    beyond = [unlearn.shown(name) for name, part in reached.items()
              if part > 1 and seen[name].retained.value < goal.retained.value - 0.05]  # fmt: skip
    if beyond and effect > 0:
        said.append(f"Over-unlearning (retained samples lose membership too): {', '.join(beyond)}.")
    return " ".join(said)


def check_run(run: RecordedRun) -> None:
    """Raises a ConfigError for repeated forget sets, or too few shadow models for a group."""
    require_units(run.settings)
    if run.predicted is not None:
        text_run.check(run)
    audit_signals.group_places(run.settings, run.settings.shadows.count, run.settings.audit.group_size or 1)


def roles(settings: Settings) -> tuple[str, ...]:
    """The roles that are needed."""
    shadow_origin = ("shadow_origin",) if settings.targets.shadow_origin else ()
    return ("shadow", "original", "retrained", *shadow_origin, "unlearned")


JOB = Job(narrowed, roles, ANALYSES["audit"].check, check_run, report, reads=(CLASSES, TEXTS))
