"""CINIC-10 (folders train, valid, test) as published for IAM: ResNet-18 shadows on 16,000 of 20,000 shadow rows.

    python -m launch.shadows --config=configs/cinic10.py --config.data.path=/data/CINIC-10
    python -m launch.shadows --config=configs/cinic10.py:smoke --config.data.path=/data/CINIC-10
    python -m launch.shadows --config=configs/cinic10.py:paper --config.data.path=/data/CINIC-10

90,000 training pictures; the 180,000 of valid and test are the held-out pool. The recipe is that of cifar100.py.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_vision")
    config.data.name = "cinic10"
    config.split.shadow = 20_000
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 600, "data.test_rows": 200, "split.shadow": 300, "split.forget.size": 20,
                  "model.width": 8, "train.epochs": 2, "train.schedule_epochs": 0, "shadows.count": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
