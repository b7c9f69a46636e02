r"""A subset of ImageNet64 without six classes (Over-Unlearning and Replay): ResNet-18 forgets class 0.

    python -m launch.data --config=configs/our_imagenet64.py --config.data.path=imagenet64        inspects it first
    python -m launch.targets --config=configs/our_imagenet64.py --config.data.path=imagenet64
    python -m launch.targets --config=configs/our_imagenet64.py:smoke --config.data.path=imagenet64

The folder holds train_data_batch_1 ... train_data_batch_10 and val_data of a subset of classes (published: 100; which
ones is not known). Pictures are resized to 32 pixels. No model sees classes 4, 12, 16, 17, 18 and 19. The recipe is the
published one: 200 epochs, decay by 0.2 at epochs 120 and 180, batch 64. No accuracy is published.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("over_unlearning")
    config.data.name = "imagenet64"
    config.data.ood_classes = ("4", "12", "16", "17", "18", "19")
    config.split.forget.classes = (0,)
    config.train.epochs = 200
    config.train.milestones = (120, 180)
    return settings.variant(config, variant, {
        "smoke": {"data.train_rows": 3000, "data.test_rows": 600, "model.width": 8, "train.epochs": 2,
                  "train.milestones": (1,)},
        "paper": {"seed": 42},
    })  # fmt: skip
