"""Scores: one number per sample from the logits of several models. Higher = the sample still looks trained on.

    evidence -> check -> one pass over the logits (`audit_signals`) -> any of SCORES

To add one: a function (measured, options) -> [N] in `entries.py`, a line in SCORES, a golden array or a naive twin; the
trials of tests/scores run over every line. `my_module:my_score` works wherever a name does.
"""

from collections.abc import Callable, Iterable, Mapping
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
from jaxunlearn.scores.evidence import FIELDS, check
from jaxunlearn.scores.families import difference, emia, few_shadow, iam, lira, rmia, unleak
from jaxunlearn.scores.options import Constants, Options, published
from jaxunlearn.scores.options import check as check_options
from jaxunlearn.scores.tokens import entries as lm

LOGITS, TOKENS = "logits", "tokens"


class Score(NamedTuple):
    """One line of the table.

    Attributes:
      entry: (measured, options) -> [N].
      needs: fields of Evidence beside `unlearned` and `labels`.
      about: one line for people.
      on_host: options -> whether the entry cannot be traced (SciPy, NumPy's float64, a user's own).
      clean_only: whether it reads nothing but clean answers (no pairs, no views), as recorded of snapshots.
      reads_shadows: whether it differs between groups of shadow models.
      is_variant: whether it is another score under another distribution, left out where `all` would take minutes.
      least_classes: fewest classes for which it is defined.
      entry_of_cases: (measured, cases, options) -> [K, N], where K audited models share more than their inputs.
      reads: kinds of evidence it is defined on: logits of classifiers, tokens of language models.
    """

    entry: entries.Entry
    needs: tuple[str, ...]
    about: str
    on_host: Callable[[Options], bool] = lambda options: False
    clean_only: bool = True
    reads_shadows: bool = True
    is_variant: bool = False
    least_classes: int = 2
    entry_of_cases: Callable[..., np.ndarray] | None = None
    kinds: tuple[str, ...] = (LOGITS,)


def _always(options: Options) -> bool:
    return True


def _with_beta(options: Options) -> bool:
    return options.family == "beta"


def _faithful(options: Options) -> bool:
    return options.compat == "faithful"


_ON = ("original", "shadows")
_OFF = ("shadows", "shadow_train_logits")
_POPULATION = ("population_unlearned", "population_shadows")
_VIEWS = ("unlearned_views", "shadows_views")
_RMIA_ON = (*_ON, *_POPULATION, "population_in")
_ALONE: dict[str, Any] = {"reads_shadows": False}
_OVER_VIEWS: dict[str, Any] = {"clean_only": False}


def _change(signal: entries.SignalFn, about: str) -> Score:
    return Score(partial(entries.change, signal), ("original",), about, **_ALONE)


def _gauss(signal: entries.SignalFn, about: str) -> Score:
    return Score(partial(entries.iam_gauss, signal, False), _ON, about)


def _family(name: str, entry: entries.Entry) -> Score:
    is_offline, about = name.endswith("off"), f"confidence under another distribution: {name[4:]}"
    on_host = _always if "_beta_" in name else Score._field_defaults["on_host"]
    return Score(entry, _OFF if is_offline else _ON, about, on_host, is_variant=True)


def _text(entry: entries.Entry, needs: tuple[str, ...], about: str, clean_only: bool = True) -> Score:
    reads_shadows = "nll_ref" in needs
    return Score(entry, needs, about, clean_only=clean_only, reads_shadows=reads_shadows, kinds=(TOKENS,))


_TOKENS = ("token_logp_target",)
_FIT_REF = ("nll_fit", "nll_ref")

