"""Published recipes that several experiments share: dotted names of settings to values."""

from typing import Any

# Sizes and counts are the experiments' own.
RECIPES: dict[str, dict[str, Any]] = {
    # Every smoke variant: as many ScoreUI trainings as it has shadows to start from.
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
    # Conformal unlearning: original model of every data set. Nothing there needs shadow models, which keep the fewest
    # rows possible, nor the models of other scores.
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
    # Over-Unlearning and Replay: pretraining on the classes that are left, one of which is forgotten. Nothing there
    # needs shadow models, nor the models of other scores.
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
    # Forget with Precision, on data that is at hand everywhere: one forget set, many models of it, a token shadow
    # model. Nothing is augmented in the unlearning stages, as published.
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
        # Fine-tuning as the repairs of the other approaches: constant rate, Nesterov.
        "unlearn.options": ("finetune.schedule=constant", "finetune.nesterov=True"),
    },
    # Forget with Precision as published: its 1,000 rows of 50,000 (all but two of which are trained on), batch norm in
    # training mode while unlearning; its text augments the training of the models, its code does not.
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
