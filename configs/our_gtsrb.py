r"""GTSRB traffic signs without three classes (Over-Unlearning and Replay): ResNet-18 forgets class 0.

    python -m launch.data --config=configs/our_gtsrb.py --config.data.path=GTSRB          inspects it first
    python -m launch.targets --config=configs/our_gtsrb.py --config.data.path=GTSRB
    python -m launch.targets --config=configs/our_gtsrb.py:smoke --config.data.path=GTSRB

The folder holds train/00000/*.ppm ... train/00042/*.ppm and test/ likewise (sort the downloaded test pictures by its
table), or 00000/*.ppm ... directly, of which a fifth is held out. Pictures are resized to 32 pixels. No model sees
classes 00040, 00009 and 00011. The recipe is the published one: 50 epochs, decay by 0.2 at epochs 30 and 35, batch 64.
No accuracy is published for this setting.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("over_unlearning")
    config.data.name = "folder"
    config.data.ood_classes = ("40", "9", "11")
    config.split.forget.classes = (0,)
    config.train.epochs = 50
    config.train.milestones = (30, 35)
    return settings.variant(config, variant, {
        "smoke": {"model.width": 8, "train.epochs": 2, "train.milestones": (1,)},
        "paper": {"seed": 42},
    })  # fmt: skip