SCORES: dict[str, Score] = {
    "iam_on": Score(entries.iam_on, _ON, "IAM with the original model as IN level", _with_beta),
    "iam_off": Score(entries.iam_off, _OFF, "IAM without the original model", _with_beta),
    "rmia_on": Score(entries.rmia_on, _RMIA_ON, "RMIA with IN and OUT references"),
    "rmia_off": Score(entries.rmia_off, ("shadows", *_POPULATION), "RMIA with OUT references"),
    "lira_on": Score(entries.lira_on, _ON, "LiRA, original model as the only IN model", _faithful),
    "lira_off": Score(entries.lira_off, ("shadows",), "LiRA with OUT models only", _faithful),
    "lira": Score(
        entries.lira_standard,
        ("reference", "reference_member"),
        "standard online LiRA, IN and OUT models",
        **_ALONE,
    ),
    "bavaria_t": Score(partial(entries.bavaria, "t"), _ON, "BaVarIA: LiRA with Student's t and shrunk variances"),
    "bavaria_n": Score(partial(entries.bavaria, "n"), _ON, "BaVarIA: LiRA with shrunk variances"),
    "base": Score(entries.base, ("shadows",), "BASE: probability against its mean over shadows"),
    "informia": Score(entries.informia, ("shadows", *_POPULATION), "InfoRMIA with OUT references"),
    "emia_r": Score(entries.emia_r, ("shadows",), "EMIA-R: loss among the shadows' losses"),
    "emia_p": Score(
        entries.emia_p, ("population_unlearned",), "EMIA-P: loss among other samples' losses", **_ALONE
    ),
    "update": Score(entries.update, _ON, "update attack: fall of the LiRA tail", _faithful),
    "unleak": Score(
        entries.unleak_score,
        ("original", "posterior_pairs_original", "posterior_pairs_unlearned", "posterior_pairs_forgotten"),
        "UnLeak: classifier on the change of the posterior",
        _always,
        clean_only=False,
        least_classes=unleak.KEPT + 1,
        entry_of_cases=entries.unleak_cases,
    ),
    "confidence": Score(entries.confidence, (), "confidence of the unlearned model alone", _always, **_ALONE),
    "loss": Score(entries.minus_loss, (), "minus the cross entropy of the unlearned model alone", _always, **_ALONE),
    "margin": Score(entries.margin, (), "Taylor soft margin of the unlearned model alone", **_ALONE),
    "confidence_diff": _change(entries.CONFIDENCE, "change of the confidence"),
    "loss_diff": _change(entries.LOSS, "minus the change of the cross entropy"),
    "carlini_diff": _change(entries.CARLINI, "change of the carlini logit"),
    "logloss_diff": Score(entries.log_log_change, ("original",), "change of the log-log signal", **_ALONE),
    "ldiff": Score(
        entries.ldiff,
        ("original", "population_original", "population_unlearned"),
        "LDiff: tails of the carlini logit and of its change",
        **_ALONE,
    ),
    "iam_confidence": _gauss(entries.CONFIDENCE, "IAM on confidences, Gaussian"),
    "iam_tsm": _gauss(entries.MARGIN, "IAM on Taylor soft margins, Gaussian"),
    "iam_carlini": _gauss(entries.CARLINI, "IAM on carlini logits, Gaussian"),
    "iam_loss": _gauss(entries.LOSS, "IAM on losses, Gaussian"),
    "iam_carlini_off": Score(
        partial(entries.iam_gauss, entries.CARLINI, True), _OFF, "IAM-Off on carlini logits, Gaussian (Table 5)",
    ),
    "iam_raw": Score(entries.iam_raw, _ON, "IAM-On on the unscaled signal (published class report)", _with_beta),
    **{name: _family(name, entry) for name, entry in entries.TABLE_FIVE.items()},
    "lira_on_views": Score(
        partial(entries.over_views, entries.lira_on), (*_ON, *_VIEWS, "original_views"), "LiRA-On over augmented views",
        _faithful, **_OVER_VIEWS,
    ),
    "lira_off_views": Score(
        partial(entries.over_views, entries.lira_off), ("shadows", *_VIEWS), "LiRA-Off over augmented views",
        _faithful, **_OVER_VIEWS,
    ),
    "rmia_on_views": Score(
        partial(entries.over_views, entries.rmia_on), (*_RMIA_ON, *_VIEWS, "original_views"),
        "RMIA-On over augmented views", **_OVER_VIEWS,
    ),
    "rmia_off_views": Score(
        partial(entries.over_views, entries.rmia_off), ("shadows", *_POPULATION, *_VIEWS),
        "RMIA-Off over augmented views", **_OVER_VIEWS,
    ),
    "lm_loss": _text(lm.loss, (), "minus the mean loss of a text"),
    "lm_ratio": _text(lm.ratio, ("nll_ref",), "minus the loss over that of OUT models"),
    "lm_zlib": _text(lm.zlib, ("texts",), "minus the loss over compressed bytes per character"),
    "lm_lowercase": _text(lm.lowercase, ("nll_lower",), "minus the loss over that in lower case", False),
    "lm_min_k": _text(lm.min_k, _TOKENS, "Min-K %: the least likely tokens", False),
    "lm_min_k_pp": _text(
        lm.min_k_pp, (*_TOKENS, "entropy", "model_std"), "Min-K++: the same, standardised under the model", False
    ),
    "lm_min_k_pp_vocab": _text(
        lm.min_k_pp_vocab, (*_TOKENS, "vocab_mean", "vocab_std"),
        "Min-K++ with plain moments over the vocabulary, as in released code", False,
    ),
    "lm_surp": _text(lm.surp, (*_TOKENS, "entropy"), "SURP: unlikely tokens where the model was sure", False),
    "lm_pac": _text(
        lm.pac, (*_TOKENS, "token_logp_pac"), "PAC: likely against unlikely tokens, against edited copies", False
    ),
    "lm_pac_distance": _text(lm.pac_distance, _TOKENS, "PAC's distance of the text alone", False),
    "lm_recall": _text(lm.recall, ("nll_recall",), "ReCaLL: loss behind a prefix of non-members", False),
    "lm_conrecall": _text(
        lm.conrecall, ("nll_recall", "nll_recall_member"), "CON-ReCaLL: behind non-members against members", False
    ),
    "lm_neighborhood": _text(lm.neighborhood, ("nll_neighbours",), "loss of neighbours minus the loss", False),
    "lm_lira": _text(lm.lira, _FIT_REF, "LiRA-On of texts, one IN model"),
    "lm_rmia": _text(
        lm.rmia, (*_FIT_REF, "pop_nll_target", "pop_nll_fit", "pop_nll_ref"), "RMIA-On of texts, one IN model"
    ),
    "lm_iam": _text(lm.iam, _FIT_REF, "IAM-On of texts, from IN to OUT")._replace(on_host=_always),
    # Its seed takes in what the shadows answer: every audit and group of shadows has its own noise.
    "random": Score(entries.random, (), "uniform noise, the baseline", _always, kinds=(LOGITS, TOKENS)),
}  # fmt: skip


