"""Fine-tuning towards sparse networks: a falling L1 penalty, and pruning by magnitude before it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import trees
from jaxunlearn.unlearn.base.method import Estimate, GradientStep, Method, Phase, Scalar, StreamSpec
from jaxunlearn.unlearn.blocks import schedules, transforms
from jaxunlearn.unlearn.methods import descent

Tree = Any


def l1_sparse(
    lr: float = 0.01,
    epochs: int = 5,
    alpha: float = 5e-4,
    no_l1_epochs: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "constant",
) -> Method:
    """Fine-tunes on the retained samples with CE + a_e |p|_1, a_e = alpha * (1 - e / (epochs - no_l1_epochs)), then 0.

    The penalty is on all parameters, biases and normalisation included.

    Args:
      lr, momentum, weight_decay: of SGD.
      epochs: passes over the retained set.
      alpha: coefficient at the beginning; 1e-6 to 1e-3.
      no_l1_epochs: last epochs without the penalty.
      batch: rows per step, 0 = the run's.
      schedule: one of `descent.SCHEDULES`.

    Source: Jia et al., "Model sparsity can simplify machine unlearning", 2023; OPTML `FT_l1` (there also under the name
    FT_prune, although nothing is pruned).
    """
    l1_epochs = epochs - no_l1_epochs
    coefficient = transforms.add_l1(alpha, schedules.falling(l1_epochs)) if l1_epochs > 0 else optax.identity()
    sgd = transforms.sgd(lr, momentum, weight_decay, schedule=descent.make_schedule(schedule, epochs))
    transform = optax.chain(coefficient, sgd)
    return Method(
        (Phase(transform, (GradientStep(descent.retain_loss),), {"retain": StreamSpec("retain", batch)}, epochs),),
        "recalibrate",
    )


def prune_mask(params: Tree, sparsity: Scalar) -> Tree:
    """Returns a tree of bools, False for the smallest fraction `sparsity` of the entries of all kernels together.

    Biases and normalisation are never pruned; ties at the threshold stay. Idempotent on pruned parameters. `sparsity`
    may be traced; it is clipped to 0..1.
    """
    kernels = [jnp.abs(leaf).ravel() for path, leaf in trees.named_leaves(params) if path.endswith("kernel")]
    magnitudes = jnp.sort(jnp.concatenate([*kernels, jnp.full(1, jnp.inf)]))
    count = jnp.round(jnp.clip(sparsity, 0.0, 1.0) * (magnitudes.size - 1)).astype(jnp.int32)

    def keep(path: Any, leaf: jax.Array) -> jax.Array:
        is_kernel = getattr(path[-1], "key", "") == "kernel"
        return jnp.abs(leaf) >= magnitudes[count] if is_kernel else jnp.ones(leaf.shape, bool)

    return jax.tree_util.tree_map_with_path(keep, params)


def set_smallest_to_zero(params: Tree, sparsity: Scalar) -> Tree:
    """Sets the smallest fraction `sparsity` of all kernel entries to 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn.methods import sparsity
      >>> sparsity.set_smallest_to_zero({"kernel": jnp.array([[1.0, -3.0]])}, 0.5)["kernel"].tolist()
      [[0.0, -3.0]]
    """
    return jax.tree.map(lambda keep, leaf: jnp.where(keep, leaf, 0.0), prune_mask(params, sparsity), params)


def ft_prune(
    lr: float = 0.01,
    epochs: int = 5,
    alpha: float = 5e-5,
    sparsity: float = 0.0,
    warmup: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    optimizer: str = "sgd",
) -> Method:
    """Prunes the smallest kernel entries, then fine-tunes the rest on the retained samples with a falling L1 penalty.

    The loss is CE + a_e |p|_1 with a_e = alpha * (1 - e / epochs), over all parameters; the rate is constant.

    Args:
      lr, momentum, weight_decay, optimizer: see `descent.make_optimizer`.
      epochs: passes over the retained set.
      alpha: L1 coefficient at the beginning.
      sparsity: fraction of all kernel entries that are set to 0 and stay there; published code prunes nothing (0).
      warmup: epochs over which the rate climbs linearly.
      batch: rows per step, 0 = the run's.

    Source: OUR v1 and v2 `FT_prune`; v2 on samples warms up over 6 epochs. Pruning first: Jia et al. 2023, "prune
    first, then unlearn".

    Raises:
      ConfigError: an unknown optimizer.
    """
    schedule = schedules.warmup(warmup) if warmup else schedules.constant
    transform = descent.make_optimizer(optimizer, lr, momentum, weight_decay, schedule)
    penalty = transforms.add_l1(alpha, schedules.falling(epochs))
    pruning = Phase(transforms.one_shot(lambda params, **extras: set_smallest_to_zero(params, sparsity)))
    mask = Estimate(lambda member: (prune_mask(member.params, sparsity), member.model_state), cost=0.0)
    training = Phase(
        transforms.protected(optax.chain(penalty, transform)),
        (GradientStep(descent.retain_loss),),
        {"retain": StreamSpec("retain", batch)},
        epochs,
        estimates={"mask": mask},
    )
    return Method((pruning, training), "recalibrate")
