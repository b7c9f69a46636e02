"""Over-Unlearning and Replay on MNIST: a small CNN forgets one digit of seven, three are unseen.

    python -m launch.study --config=configs/our_mnist.py                  methods with and without +our, under attack
    python -m launch.reminisce --config=configs/our_mnist.py
    python -m launch.study --config=configs/our_mnist.py:smoke            2,000 rows, one epoch

Seven forget sets, one per digit, each with its own original; 10,000 rows of the train pool. The smoke variant takes
1 min 45 s on two cores of an AMD EPYC (jax 0.10.2); the others need an accelerator and have not been run.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "mnist"
    config.data.train_rows = 10_000
    config.data.test_rows = 2_000
    config.data.ood_classes = ("7", "8", "9")
    config.split.shadow = 200
    config.split.forget.kind = "one_class"
    config.split.forget.classes = (0, 1, 2, 3, 4, 5, 6)
    config.split.forget.count = 7
    config.model.name = "cnn"
    config.train.learning_rate = 0.05
    config.train.epochs = 4
    config.train.batch = 64
    config.shadows.count = 1
    config.targets.snapshots = 0
    config.targets.reference = 0
    config.targets.population_in = False
    config.targets.shadow_origin = False
    config.unlearn.methods = ("ssd", "ssd+our", "bad_teacher", "bad_teacher+our")
    config.evaluate.tsne_rows = 500
    config.study.kind = "over_unlearning"
    config.reminisce.probe_fraction = 0.03
    config.reminisce.learning_rates = (0.01, 0.05)
    return settings.variant(config, variant, {
        "smoke": {"data.train_rows": 2000, "data.test_rows": 500, "train.epochs": 1, "split.forget.count": 2,
                  "reminisce.trials": 4},
        "paper": {"data.train_rows": 0, "data.test_rows": 0, "train.epochs": 20, "split.forget.count": 14},
    })  # fmt: skip
