"""What unlearning methods cost on the configured data and network."""

import jax
import numpy as np

from jaxunlearn import keys, records, unlearn
from jaxunlearn.runs import experiments
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import costs


def retain_epochs(experiment: experiments.Experiment, split: records.Split, method: unlearn.Method) -> float:
    """What a method reads, in passes over the retained rows (a gradient per row counts 1); mean over forget sets."""
    sizes = np.asarray(split.forget).sum(1)
    total, normed = len(np.asarray(split.target)), has_statistics(experiment)
    found = (sizes_of(experiment, method, int(size), total - int(size), normed) for size in np.unique(sizes))
    return float(np.mean([costs.retain_epochs(method, one) for one in found]))


def has_statistics(experiment: experiments.Experiment) -> bool:
    """Whether the network has statistics of its inputs (BatchNorm)."""
    net = experiments.build_network(experiment.settings, experiment.dataset, experiment.mapping_policy.conv)
    return bool(jax.tree.leaves(jax.eval_shape(lambda: networks.init(net, keys.root(0)))[1]))


def sizes_of(
    experiment: experiments.Experiment, method: unlearn.Method, forget: int, retain: int, normed: bool
) -> costs.Sizes:
    """What a method's cost depends on here; `normed`: see `has_statistics`."""
    settings = experiment.settings
    policy = method.bn if settings.unlearn.bn == "auto" else settings.unlearn.bn
    classes = experiment.dataset.num_classes
    return costs.Sizes(forget, retain, classes, settings.train.batch, normed and policy == "recalibrate")
