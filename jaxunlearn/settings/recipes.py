"""Published recipes that several experiments share: dotted setting names -> values."""

from typing import Any

# Sizes and counts are set by each experiment.
RECIPES: dict[str, dict[str, Any]] = {
    # Every smoke variant: no more ScoreUI trainings than shadow models to start from.
    "smoke": {"targets.snapshots": 2, "targets.breaks": 4},
    # IAM, section on training: every image model; one original for all forget sets, as published.
    "iam_vision": {
        "targets.originals": "shared",
        "data.augment": "flip_crop",
        "split.forget.size": 500,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
    # Conformal unlearning: the original model of every data set. No shadow models are needed (they get the fewest rows
    # possible), nor models of other scores.
    "conformal": {
        "data.augment": "flip_crop_gray",
        "split.shadow": 2,
        "split.test": 8000,
        "split.population": 2000,
        "split.forget.count": 1,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 200,
        "train.batch": 64,
        "shadows.count": 1,
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
    },
    # Conformal unlearning as its scripts run it: their seed; training rows evaluated through the augmentation;
    # BatchNorm in training mode in the first epoch only, and never under the conformal loss; 128 rows per step of which
    # 13 are to be forgotten. Not reproduced: random labels and SalUn freeze the augmentation of their pictures there.
    "conformal_paper": {
        "seed": 10,
        "compat.records": "faithful",
        "compat.unlearn": "faithful",
        "compat.evaluate": "faithful",
        "evaluate.qhat": "own",
        "evaluate.miacr_attack": "svc",
        "evaluate.svc_rows": 0,
        "unlearn.bn": "first_epoch",
        "unlearn.conformal.batch": 13,
        "unlearn.conformal.calibration_rows": 1000,
        "unlearn.options": (
            "retrain.epochs=200",
            "retrain.lr=0.01",
            *(f"{name}.{value}" for name in ("finetune", "random_label", "salun") for value in ("epochs=20", "lr=0.1")),
            *(f"{name}+conformal.batch=115" for name in ("retrain", "finetune", "random_label", "salun")),
        ),
    },
    # Unlearning-Leaks: networks as scikit-learn's MLPClassifier trains them.
    "leaks": {
        "model.name": "mlp",
        "model.hidden": (100,),
        "train.optimizer": "adam",
        "train.learning_rate": 0.01,
        "train.schedule": "constant",
        "train.weight_decay": 0.0,
    },
    # Over-Unlearning and Replay: pretraining on the remaining classes, one of which is forgotten. No shadow models are
    # needed, nor models of other scores.
    "over_unlearning": {
        "data.ood_classes": ("12", "16", "17", "18", "19"),
        "split.shadow": 2,
        "split.forget.kind": "one_class",
        "split.forget.classes": (4,),
        "split.forget.count": 1,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.schedule": "step",
        "train.milestones": (15, 30, 35),
        "train.decay": 0.2,
        "train.warmup_epochs": 1.0,
        "train.epochs": 40,
        "train.batch": 64,
        "train.keep": "best",
        "shadows.count": 1,
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
    },
    # Forget with Precision, on data that needs no download: one forget set, many models of it, a single shadow model.
    # No augmentation while unlearning, as published.
    "forget_precision": {
        "data.name": "digits",
        "split.shadow": 2,
        "split.forget.count": 1,
        "split.forget.size": 50,
        "split.forget.repeats": 64,
        "model.name": "cnn_bn",
        "train.learning_rate": 0.05,
        "train.nesterov": True,
        "train.epochs": 20,
        "train.batch": 64,
        "shadows.count": 1,
        "study.kind": "epsilon",
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
        "unlearn.augment": False,
        # Fine-tuning with the settings of the repair phases of the other approaches: constant rate, Nesterov.
        "unlearn.options": ("finetune.schedule=constant", "finetune.nesterov=True"),
    },
    # Forget with Precision as published: its 1,000 of 50,000 rows (all but two of the rest are trained on), BatchNorm
    # in training mode while unlearning; training is augmented according to the paper, but not in its code.
    "forget_precision_cifar10": {
        "data.name": "cifar10",
        "data.augment": "autoaugment",
        "split.test": 9000,
        "split.forget.kind": "randperm",
        "split.forget.size": 1000,
        "split.forget.repeats": 80,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 100,
        "train.schedule": "step",
        "train.milestones": (35, 70, 90),
        "train.batch": 128,
        "unlearn.bn": "faithful",
        "unlearn.options": (
            "finetune.lr=0.001",
            "finetune.schedule=constant",
            "finetune.nesterov=True",
            "finetune.batch=128",
        ),
    },
    # IAM: shadow models of Purchase and Texas; one original for all forget sets, as published.
    "iam_tabular": {
        "targets.originals": "shared",
        "split.forget.size": 500,
        "train.learning_rate": 0.01,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
}
