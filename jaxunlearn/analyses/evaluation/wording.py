"""An evaluation in a few sentences."""

import math

from jaxunlearn.analyses.evaluation.sections import GOAL, START, WITH_MIA, Evaluation, closest, mean_of, methods_of
from jaxunlearn.report import sentences


def answer_text(evaluation: Evaluation) -> str:
    """Sums up the metrics in a few sentences."""
    statements = [*_effect(evaluation)]
    comparison = closest(evaluation)
    if comparison is not None:
        metrics_in_words = "UA, RA, TA and MIA" if comparison.metrics == WITH_MIA else "UA, RA and TA"
        statements.append(
            sentences.closest(
                comparison.gaps,
                comparison.untouched,
                comparison.gap_to_original,
                comparison.gap_to_best,
                comparison.best,
                metrics_in_words,
            )
        )
    else:
        statements.append("No retrained models were given, so the distance of these models from retraining is unknown.")
        statements += [_alone(evaluation, role) for role in evaluation.roles]
    methods = methods_of(evaluation)
    if START in evaluation.roles and methods:
        original_cr = mean_of(evaluation, START, "cr_test")
        degraded = [role for role in methods if mean_of(evaluation, role, "cr_test") < original_cr - 0.05]
        if degraded:
            statements.append(f"CR on test samples falls by more than 0.05 under: {', '.join(degraded)}.")
    if GOAL in evaluation.roles:
        retrained_miacr = mean_of(evaluation, GOAL, "miacr")
        excessive = [role for role in methods if mean_of(evaluation, role, "miacr") > retrained_miacr + 0.2]
        if excessive:
            statements.append(
                "MIACR is far above that of the retrained models (forgotten samples look less familiar than unseen "
                f"ones) for: {', '.join(excessive)}."
            )
    statements += [
        f"{role}: the model of forget set(s) {', '.join(map(str, sets))} diverged."
        for role, sets in evaluation.diverged.items()
    ]
    return " ".join(statements)


def _effect(evaluation: Evaluation) -> list[str]:
    """States the effect of exact retraining on the forgotten samples, if it was measured."""
    if GOAL not in evaluation.roles:
        return []
    statements = []
    before, after = (
        100 * mean_of(evaluation, role, "UA") if role in evaluation.roles else math.nan for role in (START, GOAL)
    )
    if math.isnan(after):
        return ["Exact retraining has no numbers here (its models diverged), so there is nothing to compare with."]
    if not math.isnan(before):
        statements.append(f"Exact retraining takes the error on forgotten samples from {before:.1f} to {after:.1f} %.")
    cr, ratio = (mean_of(evaluation, GOAL, name) for name in ("cr_forget", "recover_ratio"))
    if not math.isnan(cr):
        recovered = f", and of those that it misclassifies {100 * ratio:.0f} % have their label in the set"
        recovered = "" if math.isnan(ratio) else recovered
        statements.append(f"At alpha {evaluation.report_alpha:g} its CR on forgotten samples is {cr:.3f}{recovered}.")
    return statements


def _alone(evaluation: Evaluation, role: str) -> str:
    """Sums up a role that cannot be compared with retraining."""
    error, coverage, size, cr = (
        mean_of(evaluation, role, name) for name in ("UA", "coverage_forget", "size_forget", "cr_forget")
    )
    if math.isnan(error):
        return f"{role}: nothing could be measured."
    in_sets = f"; at alpha {evaluation.report_alpha:g} {100 * coverage:.0f} % of them have their label in the set of "
    in_sets += f"{size:.2f} labels"
    in_sets = "" if math.isnan(coverage) else in_sets + ("" if math.isnan(cr) else f" (CR {cr:.3f})")
    return f"{role}: error on forgotten samples {100 * error:.1f} %{in_sets}."
