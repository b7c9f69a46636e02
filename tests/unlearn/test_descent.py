"""Fine-tuning and its relatives against the published implementations."""

from pathlib import Path

import nets
import numpy as np
import pytest

from jaxunlearn.unlearn import descent

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def batches(file, name):
    count = int(file[f"{name}_n"])
    return tuple(np.concatenate([file[f"{name}{i}_{part}"] for i in range(count)]) for part in "xy")


@pytest.mark.parametrize("kind, activation", [("mlp", "tanh"), ("bn", "relu")])
def test_finetune_equals_the_iam_seed(kind, activation):
    file = np.load(GOLDEN / "iam_methods" / f"finetune_{kind}.npz")
    names = nets.LAYERS[f"iam_{kind}"]
    start = nets.variables(file, "init", names)
    x, y = batches(file, "retain")
    hidden, classes = start["params"]["Dense_0"]["bias"].shape[0], start["params"]["Dense_1"]["bias"].shape[0]
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn", activation), x.shape[1:])
    method = nets.in_order(
        descent.finetune(lr=float(file["lr"]), epochs=int(file["epochs"]), batch=len(file["retain0_x"]))
    )
    found = nets.outcome(nets.setup(net, method, start, (x, y), (x[:1], y[:1]), bn="faithful"))
    nets.assert_close(found, nets.variables(file, "after", names), 1e-6)
