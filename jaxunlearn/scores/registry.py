"""The table of scores: what each one needs, which kind of evidence it reads, and the function that computes it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.records import Evidence
from jaxunlearn.scores import entries
from jaxunlearn.scores.families import unleak
from jaxunlearn.scores.options import Options
from jaxunlearn.scores.tokens import entries as lm

LOGITS, TOKENS = "logits", "tokens"


class Score(NamedTuple):
    """One line of the table.

    Attributes:
      entry: (audit_signals, options) -> [N].
      needs: fields of Evidence in addition to `unlearned` and `labels`.
      about: one line for users.
      on_host: options -> whether the entry cannot be traced (SciPy, NumPy's float64, a user's own score).
      clean_only: whether it reads only clean answers (no pairs, no views), as they are recorded of snapshots.
      reads_shadows: whether it differs between groups of shadow models.
      is_variant: whether it is another score under another distribution, left out where `all` would take minutes.
      least_classes: fewest classes for which it is defined.
      entry_of_models: (audit_signals, models, options) -> [K, N], if K audited models share more than their inputs.
      kinds: kinds of evidence it is defined on: logits of classifiers, tokens of language models.
      reads_level: options -> whether a constant added to all logits of a row changes it. Such a score needs the
        network's own outputs; log-probabilities have another constant.
    """

    entry: entries.ScoreFn
    needs: tuple[str, ...]
    about: str
    on_host: Callable[[Options], bool] = lambda options: False
    clean_only: bool = True
    reads_shadows: bool = True
    is_variant: bool = False
    least_classes: int = 2
    entry_of_models: Callable[..., np.ndarray] | None = None
    kinds: tuple[str, ...] = (LOGITS,)
    reads_level: Callable[[Options], bool] = lambda options: False


def _always(options: Options) -> bool:
    return True


def _with_beta(options: Options) -> bool:
    return options.family == "beta"


def _faithful(options: Options) -> bool:
    return options.compat == "faithful"


def _with_taylor(options: Options) -> bool:
    return options.rmia_signal.startswith("taylor")


_ON = ("original", "shadows")
_OFF = ("shadows", "shadow_train_logits")
_POPULATION = ("population_unlearned", "population_shadows")
_VIEWS = ("unlearned_views", "shadows_views")
_RMIA_ON = (*_ON, *_POPULATION, "population_in")
_ALONE: dict[str, Any] = {"reads_shadows": False}
_OVER_VIEWS: dict[str, Any] = {"clean_only": False}
_LEVEL: dict[str, Any] = {"reads_level": _always}
_RMIA: dict[str, Any] = {"reads_level": _with_taylor}


def _change(signal: entries.SignalFn, about: str) -> Score:
    return Score(partial(entries.change, signal), ("original",), about, **_ALONE)


def _gauss(signal: entries.SignalFn, about: str) -> Score:
    return Score(partial(entries.iam_gauss, signal, False), _ON, about)


def _family(name: str, entry: entries.ScoreFn) -> Score:
    is_offline, about = name.endswith("off"), f"confidence under another distribution: {name[4:]}"
    on_host = _always if "_beta_" in name else Score._field_defaults["on_host"]
    return Score(entry, _OFF if is_offline else _ON, about, on_host, is_variant=True)


def _text(entry: entries.ScoreFn, needs: tuple[str, ...], about: str, clean_only: bool = True) -> Score:
    reads_shadows = "nll_ref" in needs
    return Score(entry, needs, about, clean_only=clean_only, reads_shadows=reads_shadows, kinds=(TOKENS,))


_TOKENS = ("token_logp_target",)
_FIT_REF = ("nll_fit", "nll_ref")

SCORES: dict[str, Score] = {
    "iam_on": Score(entries.iam_on, _ON, "IAM with the original model as IN level", _with_beta),
    "iam_off": Score(entries.iam_off, _OFF, "IAM without the original model", _with_beta),
    "rmia_on": Score(entries.rmia_on, _RMIA_ON, "RMIA with IN and OUT references", **_RMIA),
    "rmia_off": Score(entries.rmia_off, ("shadows", *_POPULATION), "RMIA with OUT references", **_RMIA),
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
    "emia_r": Score(entries.emia_r, ("shadows",), "EMIA-R: loss among the shadows' losses", **_LEVEL),
    "emia_p": Score(
        entries.emia_p, ("population_unlearned",), "EMIA-P: loss among other samples' losses", **_ALONE, **_LEVEL
    ),
    "update": Score(entries.update, _ON, "update attack: fall of the LiRA tail", _faithful),
    "unleak": Score(
        entries.unleak_score,
        ("original", "posterior_pairs_original", "posterior_pairs_unlearned", "posterior_pairs_forgotten"),
        "UnLeak: classifier on the change of the posterior",
        _always,
        clean_only=False,
        least_classes=unleak.KEPT + 1,
        entry_of_models=entries.unleak_models,
    ),
    "confidence": Score(entries.confidence, (), "confidence of the unlearned model alone", _always, **_ALONE),
    "loss": Score(entries.minus_loss, (), "minus the cross entropy of the unlearned model alone", _always, **_ALONE),
    "margin": Score(entries.margin, (), "Taylor soft margin of the unlearned model alone", **_ALONE, **_LEVEL),
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
    "iam_tsm": _gauss(entries.MARGIN, "IAM on Taylor soft margins, Gaussian")._replace(**_LEVEL),
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
        "RMIA-On over augmented views", **_OVER_VIEWS, **_RMIA,
    ),
    "rmia_off_views": Score(
        partial(entries.over_views, entries.rmia_off), ("shadows", *_POPULATION, *_VIEWS),
        "RMIA-Off over augmented views", **_OVER_VIEWS, **_RMIA,
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
    # Seeded with answers of the shadows too, so that every audit and group of shadows has its own noise.
    "random": Score(entries.random, (), "uniform noise, the baseline", _always, kinds=(LOGITS, TOKENS)),
}  # fmt: skip


def names_of(names: Iterable[str], kind: str = LOGITS) -> tuple[str, ...]:
    """Resolves names of scores: `all` is every score of this kind of evidence, `my_module:my_score` is imported.

    Raises:
      ConfigError: something that is no name, or an unknown name, with the nearest one.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.names_of(["update", "iam_on", "update"])
      ('update', 'iam_on')
    """
    resolved: list[str] = []
    names = tuple(names) if isinstance(names, Iterable) else (names,)
    if not all(isinstance(name, str) for name in names):
        raise errors.ConfigError(
            "scores are given by name: a list of names, such as ['iam_on'], or 'all'; a function of your own is named "
            "'my_module:my_score'."
        )
    for name in names:
        resolved += [key for key, score in SCORES.items() if kind in score.kinds] if name == "all" else [name]
    for name in resolved:
        find(name, kind)
    if not resolved:
        raise errors.ConfigError("no score is named; name some of the table, or `all`.")
    return tuple(dict.fromkeys(resolved))


def find(name: str, kind: str = "") -> Score:
    """Returns the line of a score; a user's own `my_module:my_score` declares no needs and is not traced.

    Raises:
      ConfigError: unknown name, with the nearest one for this kind of evidence, or of its prefix.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.find("emia_r").about
      "EMIA-R: loss among the shadows' losses"
    """
    if name in SCORES:
        return SCORES[name]
    if ":" not in name:
        raise _unknown(name, TOKENS if name.lower().startswith("lm_") else kind or LOGITS)
    entry = checks.lookup("score", name, {})
    return Score(entry, (), "a score of the user's own", _always, kinds=(LOGITS, TOKENS))


def _unknown(name: str, kind: str) -> errors.UserError:
    """Returns the error for an unknown score: its family, or the nearest name; neither: all names but variants."""
    names = [key for key, score in SCORES.items() if kind in score.kinds]
    plain = name.lower().replace("-", "_")
    family = [key for key in names if key.startswith(f"{plain}_") and not SCORES[key].is_variant]
    if plain not in names and family:
        return errors.ConfigError(f"unknown score {name!r}: which one is meant? {', '.join(family)}.")
    hint = errors.nearest(plain, names)
    if hint:
        return errors.ConfigError(f"unknown score {name!r}.{hint} SCORES has all {len(names)} scores of {kind}.")
    main_names = [key for key in names if not SCORES[key].is_variant]
    return errors.ConfigError(f"unknown score {name!r}. Known: {', '.join(main_names)}.")


def needs(name: str) -> tuple[str, ...]:
    """Returns the evidence fields that a score needs in addition to `unlearned` and `labels`; of a user's own, none.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.needs("iam_on")
      ('original', 'shadows')
    """
    return find(name).needs


def missing(name: str, available: Mapping[str, Any] | Evidence) -> list[str]:
    """Returns the evidence fields that a score needs and that `available`, an Evidence or name -> bool, lacks.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.missing("iam_on", {"original": True})
      ['shadows']
    """
    if isinstance(available, Evidence):
        return [field for field in needs(name) if getattr(available, field, None) is None]
    return [field for field in needs(name) if not available.get(field)]


def skipped_for(
    names: Iterable[str],
    available: Mapping[str, Any] | Evidence,
    num_classes: int | None = None,
    kind: str = LOGITS,
) -> dict[str, str]:
    """Returns the scores that cannot be computed, each with its reason.

    Args:
      names: of scores.
      available: an Evidence, or name of a field -> whether it is there.
      num_classes: C; None = not checked.
      kind: of the evidence, LOGITS or TOKENS.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.skipped_for(["iam_on", "lm_loss", "margin"], {"original": True})
      {'iam_on': 'needs shadows', 'lm_loss': 'is defined on tokens, not on logits'}
    """
    skipped = {}
    for name in names:
        fields, minimum = missing(name, available), find(name).least_classes
        if kind not in find(name).kinds:
            skipped[name] = f"is defined on {find(name).kinds[0]}, not on {kind}"
        elif fields:
            skipped[name] = f"needs {', '.join(fields)}"
        elif kind == LOGITS and num_classes is not None and num_classes < minimum:
            skipped[name] = f"needs more than {minimum - 1} classes, not {num_classes}"
    return skipped


def needs_pairs(names: Iterable[str]) -> bool:
    """Returns whether any of these scores reads UnLeak's features, which `signals_pass` keeps only on request.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.needs_pairs(["iam_on"]), scores.needs_pairs(["unleak"])
      (False, True)
    """
    return any("posterior_pairs_forgotten" in needs(name) for name in names)
