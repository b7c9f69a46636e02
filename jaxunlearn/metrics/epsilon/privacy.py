"""Guarantee of DP-SGD: the accountant of the subsampled Gaussian mechanism, by Renyi divergences.

Steps with noise multiplier sigma on batches that contain each row with probability q -> epsilon at a given delta.

Every order a of a grid bounds the total divergence of all steps, and

    epsilon = min over a of rdp(a) + log((a - 1) / a) - (log delta + log a) / (a - 1)

Source: Mironov, Talwar and Zhang 2019; the orders and the conversion of Opacus 0.x. Differs from the Unlearning-Leaks
reference, which uses q = 0.001 for every batch size: the true rate is batch / rows.
"""

import math

import numpy as np
from scipy import special

from jaxunlearn import checks

ORDERS = (*(1 + x / 10.0 for x in range(1, 100)), *range(12, 64))


def epsilon(steps: int, rate: float, noise: float, delta: float = 1e-5) -> float:
    """Computes the epsilon that DP-SGD guarantees; LOWER = more private.

    Args:
      steps: number of steps, at least 0.
      rate: probability that a row is in a batch, batch / rows, in [0, 1].
      noise: multiplier sigma above 0; 0 = no noise, which guarantees nothing.
      delta: in (0, 1).

    Raises:
      ConfigError: a value out of range.

    Example:
      >>> from jaxunlearn.metrics.epsilon.privacy import epsilon
      >>> round(epsilon(32, 64 / 2000, 1.2), 2)
      1.3
    """
    checks.in_range("steps", steps, 0)
    checks.in_range("rate", rate, 0.0, 1.0)
    checks.in_range("noise", noise, 0.0)
    checks.in_range("delta", delta, np.finfo(np.float64).tiny, 1 - 1e-12)
    if steps == 0 or rate == 0:
        return 0.0
    if noise == 0:
        return math.inf
    best = math.inf
    for order in ORDERS:
        divergence = steps * renyi(order, rate, noise)
        value = divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, value)
    return max(best, 0.0)


def renyi(order: float, rate: float, noise: float) -> float:
    """Computes the Renyi divergence of one step at an order above 1."""
    if rate == 1.0:
        return order / (2 * noise**2)
    moment = (
        _integer_moment(int(order), rate, noise)
        if float(order).is_integer()
        else _fractional_moment(order, rate, noise)
    )
    return moment / (order - 1)


def _integer_moment(order: int, rate: float, noise: float) -> float:
    """Computes the log of the order-th moment for an integer order: a binomial sum."""
    k = np.arange(order + 1)
    terms = (
        special.gammaln(order + 1) - special.gammaln(k + 1) - special.gammaln(order - k + 1)
        + k * math.log(rate) + (order - k) * math.log1p(-rate) + (k**2 - k) / (2 * noise**2)
    )  # fmt: skip
    return float(special.logsumexp(terms))


def _fractional_moment(order: float, rate: float, noise: float) -> float:
    """Computes the same for any other order: two series with alternating tails, summed until they converge."""
    centre = noise**2 * math.log(1 / rate - 1) + 0.5
    logs: list[float] = []
    signs: list[float] = []
    k = 0
    while True:
        coefficient = float(special.binom(order, k))
        rest = order - k
        size = math.log(abs(coefficient))
        low = size + k * math.log(rate) + rest * math.log1p(-rate) + (k**2 - k) / (2 * noise**2)
        high = size + rest * math.log(rate) + k * math.log1p(-rate) + (rest**2 - rest) / (2 * noise**2)
        low += float(special.log_ndtr((centre - k) / noise))
        high += float(special.log_ndtr((rest - centre) / noise))
        logs += [low, high]
        signs += [math.copysign(1.0, coefficient)] * 2
        k += 1
        if max(low, high) < -30:
            return float(special.logsumexp(logs, b=signs))
