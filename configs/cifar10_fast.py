"""CIFAR-10 shadows by a fast recipe: an airbench-like network, 16 epochs instead of 201, a fifth of the arithmetic.

python -m launch.shadows --config=configs/cifar10_fast.py --config.shadows.count=128
python -m launch.shadows --config=configs/cifar10_fast.py --config.model.dtype=bfloat16     on a GPU
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default, smoke or paper."""
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
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
