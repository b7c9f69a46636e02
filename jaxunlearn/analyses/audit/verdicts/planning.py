"""Numbers of models and rows that a verdict needs, and the benefit of more of them."""

import numpy as np

from jaxunlearn import records, scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.metrics.verdict.judge import FEWEST_POPULATION, FEWEST_RETAINED
from jaxunlearn.settings import Settings

ENOUGH_FOR_ROWS, ENOUGH_FOR_REQUEST = 2, 10
ENOUGH_POPULATION, ENOUGH_RETAINED = 300, 200

# Benefit of more models and rows: of 30 rows of a network, and as a share of requests; measured, see docs/verdict.md.
BENEFITS = (
    ("with 2 shadows", "1 of 30 random and 25 of the 30 hardest rows of an untouched model are caught, 17 and 30 of a "
                       "retrained one confirmed; 38 % of audits find a random request still in the untouched model, "
                       "10 % find it forgotten by the retrained one"),
    ("with 5 (of which two groups must agree)", "0 and 23 caught, 16 and 30 confirmed; 67 % find it still in, 40 % "
                                                "forgotten"),
    ("with 10", "1 and 27 caught, 16 and 30 confirmed; 96 % find it still in, 79 % forgotten"),
    ("with 20", "2 and 29 caught, 17 and 30 confirmed; 100 % find it still in, 88 % forgotten; more add little"),
    ("unseen rows", "no random row is caught with 40 or 100 of them, 1 of 30 with 300, 2 with 1,000 (20 shadows)"),
    ("retained rows", "no random row is confirmed with 50 of them, 6 of 30 with 100, 16 with 200 or more"),
)  # fmt: skip


def lines(shadows: int, population: int, retained: int, is_texts: bool = False) -> list[tuple[str, str]]:
    """Returns the available and the recommended numbers, as lines of a table.

    Args:
      shadows: number of available shadow models.
      population: number of rows that no model saw.
      retained: number of rows that were not requested.
      is_texts: texts under language models, for which the benefit of more models has not been measured.
    """
    names = ("population_unlearned, population_shadows, population_labels", "population_original")
    array_names, original = ("pop_nll_target, pop_nll_ref", "pop_nll_fit") if is_texts else names
    array_text = f"{array_names}; {original} if you have the original"
    benefits = () if is_texts else BENEFITS
    models_title, unseen_title, retained_title, reference_title = (
        "shadow models",
        "unseen rows",
        "retained rows",
        "shadow",
    )
    if is_texts:
        models_title, unseen_title, retained_title, reference_title = (
            "OUT models",
            "population texts",
            "kept texts",
            "OUT model",
        )
    return [
        (models_title, _of(shadows, ENOUGH_FOR_ROWS, ENOUGH_FOR_REQUEST,
                              "for verdicts on rows", "for the request as a whole")),
        ("train them", "as the audited model was, each on a random draw of your training rows without the requested "
                       "ones, another seed each; as many rows as the audited model if you can (half does)"),
        (unseen_title, _of(population, FEWEST_POPULATION, ENOUGH_POPULATION,
                            "for any verdict", "to call single rows not forgotten")),
        ("provide for them", f"the answers of the audited model and of every {reference_title}: {array_text}"),
        (retained_title, _of(retained, FEWEST_RETAINED, ENOUGH_RETAINED,
                              "to call a row forgotten", "to call many rows forgotten")),
        *(("" if index else "expected benefit", f"{size}: {text}") for index, (size, text) in enumerate(benefits)),
    ]  # fmt: skip


def of_signals(signals: AuditInputs) -> list[tuple[str, str]]:
    """Returns `lines` for the signals of an audit."""
    population = signals.shared.population_shadows
    retained = 0 if signals.forgotten is None else int((~signals.forgotten).sum(1).min())
    unseen = 0 if population is None else population.log_odds.shape[1]
    return lines(audit_signals.num_shadows(signals), unseen, retained, signals.kind == scores.TOKENS)


def of_run(settings: Settings, split: records.Split) -> list[tuple[str, str]]:
    """Returns `lines` for what a run will record, for its largest request."""
    retained = len(split.target) - int(np.asarray(split.forget).sum(1).max())
    return lines(settings.shadows.count, len(split.population), retained)


def lacking(shadows: int, population: int, retained: int) -> str:
    """Lists the models and rows that would sharpen the verdicts, in words; empty if there are enough."""
    additions = [
        f"{target - count:,} more {noun}"
        for count, target, noun in (
            (shadows, ENOUGH_FOR_REQUEST, "shadow models"),
            (population, ENOUGH_POPULATION, "rows that no model saw"),
            (retained, ENOUGH_RETAINED, "retained rows"),
        )
        if count < target
    ]
    return ", ".join(additions)


def _of(count: int, minimum: int, target: int, for_minimum: str, for_target: str) -> str:
    """Returns `5 of 10: ...`, in words."""
    if count >= target:
        return f"{count:,}: enough"
    if count >= minimum:
        return f"{count:,}: enough {for_minimum}; {target:,} {for_target}"
    return f"{count:,}: at least {minimum:,} {for_minimum}, {target:,} {for_target}"
