"""Texas-100 (67,330 rows of 6,169 bits, 100 classes): MLP shadows on 16,000 of 20,000 rows.

    python -m launch.shadows --config=configs/texas.py --config.data.path=dataset_texas.tgz
    python -m launch.shadows --config=configs/texas.py:smoke --config.data.path=dataset_texas.tgz
    python -m launch.shadows --config=configs/texas.py:paper --config.data.path=dataset_texas.tgz

Split and recipe as published for IAM, which has no classifier for it; the model is `texas` of the model table.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_tabular")
    config.data.name = "texas100"
    config.split.shadow = 20_000
    config.model.name = "texas"
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 4000, "data.test_rows": 1000, "split.shadow": 2000, "train.epochs": 2,
                  "train.schedule_epochs": 0, "shadows.count": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
