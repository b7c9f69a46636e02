"""Location-30 (5,010 rows of 446 check-in bits, 30 classes): MLP shadows, overfitted as in the literature.

    python -m launch.shadows --config=configs/location.py --config.data.path=dataset_location.tgz
    python -m launch.shadows --config=configs/location.py:smoke --config.data.path=location30.npz
    python -m launch.shadows --config=configs/location.py:paper --config.data.path=location30.npz

Split as published for IAM (1,000 shadow rows, 800 per member), which ships no classifier for it: 446-256-128-30 tanh.

Expected (default with --config.shadows.count=128, seed 42): train accuracy 1.000, held-out 0.592 ± 0.012 (sd over 128
members), AUC of confidence 0.906 ± 0.017. Time: 19 s on two cores of an AMD EPYC (jax 0.10.2, CPU).
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "location30"
    config.split.shadow = 1000
    config.split.forget.size = 100
    config.model.name = "location"
    config.train.learning_rate = 0.05
    config.train.epochs = 40
    config.train.batch = 64
    config.shadows.count = 64
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"train.epochs": 5, "shadows.count": 4},
        "paper": settings.RECIPES["iam_tabular"]
        | {"split.forget.size": 100, "split.rng": "mt19937", "shadows.count": 128},
    })  # fmt: skip
