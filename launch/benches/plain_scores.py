"""Plain scores: the published algorithms written directly in NumPy, baselines of the bench `scores`.

float32 throughout, whole arrays at once where they fit: IAM builds every interpolated observation [S, I, N], RMIA the
matrix of all products [N, P], EMIA-R interpolates sample by sample, signals are computed model by model. Neither slowed
down on purpose nor sped up by algebra.
"""

import math

import numpy as np
import scipy.special
import scipy.stats


def carlini_logit(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes log-odds [N] of the true class from the softmax of [N, C] logits."""
    probability = _softmax(logits)
    rows = np.arange(len(labels))
    true_probability = probability[rows, labels]
    probability[rows, labels] = 0.0
    tiny = np.float32(1e-45)
    return np.log(true_probability + tiny) - np.log(probability.sum(-1) + tiny)


def confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes the softmax probability [N] of the true class."""
    return _softmax(logits)[np.arange(len(labels)), labels]


def taylor_soft_margin(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """Computes RMIA's signal [N]: Taylor polynomial of degree 3 with a margin of 0.6 on the true class."""
    scaled = logits / np.float32(temperature)
    true_term = _taylor(scaled[np.arange(len(labels)), labels] - np.float32(0.6))
    terms = _taylor(scaled)
    terms[np.arange(len(labels)), labels] = 0.0
    return true_term / (true_term + terms.sum(-1))


def model_by_model(signal, logits: np.ndarray, labels: np.ndarray, *arguments) -> np.ndarray:  # noqa: ANN001
    """Computes a signal [S, N] of [S, N, C] logits, one model after another."""
    return np.stack([signal(model_logits, labels, *arguments) for model_logits in logits])


def three_signals(logits: np.ndarray, labels: np.ndarray, temperature: float) -> list[np.ndarray]:
    """Computes Carlini logit, confidence and soft margin of every model, the signals of the published audit."""
    margin = model_by_model(taylor_soft_margin, logits, labels, temperature)
    return [model_by_model(carlini_logit, logits, labels), model_by_model(confidence, logits, labels), margin]


def iam(
    fitting: np.ndarray, unlearned: np.ndarray, shadows: np.ndarray, levels: int, family: str, std: str
) -> np.ndarray:
    """Computes IAM membership [N] from an array [S, I, N] of interpolated observations.

    Args:
      fitting: [N] observations of the fitting model.
      unlearned: [N] observations of the audited model.
      shadows: [S, N] observations.
      levels: I + 1, steps of the interpolation.
      family: ecdf, gumbel, norm, or kde.
      std: pooled, or per_sample.
    """
    a = np.linspace(0, 1, levels, dtype=np.float32)
    interpolated = shadows[:, None] + a[None, :-1, None] * (fitting - shadows)[:, None]
    if family == "ecdf":
        values = (interpolated <= unlearned).mean(0, dtype=np.float32)
    else:
        mean = interpolated.mean(0)
        deviation = (
            interpolated.std((0, 2))[:, None] if std == "pooled" else np.maximum(interpolated.std(0), np.float32(1e-10))
        )
        if family == "gumbel":
            scale = np.float32(math.sqrt(6) / math.pi) * deviation
            with np.errstate(over="ignore"):
                values = np.exp(-np.exp(-(unlearned - mean) / scale - np.float32(0.5772)))
        elif family == "norm":
            values = scipy.special.ndtr((unlearned - mean) / deviation)
        else:
            # Model by model: otherwise the argument would be a third array of this size.
            values = np.mean(
                [scipy.special.ndtr((unlearned - observations) / deviation) for observations in interpolated], 0
            )
    return (a[1:, None] * values).sum(0) / a[1:].sum()


def rmia_offline(unlearned: np.ndarray, shadows: np.ndarray, population: np.ndarray, population_shadows: np.ndarray,
                 offline_a: float, gamma: float) -> np.ndarray:  # fmt: skip
    """Computes RMIA-Off membership [N] by all N * P products.

    Args:
      unlearned: [N] signals of the audited model.
      shadows: [S, N] signals.
      population: [P] signals of the audited model.
      population_shadows: [S, P] signals.
      offline_a: a of the offline correction.
      gamma: threshold of the ratio.
    """

    def guess(values: np.ndarray) -> np.ndarray:
        return (1 + offline_a) / 2 * scipy.stats.trim_mean(values, 0.2) + (1 - offline_a) / 2

    ratios, population_ratios = unlearned / guess(shadows), population / guess(population_shadows)
    return (ratios[:, None] * (1 / population_ratios) > gamma).mean(1)


def lira(unlearned: np.ndarray, original: np.ndarray, shadows: np.ndarray) -> list[np.ndarray]:
    """Computes LiRA-Off, LiRA-On and the update attack with one deviation per sample."""
    mean, deviation = shadows.mean(0), shadows.std(0)
    tail = scipy.stats.norm.cdf(unlearned, mean, deviation)
    change = tail - scipy.stats.norm.cdf(original, mean, deviation)
    # The ratio of two Gaussians rises again below its minimum, where the wider one is IN.
    inside, outside = 1 / original.std() ** 2, 1 / deviation**2
    with np.errstate(divide="ignore", invalid="ignore"):
        minimum = (outside * mean - inside * original) / (outside - inside)
    value = np.where(outside > inside, np.maximum(unlearned, np.minimum(minimum, mean)), unlearned)
    ratio = scipy.stats.norm.logpdf(value, original, original.std()) - scipy.stats.norm.logpdf(value, mean, deviation)
    return [tail, ratio, change]


def emia_reference(unlearned: np.ndarray, shadows: np.ndarray) -> np.ndarray:
    """Computes EMIA-R [N], interpolated sample by sample."""
    loss, losses = np.logaddexp(0, -unlearned), np.logaddexp(0, -shadows)
    values = np.linspace(0, 1, len(losses) + 2)
    rows = [np.interp(loss[n], np.sort([0.0, *losses[:, n], 1000.0]), values) for n in range(len(loss))]
    return 1 - np.array(rows, np.float32)


def emia_population(unlearned: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Computes EMIA-P [N], every sample against every population sample."""
    loss, losses = np.logaddexp(0, -unlearned), np.logaddexp(0, -population)
    return 1 - np.array([np.mean(losses < sample_loss) for sample_loss in loss], np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def _taylor(u: np.ndarray) -> np.ndarray:
    """Computes the polynomial above -1, and below it a tail that stays positive."""
    below = np.float32(1.5) * (-1 - np.minimum(u, -1))
    return np.where(u > -1, _cubic(np.maximum(u, -1)), np.float32(1 / 3) / _cubic(below))


def _cubic(u: np.ndarray) -> np.ndarray:
    return 1 + u + u**2 / 2 + u * u * u / 6
