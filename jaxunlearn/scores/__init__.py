"""Scores: one number per sample from the logits of several models. Higher = the sample still looks trained on.

    evidence -> check -> one pass over the logits (`audit_signals`) -> any of SCORES

`my_module:my_score` works wherever a name does: a function (audit_signals, options) -> [N], without an entry anywhere.
To add a score to the table:

    scores/families/NAME.py     its kernel, with the source, if it is more than a line
    scores/entries.py           a function (audit_signals, options) -> [N] that picks signals and the form of `compat`
    scores/registry.py          a line in SCORES, with the evidence fields it needs
    tests/scores/naive.py       a naive float64 reference from plain logits; only `random` and `unleak` have none
    tests/scores/test_every_score.py   RANGES if it can leave [0, 1]; FLOAT64 if it returns float64; COARSE if 2e-5 is
                                too strict for float32
    tests/scores/test_table.py  COMPAT if it has a published form that differs from the corrected one
    README.md                   its name in the table of scores

The tests of these files run over every line of SCORES: direction, range, permutations, ties, saturated logits, dtypes.
Scores of texts go to `tokens/entries.py` instead, and are tested in tests/scores/test_tokens.py.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.records import Evidence, Scores
from jaxunlearn.scores import entries
from jaxunlearn.scores.audit_signals import (
    AuditedModels,
    AuditSignals,
    Signals,
    choose_shadows,
    select_model,
    signals_of,
    signals_pass,
    single_model,
)
from jaxunlearn.scores.evidence import AUDIT_FIELDS, FIELDS, as_arrays, check
from jaxunlearn.scores.families import difference, emia, few_shadow, iam, lira, rmia, unleak
from jaxunlearn.scores.options import Constants, Options, published, split
from jaxunlearn.scores.options import check as check_options
from jaxunlearn.scores.registry import (
    LOGITS,
    SCORES,
    TOKENS,
    Score,
    find,
    missing,
    names_of,
    needs,
    needs_pairs,
    skipped_for,
)
from jaxunlearn.scores.results import ByScore

__all__ = [
    "AUDIT_FIELDS",
    "AuditSignals",
    "AuditedModels",
    "Constants",
    "DEFAULT_OPTIONS",
    "Evidence",
    "FIELDS",
    "LOGITS",
    "Options",
    "Result",
    "SCORES",
    "Score",
    "Scores",
    "Signals",
    "TOKENS",
    "check",
    "check_options",
    "choose_shadows",
    "compute",
    "compute_models",
    "difference",
    "emia",
    "few_shadow",
    "find",
    "iam",
    "lira",
    "missing",
    "names_of",
    "needs",
    "needs_pairs",
    "notes_on_level",
    "published",
    "rmia",
    "run",
    "run_checked",
    "select_model",
    "signals_of",
    "signals_pass",
    "single_model",
    "skipped_for",
    "unleak",
]

DEFAULT_OPTIONS = Options()
MOST_REASONS = 5  # named where no score could be computed
LEVEL_TOLERANCE = 1e-3  # of the true class' log-probability
# Log-odds beyond this mean a diverged model; messages about an overflowing score name the array that holds them.
EXPLODED = 1e6


class Result(NamedTuple):
    """Scores of one audit; `result["iam_on"].values` are those of one score.

    Attributes:
      scores: name -> Scores.
      skipped: name -> why it could not be computed, e.g. the arrays that are missing.
      notes: sentences on how to read the values.
    """

    scores: dict[str, Scores]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: Any) -> Any:
        """Returns one score by name; raises a UserError with the reason if it was not computed."""
        return self.scores[name] if isinstance(name, str) else tuple.__getitem__(self, name)


def run(
    names: Iterable[str] | str,
    evidence: Evidence | Mapping[str, Any],
    options: Options = DEFAULT_OPTIONS,
    *,
    audit_signals: AuditSignals | None = None,
) -> Result:
    """Computes scores of one audit from one pass over the logits.

    Args:
      names: of SCORES, `all`, or `my_module:my_score`.
      evidence: the arrays, also as a dict by the same names; checked here. Arrays that only an audit reads, such as
        `ids` and `retrained`, may be there.
      options: see `options.Options`.
      audit_signals: the result of `signals_pass`, if the caller has it.

    Returns:
      Scores for every name whose inputs are there; for the others, which arrays are missing or why they are not one
      finite number per sample. `result["iam_on"].values` [N]: higher = the sample still looks trained on.

    Raises:
      UserError: bad evidence, options or names; no score could be computed.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> unlearned = np.array([[4.0, 0.0], [0.5, 0.0]])  # logits of the audited model: 2 samples, 2 classes
      >>> shadows = np.array([[[0.0, 0.0], [0.5, 0.0]]])  # of 1 model that trained on neither sample
      >>> evidence = scores.Evidence(unlearned=unlearned, labels=np.array([0, 0]), shadows=shadows)
      >>> result = scores.run(["emia_r", "iam_on"], evidence)
      >>> print(result["emia_r"].values.round(2))  # the first sample still looks trained on
      [0.99 0.5 ]
      >>> result.skipped
      {'iam_on': 'needs original'}
    """
    names = names_of((names,) if isinstance(names, str) else names)
    if not isinstance(options, Options):
        raise errors.ConfigError(f"options must be scores.Options(...), not {type(options).__name__}.")
    check_options(options)
    evidence, _ = check(as_evidence(evidence))
    result = run_checked(names, evidence, options, audit_signals)
    if not result.scores:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(result.skipped.items())[:MOST_REASONS])
        raise errors.DataError(f"no score could be computed: {reasons}.")
    return result


def as_evidence(evidence: Evidence | Mapping[str, Any]) -> Evidence:
    """Returns evidence whose fields are arrays, from an `Evidence` or a dict of arrays or lists.

    Raises:
      DataError: something else, unknown names, lists of unequal length, no `unlearned` or `labels`.
    """
    values = {name: value for name, value in as_arrays(evidence).items() if name not in AUDIT_FIELDS}
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise errors.unknown("array", str(unknown[0]), FIELDS)
    if "unlearned" not in values or "labels" not in values:
        raise errors.DataError("the evidence needs `unlearned` [N, C] and `labels` [N].")
    return Evidence(**values)


def run_checked(
    names: Iterable[str], evidence: Evidence, options: Options, audit_signals: AuditSignals | None = None
) -> Result:
    """Computes scores as `run` does, without checking its arguments again: large arrays are not read twice.

    Args:
      names: from `names_of`.
      evidence: from `check`.
      options: checked by `check_options`.
      audit_signals: see `run`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> evidence, _ = scores.check(scores.Evidence(np.array([[2.0, 2.0]]), np.array([0])))
      >>> scores.run_checked(["confidence"], evidence, scores.Options()).scores["confidence"].values.tolist()
      [0.5]
    """
    skipped = skipped_for(names, evidence, np.shape(evidence.unlearned)[-1])
    computable = [name for name in names if name not in skipped]
    if audit_signals is None:
        audit_signals = signals_pass(evidence, options, pairs=needs_pairs(computable))
    computed = {}
    for name in computable:
        try:
            computed[name] = compute(name, audit_signals, options)
        except errors.DataError as error:  # the other scores are still useful
            skipped[name] = str(error).rstrip(".")
    if computable and not computed:
        raise errors.DataError(f"no score could be computed: {computable[0]}: {skipped[computable[0]]}.")
    return Result(ByScore(computed, skipped), skipped, notes_on_level(computed, audit_signals.unlearned, options))


def notes_on_level(names: Iterable[str], unlearned: Signals | None, options: Options) -> tuple[str, ...]:
    """Returns a sentence if log-probabilities were given where scores read the level of logits.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> logits = np.array([[1.0, 3.0], [0.5, -1.0]])
      >>> log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
      >>> labels = np.array([0, 1])
      >>> [len(scores.run("margin", scores.Evidence(z, labels)).notes) for z in (logits, log_probabilities)]
      [0, 1]
    """
    affected = [name for name in names if find(name).reads_level(options)]
    if not affected or unlearned is None:
        return ()
    of_probabilities = -np.logaddexp(0, -np.asarray(unlearned.log_odds, np.float64))
    if np.abs(np.asarray(unlearned.true_logit, np.float64) - of_probabilities).max() > LEVEL_TOLERANCE:
        return ()
    return (
        "`unlearned` looks like log-probabilities (the exponentials of every row sum to 1). These scores change with a "
        f"constant added to the logits of a row, and need the network's own outputs: {', '.join(affected)}",
    )


def compute(name: str, audit_signals: AuditSignals, options: Options) -> Scores:
    """Computes one score for the audited model of `audit_signals`; raises as `compute_models` does.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> audit_signals = scores.signals_pass(scores.Evidence(np.array([[0.0, 0.0]]), np.array([0])), scores.Options())
      >>> scores.compute("confidence", audit_signals, scores.Options()).values.tolist()
      [0.5]
    """
    values = compute_models(name, audit_signals, single_model(audit_signals), options)[0]
    parameters = {"compat": options.compat, "constants": tuple(options.constants)}
    return Scores(values, name=name, parameters=tuple(parameters.items()))


def compute_models(name: str, audit_signals: AuditSignals, models: AuditedModels, options: Options) -> np.ndarray:
    """Computes one score [K, N] for K audited models that share their shadows, in one program.

    Args:
      name: of the score.
      audit_signals: what the models share.
      models: the signals that differ between them, with a leading K.
      options: see `options.Options`.

    Raises:
      DataError: the score is not one finite number per sample. ConfigError: a user's own score that does not run.

    Example:
      >>> import jax, numpy as np
      >>> from jaxunlearn import scores
      >>> evidence = scores.Evidence(np.array([[0.0, 0.0]]), np.array([0]))
      >>> audit_signals = scores.signals_pass(evidence, scores.Options())
      >>> models = jax.tree.map(lambda leaf: np.repeat(leaf, 3, 0), scores.single_model(audit_signals))
      >>> scores.compute_models("confidence", audit_signals, models, scores.Options()).shape
      (3, 1)
    """
    score = find(name)
    entry = score.entry
    if score.entry_of_models is not None:
        values = score.entry_of_models(audit_signals, models, options)
    elif score.on_host(options):
        count = len(models.unlearned.log_odds)
        single_models = [jax.tree.map(lambda leaf, k=k: leaf[k], models) for k in range(count)]
        with checks.users_code(f"score {name}", None if name in SCORES else entry):
            values = np.stack(
                [np.asarray(entry(select_model(audit_signals, model), options)) for model in single_models]
            )
    else:
        static, numbers = split(options)
        values = np.asarray(_mapped(audit_signals, models, numbers, entry, static))
    sizes = {"K": len(models.unlearned.log_odds), "N": len(audit_signals.labels)}
    checks.shape("KN", sizes, **{f"score {name} (one line per audited model)": values})
    if values.dtype.kind in "OSUc":
        raise errors.DataError(f"score {name} has dtype {values.dtype}, expected one number per sample.")
    # The table's own float64 scores need its range or resolution; everything else is float32.
    values = values if name in SCORES and values.dtype == np.float64 else values.astype(np.float32)
    _require_finite(name, values, audit_signals, models)
    return values


def _require_finite(name: str, values: np.ndarray, audit_signals: AuditSignals, models: AuditedModels) -> None:
    """Raises a DataError if a score is not finite; names the array with the largest log-odds if those overflowed it."""
    is_broken = ~np.isfinite(values)
    if not is_broken.any():
        return
    arrays = {key: getattr(audit_signals, key) for key in AuditSignals._fields} | models._asdict()
    largest = {
        key: float(np.abs(array.log_odds).max())
        for key, array in arrays.items()
        if isinstance(array, Signals) and np.size(array.log_odds)
    }
    field = max(largest, key=lambda key: largest[key])
    model, sample = np.argwhere(is_broken)[0]
    suffix = f" of audited model {model}" if len(values) > 1 else ""
    message = f"score {name} is NaN or infinite for {is_broken.sum():,} sample(s), first for sample {sample}{suffix}"
    if largest[field] > EXPLODED:
        message += f"; the log-odds of `{field}` reach {largest[field]:.2g}: a model whose logits explode has diverged"
    raise errors.DataError(f"{message}.")


@partial(jax.jit, static_argnames=("entry", "options"))
def _mapped(
    audit_signals: AuditSignals,
    models: AuditedModels,
    numbers: dict[str, Any],
    entry: entries.ScoreFn,
    options: Options,
) -> jax.Array:
    options = options._replace(**numbers)
    # Models are mapped one after another: a score may need [S, N] of working memory.
    return jax.lax.map(lambda model: entry(select_model(audit_signals, model), options), models)
