"""Unlearning of real data: what a method claims to forget it forgets, and what it claims to keep it keeps.

Digits, the class 3 (all of its rows), the small CNN; three methods that forget classes by different means, exact
retraining and two that are known to forget next to nothing.
"""

import dataclasses

import numpy as np
import pytest

from jaxunlearn import progress, settings, store
from jaxunlearn.runs import experiments
from jaxunlearn.runs.verbs import unlearn

pytestmark = pytest.mark.slow
METHODS = ("random_label", "ssd", "boundary_shrink", "scrub", "finetune", "lfssd")


@pytest.fixture(scope="module")
def utilities(tmp_path_factory):
    """UA, RA and TA by role, over the classes 3 and 5."""
    config = settings.defaults()
    config.train.learning_rate, config.train.epochs, config.train.batch = 0.05, 20, 64
    config.split.forget.kind, config.split.forget.classes, config.split.forget.count = "one_class", (3, 5), 2
    config.shadows.count, config.targets.snapshots = 1, 0
    resolved = settings.resolve(config)
    resolved = dataclasses.replace(resolved, unlearn=dataclasses.replace(resolved.unlearn, methods=METHODS))
    experiment = experiments.prepare(resolved)
    with store.open_run(str(tmp_path_factory.mktemp("classes"))) as run:
        return unlearn.run(run, progress.Reporter(), *unlearn.check(experiment)).roles


def test_exact_retraining_never_answers_the_forgotten_class_and_the_original_does(utilities):
    assert (utilities["retrained"].metrics["UA"] == 1).all()
    assert (utilities["original"].metrics["UA"] < 0.02).all()


@pytest.mark.parametrize("name", ["random_label", "ssd", "boundary_shrink", "scrub"])
def test_class_forgetting_methods_forget_the_class_and_keep_the_rest(utilities, name):
    role_utility = utilities[f"unlearned:{name}"]
    assert (role_utility.metrics["UA"] > 0.9).all(), role_utility.metrics["UA"]
    assert (role_utility.metrics["RA"] > 0.85).all(), role_utility.metrics["RA"]
    assert (role_utility.metrics["TA"] > 0.8).all(), role_utility.metrics["TA"]
    assert role_utility.moved > 1e-3


def test_fine_tuning_keeps_what_was_to_be_forgotten(utilities):
    role_utility = utilities["unlearned:finetune"]
    assert (role_utility.metrics["UA"] < 0.2).all()
    assert (role_utility.metrics["RA"] > 0.98).all()
    assert 0 < role_utility.moved < 0.1


def test_costs_are_those_of_the_rows_read(utilities):
    assert utilities["unlearned:finetune"].retain_epochs == pytest.approx(5, rel=0.05)
    assert utilities["retrained"].retain_epochs == 20
    # One pass over all rows and role_utility over the forget set, in units of the retained rows.
    sizes = np.asarray([role_utility.retain_epochs for name, role_utility in utilities.items() if name.endswith("ssd")])
    assert ((sizes > 1.1) & (sizes < 1.5)).all()
