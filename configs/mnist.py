r"""MNIST: small CNN shadows on 8,000 of 10,000 shadow rows.

python -m launch.shadows --config=configs/mnist.py                                      with TFDS data
python -m launch.shadows --config=configs/mnist.py --config.data.path=mnist.npz         x_train, y_train, ...
python -m launch.shadows --config=configs/mnist.py:smoke
python -m launch.shadows --config=configs/mnist.py:paper                                128 shadows, 20,000 rows

Class forgetting: all methods and exact retraining on the classes 0 to 4 of 2,000 target rows
    python -m launch.study --config=configs/mnist.py --config.data.path=mnist.npz --config.split.shadow=5000 \
        --config.split.target=2000 --config.split.forget.kind=one_class --config.split.forget.classes=0,1,2,3,4 \
        --config.split.forget.count=5 --config.shadows.count=10 --config.train.epochs=10
(13 minutes on two cores of an AMD EPYC). IAM-On of forgotten / retained samples, original .567 / .556: retrained .000
/ .602, eu_k .000 / .591, SFRon .000 / .606, fisher .001 / .533, activation_reset .000 / .522, SCRUB .001 / .507,
lfssd .001 / .488, hybrid .000 / .475, SalUn .001 / .469 forget the class as retraining does; finetune .456 / .587,
ft_prune .438 / .594, prune .369 / .586, ascent .364 / .455, l_codec .451 / .544 do not; boundary_shrink (.209
retained), boundary_expand (.124), poison (.075) and negrad_plus at its default rate (.046, RA .26) also damage the
other classes.

Over- and under-unlearning by class (Table 8), 64 s after the study, same settings:
    python -m launch.audit ... --config.audit.protocol=class_report --config.audit.unlearned=retrained,unlearned:all
IAM-On pooled, forgotten mean / retained mean / its lowest tenth: retrained .000 / .602 / .377, eu_k .000 / .591 /
.371, SFRon .000 / .606 / .360, fisher .001 / .533 / .124, SalUn .001 / .469 / .035, SCRUB .001 / .507 / .013,
finetune .455 / .587 / .440, SSD .109 / .430 / .000.

Expected (default, seed 42): train accuracy 0.997, held-out 0.982 ± 0.002 (sd over 16 members). Time: 75 s on two cores
of an AMD EPYC (jax 0.10.2, CPU), 12 s of it for recording logits on all 70,000 rows.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "mnist"
    config.split.shadow = 10_000
    config.split.forget.size = 500
    config.model.name = "cnn"
    config.train.learning_rate = 0.05
    config.train.epochs = 5
    config.train.batch = 64
    config.shadows.count = 16
    config.targets.originals = "shared"  # the numbers above are those of this one original
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"data.train_rows": 2000, "data.test_rows": 500, "split.shadow": 1000, "split.forget.size": 50,
                  "train.epochs": 1, "shadows.count": 2},
        "paper": {"split.shadow": 20_000, "train.epochs": 20, "shadows.count": 128},
    })  # fmt: skip
