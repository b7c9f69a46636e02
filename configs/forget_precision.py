"""Forget with Precision: N retrained and N unlearned models of one request per approach, epsilon-hat of each."""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default (digits), smoke, cifar10, small or paper."""
    config = settings.defaults("forget_precision")
    return settings.variant(config, variant, {
        "smoke": {"split.forget.repeats": 4, "train.epochs": 2, "unlearn.methods": ("finetune", "prune_last_layer"),
                  "unlearn.options": ("finetune.epochs=1", "prune_last_layer.epochs=1")},
    })  # fmt: skip