DEFAULT_OPTIONS = Options()
# Log-odds beyond this are no answer of a model, and are named where a score overflows.
EXPLODED = 1e6


class Result(NamedTuple):
    """What `run` found.

    Attributes:
      scores: name -> Scores.
      skipped: name -> why it could not be computed: the arrays it lacks.
    """

    scores: dict[str, Scores]
    skipped: dict[str, str]


def names_of(wanted: Iterable[str], kind: str = LOGITS) -> tuple[str, ...]:
    """Resolves the names a user gave: `all` is every score of this kind of evidence, `my_module:my_score` is imported.

    Raises:
      ConfigError: unknown name, with the nearest one.
    """
    every = [name for name, score in SCORES.items() if kind in score.kinds]
    names = [name for given in wanted for name in (every if given == "all" else (given,))]
    for name in names:
        find(name)
    if not names:
        raise errors.ConfigError("no score is named; give some of the table, or all.")
    return tuple(dict.fromkeys(names))


def find(name: str) -> Score:
    """The line of a score; of a user's own `my_module:my_score` one that declares no needs and is not traced.

    Raises:
      ConfigError: unknown name, with the nearest one.
    """
    if name in SCORES:
        return SCORES[name]
    entry = checks.lookup("score", name, {known: score.entry for known, score in SCORES.items()})
    return Score(entry, (), "a score of the user's own", _always, kinds=(LOGITS, TOKENS))


def needs(name: str) -> tuple[str, ...]:
    """Evidence fields that a score needs beside `unlearned` and `labels`; a user's own score declares none."""
    return find(name).needs


def missing(name: str, available: Mapping[str, Any] | Evidence) -> list[str]:
    """Evidence fields that a score needs and that are not there (a mapping of names, or an Evidence)."""
    if isinstance(available, Evidence):
        return [field for field in needs(name) if getattr(available, field, None) is None]
    return [field for field in needs(name) if not available.get(field)]


def skipped_for(
    names: Iterable[str],
    available: Mapping[str, Any] | Evidence,
    num_classes: int | None = None,
    kind: str = LOGITS,
) -> dict[str, str]:
    """The scores that cannot be computed from what is there, each with why: the wrong kind, missing arrays, classes."""
    skipped = {}
    for name in names:
        fields, least = missing(name, available), find(name).least_classes
        if kind not in find(name).kinds:
            skipped[name] = f"is defined on {find(name).kinds[0]}, not on {kind}"
        elif fields:
            skipped[name] = f"needs {', '.join(fields)}"
        elif kind == LOGITS and num_classes is not None and num_classes < least:
            skipped[name] = f"needs more than {least - 1} classes, not {num_classes}"
    return skipped


def run(
    wanted: Iterable[str],
    evidence: Evidence,
    options: Options = DEFAULT_OPTIONS,
    *,
    audit_signals: AuditSignals | None = None,
) -> Result:
    """Scores of one audit, from one pass over the logits.

    Args:
      wanted: names of SCORES, `all`, or `my_module:my_score`.
      evidence: the arrays; checked here.
      options: see `options.Options`.
      audit_signals: the pass, if the caller has made it.

    Returns:
      Scores for every name whose inputs are there; the others with what they lack, or why they have no finite number
      for every sample.

    Raises:
      UserError: bad evidence, options or names; not one score could be computed.
    """
    names = names_of(wanted)
    evidence, _ = check(evidence)
    check_options(options)
    return run_checked(names, evidence, options, audit_signals)


