r"""CIFAR-20 without five classes (Over-Unlearning and Replay): ResNet-18 forgets class 4, fruit_and_vegetables.

    python -m launch.targets --config=configs/our_cifar20.py              the original and an exact retrain
    python -m launch.unlearn --config=configs/our_cifar20.py --methods=negrad_plus,amnesiac,bad_teacher,ssd,influence
    python -m launch.evaluate --config=configs/our_cifar20.py             accuracies, attacks, distributions of outputs
    python -m launch.unlearn --config=configs/our_cifar20.py --config.train.l1=5e-5 --workdir=runs/sparse \
        --methods=influence+our                                           on sparse originals, as published
    python -m launch.targets --config=configs/our_cifar20.py:smoke        a narrow ResNet, 3,000 rows
    python -m launch.targets --config=configs/our_cifar20.py --config.data.ood_classes="()" \
        --config.data.ood_subclasses=30 --config.split.forget.kind=subclass    forgets fine class 4, never saw 30
    python -m launch.targets --config=configs/our_cifar20.py --config.data.name=cifar100       95 classes, forgets 4
    python -m launch.targets --config=configs/our_cifar20.py --config.data.name=cifar10 --config.data.ood_classes=8,9
    python -m launch.reminisce --config=configs/our_cifar20.py --config.unlearn.methods=ssd,ssd+our

No model sees classes 12, 16, 17, 18 and 19; they are the probes of the Reminiscence Attack. 37,500 training pictures
remain, 2,500 of them to forget. The recipe is the published one: SGD 0.1, one epoch of warm-up, decay by 0.2 at epochs
15, 30 and 35 of 40, batch 64, no augmentation, the epoch with the best test accuracy. Published accuracies of the
retrained model: TA 64.62, UA 0, RA 99.99.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("over_unlearning")
    config.data.name = "cifar20"
    return settings.variant(config, variant, {
        "smoke": {"data.train_rows": 3000, "data.test_rows": 600, "model.width": 8, "train.epochs": 2,
                  "train.milestones": (1,)},
        "paper": {"seed": 42},
    })  # fmt: skip
