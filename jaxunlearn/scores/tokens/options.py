"""Options of the scores of texts; the defaults are the published ones."""

from typing import NamedTuple

from jaxunlearn import checks, errors

MAX_LEVELS = 10_000


class TokenOptions(NamedTuple):
    """Options of one audit of texts; every field is static.

    Attributes:
      k: Min-K % and Min-K++: per cent of the tokens that count, the least likely ones.
      surp_k, surp_entropy: SURP: per cent of the tokens, and the entropy (nats) below which they count.
      pac_low, pac_high: PAC: fractions of least and most likely tokens.
      interpolation_steps, eps1, eps2: IAM: interpolation steps, and constants of its signal.
      block: IAM: the standard deviation is taken over consecutive blocks of this many texts; 0 = over all.
      gamma: RMIA: ratio above which a population text is dominated.
      is_faithful: counts of tokens may be 0 (NaN), and PAC counts padding as tokens of log-probability 0, as published.
    """

    k: float = 20.0
    surp_k: float = 40.0
    surp_entropy: float = 2.0
    pac_low: float = 0.3
    pac_high: float = 0.05
    interpolation_steps: int = 1000
    eps1: float = 0.1
    eps2: float = 1e-5
    block: int = 0
    gamma: float = 2.0
    is_faithful: bool = False


def check(options: TokenOptions) -> None:
    """Raises a ConfigError for an option out of range.

    Example:
      >>> from jaxunlearn.scores import tokens
      >>> tokens.check_options(tokens.TokenOptions(k=20.0))
    """
    for name in ("k", "surp_k"):
        checks.in_range(f"tokens {name} (per cent)", getattr(options, name), 1e-6, 100.0)
    checks.in_range("tokens surp_entropy", options.surp_entropy, 0.0)
    for name in ("pac_low", "pac_high"):
        checks.in_range(f"tokens {name}", getattr(options, name), 0.0, 1.0)
    checks.in_range("IAM interpolation_steps", options.interpolation_steps, 2, MAX_LEVELS)
    checks.in_range("IAM block", options.block, 0)
    checks.in_range("RMIA gamma", options.gamma, 0.0)
    checks.in_range("IAM e2", options.eps2, 1e-30)
    if not options.eps1 > options.eps2:
        raise errors.ConfigError(
            f"IAM on losses: e1 = {options.eps1:g} must be above e2 = {options.eps2:g}, or -log(e1 - log(e2 + 1 - p)) "
            "has no value for a text of probability 0."
        )