def run_checked(
    names: Iterable[str], evidence: Evidence, options: Options, audit_signals: AuditSignals | None = None
) -> Result:
    """`run` for names, evidence and options that have passed their checks: large arrays are not read again for them."""
    skipped = skipped_for(names, evidence, np.shape(evidence.unlearned)[-1])
    todo = [name for name in names if name not in skipped]
    if audit_signals is None:
        audit_signals = signals_pass(evidence, options, pairs=needs_pairs(todo))
    found = {}
    for name in todo:
        try:
            found[name] = compute(name, audit_signals, options)
        except errors.DataError as error:  # the others are worth having without it
            skipped[name] = str(error).rstrip(".")
    if todo and not found:
        raise errors.DataError(f"no score could be computed: {todo[0]}: {skipped[todo[0]]}.")
    return Result(found, skipped)


def needs_pairs(names: Iterable[str]) -> bool:
    """Whether any of these scores reads UnLeak's features, which the pass keeps only where they are wanted."""
    return any("posterior_pairs_forgotten" in needs(name) for name in names)


def compute(name: str, audit_signals: AuditSignals, options: Options) -> Scores:
    """One score of the table for the audited model of `audit_signals`; raises as `compute_cases`."""
    values = compute_models(name, audit_signals, single_model(audit_signals), options)[0]
    given = {"compat": options.compat, "constants": tuple(options.constants)}
    return Scores(values, name=name, parameters=tuple(given.items()))


def compute_models(name: str, audit_signals: AuditSignals, cases: AuditedModels, options: Options) -> np.ndarray:
    """[K, N] one score for K audited models that share shadows and everything else of `audit_signals`, in one program.

    Raises:
      DataError: the score is not one finite number per sample. ConfigError: a user's own score that does not run.
    """
    score = find(name)
    entry = score.entry
    if score.entry_of_cases is not None:
        values = score.entry_of_cases(audit_signals, cases, options)
    elif score.on_host(options):
        count = len(cases.unlearned.log_odds)
        picked = [select_model(audit_signals, jax.tree.map(lambda leaf, k=k: leaf[k], cases)) for k in range(count)]
        with checks.users_code(f"score {name}", None if name in SCORES else entry):
            values = np.stack([np.asarray(entry(one, options)) for one in picked])
    else:
        values = np.asarray(_mapped(audit_signals, cases, entry, options))
    sizes = {"K": len(cases.unlearned.log_odds), "N": len(audit_signals.labels)}
    checks.shape("KN", sizes, **{f"score {name} (one line per audited model)": values})
    if values.dtype.kind in "OSUc":
        raise errors.DataError(f"score {name} has dtype {values.dtype}, expected one number per sample.")
    # The table's own float64 scores need its range or resolution; everything else is float32.
    values = values if name in SCORES and values.dtype == np.float64 else values.astype(np.float32)
    _require_finite(name, values, audit_signals, cases)
    return values


def _require_finite(name: str, values: np.ndarray, audit_signals: AuditSignals, cases: AuditedModels) -> None:
    """Raises a DataError that names the array with the largest log-odds, where those have overflowed the score."""
    broken = ~np.isfinite(values)
    if not broken.any():
        return
    parts = {key: getattr(audit_signals, key) for key in AuditSignals._fields} | cases._asdict()
    largest = {
        key: float(np.abs(part.log_odds).max())
        for key, part in parts.items()
        if isinstance(part, Signals) and np.size(part.log_odds)
    }
    worst = max(largest, key=lambda key: largest[key])
    case, sample = np.argwhere(broken)[0]
    where = f" of audited model {case}" if len(values) > 1 else ""
    said = f"score {name} is NaN or infinite for {broken.sum():,} sample(s), first for sample {sample}{where}"
    if largest[worst] > EXPLODED:
        said += f"; the log-odds of `{worst}` reach {largest[worst]:.2g}: a model whose logits explode has diverged"
    raise errors.DataError(f"{said}.")


@partial(jax.jit, static_argnames=("entry", "options"))
def _mapped(audit_signals: AuditSignals, cases: AuditedModels, entry: entries.Entry, options: Options) -> jax.Array:
    # One after another inside one program: a score may need [S, N] of working memory.
    return jax.lax.map(lambda one: entry(select_model(audit_signals, one), options), cases)
