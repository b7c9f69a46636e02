"""Purchase-100 (197,324 rows of 600 bits, 100 classes) as published for IAM: MLP shadows on 32,000 of 40,000 rows.

    python -m launch.shadows --config=configs/purchase.py --config.data.path=dataset_purchase.tgz
    python -m launch.shadows --config=configs/purchase.py:smoke --config.data.path=dataset_purchase.tgz
    python -m launch.shadows --config=configs/purchase.py:paper --config.data.path=dataset_purchase.tgz

600-1024-512-256-128-100 tanh, SGD 0.01, momentum 0.9, weight decay 5e-4, batch 128, cosine over 200, 201 epochs.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_tabular")
    config.data.name = "purchase100"
    config.split.shadow = 40_000
    config.model.name = "purchase"
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 4000, "data.test_rows": 1000, "split.shadow": 2000, "train.epochs": 2,
                  "train.schedule_epochs": 0, "shadows.count": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
