r"""CIFAR-20 (CIFAR-100 with its 20 coarse classes): ResNet-18 forgets the fine class 69, rocket, of vehicles_2.

    python -m launch.targets --config=configs/conformal_cifar20.py              the original and an exact retrain
    python -m launch.unlearn --config=configs/conformal_cifar20.py --methods=finetune,ssd,finetune+conformal
    python -m launch.evaluate --config=configs/conformal_cifar20.py             UA, RA, TA, MIA, CR, MIACR
    python -m launch.unlearn --config=configs/conformal_cifar20.py:smoke        a narrow ResNet, 3,000 rows
    python -m launch.unlearn --config=configs/conformal_cifar20.py:paper        seed 10, with the published quirks
    python -m launch.targets --config=configs/conformal_cifar20.py --config.split.forget.classes=69,51,2,40,71 \
        --config.split.forget.count=5                       the five subclasses of the SSD code, one retrain for each

The recipe is that of configs/conformal_cifar10.py. The fine classes come with the data (not with an .npz that holds
coarse labels only); 500 training pictures are rockets; the 100 held-out ones are evaluated separately from test and
calibration sets, as in the published code. No number is published for this setting.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("conformal")
    config.data.name = "cifar20"
    config.split.forget.kind = "subclass"
    config.split.forget.classes = (69,)
    return settings.variant(config, variant, {
        "smoke": {"data.train_rows": 3000, "data.test_rows": 600, "split.test": 0, "model.width": 8,
                  "train.epochs": 2},
        "paper": settings.RECIPES["conformal_paper"] | {"unlearn.conformal.calibration_rows": 200},
    })  # fmt: skip
