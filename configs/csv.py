"""Your own table: a CSV with a header, one column of which is the label; or a folder with train.csv and test.csv.

    python -m launch.data --config=configs/csv.py --config.data.path=mine.csv              inspects it first
    python -m launch.audit --config=configs/csv.py --config.data.path=mine.csv --config.data.label=outcome
    python -m launch.shadows --config=configs/csv.py:smoke --config.data.path=mine.csv

Numbers are standardised; words are categories, coded by the sorted order of their values. Columns whose numbers name
categories: --config.data.categories=postcode; columns to leave out: --config.data.ignore=comment,name. The recipe is
for a few thousand rows; `paper` is the tabular recipe published for IAM.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke or paper."""
    config = settings.defaults()
    config.data.name = "csv"
    config.split.shadow = 500
    config.model.name = "mlp"
    config.train.learning_rate = 0.05
    config.train.epochs = 20
    config.shadows.count = 16
    return settings.variant(config, variant, {
        "smoke": settings.RECIPES["smoke"]
        | {"split.shadow": 20, "split.forget.size": 2, "train.epochs": 2, "train.batch": 8, "shadows.count": 2},
        "paper": settings.RECIPES["iam_tabular"] | {"split.shadow": 20_000, "shadows.count": 128},
    })  # fmt: skip
