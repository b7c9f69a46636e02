"""Former names of settings, so that a command of an earlier version is answered with the name of today."""

RENAMED = {
    "audit.level": "audit.fdr",
    "audit.levels": "audit.interpolation_steps",
    "audit.interval": "audit.confidence_level",
    "audit.spread": "audit.std",
    "audit.sweep_levels": "audit.sweep_interpolation_steps",
    "evaluate.headline": "evaluate.report_alpha",
    "evaluate.rank": "evaluate.quantile_rule",
    "epsilon.level": "epsilon.confidence_level",
    "unlearn.conformal.lamda": "unlearn.conformal.lam",
    "unlearn.conformal.calibration": "unlearn.conformal.calibration_rows",
}


def renamed(leaf: str, known: tuple[str, ...] | list[str]) -> str:
    """Returns today's dotted name of what was called `leaf` (its last part), if that is among `known`; else ""."""
    for old, new in RENAMED.items():
        if old.rsplit(".", 1)[-1] == leaf and new.rsplit(".", 1)[-1] in known:
            return new
    return ""
