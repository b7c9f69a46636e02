"""Forget with Precision: N retrained and N unlearned models of one request, epsilon-hat of eight approaches.

python -m launch.study --config=configs/forget_precision.py            digits: 64 models each, both BatchNorm modes
python -m launch.study --config=configs/forget_precision.py:smoke      4 models of two approaches
python -m launch.study --config=configs/forget_precision.py:small --config.data.path=cifar10.npz      for a CPU
python -m launch.study --config=configs/forget_precision.py:paper      CIFAR-10, ResNet-18, 80 models each
python -m launch.epsilon --data=runs/forget_precision/epsilon/running  the table again, from the logits alone
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default (digits), smoke, small or paper."""
    config = settings.defaults("forget_precision")
    return settings.variant(config, variant, {
        "smoke": {"split.forget.repeats": 4, "train.epochs": 2, "unlearn.methods": ("finetune", "prune_last_layer"),
                  "unlearn.options": ("finetune.epochs=1", "prune_last_layer.epochs=1", "finetune.schedule=constant",
                                      "finetune.nesterov=True")},
        # 2 % of 5,000 pictures, a small network; the rates of the unlearning stages are the published ones.
        "small": settings.RECIPES["forget_precision_cifar10"]
        | {"data.train_rows": 5002, "data.test_rows": 2000, "split.test": 1000, "split.forget.kind": "set_random",
           "split.forget.size": 100, "split.forget.repeats": 16, "model.name": "cnn_bn", "model.width": 8,
           "data.augment": "none", "train.learning_rate": 0.05, "train.epochs": 15, "train.milestones": (8, 13),
           "unlearn.bn": "auto"},
        "paper": settings.RECIPES["forget_precision_cifar10"],
    })  # fmt: skip
