"""Sections and notes that only audits of texts have.

The bootstrap table, the role of OUT models, whether the words alone separate forgotten from kept texts, ties of RMIA.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.audit.scoring.scoreboard import RoleScores
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.ranking import bootstrap, wording
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Section
from jaxunlearn.settings import Settings

RMIA = "lm_rmia"
TIED = 0.25  # a larger share of texts with the same value of RMIA is reported

OUT_NOTE = (
    "A row is a text here, and the shadow models are the OUT models. Verdicts assume that the OUT models were trained "
    "like the audited model, without the requested texts. Models of another architecture or with other training data "
    "are not a valid null; use them for scores only."
)
RUN_NOTE = "A row is a text here, and the shadow models are OUT models, trained like the audited model on other texts."


class TextFindings(NamedTuple):
    """Results of an audit of texts in addition to scores and verdicts.

    Attributes:
      draws: score -> column -> Finding over bootstrap draws; empty if not requested.
      words: AUC of a bag of words between kept and forgotten texts; None without texts, or with too few.
      ties: sentences about scores that give the same value to many texts.
    """

    draws: Mapping[str, Mapping[str, Finding]] = {}
    words: Finding | None = None
    ties: tuple[str, ...] = ()


def called(signals: AuditInputs) -> str:
    """Names the kind of input for the user: texts, or the kind of evidence."""
    return "texts" if signals.kind == scores.TOKENS else signals.kind


def judge(signals: AuditInputs, scored: RoleScores, settings: Settings) -> TextFindings:
    """Computes the results that only audits of texts have, on the first group of OUT models; empty for others."""
    if signals.kind != scores.TOKENS:
        return TextFindings()
    words = None
    if signals.written is not None and signals.forgotten is not None:
        words = wording.shift(
            signals.written, ~signals.forgotten[0], seed=settings.seed, confidence_level=settings.audit.confidence_level
        )
    return TextFindings(_resampled(signals, scored, settings), words, _ties(signals, scored))


def _resampled(signals: AuditInputs, scored: RoleScores, settings: Settings) -> dict[str, dict[str, Finding]]:
    audit = settings.audit
    if scored.truth is None or not audit.draws:
        return {}
    mode = "legacy" if signals.options.compat == "faithful" else "corrected"
    values = {name: lines[0].ravel() for name, lines in scored.values.items()}
    table = bootstrap.table(
        values, scored.truth.ravel(), mode=mode, seed=settings.seed, iterations=max(audit.draws, 2),
        confidence_level=audit.confidence_level,
    )  # fmt: skip
    return dict(sorted(table.items(), key=lambda item: -item[1]["auc"].value))


def _ties(signals: AuditInputs, scored: RoleScores) -> tuple[str, ...]:
    """Returns a sentence if RMIA is coarse: with P population texts it has at most P + 1 values."""
    population = signals.shared.population_shadows
    if RMIA not in scored.values or population is None:
        return ()
    values, counts = np.unique(scored.values[RMIA][0, 0], return_counts=True)
    most_common, share = float(values[counts.argmax()]), counts.max() / counts.sum()
    if share <= TIED or len(values) == 1 and counts[0] == 1:
        return ()
    gamma = signals.options.tokens.gamma
    sentence = (
        f"{RMIA} has {len(values):,} different values on {counts.sum():,} texts ({population.log_odds.shape[1]:,} "
        f"population texts); {number_format.rate(share)} of the texts have the value {most_common:.3g}"
    )
    if most_common == 0:
        return (
            f"{sentence}: they exceed no population text by a factor of {gamma:g}. Lower --rmia_gamma: a text that the "
            "audited model knows as well as IN does has a ratio below 2",
        )  # fmt: skip
    return (f"{sentence}. " + ("Raise --rmia_gamma" if most_common == 1 else "Provide more population texts"),)


def section(findings: TextFindings, settings: Settings) -> list[Section]:
    """Returns the bootstrap table, and the AUC of the words alone, as far as they were computed."""
    return [*_draws(findings.draws, settings), *_words(findings.words)]


def _words(auc: Finding | None) -> list[Section]:
    if auc is None:
        return []
    text = (
        "A forest on a bag of words, judged on texts it was not fitted on; it uses no language model. An AUC of .5 "
        "means that the words carry no information. A score that does no better has not been shown to detect "
        "membership."
    )
    table = Table(
        "Forgotten and kept texts by their words alone",
        f"[ ] {number_format.rate(auc.confidence_level)} interval (DeLong).",
        ("", *headers(("auc",))), (("bag of words", auc),),
    )  # fmt: skip
    return [Section("words", "Are forgotten and kept texts alike?", text, table, findings=(auc,))]


def _words_separate(auc: Finding) -> str:
    return f"The words alone tell kept from forgotten texts, with an AUC of {number_format.long(auc)}."


def _draws(draws_of_score: Mapping[str, Mapping[str, Finding]], settings: Settings) -> list[Section]:
    if not draws_of_score:
        return []
    first = next(iter(draws_of_score.values()))["auc"]
    num_draws = number_format.count(settings.audit.draws)
    if np.isnan(first.low):
        caption = (
            f"As published: mean ± standard deviation over {num_draws} draws of {number_format.count(first.n // 2)} "
            "texts of each kind with replacement; TPR at the corner of the curve whose FPR is nearest. ± is not an "
            "interval."
        )
    else:
        caption = (
            f"[ ] {number_format.rate(first.confidence_level)} interval over {num_draws} draws of as many texts of "
            "each kind with replacement; for this model: other models may differ."
        )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(row[column] for column in bootstrap.COLUMNS)) for name, row in draws_of_score.items()
    )
    table = Table(
        "Scores over bootstrap draws", caption, ("score", *headers(bootstrap.COLUMNS)), rows, baselines=("random",)
    )
    findings = tuple(finding for row in draws_of_score.values() for finding in row.values())
    text = "AUC, and the share of kept texts recognised where a tenth, or a hundredth, of the forgotten is called kept."
    return [Section("bootstrap", "How sure are these numbers?", text, table, None, findings)]


def doubts(findings: TextFindings, has_verdicts: bool, signals: AuditInputs) -> tuple[str, ...]:
    """Returns the notes to be read before any number of an audit of texts; none for other audits."""
    note = RUN_NOTE if signals.is_run else OUT_NOTE
    notes = (note,) if has_verdicts and signals.kind == scores.TOKENS else ()
    if findings.words is None or not wording.is_different(findings.words):
        return notes
    return (
        *notes,
        f"{_words_separate(findings.words)} They are different kinds of text: a score that separates them may read the "
        "kind and not what the model has seen.",
    )


def provenance(signals: AuditInputs) -> dict[str, str]:
    """Returns the options of scores of texts, for the foot of the page."""
    options = signals.options.tokens
    std_block = f"blocks of {options.block} texts" if options.block else "all texts"
    return {
        "IAM": f"{options.interpolation_steps} interpolation steps, e1 {options.eps1:g}, e2 {options.eps2:g}, std over "
        f"{std_block}",
        "tokens": f"Min-K {options.k:g} %, SURP {options.surp_k:g} % below {options.surp_entropy:g} nats",
        "RMIA": f"gamma {options.gamma:g}",
    }
