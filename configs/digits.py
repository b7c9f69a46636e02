"""scikit-learn's digits (1,797 real 8x8 pictures, bundled): an experiment that runs anywhere.

    python -m launch.shadows --config=configs/digits.py            64 shadow CNNs, 20 epochs
    python -m launch.audit --config=configs/digits.py              10 originals and retrains, all scores, verdicts
    python -m launch.unlearn --config=configs/digits.py            every unlearning method, 10 forget sets at once
    python -m launch.study --config=configs/digits.py              all methods and exact retraining in one table
    python -m launch.shadows --config=configs/digits.py:smoke      4 shadows, 3 epochs
    python -m launch.shadows --config=configs/digits.py:paper      128 shadows, 100 epochs

Expected (default, seed 42): train accuracy 1.000, held-out 0.961 ± 0.007 (sd over 64 members), AUC of confidence
0.527 ± 0.028. Time: 12.5 s from process start to end on two cores of an AMD EPYC (jax 0.10.2, CPU, nothing cached),
7.9 s of which train 12,800 model-steps. The audit takes 57 s from nothing; AUC over 10 forget sets of 50, each
with its own original: IAM-On 0.570 ± 0.005 [0.542, 0.597], IAM-Off 0.547 ± 0.004 [0.518, 0.576], confidence
0.515 [0.480, 0.551]: these networks remember little of single digits, and no sample of the original models is
recognised as a training sample.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "digits"
    config.split.shadow = 800
    config.model.name = "cnn"
    config.train.learning_rate = 0.05
    config.train.epochs = 20
    config.train.batch = 64
    config.shadows.count = 64
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"shadows.count": 4, "train.epochs": 3},
        "paper": {"shadows.count": 128, "train.epochs": 100},
    })  # fmt: skip
