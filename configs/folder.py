"""Your own pictures: root/train/CLASS/*.png and root/test/CLASS/*.png, or root/CLASS/*.png.

    python -m launch.data --config=configs/folder.py --config.data.path=pictures           inspects them first
    python -m launch.shadows --config=configs/folder.py --config.data.path=pictures --config.split.shadow=2000
    python -m launch.shadows --config=configs/folder.py:smoke --config.data.path=pictures

Pictures are resized to data.size pixels per side. The default recipe suits a few thousand small pictures; `paper` is
the ResNet-18 recipe of configs/cifar100.py.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "folder"
    config.data.augment = "flip_crop"
    config.split.shadow = 500
    config.model.name = "cnn"
    config.train.learning_rate = 0.05
    config.train.epochs = 20
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"split.shadow": 20, "split.forget.size": 2, "train.epochs": 2, "train.batch": 8, "shadows.count": 2},
        "paper": settings.RECIPES["iam_vision"] | {"split.shadow": 20_000, "shadows.count": 128},
    })  # fmt: skip
