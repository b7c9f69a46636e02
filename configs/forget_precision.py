"""Forget with Precision: N retrained and N unlearned models of one request, epsilon-hat of eight approaches.

    python -m launch.study --config=configs/forget_precision.py            digits: 64 models each, both BatchNorm modes
    python -m launch.study --config=configs/forget_precision.py:smoke      4 models of two approaches
    python -m launch.study --config=configs/forget_precision.py:small --config.data.path=cifar10.npz      for a CPU
    python -m launch.study --config=configs/forget_precision.py:paper      CIFAR-10, ResNet-18, 80 models each
    python -m launch.epsilon --data=runs/forget_precision/epsilon/running  the table again, from the logits alone

Median epsilon-hat at delta 0.05 (in brackets the number of samples that are distinguished without error); seed 42, jax
0.10.2, two cores of an AMD EPYC; digits 2 min 12 s, `small` 26 min on a busy machine. Published: the paper's table,
1,000 samples, 80 models, ResNet-18 on CIFAR-10, BatchNorm in training mode.

                       published      digits               small (JPEG re-encoded pictures)
    no difference      0.51           0.62                 1.16       simulated, groups of the same size
    baseline           0.88           1.01                 1.28       halves of the retrained models
    prune_complex      2.20           3.27                 2.42 (4)
    prune_last_layer   2.30           2.49 [2.24, 2.74]    2.65 (33)
    hybrid             2.83 (1)       3.80                 inf  (64)
    prune              3.22 (4)       3.79 (2)             2.10 (1) [1.88, 2.33]
    activation_reset   3.58 (35)      3.61                 2.32 (10)
    finetune           3.74 (30)      4.09 (11)            2.65 (42)
    poison             4.16 (144)     4.07 (18)            inf  (65)
    poison_full        4.20 (168)     inf  (43)            2.65 (17)
    largest finite     4.32           4.09                 2.65

Agreement: approaches that reset weights are hardest to distinguish from retraining, fine-tuning and poisoning easiest;
the mode of batch norm changes little here (report/epsilon.html). Disagreement: `small` is undertrained (test accuracy
.54) and its rates are those of a ResNet with ten times the steps; activation_reset, which reinitialises the last layer,
does not recover (retain accuracy .46), and hybrid's poison, at 14 times the rate of `poison`, shows in every sample.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default (digits), smoke, small or paper."""
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
