"""CIFAR-10 as published for IAM: ResNet-18 shadows on 16,000 of 20,000 shadow rows, 201 epochs.

    python -m launch.shadows --config=configs/cifar10.py --config.shadows.count=128
    python -m launch.shadows --config=configs/cifar10.py --config.data.path=cifar10.npz     without TFDS
    python -m launch.shadows --config=configs/cifar10.py:smoke      2 narrow ResNets, 600 rows: a quick test
    python -m launch.audit --config=configs/cifar10.py:small        10,000 pictures, CNN: for a CPU
    python -m launch.shadows --config=configs/cifar10.py:paper      128 shadows on the published permutations

The recipe is that of configs/cifar100.py.

Expected of `small` (seed 42, JPEG re-encoded pictures): original train / held-out accuracy 1.000 / 0.537, retrained
on forgotten rows 0.525. AUC, mean ± sd over 10 groups of one shadow, 95 % jackknife interval over 10 forget sets of
100: IAM-On 0.878 ± .003 [.868, .889], IAM-Off 0.866 ± .003 [.853, .879], UnLeak 0.853, confidence change 0.852, LiRA-
On 0.839 ± .004, update 0.837, confidence 0.801 [.784, .819], RMIA-On 0.778 ± .011, RMIA-Off 0.773 ± .013, LiRA-Off
0.764 ± .003, EMIA-R 0.740, EMIA-P 0.710. IAM-On is .077 [.058, .096] above the confidence. The published order for
the full protocol is IAM-Off, IAM-On (67), RMIA (64), UnLeak and LiRA-On (63).

Time on two cores of an AMD EPYC (jax 0.10.2, CPU): 0.4 model-steps/s at batch 128, enough only for tests; the paper run
is 3.2 million model-steps. On one H200 (jax 0.11.2), 8 members, 2 epochs from a cold start: 133 (bfloat16) and 188
(float32, second run) model-steps/s, with first steps and autotuning; 15 to 26 s of compiling.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("iam_vision")
    config.data.name = "cifar10"
    config.split.shadow = 20_000
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 600, "data.test_rows": 200, "split.shadow": 300, "split.forget.size": 20,
                  "model.width": 8, "train.epochs": 2, "train.schedule_epochs": 0, "shadows.count": 2},
        # For a CPU: the published protocol scaled down, a small CNN that overfits without augmentation.
        "small": {"data.train_rows": 10_000, "data.test_rows": 2000, "data.augment": "none", "split.shadow": 4000,
                  "split.forget.size": 100, "model.name": "cnn", "train.learning_rate": 0.05, "train.epochs": 30,
                  "train.schedule_epochs": 0, "shadows.count": 10, "targets.snapshots": 2},
        "paper": {"shadows.count": 128, "split.rng": "mt19937"},
    })  # fmt: skip
