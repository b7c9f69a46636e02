"""The shadow role: models of the same architecture as the audited one, on rows that are drawn for each of them.

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
    """Describes the shadow models of these settings; reads and stores nothing."""
    settings = experiment.settings
    shadows = settings.shadows
    ids = np.arange(shadows.count, dtype=np.int32)
    rate_scales = np.asarray(shadows.learning_rate_factor or (1.0,), np.float32)
    membership_facts = {"split": splits.fingerprint(experiment), "ratio": shadows.ratio, "pool": shadows.pool}
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
        learning_rate_scale=rate_scales[ids % len(rate_scales)],
        membership_facts=membership_facts,
    )


def views(settings: Settings) -> tuple[str, ...]:
    """Returns the augmented views that are recorded in addition to the clean one."""
    return roles.view_names(max(settings.shadows.views, int(settings.compat.records == "faithful")))


def facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Returns everything that a shadow model's weights depend on: neither the number of shadows nor their mapping."""
    settings = experiment.settings
    shadow_facts = {name: value for name, value in to_dict(settings.shadows).items() if name not in ("count", "views")}
    return {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad},
        "split": splits.fingerprint(experiment),
        "model": to_dict(settings.model),
        "train": roles.recipe_facts(settings.train),
        "shadows": shadow_facts,
    }


def fingerprint(experiment: experiments.Experiment) -> str:
    """Returns the fingerprint of the shadow role."""
    return store.fingerprint_of(facts(experiment), STAGE_VERSION)
