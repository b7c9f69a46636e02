"""Former names of settings: commands of earlier versions get an error with the current name."""

RENAMED = {
    "audit.level": "audit.fdr",
    "audit.levels": "audit.interpolation_steps",
    "audit.interval": "audit.confidence_level",
    "audit.spread": "audit.std",
    "audit.sweep_levels": "audit.sweep_interpolation_steps",
    "evaluate.headline": "evaluate.report_alpha",
    "evaluate.rank": "evaluate.quantile_rule",
    "reminisce.share": "reminisce.probe_fraction",
    "reminisce.carried": "reminisce.inherited_state",
    "leaks.case": "leaks.attacked_records",
    "epsilon.level": "epsilon.confidence_level",
    "unlearn.conformal.lamda": "unlearn.conformal.lam",
    "unlearn.conformal.calibration": "unlearn.conformal.calibration_rows",
}


def current_name(leaf: str, names: tuple[str, ...] | list[str]) -> str:
    """Returns the current dotted name of a setting formerly called `leaf` (its last component).

    Returns "" unless the last component of the current name is among `names`.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.current_name("level", ["fdr", "seed"])
      'audit.fdr'
    """
    for old, new in RENAMED.items():
        if old.rsplit(".", 1)[-1] == leaf and new.rsplit(".", 1)[-1] in names:
            return new
    return ""
