"""What deletion reveals on UCI Adult, as published: 10 + 10 sets of 2,000 records, 20 deletions each, 420 models.

    python -m launch.leaks --config=configs/leaks_adult.py --config.data.path=adult.csv                decision trees
    python -m launch.leaks --config=configs/leaks_adult.py --config.data.path=adult.csv --model=lr
    ... --unlearning=sisa                 one shard of ten is retrained (--compat=faithful: with the published error)
    ... --group=10                        ten records are deleted together; with --case=multi_version one of them
    ... --update=online                   a fresh record is added for each deleted one
    ... --case=in_in                      records that stay
    ... --defence=label                   only predicted labels are published
    ... --model=network --coupling=shared networks of model.*, train.* (standardised), from the same start and batches

Expected: AUC, mean ± sd over --repeats=3 (seeds 0, 1, 2), attack dt, and what the released code gives with its errors
mended. 8 s for one seed of trees from nothing, 10 s of regressions (two cores of an AMD EPYC, jax 0.10.2, CPU).

    models, case               direct_diff    sorted_diff    original alone   DegCount  DegRate   released, mended
    dt                         .869 ± .018    .883 ± .012    .530 ± .010         .79     +.26     .878, .880; .487
    lr                         .800 ± .045    .810 ± .027    .482 ± .018         .74     +.19     .800, .802; .515
    dt, sisa                   .745 ± .012    .764 ± .004    .510 ± .021         .72     +.15     .763, .762; .554
    dt, sisa, faithful         .509 ± .007    .540 ± .030    .510 ± .021         .53     +.01     .525, .522; .554
    lr, sisa                   .794 ± .013    .811 ± .016    .523 ± .002         .72     +.18     .826, .800; .512
    dt, group of 10            .627 ± .012    .632 ± .006    .504 ± .002         .58     +.04     .628, .630; .502
    lr, group of 10            .606 ± .003    .612 ± .007    .508 ± .005         .58     +.03     .613, .620; .512
    dt, group of 10, one of it .605 ± .037    .603 ± .009    .489 ± .013         .59     +.05     .613, .641; .507
    dt, online                 .754 ± .023    .771 ± .037    .480 ± .018         .70     +.14     .769, .767; .514
    dt, records that stay      .501 ± .005    .500 ± .003    .501 ± .023         .49      .00     .481, .505; .50
    lr, records that stay      .520 ± .016    .517 ± .005    .502 ± .027         .50      .00     .560, .527; .51
    dt, labels only            .503 ± .002    .503 ± .002    .506 ± .020         .50      .00     .503, .503; .51
    lr, labels only            .500 ± .000    .500 ± .000    .503 ± .018         .50      .00     .500, .500; .52

Networks (--model=network, seed 0, 95 % intervals over sets; 12 to 36 s): sorted_diff .440 [.373, .507] with starts and
batches of their own, .675 [.634, .716] with shared ones: training noise hides a record, not unlearning. By DP-SGD
(--private, epsilon 7.53 at delta 1e-5, own starts) .473 [.412, .533], at .839 instead of .834 test accuracy.

The distance of the pair needs no training (--attack=threshold --feature=l2_distance): .880 ± .008 (dt), .770 ± .018
(lr). A forest as attacker (--attack=rf) finds no more than a tree: .839 ± .025 by sorted_diff, .883 by l2_distance.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """The config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "adult"
    config.seed = 0
    config.model.name = "mlp"
    config.model.hidden = (100,)
    config.train.optimizer = "adam"
    config.train.learning_rate = 0.01
    config.train.schedule = "constant"
    config.train.weight_decay = 0.0
    config.train.epochs = 18
    config.train.batch = 200
    config.leaks.model = "dt"
    return settings.variant(config, variant, {
        "smoke": {"leaks.sets": 2, "leaks.set_size": 100, "leaks.deletions": 3, "train.epochs": 2},
        "paper": {"leaks.repeats": 3},
    })  # fmt: skip
