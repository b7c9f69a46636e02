"""Options of an extraction: the published constants, their cost in queries, and the learning rate schedules."""

from typing import NamedTuple

from jaxunlearn import checks, errors
from jaxunlearn.settings import ExtractSettings, TrainSettings

LOSSES, CORRECTIONS = ("l1", "kl"), ("mean", "none")
FACTOR = 0.3  # of both rates at 10, 30 and 50 % of the epochs


class Options(NamedTuple):
    """One extraction; the defaults are published.

    Attributes:
      budget: queries to one victim.
      batch: inputs per query step.
      iterations: per epoch, at most as many as the budget allows; each is `generator_steps`, then `clone_steps`.
      directions: m of the gradient estimate; `step_size`: epsilon. In float32 rounding errors grow as 1e-7 / epsilon.
      loss: "l1" of logits, or "kl" of probabilities.
      correction: l1: the victim's logits from its log-probabilities: "mean" subtracts their mean, "none" does not.
      clone_rate, momentum, weight_decay: SGD of the clone; generator_rate, generator_optimizer: "adam" or "sgd".
      schedule: "step" (times 0.3 at 10, 30 and 50 % of the epochs), "cosine" or "constant".
      latents: dimensions of the noise; `width`: of the generator.
      is_faithful: as many epochs as published, the last of which goes beyond the budget.
    """

    budget: int = 50_000_000
    batch: int = 128
    iterations: int = 50
    generator_steps: int = 1
    clone_steps: int = 5
    directions: int = 1
    step_size: float = 1e-3
    loss: str = "l1"
    correction: str = "mean"
    clone_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    generator_rate: float = 3e-4
    generator_optimizer: str = "adam"
    schedule: str = "step"
    latents: int = 100
    width: int = 64
    is_faithful: bool = False


PUBLISHED = Options()
# The option that the published code calls MAZE.
MAZE = Options(loss="kl", directions=10, generator_optimizer="sgd")


def of_settings(settings: ExtractSettings) -> Options:
    """Returns the options that the section `extract` of the settings names.

    Example:
      >>> from jaxunlearn.attacks.extraction import of_settings
      >>> from jaxunlearn.settings import ExtractSettings
      >>> of_settings(ExtractSettings(budget=1000, clone_steps=3)).clone_steps
      3
    """
    return Options(**{name: getattr(settings, name) for name in Options._fields if hasattr(settings, name)})


def queries_per_iteration(options: Options) -> int:
    """Returns the queries of one iteration: a generator step asks m + 1 times per input, a clone step once."""
    return options.batch * (options.generator_steps * (options.directions + 1) + options.clone_steps)


def iterations(options: Options) -> int:
    """Returns the iterations per epoch: fewer than requested where the budget does not pay for a whole epoch."""
    affordable = options.budget // queries_per_iteration(options)
    return options.iterations if options.is_faithful else min(options.iterations, affordable)


def epochs(options: Options) -> int:
    """Returns how many whole epochs the budget pays for; faithful: one more (1,117 for the default budget)."""
    count = options.budget // (queries_per_iteration(options) * iterations(options))
    return count + 1 if options.is_faithful else count


def queries(options: Options) -> int:
    """Returns the total number of queries to one victim.

    Example:
      >>> from jaxunlearn.attacks.extraction import Options, queries
      >>> queries(Options(budget=10_000, batch=10, iterations=10))  # 10 x (1 x (1 + 1) + 5) per iteration
      9800
    """
    return epochs(options) * iterations(options) * queries_per_iteration(options)


def check(options: Options) -> None:
    """Raises a ConfigError for an option out of range, or a budget below one iteration."""
    checks.choice("loss", options.loss, LOSSES)
    checks.choice("correction", options.correction, CORRECTIONS)
    checks.choice("generator_optimizer", options.generator_optimizer, ("adam", "sgd"))
    checks.choice("schedule", options.schedule, ("step", "cosine", "constant"))
    for name in ("iterations", "generator_steps", "clone_steps", "directions", "latents", "width"):
        checks.in_range(name, getattr(options, name), 1)
    checks.in_range("batch", options.batch, 2)  # batch norm of one input has no variance
    checks.in_range("step_size", options.step_size, 1e-6, 1.0)
    cost = queries_per_iteration(options)
    if options.budget < cost:
        raise errors.ConfigError(
            f"budget = {options.budget} queries do not pay for one iteration, which takes {cost}: batch "
            f"{options.batch} x ({options.generator_steps} generator steps x {options.directions + 1} + "
            f"{options.clone_steps} clone steps). Raise the budget, or lower the batch."
        )


def clone_recipe(options: Options) -> TrainSettings:
    """Returns the clone's optimizer and schedule."""
    return TrainSettings(
        optimizer="sgd", learning_rate=options.clone_rate, momentum=options.momentum,
        weight_decay=options.weight_decay, epochs=epochs(options), **_schedule(options),  # type: ignore[arg-type]
    )  # fmt: skip


def generator_recipe(options: Options) -> TrainSettings:
    """Returns the generator's optimizer and schedule."""
    return TrainSettings(
        optimizer=options.generator_optimizer, learning_rate=options.generator_rate, momentum=options.momentum,
        weight_decay=0.0 if options.generator_optimizer == "adam" else options.weight_decay,
        epochs=epochs(options), **_schedule(options),  # type: ignore[arg-type]
    )  # fmt: skip


def _schedule(options: Options) -> dict[str, object]:
    if options.schedule != "step":
        return {"schedule": options.schedule}
    # The published scheduler moves before the epoch: epoch e, from 0, runs at the rate of e + 1.
    total = epochs(options)
    milestones = tuple(int(share * total) - 1 for share in (0.1, 0.3, 0.5) if int(share * total) >= 1)
    return {"schedule": "step", "milestones": milestones or (total,), "decay": FACTOR}
