"""The shadow role: models of the same kind as the audited one, on rows that are drawn for each of them.

Source: IAM, section on shadow training; every shadow model is OUT for every target row, because shadow and target rows
are disjoint.
"""

from typing import Any

import numpy as np

from jaxunlearn import records, store
from jaxunlearn.data.splitting.splits import shadow_pool
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.settings import Settings, to_dict

NAME = "shadow"
STAGE_VERSION = 1


def describe(experiment: experiments.Experiment, split: records.Split) -> roles.RoleSpec:
    """The shadow models of these settings; nothing is read or stored."""
    settings = experiment.settings
    shadows = settings.shadows
    ids = np.arange(shadows.count, dtype=np.int32)
    factors = np.asarray(shadows.learning_rate_factor or (1.0,), np.float32)
    drawn = {"split": splits.fingerprint(experiment), "ratio": shadows.ratio, "pool": shadows.pool}
    return roles.RoleSpec(
        name=NAME,
        experiment=experiment,
        membership=splits.draw_members(experiment, split, ids),
        held_out=roles.mask(len(experiment.dataset.labels), shadow_pool(split, shadows.pool)),
        rows=splits.recorded_rows(split),
        facts=facts(experiment),
        version=STAGE_VERSION,
        run_stage="shadows",
        views=views(settings),
        learning_rate_scale=factors[ids % len(factors)],
        drawn=drawn,
    )


def views(settings: Settings) -> tuple[str, ...]:
    """Augmented views that are recorded beside the clean one."""
    return roles.view_names(max(settings.shadows.views, int(settings.compat.records == "faithful")))


def facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Everything that decides about a shadow model's numbers; not how many there are, nor how they are mapped."""
    settings = experiment.settings
    own = {name: value for name, value in to_dict(settings.shadows).items() if name not in ("count", "views")}
    return {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad},
        "split": splits.fingerprint(experiment),
        "model": to_dict(settings.model),
        "train": roles.recipe_facts(settings.train),
        "shadows": own,
    }


def fingerprint(experiment: experiments.Experiment) -> str:
    """The fingerprint of the shadow role."""
    return store.fingerprint_of(facts(experiment), STAGE_VERSION)
