"""Small language models on texts of one fixed random grammar (embedded): are the documents asked for still in?

    python -m launch.audit --config=configs/tiny_lm.py              exact retraining and two prompts, scores, verdicts
    python -m launch.unlearn --config=configs/tiny_lm.py --methods=npo,simnpo,grad_diff,rmu
    python -m launch.study --config=configs/tiny_lm.py              the objectives beside exact retraining, in one table
    python -m launch.audit --config=configs/tiny_lm.py:smoke        2 shadows, 2 epochs
    python -m launch.audit --config=configs/tiny_lm.py:paper        16 shadows, 10 forget sets, 4 layers of width 128

512 documents of 64 tokens are trained on, 128 of them are asked to be forgotten, 4 times over with an original each;
every shadow model (OUT) is trained on a random half of 1,024 other documents. Transformers of 2 layers, width 64,
rotary positions, about 100,000 parameters; AdamW.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "grammar"
    config.split.shadow = 1024
    config.split.target = 512
    config.split.forget.size = 128
    config.split.forget.count = 4
    config.model.name = "lm_rotary"
    config.train.optimizer = "adamw"
    config.train.learning_rate = 5e-3
    config.train.weight_decay = 0.01
    config.train.schedule = "constant"
    config.train.epochs = 12
    config.train.batch = 64
    config.shadows.count = 6
    config.targets.population_in = False
    config.targets.shadow_origin = False
    config.targets.snapshots = 1
    config.targets.breaks = 11
    config.audit.unlearned = ("retrained", "prompted:refusal", "prompted:corrupted")
    config.audit.rmia_gamma = 1.2  # at 2, as published, few of 256 population texts are passed by any text
    return settings.variant(config, variant, {
        "smoke": {"train.epochs": 2, "shadows.count": 2, "split.forget.count": 2},
        "paper": {"shadows.count": 16, "split.forget.count": 10, "model.width": 128, "model.hidden": (4, 4),
                  "train.epochs": 20},
    })  # fmt: skip
