"""The cost of unlearning methods on the configured data and network."""

import jax
import numpy as np

from jaxunlearn import keys, records, unlearn
from jaxunlearn.runs import experiments
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import costs


def retain_epochs(experiment: experiments.Experiment, split: records.Split, method: unlearn.Method) -> float:
    """Returns the rows that a method reads, in passes over the retained rows (one gradient per row = 1).

    Mean over the distinct sizes of forget sets.
    """
    sizes = np.asarray(split.forget).sum(1)
    total, has_batch_stats = len(np.asarray(split.target)), network_has_batch_stats(experiment)
    set_sizes = [
        sizes_of(experiment, method, int(forget), total - int(forget), has_batch_stats) for forget in np.unique(sizes)
    ]
    return float(np.mean([costs.retain_epochs(method, size) for size in set_sizes]))


def network_has_batch_stats(experiment: experiments.Experiment) -> bool:
    """Returns whether the network stores statistics of its inputs (BatchNorm)."""
    net = experiments.build_network(experiment.settings, experiment.dataset, experiment.mapping_policy.conv)
    return bool(jax.tree.leaves(jax.eval_shape(lambda: networks.init(net, keys.root(0)))[1]))


def sizes_of(
    experiment: experiments.Experiment, method: unlearn.Method, forget: int, retain: int, has_batch_stats: bool
) -> costs.Sizes:
    """Returns the sizes that a method's cost depends on.

    Args:
      experiment: of the run.
      method: the method.
      forget: number of rows to be forgotten.
      retain: number of retained rows.
      has_batch_stats: see `network_has_batch_stats`.
    """
    settings = experiment.settings
    policy = method.bn if settings.unlearn.bn == "auto" else settings.unlearn.bn
    classes = experiment.dataset.num_classes
    return costs.Sizes(forget, retain, classes, settings.train.batch, has_batch_stats and policy == "recalibrate")
