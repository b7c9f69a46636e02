"""Your own arrays: an .npz with x_train, y_train, x_test, y_test, or x and y (20 % are then held out).

    python -m launch.data --config=configs/npz.py --config.data.path=mine.npz              inspects them first
    python -m launch.shadows --config=configs/npz.py --config.data.path=mine.npz --config.split.shadow=2000
    python -m launch.shadows --config=configs/npz.py:smoke --config.data.path=mine.npz

Rows may be vectors (any real features; model mlp) or pictures [N, H, W] or [N, H, W, C] (choose
--config.model.name=cnn or resnet18). `paper` is the tabular recipe published for IAM.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "npz"
    config.split.shadow = 500
    config.model.name = "mlp"
    config.train.learning_rate = 0.05
    config.train.epochs = 20
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"split.shadow": 20, "split.forget.size": 2, "train.epochs": 2, "train.batch": 8, "shadows.count": 2},
        "paper": settings.RECIPES["iam_tabular"] | {"split.shadow": 20_000, "shadows.count": 128},
    })  # fmt: skip
