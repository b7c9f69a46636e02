"""CIFAR-100 as published for IAM: ResNet-18 shadows on 16,000 of 20,000 shadow rows, 201 epochs.

    python -m launch.shadows --config=configs/cifar100.py --config.shadows.count=128
    python -m launch.shadows --config=configs/cifar100.py --config.model.dtype=bfloat16     on a GPU
    python -m launch.shadows --config=configs/cifar100.py:smoke     2 narrow ResNets, 600 rows: a quick test
    python -m launch.shadows --config=configs/cifar100.py:paper     128 shadows on the published permutations

SGD 0.1, momentum 0.9, weight decay 5e-4 on every parameter, batch 128, cosine over 200 epochs (the 201st runs at rate
0), flip and crop. One epoch of one model is 125 steps; --dry_run measures its time on your machine. Published for the
same recipe on the larger target set of 30,000 rows (seed 42): train 100 %, test 72.8 %.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_vision")
    config.data.name = "cifar100"
    config.split.shadow = 20_000
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 600, "data.test_rows": 200, "split.shadow": 300, "split.forget.size": 20,
                  "model.width": 8, "train.epochs": 2, "train.schedule_epochs": 0, "shadows.count": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
