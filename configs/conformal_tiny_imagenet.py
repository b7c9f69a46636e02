r"""Tiny-ImageNet as published for conformal unlearning: ViT-S/16 at 224x224, 10,000 of 100,000 pictures forgotten.

    python -m launch.data --config=configs/conformal_tiny_imagenet.py --config.data.path=/data/tiny-imagenet-200
    python -m launch.targets --config=configs/conformal_tiny_imagenet.py --config.data.path=/data/tiny-imagenet-200
    python -m launch.unlearn --config=configs/conformal_tiny_imagenet.py --config.data.path=/data/tiny-imagenet-200 \
        --methods=finetune,finetune+conformal --config.model.dtype=bfloat16
    python -m launch.unlearn --config=configs/conformal_tiny_imagenet.py:smoke --config.data.path=...
    python -m launch.unlearn --config=configs/conformal_tiny_imagenet.py:resnet18 --config.data.path=...
    python -m launch.unlearn --config=configs/conformal_tiny_imagenet.py:paper --config.data.path=...

The folder may be as downloaded, or rearranged into train, val and cal; the 10,000 held-out pictures of all its folders
are split at random into 8,000 for testing and 2,000 for calibration. The recipe is that of
configs/conformal_cifar10.py. Published runs crop after the resize, with a border of 4 pixels of 224; here pictures are
resized inside the network, and a border of 1 pixel of 64 comes closest. Published runs start from ImageNet weights,
this package from random ones.

Published (from public summaries of the paper, not from its tables): the conformal loss with lambda 0.5 adds
9.23 points of UA (mean of retraining, fine-tuning and random labels) for 0.57 points of TA.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke, resnet18 or paper."""
    config = settings.defaults("conformal")
    config.data.name = "tiny_imagenet"
    config.data.pad = 1
    config.split.forget.size = 10_000
    config.model.name = "vit_s16"
    return settings.variant(config, variant, {
        # By split.target, not data.train_rows: the first rows of the folder are all of one class.
        "smoke": {"split.target": 120, "split.test": 40, "split.population": 40, "split.forget.size": 20,
                  "model.width": 12, "train.epochs": 1, "train.batch": 16},
        "resnet18": {"data.pad": 4, "model.name": "resnet18"},
        "paper": settings.RECIPES["conformal_paper"],
    })  # fmt: skip
