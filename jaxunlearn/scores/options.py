"""Options of scores: published constants per data set, and the settings of one audit."""

from typing import Any, NamedTuple

from jaxunlearn import checks
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import iam, lira
from jaxunlearn.scores.tokens import TokenOptions
from jaxunlearn.scores.tokens import check_options as check_tokens
from jaxunlearn.settings import MAX_LEVELS


class Constants(NamedTuple):
    """Published constants of one data set.

    Attributes:
      offline_a: RMIA's slope of the offline guess.
      temperature: of RMIA signals.
      e1, e2: of the log-log signal; `offline_e1`, `offline_e2`: the same in IAM-Off.
    """

    offline_a: float
    temperature: float
    e1: float = 1e-2
    e2: float = 1e-5
    offline_e1: float = 1e-2
    offline_e2: float = 1e-5


_PICTURES = Constants(0.33, 2.0)
_SPARSE = Constants(0.2, 2.0, offline_e1=1e-1, offline_e2=1e-6)
# IAM, config_dataset. Others: pictures as CIFAR-10, tables as Purchase with the usual log-log constants.
PUBLISHED: dict[str, Constants] = {
    "cifar10": _PICTURES,
    "cinic10": _PICTURES,
    "cifar100": Constants(0.6, 1.0),
    "purchase": _SPARSE,
    "purchase100": _SPARSE,
    "texas": _SPARSE,
    "texas100": _SPARSE,
    "location": Constants(0.2, 2.0),
    "location30": Constants(0.2, 2.0),
    "adult": Constants(0.2, 2.0),
}
DEFAULT = _PICTURES
# Data sets for which the published code normalises IAM-Off with limits of other constants.
STALE = ("purchase", "texas")


class Options(NamedTuple):
    """Options of the scores of one audit; `split` says which of them a program reads as numbers.

    Attributes:
      constants: of the data set, or the user's own.
      interpolation_steps, family, std: of IAM.
      variance: of LiRA and the update attack (auto, global, per_sample).
      rmia_signal: a name of signals.RMIA_SIGNALS; `gamma`: RMIA's ratio.
      compat: corrected or faithful; `forget_type`: set_random or class, which faithful LiRA-Off distinguishes.
      dataset: the data set's name (faithful IAM-Off has stale constants for purchase and texas).
      seed: of `random` and of UnLeak's classifier.
      tokens: options of the scores of texts.
    """

    constants: Constants = DEFAULT
    interpolation_steps: int = 100
    family: str = "gumbel"
    std: str = "pooled"
    variance: str = "auto"
    rmia_signal: str = "taylor_soft_margin"
    gamma: float = 2.0
    compat: str = "corrected"
    forget_type: str = "set_random"
    dataset: str = ""
    seed: int = 0
    tokens: TokenOptions = TokenOptions()


def published(dataset: str) -> Constants:
    """Returns the published constants of a data set; those of CIFAR-10 if it has none.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.published("cifar100").offline_a
      0.6
    """
    return PUBLISHED.get(dataset, DEFAULT)


def check(options: Options) -> None:
    """Raises a ConfigError for an unknown name or a number out of range.

    Example:
      >>> from jaxunlearn import scores
      >>> scores.check_options(scores.Options(family="gumble"))
      Traceback (most recent call last):
      jaxunlearn.errors.ConfigError: unknown IAM family 'gumble'. Did you mean 'gumbel'...
    """
    checks.choice("IAM family", options.family, iam.FAMILIES)
    checks.choice("IAM std", options.std, iam.STDS)
    checks.choice("LiRA variance", options.variance, lira.VARIANCES)
    checks.choice("RMIA signal", options.rmia_signal, signals.RMIA_SIGNALS)
    checks.choice("compat", options.compat, ("corrected", "faithful"))
    checks.choice("forget_type", options.forget_type, ("set_random", "class"))
    checks.in_range("IAM interpolation_steps", options.interpolation_steps, 2, MAX_LEVELS)
    checks.in_range("RMIA offline_a", options.constants.offline_a, 0.0, 1.0)
    checks.in_range("RMIA temperature", options.constants.temperature, 1e-6)
    checks.in_range("RMIA gamma", options.gamma, 0.0)
    signals.check_log_log(options.constants.e1, options.constants.e2)
    signals.check_log_log(options.constants.offline_e1, options.constants.offline_e2)
    check_tokens(options.tokens)


def is_stale(options: Options) -> bool:
    """Returns whether the published code normalises IAM-Off with limits of other constants (purchase, texas)."""
    return options.compat == "faithful" and options.dataset.startswith(STALE)


def split(options: Options) -> tuple[Options, dict[str, Any]]:
    """Splits options into those that decide the program of a score, and the numbers that it reads as arguments.

    Programs read neither the seed nor the data set's name (but for `is_stale`), so audits that differ only in these or
    in the numbers share their programs.

    Returns:
      Options without the numbers; the numbers by the names of their fields: `static._replace(**numbers)` has all.
    """
    static = options._replace(
        constants=DEFAULT, gamma=Options().gamma, seed=0, dataset=STALE[0] if is_stale(options) else ""
    )
    return static, {"constants": options.constants, "gamma": options.gamma}
