"""What DP-SGD guarantees: the accountant of the subsampled Gaussian mechanism, by Renyi divergences.

steps of noise multiplier sigma on batches that hold each row with probability q -> epsilon at a given delta.

Every order a of a grid bounds the divergence of all steps together, and

    epsilon = min over a of rdp(a) + log((a - 1) / a) - (log delta + log a) / (a - 1)

Source: Mironov, Talwar and Zhang 2019; the orders and the conversion of Opacus 0.x. Differs from the Unlearning-Leaks
reference, which hands over q = 0.001 whatever the batch: the true rate is batch / rows.
"""

import math

import numpy as np
from scipy import special

from jaxunlearn import checks

ORDERS = (*(1 + x / 10.0 for x in range(1, 100)), *range(12, 64))


def epsilon(steps: int, rate: float, noise: float, delta: float = 1e-5) -> float:
    """The epsilon that so many steps of DP-SGD guarantee; LOWER = more private.

    Args:
      steps: at least 0.
      rate: probability with which a row is in a batch, batch / rows, in [0, 1].
      noise: multiplier sigma above 0; 0 = no noise, which guarantees nothing.
      delta: in (0, 1).

    Raises:
      ConfigError: a value out of range.

    Example:
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
    """Renyi divergence of one step at an order above 1."""
    if rate == 1.0:
        return order / (2 * noise**2)
    moment = _whole(int(order), rate, noise) if float(order).is_integer() else _fractional(order, rate, noise)
    return moment / (order - 1)


def _whole(order: int, rate: float, noise: float) -> float:
    """Log of the order-th moment for a whole order: a binomial sum."""
    number = np.arange(order + 1)
    terms = (
        special.gammaln(order + 1) - special.gammaln(number + 1) - special.gammaln(order - number + 1)
        + number * math.log(rate) + (order - number) * math.log1p(-rate) + (number**2 - number) / (2 * noise**2)
    )  # fmt: skip
    return float(special.logsumexp(terms))


def _fractional(order: float, rate: float, noise: float) -> float:
    """The same for any other order: two series with alternating tails, summed until nothing changes."""
    place = noise**2 * math.log(1 / rate - 1) + 0.5
    logs: list[float] = []
    signs: list[float] = []
    number = 0
    while True:
        coefficient = float(special.binom(order, number))
        other = order - number
        size = math.log(abs(coefficient))
        low = size + number * math.log(rate) + other * math.log1p(-rate) + (number**2 - number) / (2 * noise**2)
        high = size + other * math.log(rate) + number * math.log1p(-rate) + (other**2 - other) / (2 * noise**2)
        low += float(special.log_ndtr((place - number) / noise))
        high += float(special.log_ndtr((other - place) / noise))
        logs += [low, high]
        signs += [math.copysign(1.0, coefficient)] * 2
        number += 1
        if max(low, high) < -30:
            return float(special.logsumexp(logs, b=signs))
