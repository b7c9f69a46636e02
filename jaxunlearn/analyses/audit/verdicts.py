"""Verdicts: is this single sample forgotten, not forgotten, or can nobody tell?

    OUT null: the score that each shadow gets when it plays the unlearned model (it never saw the samples)
    IN null:  the score that retained samples get in the audited model itself (it was trained on them)
    p_out small -> not forgotten;  p_in small -> forgotten;  both controlled for the false discovery rate per forget set

Three OUT nulls, by `calibration`:

* retrained: the scores that exact retrains of the OTHER forget sets give to their own forgotten samples: what exact
  unlearning looks like, for every score and whatever the shadows are. Needs a run folder with several random forget
  sets; nobody outside an experiment has it.
* shadows: fine (S x N null scores) and valid for every score, but only where shadows are to each other what the audited
  model is to them: same recipe, as many rows, drawn alike. Shadows that share most of their rows are more alike than
  they are like the audited model, and the null is too narrow.
* population: the scores of population samples in the audited model itself. They are as unseen as forgotten samples,
  whatever the shadows were trained on; exact for scores that do not read the original model, but coarse (P scores).

How far p_out is from uniform is measured: on population samples, which nobody trained on (`drift`), and where exact
retraining is audited on the requested samples themselves (`calibration`). `auto` takes the shadows' null unless the
drift shows it to be too eager, then the population's. Measured with IAM-Off on Location-30 at level 0.05 (rate of
p_out <= 0.05; truly forgotten samples / population samples; then with the population's null):

    shadows of 800 rows, retrains of 2,908 (the published split)        0.262 / 0.258    0.058
    shadows of 1,908 of 2,000 rows (95 % shared), retrains of 1,908     0.113 / 0.116    0.047
    shadows of 850 of 3,108 rows (27 % shared), retrains of 850         0.039 / 0.050    0.040

Beyond IAM, which stops at ROC curves.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.metrics import decision, uniformity
from jaxunlearn.metrics.decision import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN
from jaxunlearn.records import Evidence, Finding

# The score of `auto`: the first whose arrays are there. Without exact retrains one that does not read the original
# model, so that the drift of its null can be measured.
AUTO = ("iam_off", "lira_off")
AUTO_RETRAINED = ("iam_on", *AUTO)
FEWEST_SETS = 3


class Calibration(NamedTuple):
    """How far p_out of truly forgotten samples is from uniform.

    Attributes:
      rate: fraction of them with p_out <= level (should be `level`), with its interval over forget sets.
      distance: Kolmogorov-Smirnov distance from uniform; p_value: of the test, with forget sets as the units.
      p_out: the p-values, one per requested sample.
    """

    rate: Finding
    distance: float
    p_value: float
    p_out: np.ndarray


class Null(NamedTuple):
    """A null and where it comes from.

    Attributes:
      calibration: retrained, shadows or population.
      values: [R] arrays of null scores.
      drift: of the shadows' null on population samples; None where it was not measured.
    """

    calibration: str
    values: list[np.ndarray]
    drift: Calibration | None


class Verdicts(NamedTuple):
    """Decisions about R audited models.

    Attributes:
      score: name of the score behind them; level: false discovery rate.
      values: [R, N] the score; p_out: [R, N]; p_in: [R, N] or None where nobody is known to be retained.
      codes: [R, N] int8: 2 not forgotten, 1 cannot tell, 0 forgotten; -1 outside the requests.
      counts: [3] requested samples by verdict: not forgotten, cannot tell, forgotten.
      null: what the p-values rest on.
    """

    score: str
    level: float
    values: np.ndarray
    p_out: np.ndarray
    p_in: np.ndarray | None
    codes: np.ndarray
    counts: np.ndarray
    null: Null


def nulls(name: str, measured: scores.Measured, cases: scores.Cases, options: scores.Options, calibration: str) -> list:
    """[R] arrays of null scores, one per audited model (the same one for all with calibration="shadows").

    Raises:
      DataError: fewer than 2 shadows, no population, or a score that cannot be calibrated this way.
    """
    if calibration == "population":
        return list(scores.population_scores(name, measured, cases, options))
    # The original of the first case stands for all: nulls differ between originals by training noise only.
    first = scores.case(measured, jax.tree.map(lambda leaf: leaf[0], cases))
    return [scores.null_scores(name, first, options).reshape(-1)] * len(cases.unlearned.log_odds)


def decide(name: str, values: np.ndarray, null: Null, requested: np.ndarray | None, level: float) -> Verdicts:
    """Verdicts from scores and null scores.

    Args:
      name: of the score.
      values: [R, N] membership scores of the audited models.
      null: see `null_of`.
      requested: [R, N] bool, which samples were to be forgotten (the others are known to be retained); None = unknown:
        all samples are judged and nobody can be called forgotten.
      level: false discovery rate.

    The p-values are the conservative ones, (1 + number of null scores at least as high) / (1 + number of null scores):
    a verdict on a sample must not hang on a coin that breaks ties.
    """
    checked = values if requested is None else requested
    p_out, codes = np.empty(values.shape), np.full(values.shape, -1, np.int8)
    p_in = None if requested is None else np.empty(values.shape)
    for number, line in enumerate(values):
        p_out[number] = decision.p_values(line, null.values[number], side="greater")
        asked = np.ones(len(line), bool) if requested is None else checked[number]
        inside = None
        if requested is not None and p_in is not None:
            p_in[number] = decision.p_values(line, line[~asked], side="less")
            inside = p_in[number][asked]
        codes[number][asked] = decision.verdicts(p_out[number][asked], inside, level)
    counts = np.array([(codes == code).sum() for code in (NOT_FORGOTTEN, CANNOT_TELL, FORGOTTEN)])
    return Verdicts(name, level, values, p_out, p_in, codes, counts, null)


def calibration(verdicts: Verdicts, requested: np.ndarray, level: float, seed: int) -> Calibration:
    """Uniformity of p-values over the requested samples of exactly retrained models, forget sets as clusters.

    Ties are broken at random here: only randomised p-values are exactly uniform under the null.
    """
    sets = np.broadcast_to(np.arange(len(requested))[:, None], requested.shape)[requested]
    lines = zip(verdicts.values, verdicts.null.values, strict=True)
    randomised = [decision.p_values(line, null, seed=seed + number) for number, (line, null) in enumerate(lines)]
    p_out = np.stack(randomised)[requested]
    return _calibration(p_out, sets, level, "samples truly forgotten")


def _calibration(p_out: np.ndarray, sets: np.ndarray, level: float, against: str) -> Calibration:
    found = uniformity.uniformity(p_out, clusters=sets if len(np.unique(sets)) > 1 else None, alpha=level)
    rate = Finding(*found.rate, metric=f"rate of p <= {level:g}", n=len(p_out), of="calibration", against=against,
                   method=found.method)  # fmt: skip
    return Calibration(rate, found.distance, found.p_value, p_out)


def drift(
    name: str,
    measured: scores.Measured,
    cases: scores.Cases,
    options: scores.Options,
    null: list[np.ndarray],
    level: float,
) -> Calibration | None:
    """Uniformity of p_out over population samples, which no model saw; None where there are none to score.

    Needs no exact retraining, so every audit with a population can say how far its shadows' null is off.
    """
    try:
        asked = scores.population_scores(name, measured, cases, options)
    except errors.DataError:
        return None
    lines = zip(asked, null, strict=True)
    p_out = np.stack([decision.p_values(line, values, seed=number) for number, (line, values) in enumerate(lines)])
    sets = np.broadcast_to(np.arange(len(p_out))[:, None], p_out.shape)
    return _calibration(p_out.reshape(-1), sets.reshape(-1), level, "population samples, which no model saw")


def choose_score(
    wanted: str, there: Mapping[str, Any] | Evidence, automatic: tuple[str, ...] = AUTO
) -> tuple[str, str]:
    """The decision score, or "" and why there is none.

    Args:
      wanted: a name, none, or auto.
      there: which fields of an Evidence exist.
      automatic: what auto tries, in this order.
    """
    if wanted == "none":
        return "", "They were switched off (decision = none)."
    if wanted != "auto" and not scores.find(wanted).has_null:
        return "", f"The score {wanted} has no null: it reads arrays that neither shadows nor population samples have."
    names = automatic if wanted == "auto" else (wanted,)
    lacking = {name: scores.missing(name, there) for name in names}
    able = [name for name in names if not lacking[name]]
    if not able:
        return "", f"The score {names[-1]} needs {', '.join(lacking[names[-1]])}."
    return able[0], ""


def retrained_null(values: np.ndarray, forgotten: np.ndarray, off: Calibration | None) -> Null:
    """The null of exact unlearning: for set r the scores that retrains of the other sets give to their forgotten rows.

    Args:
      values: [R, N] scores of the exact retrains.
      forgotten: [R, N] bool, what each of them did not see.
      off: what is known of the shadows' null, which is not used.
    """
    own = [line[chosen] for line, chosen in zip(values, forgotten, strict=True)]
    others = [np.concatenate([part for other, part in enumerate(own) if other != number]) for number in range(len(own))]
    return Null("retrained", others, off)


def null_of(
    name: str, measured: scores.Measured, cases: scores.Cases, options: scores.Options, wanted: str, level: float
) -> Null:
    """The null scores to use, and what is known of the shadows' null.

    Raises:
      DataError: no null can be made: fewer than 2 shadows and no population, or not the one that was asked for.
    """
    count = 0 if measured.shadows is None else len(measured.shadows.log_odds)
    if wanted == "population" or (wanted == "auto" and count < 2 and cases.population_unlearned is not None):
        return Null("population", nulls(name, measured, cases, options, "population"), None)
    found = nulls(name, measured, cases, options, "shadows")
    off = None
    # A score that reads the original sees another original for population samples: nothing could be concluded.
    if not scores.find(name).reads_original:
        off = drift(name, measured, cases, options, found, level)
    if wanted == "auto" and off is not None and off.rate.low > level:
        return Null("population", nulls(name, measured, cases, options, "population"), off)
    return Null("shadows", found, off)
