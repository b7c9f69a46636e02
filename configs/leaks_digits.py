"""What deletion reveals on scikit-learn's digits (bundled): exact logistic regressions, 420 of them.

    python -m launch.leaks --config=configs/leaks_digits.py
    python -m launch.leaks --config=configs/leaks_digits.py --model=dt                 decision trees
    python -m launch.leaks --config=configs/leaks_digits.py --model=network            networks (model.*, train.*)
    python -m launch.leaks --config=configs/leaks_digits.py:smoke                      2 + 2 sets, 3 deletions each

10 + 10 sets of 300 records, 20 unlearned models each. Expected (seed 42, 95 % intervals over target sets): AUC .927
[.887, .966] by sorted_diff, .861 by l2_distance, .479 [.393, .564] from the original alone. 11 s from process start to
end on two cores of an AMD EPYC (jax 0.10.2, CPU). Networks with shared starts and batches: .856 [.810, .902].
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("leaks")
    config.data.name = "digits"
    config.train.epochs = 20
    config.train.batch = 64
    config.leaks.model = "lr"
    config.leaks.set_size = 300
    return settings.variant(config, variant, {
        "smoke": {"leaks.sets": 2, "leaks.set_size": 60, "leaks.deletions": 3, "train.epochs": 2},
        "paper": {"leaks.set_size": 600},
    })  # fmt: skip
