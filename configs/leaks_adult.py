"""What deletion reveals on UCI Adult, as published: 10 + 10 sets of 2,000 records, 20 deletions each, 420 models.

    python -m launch.leaks --config=configs/leaks_adult.py --config.data.path=adult.csv                decision trees
    python -m launch.leaks --config=configs/leaks_adult.py --config.data.path=adult.csv --model=lr
    ... --unlearning=sisa                 one shard of ten is retrained (--compat=faithful: with the published error)
    ... --group=10                        ten records are deleted together; with
                                          --attacked_records=multi_version one of them
    ... --update=online                   a fresh record is added for each deleted one
    ... --attacked_records=in_in          records that stay
    ... --defence=label                   only predicted labels are published
    ... --model=network --coupling=shared networks of model.*, train.* (standardised), from the same start and batches

Expected: AUC, mean ± sd over --repeats=20 (seeds 0 to 19; for rf one seed, ± half of its 95 % interval), attack dt, and
one run of the released code with its errors fixed (rf: 2 + 2 sets). One seed from nothing takes 8 s for trees, 10 s for
regressions (two cores of an AMD EPYC, jax 0.10.2, CPU); a forest of 500 trees for each of 420 models takes 14 min.

    models, case               direct_diff    sorted_diff    original alone   DegCount  DegRate   released
    dt                         .861 ± .015    .866 ± .017    .505 ± .024         .81     +.25     .878, .880; .487
    lr                         .809 ± .028    .819 ± .018    .492 ± .027         .73     +.20     .800, .802; .515
    dt, sisa                   .765 ± .023    .773 ± .019    .496 ± .019         .72     +.15     .763, .762; .554
    dt, sisa, faithful         .525 ± .021    .531 ± .039    .496 ± .019         .52     +.02     .525, .522; .554
    lr, sisa                   .790 ± .022    .811 ± .015    .505 ± .023         .72     +.18     .826, .800; .512
    dt, group of 10            .623 ± .014    .625 ± .009    .500 ± .009         .58     +.04     .628, .630; .502
    lr, group of 10            .597 ± .008    .609 ± .009    .501 ± .008         .58     +.03     .613, .620; .512
    dt, group of 10, one of it .608 ± .025    .612 ± .023    .506 ± .025         .56     +.05     .613, .641; .507
    dt, online                 .744 ± .022    .759 ± .024    .496 ± .030         .70     +.13     .769, .767; .514
    dt, records that stay      .496 ± .010    .497 ± .011    .498 ± .025         .48      .00     .481, .505; .50
    lr, records that stay      .500 ± .024    .500 ± .029    .499 ± .020         .50      .00     .560, .527; .51
    dt, labels only            .503 ± .004    .504 ± .004    .507 ± .018         .50      .00     .503, .503; .51
    lr, labels only            .500 ± .001    .500 ± .001    .502 ± .019         .50      .00     .500, .500; .52
    rf, one seed               .571 ± .023    .597 ± .041    .483 ± .041         .60     +.04     .607, .553; .507

Single runs vary by the ±. Released numbers lie within two of them, except two of 39: the original alone with dt, sisa
(3.1) and direct_diff of regressions' records that stay (2.5).

Location-30 (--config.data.name=location30 --config.data.path=location30.npz --set_size=1000), AUC by direct_diff,
sorted_diff, l2_distance; original alone, and released: trees (--sets=5) .851, .872, .888; .555, released .795, .885,
.934; .486. Regressions (--sets=3 --model=lr) .757, .900, .944; .620, released .735, .917, .875; .652.

Networks (--model=network, seed 0, 95 % intervals over sets; 12 to 36 s): sorted_diff .440 [.373, .507] with their
own starts and batches, .675 [.634, .716] with shared ones: training noise hides a record, not unlearning. With DP-SGD
(--private, epsilon 7.53 at delta 1e-5, own starts) .473 [.412, .533], at .839 instead of .834 test accuracy.

The distance of the pair needs no training (--attack=threshold --feature=l2_distance): .880 ± .008 (dt), .770 ± .018
(lr). A forest as attacker (--attack=rf) is no better than a tree: .839 ± .025 by sorted_diff, .883 by l2_distance.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults("leaks")
    config.data.name = "adult"
    config.seed = 0
    config.train.epochs = 18
    config.train.batch = 200
    config.leaks.model = "dt"
    return settings.variant(config, variant, {
        "smoke": {"leaks.sets": 2, "leaks.set_size": 100, "leaks.deletions": 3, "train.epochs": 2},
        "paper": {"leaks.repeats": 3},
    })  # fmt: skip
