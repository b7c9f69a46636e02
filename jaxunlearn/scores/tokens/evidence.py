"""The arrays of an audit of texts: their field table, checks of their content, and the one pass over them.

A model is given by log-probabilities per token with their mask, or by losses per text. Only the audited model's tokens
are read one by one; of IN ("fit") and OUT ("ref") models only the losses.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors
from jaxunlearn.arrays import ArrayField
from jaxunlearn.scores.tokens import texts
from jaxunlearn.scores.tokens.options import TokenOptions
from jaxunlearn.scores.tokens.statistics import BLOCK_BYTES, TextSignals, nll, summarise

MOMENTS = ("entropy", "model_std", "vocab_mean", "vocab_std")
LARGEST = 1e6  # nats; larger numbers are placeholders, not losses
ROUNDING = 1e-3  # log-probabilities that low precision has rounded above 0 by at most this much count as 0


def _number_field(axes: str, needs: tuple[str, ...] = (), aliases: Mapping[str, str] = {}) -> ArrayField:  # noqa: B006
    """Returns a field of numbers that may be NaN where a mask is 0; `from_arrays` checks the others."""
    return ArrayField(axes, "numbers", needs=needs, aliases=aliases, finite=False)


# Axis letters: N texts, T predictions of the audited model, V, W those of IN and OUT models (tokenizers of their own);
# U those of the retrained one; S OUT models; P population texts with Q, X, Y, R predictions; A edited copies of Z
# predictions; K neighbours, L steps.
FIELDS: dict[str, ArrayField] = {
    "nll_target": _number_field("N", aliases={"nll": "N"}),
    "nll_fit": _number_field("N|?N"),  # several raise an error that says why
    "nll_ref": _number_field("N|SN"),
    "nll_retrained": _number_field("N"),
    "token_logp_target": _number_field("NT", aliases={"token_logp": "NT"}),
    "mask": ArrayField("NT", "flags", aliases={"target_mask": "NT"}),
    "token_logp_fit": _number_field("NV|?NV"),
    "mask_fit": ArrayField("NV", "flags", needs=("token_logp_fit",)),
    "token_logp_ref": _number_field("NW|SNW"),
    "mask_ref": ArrayField("NW", "flags", needs=("token_logp_ref",)),
    "token_logp_retrained": _number_field("NU"),
    "mask_retrained": ArrayField("NU", "flags", needs=("token_logp_retrained",)),
    **{name: _number_field("NT", needs=("token_logp_target",)) for name in ("entropy", "vocab_mean")},
    "model_std": _number_field("NT", needs=("entropy",), aliases={"model_sd": "NT"}),
    "vocab_std": _number_field("NT", needs=("vocab_mean",), aliases={"vocab_sd": "NT"}),
    "texts": ArrayField("N", "ids"),
    "compressed_len": _number_field("N", needs=("num_chars",)),
    "num_chars": _number_field("N", needs=("compressed_len",), aliases={"n_chars": "N"}),
    "nll_lower": _number_field("N"),
    "nll_recall": _number_field("N"),
    "nll_recall_member": _number_field("N", needs=("nll_recall",)),
    "nll_neighbours": _number_field("KN"),
    "token_logp_pac": _number_field("ANZ", needs=("mask_pac", "token_logp_target")),
    "mask_pac": ArrayField("ANZ", "flags", needs=("token_logp_pac",)),
    "pop_nll_target": _number_field("P", aliases={"pop_nll": "P"}),
    "pop_nll_fit": _number_field("P"),
    "pop_nll_ref": _number_field("P|SP"),
    "pop_nll_retrained": _number_field("P"),
    "pop_token_logp_target": _number_field("PQ"),
    "pop_mask": ArrayField("PQ", "flags"),
    "pop_token_logp_fit": _number_field("PX"),
    "pop_mask_fit": ArrayField("PX", "flags", needs=("pop_token_logp_fit",)),
    "pop_token_logp_ref": _number_field("PY|SPY"),
    "pop_mask_ref": ArrayField("PY", "flags", needs=("pop_token_logp_ref",)),
    "pop_token_logp_retrained": _number_field("PR"),
    "pop_mask_retrained": ArrayField("PR", "flags", needs=("pop_token_logp_retrained",)),
    "nll_steps": _number_field("LN", aliases={"nll_by_step": "LN"}),
    "steps": _number_field("L", needs=("nll_steps",)),
    "forgotten": ArrayField("N", "flags"),
    "label": ArrayField("N", "flags"),
    "ids": ArrayField("N", "ids"),
    "person": ArrayField("N", "ids"),
}
EXPECTED = (
    "Evidence of texts contains `token_logp_target` and `mask` [n, t], or `nll_target` [n], and as many of `nll_fit` "
    "or `token_logp_fit` (IN), `nll_ref` or `token_logp_ref` (OUT), `forgotten` [n], `texts` [n] as you have "
    "(docs/language_models.md)."
)


class TokenEvidence(NamedTuple):
    """Evidence of texts after the pass.

    Attributes:
      target: [N] losses of the audited model; fit: [N] of the IN model; ref: [S, N] of OUT models; retrained: [N] of
        exact retraining of the same request.
      pop_target, pop_fit, pop_retrained: [P], pop_ref: [S, P] of population texts; all but `target` may be None.
      signals: TextSignals of the audited model.
      steps: [L, N] losses of the audited model at L training steps; degrees: [L] progress of the training, in (0, 1].
      forgotten: [N] bool, or None.
    """

    target: np.ndarray
    fit: np.ndarray | None
    ref: np.ndarray | None
    retrained: np.ndarray | None
    pop_target: np.ndarray | None
    pop_fit: np.ndarray | None
    pop_ref: np.ndarray | None
    pop_retrained: np.ndarray | None
    signals: TextSignals
    steps: np.ndarray | None
    degrees: np.ndarray | None
    forgotten: np.ndarray | None


def from_arrays(values: Mapping[str, np.ndarray], options: TokenOptions) -> TokenEvidence:
    """Checks the content of arrays that `arrays.read` has checked against FIELDS, and passes once over the tokens.

    Raises:
      DataError: log-probabilities above 0, NaN or infinite ones at unmasked places, a missing mask, a text without a
        prediction, negative losses, only one kind of text. ShapeError: a mask of another model's length.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> evidence = tokens.from_arrays({"nll_target": np.array([2.0, 0.5])}, tokens.TokenOptions())
      >>> evidence.target.tolist()
      [2.0, 0.5]
    """
    forgotten = _forgotten(values)
    target, signals = _audited(values, options)
    models = ("fit", "ref", "retrained")
    losses = {name: _losses(values, name) for name in (*models, "pop_target", *(f"pop_{name}" for name in models))}
    for name in ("ref", "pop_ref"):
        loss = losses[name]
        losses[name] = None if loss is None else np.atleast_2d(loss)
    if losses["ref"] is not None and losses["pop_ref"] is not None and len(losses["ref"]) != len(losses["pop_ref"]):
        raise errors.ShapeError(
            f"{len(losses['ref'])} OUT model(s) answered the texts, {len(losses['pop_ref'])} the population texts; "
            "`nll_ref` [s, n] and `pop_nll_ref` [s, p] must contain the same models in the same order."
        )
    edited = {name: _checked_loss(name, values[name]) for name in _EDITED if name in values}
    if "nll_neighbours" in edited:
        edited["nll_neighbours"] = edited["nll_neighbours"].mean(0)
    steps = _checked_loss("nll_steps", values["nll_steps"]) if "nll_steps" in values else None
    return TokenEvidence(
        target=target, **losses, signals=signals._replace(**edited, deflated=_deflated(values)), steps=steps,
        degrees=None if steps is None else _degrees(values, len(steps)), forgotten=forgotten,
    )  # fmt: skip


_EDITED = ("nll_lower", "nll_recall", "nll_recall_member", "nll_neighbours")


def _forgotten(values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if "forgotten" in values and "label" in values:
        raise errors.DataError("`forgotten` (1 = forgotten) and `label` (1 = kept) say the same; give one of them.")
    name = "label" if "label" in values else "forgotten"
    if name not in values:
        return None
    forgotten = np.asarray(values[name], bool) != (name == "label")
    if forgotten.all() or not forgotten.any():
        raise errors.DataError(
            f"`{name}` marks {'every' if forgotten.all() else 'no'} text as forgotten: without both forgotten and kept "
            "texts there is no truth to compare with. Leave the array out to get scores without metrics."
        )
    return forgotten


def _audited(values: Mapping[str, np.ndarray], options: TokenOptions) -> tuple[np.ndarray, TextSignals]:
    """Returns losses and statistics of the audited model."""
    if "token_logp_target" not in values:
        if "nll_target" not in values:
            raise errors.DataError(
                "there is neither `token_logp_target` [n, t] nor `nll_target` [n]: give the audited model's answers. "
                + EXPECTED
            )
        return _checked_loss("nll_target", values["nll_target"]), TextSignals()
    if "nll_target" in values:
        raise errors.DataError("the audited model is given twice, by `token_logp_target` and `nll_target`; give one.")
    moments = {name: values[name] for name in MOMENTS if name in values}
    target, signals = _pass_tokens("token_logp_target", values, "mask", options, moments)
    if "token_logp_pac" in values:
        copies = [
            _pass_tokens(f"token_logp_pac[{index}]", {f"token_logp_pac[{index}]": copy, "mask": mask}, "mask", options)
            for index, (copy, mask) in enumerate(zip(values["token_logp_pac"], values["mask_pac"], strict=True))
        ]
        distances = [np.asarray(copy_signals.pac_distance) for _, copy_signals in copies]
        signals = signals._replace(pac_augmented=np.mean(distances, 0))
    return target, signals


def _losses(values: Mapping[str, np.ndarray], model: str) -> np.ndarray | None:
    """Returns the [n] or [s, n] losses of a model, given directly or by its tokens; None if neither is given."""
    prefix, _, name = model.rpartition("_")
    prefix = f"{prefix}_" if prefix else ""
    plain, tokens = f"{prefix}nll_{name}", f"{prefix}token_logp_{name}"
    for field, axes in ((plain, 1), (tokens, 2)):
        if model == "fit" and field in values and np.ndim(values[field]) > axes:
            raise errors.ShapeError(
                f"{field} has shape {np.shape(values[field])}: IN is one model, the audited one as it was before "
                f"unlearning. Give one model's answers, e.g. {field}[0]; only OUT models (`nll_ref`) may be several."
            )
    if plain in values and tokens in values:
        raise errors.DataError(f"a model is given twice, by `{tokens}` and `{plain}`; give one of them.")
    if plain in values:
        return _checked_loss(plain, values[plain])
    if tokens not in values:
        return None
    logp = values[tokens]
    own_mask, shared_mask = f"{prefix}mask_{name}", f"{prefix}mask"
    mask_name = own_mask if own_mask in values else shared_mask
    if mask_name not in values:
        raise errors.DataError(
            f"`{tokens}` needs `{shared_mask}` [n, t] (1 = a prediction that counts): padding cannot be distinguished "
            f"from tokens. A model with another tokenizer needs its own mask, `{own_mask}`."
        )
    if np.shape(logp)[-2:] != np.shape(values[mask_name]):
        raise errors.ShapeError(
            f"`{tokens}` has shape {np.shape(logp)}, `{mask_name}` {np.shape(values[mask_name])}: both must have "
            f"the same number of predictions. A model with another tokenizer needs its own mask, `{own_mask}`."
        )
    models = logp if np.ndim(logp) == 3 else logp[None]
    losses = []
    for index, model_logp in enumerate(models):
        field_name = f"{tokens}[{index}]" if np.ndim(logp) == 3 else tokens
        losses.append(_pass_tokens(field_name, {field_name: model_logp, mask_name: values[mask_name]}, mask_name)[0])
    return np.stack(losses) if np.ndim(logp) == 3 else losses[0]


def _pass_tokens(
    name: str,
    values: Mapping[str, np.ndarray],
    mask_name: str,
    options: TokenOptions | None = None,
    moments: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, TextSignals]:
    """Checks and summarises one model's tokens in blocks of texts; without options, only its losses."""
    if mask_name not in values:
        raise errors.DataError(
            f"`{name}` needs `{mask_name}` [n, t] (1 = a prediction that counts): padding cannot be distinguished from "
            "tokens. Without padding give an array of ones."
        )
    logp, mask, moments = values[name], values[mask_name], dict(moments or {})
    count, length = np.shape(logp)
    rows = min(count, max(1, BLOCK_BYTES // (4 * max(length, 1))))
    losses, fragments = [], []
    for start in range(0, count, rows):
        # The last block starts earlier to be full, so that all blocks have one shape.
        block = slice(max(0, min(start, count - rows)), min(start + rows, count))
        block_mask = np.asarray(mask[block])
        tokens = _checked_tokens(name, np.asarray(logp[block], np.float32), block_mask, block.start)
        block_moments = {
            key: _checked_moment(key, moment[block], block_mask, block.start) for key, moment in moments.items()
        }
        if options is None:
            loss, fragment = nll(tokens, block_mask), TextSignals()
        else:
            loss, fragment = summarise(tokens, block_mask, options, **block_moments)
        offset = start - block.start
        losses.append(np.asarray(loss)[offset:])
        fragments.append(jax.tree.map(lambda leaf, offset=offset: np.asarray(leaf)[offset:], fragment))
    return np.concatenate(losses), jax.tree.map(lambda *leaves: np.concatenate(leaves), *fragments)


def _checked_tokens(name: str, logp: np.ndarray, mask: np.ndarray, first: int) -> np.ndarray:
    """Returns log-probabilities with 0 at masked places; raises a DataError for impossible ones."""
    empty_texts = np.flatnonzero(~mask.any(1))
    if len(empty_texts):
        raise errors.DataError(
            f"{name}: text {first + int(empty_texts[0])} has no prediction that counts ({len(empty_texts)} such "
            "text(s) here): a text of one token or none, or a mask of zeros, cannot be scored. Leave it out of every "
            "array."
        )
    logp = np.where(mask, logp, np.float32(0))
    broken = np.argwhere(~np.isfinite(logp))
    if len(broken):
        row, column = map(int, broken[0])
        raise errors.DataError(
            f"{name} is {logp[row, column]} at text {first + row}, prediction {column}, which the mask counts "
            f"({len(broken)} such place(s) here)."
        )
    if logp.min() < -LARGEST:
        row, column = map(int, np.unravel_index(logp.argmin(), logp.shape))
        raise errors.DataError(
            f"{name} is {logp[row, column]:.4g} at text {first + row}, prediction {column}, which the mask counts: no "
            "log-probability is so small. Where a number stands for padding, the mask must be 0."
        )
    if logp.max() > ROUNDING:
        row, column = map(int, np.unravel_index(logp.argmax(), logp.shape))
        counted_logp = logp[mask]
        hint = "" if counted_logp.min() < 0 else (
            " They look like probabilities: take their logarithm." if counted_logp.max() <= 1 + ROUNDING else
            " They look like losses: change their sign."
        )  # fmt: skip
        raise errors.DataError(
            f"{name} is {logp[row, column]:.4g} at text {first + row}, prediction {column}: a log-probability is at "
            f"most 0.{hint}"
        )
    return np.minimum(logp, 0)


def _checked_moment(name: str, values: np.ndarray, mask: np.ndarray, first: int) -> np.ndarray:
    values = np.where(mask, np.asarray(values, np.float32), np.float32(0))
    minimum = -np.inf if name == "vocab_mean" else -ROUNDING
    broken = np.argwhere(~np.isfinite(values) | (values < minimum))
    if len(broken):
        row, column = map(int, broken[0])
        kind = "finite" if name == "vocab_mean" else "finite and not negative"
        raise errors.DataError(
            f"{name} is {values[row, column]} at text {first + row}, prediction {column}, which the mask counts; it "
            f"must be {kind}."
        )
    return values


def _checked_loss(name: str, values: np.ndarray) -> np.ndarray:
    """Returns losses in float32; raises a DataError if one is not a mean negative log-likelihood."""
    values = np.asarray(values, np.float32)
    broken = np.argwhere(~np.isfinite(values))
    if len(broken):
        raise errors.DataError(
            f"{name} is {values[tuple(broken[0])]} at {_location(broken[0])} ({len(broken)} such place(s)): a text "
            "without a finite loss cannot be scored. Leave it out of every array."
        )
    if values.min() < -ROUNDING:
        index = np.unravel_index(values.argmin(), values.shape)
        raise errors.DataError(
            f"{name} is {values[index]:.4g} at {_location(index)}: a loss is minus the mean log-probability of a text's"
            " tokens, at least 0. Change the sign of log-probabilities."
        )
    if values.max() > LARGEST:
        index = np.unravel_index(values.argmax(), values.shape)
        raise errors.DataError(
            f"{name} is {values[index]:.4g} at {_location(index)}: no mean loss is so large. Leave the text out of "
            "every array, or divide sums by their numbers of tokens."
        )
    return np.maximum(values, 0)


def _location(index: tuple | np.ndarray) -> str:
    text = f"text {int(index[-1])}"
    return text if len(index) == 1 else f"row {int(index[0])}, {text}"


def _deflated(values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Returns the [N] compressed bytes per character."""
    if "texts" in values:
        if "compressed_len" in values:
            raise errors.DataError("sizes are given twice, by `texts` and by `compressed_len`; give one of them.")
        sizes = texts.deflated(values["texts"])
        name = "texts"
    elif "compressed_len" in values:
        name, chars = "num_chars", np.asarray(values["num_chars"], np.float64)
        sizes = np.asarray(values["compressed_len"], np.float64) / np.where(chars > 0, chars, np.nan)
    else:
        return None
    broken = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(broken):
        raise errors.DataError(
            f"{name}: text {int(broken[0])} has no characters or no compressed size ({len(broken)} such text(s))."
        )
    return sizes.astype(np.float32)


def _degrees(values: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Returns the [L] progress of the training at every step, in (0, 1]."""
    if count < 2:
        raise errors.DataError("`nll_steps` contains one step; a score can only grow over at least two.")
    steps = np.asarray(values["steps"], np.float64) if "steps" in values else np.arange(1.0, count + 1)
    if not (np.isfinite(steps).all() and (np.diff(steps) > 0).all() and steps[0] >= 0):
        raise errors.DataError(
            f"`steps` must grow from at least 0, one for each row of `nll_steps`; got {steps.tolist()}."
        )
    return (steps / steps[-1]).astype(np.float32)
