"""Selective synaptic dampening against the published implementations."""

from pathlib import Path

import nets
import numpy as np
import pytest

from jaxunlearn.unlearn import dampening

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("kind, activation", [("mlp", "tanh"), ("bn", "relu")])
def test_ssd_equals_the_iam_seed(kind, activation):
    file = np.load(GOLDEN / "iam_methods" / f"ssd_{kind}.npz")
    names = nets.LAYERS[f"iam_{kind}"]
    start = nets.variables(file, "init", names)
    hidden, classes = start["params"]["Dense_0"]["bias"].shape[0], start["params"]["Dense_1"]["bias"].shape[0]
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn", activation), file["retain_x"].shape[1:])
    method = dampening.ssd(
        alpha=float(file["alpha"]), lam=float(file["lambda"]), batch=int(file["batch_size"]), compat="faithful"
    )
    retain, forget = ((file[f"{name}_x"], file[f"{name}_y"]) for name in ("retain", "forget"))
    found = nets.outcome(nets.setup(net, method, start, retain, forget, bn="faithful"))
    wanted = nets.variables(file, "after", names)
    if kind == "bn":
        # A bias in front of BatchNorm has gradient 0 in training mode: rounding decides whether it is chosen.
        wanted["params"]["Dense_0"]["bias"] = found["params"]["Dense_0"]["bias"]
    nets.assert_close(found, wanted, 5e-6)
