"""The study of methods: every unlearning method on every forget set, next to the originals and exact retraining.

Utility (UA, RA, TA; losses of texts), membership scores of single samples by IAM-On, and cost. The originals have
nothing unlearned; exact retraining is the goal.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxunlearn import records, scores
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.audit.evidence import gather, text_run
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.audit.scoring import binui
from jaxunlearn.analyses.base import CLASSES, TEXTS, Context, RecordedRun, require_units
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import closeness, variance
from jaxunlearn.metrics.ranking import pooled
from jaxunlearn.report import cells, number_format, sentences
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers.run_input import AnalysisJob
from jaxunlearn.runs.verbs import unlearn
from jaxunlearn.settings import Settings

SCORE = {scores.LOGITS: "iam_on", scores.TOKENS: "lm_iam"}
STEM = "methods"
COLUMNS = ("iam_on_forgotten", "iam_on_retained", "auc", "moved", "retain_epochs", "seconds")


class MembershipSummary(NamedTuple):
    """Membership scores (IAM-On) of one role: findings over forget sets.

    Attributes:
      forgotten, retained: mean membership score of the forgotten and of the retained samples, in [0, 1].
      auc: of separating them by the score; 0.5 = no difference left.
    """

    forgotten: records.Finding
    retained: records.Finding
    auc: records.Finding


def report(run: RecordedRun, context: Context, summary: unlearn.UnlearningSummary | None) -> Report:
    """Returns the report: a table of all methods next to exact retraining."""
    assert summary is not None
    unlearned_roles = tuple(name for name in summary.roles if name not in unlearn.REFERENCE_ROLES)
    audit = dataclasses.replace(run.settings.audit, unlearned=unlearned_roles or ("retrained",))
    settings = dataclasses.replace(run.settings, audit=audit)
    signals = gather.gather(run._replace(settings=settings), context)
    memberships = {
        name: summarise_membership(signals, settings, name, role_utility.diverged, summary.design)
        for name, role_utility in summary.roles.items()
    }
    section = present(summary, memberships)
    return Report(
        title="Unlearning methods",
        answer=answer_text(summary, memberships),
        sections=(section,),
        provenance={
            "forget sets": f"{len(signals.set_names)} ({settings.split.forget.kind})",
            "models": sentences.units(summary.design),
            "shadow models": f"{settings.shadows.count}, {settings.audit.group_size or 1} per group",
        },
        stem=STEM,
        width=140,
    )


def narrow(settings: Settings) -> Settings:
    """Returns the settings with only the models that IAM-On needs."""
    targets = dataclasses.replace(settings.targets, population_in=False, reference=0, snapshots=0)
    audit = dataclasses.replace(settings.audit, scores=tuple(SCORE.values()))
    return dataclasses.replace(settings, targets=targets, audit=audit)


def summarise_membership(
    signals: AuditInputs, settings: Settings, role: str, diverged: dict[int, int], design: records.Design
) -> MembershipSummary:  # fmt: skip
    """Computes the membership scores of one role, mean over groups of shadow models.

    Args:
      signals: of all roles.
      settings: of the run.
      role: name of the role.
      diverged: forget sets of diverged models, which are left out.
      design: of the forget sets.
    """
    assert signals.forgotten is not None
    set_ids = [set_id for set_id in range(len(signals.forgotten)) if set_id not in diverged]
    if not set_ids:
        missing = records.Finding(float("nan"), of=role)
        return MembershipSummary(missing, missing, missing)
    if diverged:
        signals = audit_signals.only_sets(signals, set_ids)
    assert signals.forgotten is not None
    score = SCORE[signals.kind]
    values = binui.score_all(signals, [score], audit_signals.groups(signals, settings), role)[score]
    truth, confidence_level = ~signals.forgotten, settings.audit.confidence_level
    means = values.mean(0)
    by_set = [np.asarray([set_scores[mask].mean() for set_scores, mask in zip(means, masks, strict=True)])
              for masks in (signals.forgotten, truth)]  # fmt: skip
    forgotten, retained = (
        variance.mean(
            scores_by_set,
            design._replace(sets=len(set_ids)),
            metric=f"iam_on {name}",
            of=role,
            confidence_level=confidence_level,
        )
        for scores_by_set, name in zip(by_set, ("forgotten", "retained"), strict=True)
    )
    auc = pooled.table(values, truth, confidence_level=confidence_level, of=role)["auc"]
    return MembershipSummary(forgotten, retained, auc)


def present(summary: unlearn.UnlearningSummary, memberships: dict[str, MembershipSummary]) -> Section:
    """Returns the table of the study."""
    rows: list[tuple[cells.Cell, ...]] = []
    all_findings: list[records.Finding] = []
    for name, role_utility in summary.roles.items():
        findings = [*unlearn.findings(name, role_utility, summary.design), *memberships[name]]
        all_findings += findings
        half_intervals = [intervals.with_half_width(finding) for finding in findings]
        moved = "" if np.isnan(role_utility.moved) else f"{role_utility.moved:.2g}"
        rows.append(
            (
                unlearn.display_name(name),
                *half_intervals,
                moved,
                number_format.cost(role_utility.retain_epochs),
                number_format.cost(role_utility.seconds),
            )
        )
    caption = (
        f"{unlearn.metrics_text(summary)}; IAM-On = mean "
        "membership score (1 = looks trained on) of forgotten and of retained samples, AUC = how well it separates "
        "them; moved = relative change of the parameters; epochs = rows read, in passes over the retained samples; "
        f"seconds for all forget sets. {sentences.plus_minus(summary.design)}"
    )
    header = ("method", *headers((*summary.roles["retrained"].metrics, *COLUMNS)))
    goal_text = "The goal is to look like the retrained models: not 0, not 1."
    baselines = ("original", "retrained", *closeness.YARDSTICKS)
    table = cells.Table("", caption, header, tuple(rows), baselines)
    all_findings += closeness.findings(unlearn.compare_closeness(summary))
    return Section(STEM, "Methods compared with exact retraining", goal_text, table, None, tuple(all_findings))


def answer_text(summary: unlearn.UnlearningSummary, memberships: dict[str, MembershipSummary]) -> str:
    """Names the method closest to retraining, and those that did next to nothing or too much."""
    retrained, original = memberships["retrained"], memberships["original"]
    names = [name for name in summary.roles if name not in unlearn.REFERENCE_ROLES]
    if not names:
        return "No method was requested."
    effect = original.forgotten.value - retrained.forgotten.value
    effect_shares = (
        {name: (original.forgotten.value - memberships[name].forgotten.value) / effect for name in names}
        if effect > 0
        else {}
    )
    statements = []
    if math.isnan(retrained.forgotten.value):
        statements.append("The retrained models diverged, so there is nothing to compare with.")
    elif not math.isnan(original.forgotten.value):
        statements.append(
            "Exact retraining changes the membership score (IAM-On) of the forgotten samples from "
            f"{original.forgotten.value:.3f} to {retrained.forgotten.value:.3f}, and the score separates forgotten "
            f"from retained samples with AUC {retrained.auc.value:.3f}."
        )
    closeness_to_retrained = unlearn.compare_closeness(summary)
    metrics_text, unit = (
        ("the three losses", "nats") if unlearn.is_language_model(summary) else ("UA, RA and TA", sentences.POINTS)
    )
    statements.append(
        sentences.closest(
            closeness_to_retrained.gaps,
            closeness_to_retrained.untouched,
            closeness_to_retrained.gap_to_original,
            closeness_to_retrained.gap_to_best,
            closeness_to_retrained.best,
            metrics_text,
            unit,
        )
    )
    ineffective = [unlearn.display_name(name) for name, share in effect_shares.items() if share < 0.1]
    if ineffective and effect > 0:
        statements.append(f"Less than a tenth of that effect on forgotten samples: {', '.join(ineffective)}.")
    over_unlearned = [unlearn.display_name(name) for name, share in effect_shares.items()
              if share > 1 and memberships[name].retained.value < retrained.retained.value - 0.05]  # fmt: skip
    if over_unlearned and effect > 0:
        statements.append(f"Over-unlearning (retained samples lose membership too): {', '.join(over_unlearned)}.")
    return " ".join(statements)


def check_run(run: RecordedRun) -> None:
    """Raises a ConfigError for repeated forget sets, or too few shadow models for a group."""
    require_units(run.settings)
    if run.predicted is not None:
        text_run.check(run)
    audit_signals.group_indices(run.settings, run.settings.shadows.count, run.settings.audit.group_size or 1)


def roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles that are needed."""
    shadow_origin = ("shadow_origin",) if settings.targets.shadow_origin else ()
    return ("shadow", "original", "retrained", *shadow_origin, "unlearned")


JOB = AnalysisJob(narrow, roles, ANALYSES["audit"].check, check_run, report, reads=(CLASSES, TEXTS))
