"""Location-30 (5,010 rows of 446 check-in bits, 30 classes): MLP shadows, overfitted as in the literature.

    python -m launch.shadows --config=configs/location.py --config.data.path=dataset_location.tgz
    python -m launch.audit --config=configs/location.py --config.data.path=location30.npz
    python -m launch.shadows --config=configs/location.py:smoke --config.data.path=location30.npz
    python -m launch.shadows --config=configs/location.py:paper --config.data.path=location30.npz

Split as published for IAM (1,000 shadow rows, 800 per member), which has no classifier for it: 446-256-128-30 tanh.

Expected (default with --config.shadows.count=128, seed 42): train accuracy 1.000, held-out 0.592 ± 0.012 (sd over 128
members), AUC of confidence 0.906 ± 0.017. Time: 19 s on two cores of an AMD EPYC (jax 0.10.2, CPU).

The audit (default, seed 42): 10 forget sets of 100, 10 groups of one shadow model; mean ± sd over groups, 95 %
jackknife intervals over forget sets. 100 s on the same machine from nothing, models included.

    score            AUC                        bal. acc      TPR@FPR 1e-2  TPR@FPR 1e-3  TNR@FNR 1e-2
    ldiff            0.913 ± .000 [.895, .930]  0.866 ± .000  0.043 ± .000  0.003 ± .000  0.659 ± .000
    carlini_diff     0.911 ± .000 [.894, .929]  0.867 ± .000  0.033 ± .000  0.001 ± .000  0.625 ± .000
    iam_raw          0.910 ± .002 [.893, .926]  0.843 ± .003  0.156 ± .017  0.044 ± .018  0.646 ± .006
    iam_on           0.910 ± .002 [.893, .926]  0.843 ± .003  0.156 ± .017  0.044 ± .018  0.646 ± .006
    logloss_diff     0.909 ± .000 [.893, .925]  0.862 ± .000  0.170 ± .000  0.028 ± .000  0.714 ± .000
    unleak           0.900 ± 6e-5 [.885, .915]  0.844 ± 7e-5  0.261 ± .001  0.082 ± 5e-4  0.693 ± 3e-4
    confidence_diff  0.900 ± .000 [.884, .915]  0.844 ± .000  0.255 ± .000  0.095 ± .000  0.694 ± .000
    loss_diff        0.899 ± .000 [.884, .914]  0.843 ± .000  0.256 ± .000  0.099 ± .000  0.692 ± .000
    iam_carlini      0.892 ± .002 [.875, .909]  0.836 ± .003  0.038 ± .006  0.001 ± 4e-4  0.585 ± .007
    update           0.892 ± .001 [.875, .909]  0.832 ± .002  0.053 ± .009  0.011 ± .003  0.556 ± .007
    iam_tsm          0.883 ± .002 [.866, .900]  0.824 ± .003  0.043 ± .005  0.005 ± .001  0.527 ± .009
    iam_ecdf_on      0.877 ± .002 [.859, .896]  0.834 ± .003  0.052 ± .001  0.005 ± 8e-5  0.244 ± .024
    iam_confidence   0.872 ± .002 [.853, .890]  0.792 ± .004  0.181 ± .015  0.106 ± .015  0.576 ± .004
    iam_kde_on       0.872 ± .002 [.853, .890]  0.792 ± .004  0.181 ± .015  0.106 ± .015  0.576 ± .004
    rmia_on          0.858 ± .003 [.843, .873]  0.777 ± .003  0.162 ± .013  0.079 ± .022  0.445 ± .013
    iam_kde_off      0.850 ± .003 [.827, .872]  0.782 ± .003  0.032 ± .007  0.005 ± .004  0.545 ± .004
    lira_on          0.848 ± .003 [.827, .868]  0.813 ± .003  0.046 ± .009  0.011 ± .008  0.599 ± .007
    iam_beta_on      0.845 ± .003 [.827, .863]  0.745 ± .006  0.177 ± .013  0.056 ± .025  0.466 ± .005
    iam_beta_off     0.834 ± .004 [.810, .858]  0.765 ± .003  0.023 ± .008  0.002 ± .001  0.496 ± .006
    iam_loss         0.826 ± .005 [.809, .843]  0.772 ± .005  0.092 ± .010  0.030 ± .011  0.539 ± .009
    iam_off          0.814 ± .002 [.790, .838]  0.802 ± .002  0.026 ± .006  0.006 ± .003  0.559 ± .005
    iam_ecdf_off     0.808 ± .002 [.791, .825]  0.801 ± .002  0.026 ± 4e-4  0.003 ± 4e-5  0.470 ± .018
    iam_carlini_off  0.800 ± .002 [.776, .824]  0.795 ± .003  0.026 ± .005  0.006 ± .003  0.528 ± .007
    rmia_off         0.777 ± .002 [.757, .798]  0.758 ± .003  0.024 ± .004  0.009 ± .002  0.476 ± .006
    confidence       0.774 ± .000 [.752, .795]  0.799 ± .000  0.013 ± .000  0.003 ± .000  0.594 ± .000
    loss             0.774 ± .000 [.752, .795]  0.799 ± .000  0.013 ± .000  0.003 ± .000  0.594 ± .000
    lira_off         0.771 ± .005 [.753, .789]  0.711 ± .008  0.042 ± .011  0.011 ± .008  0.248 ± .015
    margin           0.743 ± .000 [.725, .761]  0.743 ± .000  0.019 ± .000  0.008 ± .000  0.470 ± .000
    emia_r           0.721 ± .005 [.710, .733]  0.667 ± .005  0.037 ± .007  0.011 ± .007  0.161 ± .012
    emia_p           0.681 ± .000 [.663, .698]  0.653 ± .000  0.007 ± .000  0.002 ± .000  0.234 ± .000
    random           0.494 ± .009 [.487, .502]  0.507 ± .005  0.010 ± .001  0.002 ± .001  0.010 ± .003

IAM-On's AUC is .136 [.126, .146] above that of the confidence, IAM-Off's .040 [.031, .049]. Plain differences to the
original (ldiff, carlini_diff) do as well as IAM-On here. Shadows train on 800 rows, retrains on 2,908.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "location30"
    config.split.shadow = 1000
    config.split.forget.size = 100
    config.model.name = "location"
    config.train.learning_rate = 0.05
    config.train.epochs = 40
    config.train.batch = 64
    config.shadows.count = 64
    config.targets.originals = "shared"  # IAM's protocol, and what is measured above: holds for this one original
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"train.epochs": 5, "shadows.count": 4},
        "paper": settings.RECIPES["iam_tabular"]
        | {"split.forget.size": 100, "split.rng": "mt19937", "shadows.count": 128},
    })  # fmt: skip
