"""CIFAR-10 shadows by a fast recipe: an airbench-like network, 16 epochs instead of 201: 60 times less arithmetic.

    python -m launch.shadows --config=configs/cifar10_fast.py --config.shadows.count=128
    python -m launch.shadows --config=configs/cifar10_fast.py --config.model.dtype=bfloat16     on a GPU
    python -m launch.shadows --config=configs/cifar10_fast.py --config.data.path=cifar10.npz    without TFDS
    python -m launch.shadows --config=configs/cifar10_fast.py:small     width 32, 4,000 rows per shadow: for a CPU
    python -m launch.shadows --config=configs/cifar10_fast.py:smoke     2 narrow networks, 600 rows: a quick test
    python -m launch.shadows --config=configs/cifar10_fast.py:paper     128 shadows on the published permutations

SGD with Nesterov momentum 0.85, batch 512, learning rate 1.0 warmed up over 3 epochs and lowered by a cosine at every
step, weight decay 1.3e-3, flip and crop with 2 black pixels; no label smoothing, which would hide memorisation.
One step costs 0.71 GFLOP per sample, a fifth of a ResNet-18's.

Measured for `small` (JPEG re-encoded pictures, one model each, two cores of an AMD EPYC shared with other work): at
learning rates 0.095, 0.19, 0.38 and 0.76 train accuracy .914, .931, .937, .888 and held-out .677, .706, .723, .714, so
0.38 is used, and scaled to the rate above with the published batch. The full config has not been trained to the end
yet; `python -m launch.bench gpu --data=cifar10.npz` does that on a GPU and prints its accuracy.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_vision")
    config.data.name = "cifar10"
    config.data.pad = 2
    config.split.shadow = 20_000
    config.model.name = "airbench"
    config.train.learning_rate = 1.0
    config.train.momentum = 0.85
    config.train.nesterov = True
    config.train.weight_decay = 1.3e-3
    config.train.schedule_per = "step"
    config.train.schedule_epochs = 0
    config.train.warmup_epochs = 3.0
    config.train.epochs = 16
    config.train.batch = 512
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 600, "data.test_rows": 200, "split.shadow": 300, "split.forget.size": 20,
                  "model.width": 8, "train.epochs": 2, "train.batch": 64, "shadows.count": 2},
        "small": {"data.train_rows": 10_000, "data.test_rows": 2000, "split.shadow": 5000, "split.forget.size": 100,
                  "model.width": 32, "train.batch": 128, "train.learning_rate": 0.38, "shadows.count": 4,
                  "targets.snapshots": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
