"""Small language models on texts of one fixed random grammar (generated): are requested documents forgotten?

    python -m launch.audit --config=configs/tiny_lm.py              exact retraining and two prompts, scores, verdicts
    python -m launch.unlearn --config=configs/tiny_lm.py --methods=npo,simnpo,grad_diff,rmu
    python -m launch.study --config=configs/tiny_lm.py              all objectives and exact retraining in one table
    python -m launch.audit --config=configs/tiny_lm.py:smoke        2 shadows, 2 epochs
    python -m launch.audit --config=configs/tiny_lm.py:paper        16 shadows, 10 forget sets, 4 layers of width 128

Originals train on 512 documents of 64 tokens. 4 forget sets of 128 of them, each with its own original; every shadow
model (OUT) trains on a random half of 1,024 other documents. Transformers of 2 layers, width 64, rotary positions,
about 100,000 parameters; AdamW.

Expected (seed 42): AUC of lm_iam under exact retraining .962 [.951, .974], lm_lira .956, lm_ratio .934, lm_rmia .933,
lm_loss .811; Spearman over the steps of a training .864, .690, .824, .925, .692. Retraining: all four requests
forgotten, and 263 of their 512 rows; both prompts: suppressed, all 512 rows. The audit takes 254 s of CPU time from
nothing (two cores of an AMD EPYC, jax 0.10.2), six minutes on cores shared with other work.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
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
    config.audit.rmia_gamma = 1.2  # at 2, as published, no text exceeds more than a few of 256 population texts
    config.unlearn.methods = (
        "grad_diff", "npo", "simnpo", "dpo", "altpo", "rmu", "undial", "wga", "satimp", "ce_u", "pdu", "task_vector",
        "finetune", "ssd",
    )  # fmt: skip
    # Chosen on seed 1 by losses compared with exact retraining; published rates are for models 10,000 times as large.
    config.unlearn.options = (
        "grad_diff.lr=3e-4", "npo.lr=1e-4", "simnpo.lr=5e-4", "simnpo.delta=1.6", "dpo.lr=2e-4", "altpo.lr=1e-4",
        "rmu.lr=3e-3", "undial.lr=3e-4", "wga.lr=3e-3", "satimp.lr=3e-3", "satimp.gamma=5.0", "ce_u.lr=1e-4",
        "pdu.lr=2e-4", "finetune.lr=0.05",
    )  # fmt: skip
    return settings.variant(config, variant, {
        "smoke": {"train.epochs": 2, "shadows.count": 2, "split.forget.count": 2},
        "paper": {"shadows.count": 16, "split.forget.count": 10, "model.width": 128, "model.hidden": (4, 4),
                  "train.epochs": 20},
    })  # fmt: skip
