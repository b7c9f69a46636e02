"""Pieces of objectives against the published implementations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.unlearn.base.method import Samples
from jaxunlearn.unlearn.blocks import losses

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("dataset", ["cifar10", "utkface", "fgnet", "morph", "agedb"])
def test_cross_entropy_with_weights_of_classes_equals_forget_precision(dataset):
    # The package takes no weights of classes, but a batch of weighted rows. The file's acc_loss is a report's helper.
    file = np.load(GOLDEN / "forget_precision" / "schedules_losses_misc.npz")
    logits, y = (jnp.asarray(file[f"ce_{dataset}__{name}"]) for name in ("logits", "y"))
    name = f"ce_{dataset}__class_weight"
    weights = jnp.asarray(file[name])[y] if name in file else jnp.ones(len(y))
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(logits, Samples(None, y, weights, None, None))
    np.testing.assert_allclose(loss, file[f"ce_{dataset}__loss"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, file[f"ce_{dataset}__grad"], rtol=0, atol=1e-6)
