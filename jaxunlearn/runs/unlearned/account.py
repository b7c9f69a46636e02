"""What unlearning methods cost on the configured data and network."""

import jax
import numpy as np

from jaxunlearn import keys, records, unlearn
from jaxunlearn.runs import workbench
from jaxunlearn.unlearn import costs
from jaxunlearn.unlearn import network as networks


def retain_epochs(bench: workbench.Workbench, split: records.Split, method: unlearn.Method) -> float:
    """What a method reads, in passes over the retained rows (a gradient per row counts 1); mean over forget sets."""
    sizes = np.asarray(split.forget).sum(1)
    total, normed = len(np.asarray(split.target)), has_statistics(bench)
    found = (sizes_of(bench, method, int(size), total - int(size), normed) for size in np.unique(sizes))
    return float(np.mean([costs.retain_epochs(method, one) for one in found]))


def has_statistics(bench: workbench.Workbench) -> bool:
    """Whether the network has statistics of its inputs (BatchNorm)."""
    net = workbench.build_network(bench.settings, bench.dataset, bench.policy.conv)
    return bool(jax.tree.leaves(jax.eval_shape(lambda: networks.init(net, keys.root(0)))[1]))


def sizes_of(bench: workbench.Workbench, method: unlearn.Method, forget: int, retain: int, normed: bool) -> costs.Sizes:
    """What a method's cost depends on here; `normed`: see `has_statistics`."""
    settings = bench.settings
    policy = method.bn if settings.unlearn.bn == "auto" else settings.unlearn.bn
    classes = bench.dataset.num_classes
    return costs.Sizes(forget, retain, classes, settings.train.batch, normed and policy == "recalibrate")
