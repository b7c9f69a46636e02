"""What an audit's quality depends on: number of shadows, interpolation levels and e1 / e2, and whose shadows they are.

Source: IAM, sections on the number of shadow models, parameter sensitivity, distribution shift, architecture shift.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import progress, scores
from jaxunlearn.metrics import pooled
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.audit import binui, judging
from jaxunlearn.records import Finding
from jaxunlearn.settings import Settings

# The scores whose dependence on shadows is worth a curve.
CURVES = ("iam_on", "iam_off", "rmia_on", "rmia_off", "lira_on", "lira_off", "emia_r", "update")


class Sweep(NamedTuple):
    """AUC along one axis.

    Attributes:
      values: the axis: numbers of shadows, or interpolation levels.
      lines: name of a line -> one Finding (AUC) per value.
      groups: how many groups of shadows stand behind each value.
    """

    values: tuple[int, ...]
    lines: dict[str, list[Finding]]
    groups: tuple[int, ...]


def auc(values: np.ndarray, truth: np.ndarray, settings: Settings, of: str) -> Finding:
    """The pooled AUC of [G, R, N] scores with its interval."""
    return pooled.table(values, truth, level=settings.audit.interval, of=of)["auc"]


def shadow_counts(bank: banks.Bank, settings: Settings, role: str, reporter: progress.Reporter) -> Sweep:
    """AUC against the number of shadows per group, for those of `CURVES` (or the first eight) that are asked for."""
    there = len(bank.shadow.target.log_odds)
    counts = tuple(count for count in dict.fromkeys(settings.audit.counts) if count <= there)
    wanted = scores.names_of(settings.audit.scores)
    chosen_names = tuple(name for name in CURVES if name in wanted) or wanted[: len(CURVES)]
    names, _ = binui.runnable(bank, chosen_names)
    lines: dict[str, list[Finding]] = {name: [] for name in names}
    groups = []
    for count in counts:
        chosen = banks.groups(settings, there, count)
        groups.append(len(chosen))
        scored = binui.score_all(bank, names, chosen, role)
        reporter.say(f"{count} shadow(s) per group, {len(chosen)} group(s)")
        for name in names:
            lines[name].append(auc(scored[name], ~bank.forgotten, settings, name))
    return Sweep(counts, lines, tuple(groups))


def sensitivity(bank: banks.Bank, settings: Settings, role: str, reporter: progress.Reporter) -> Sweep:
    """AUC of IAM-On and IAM-Off against interpolation levels, one line per score, e1 and e2."""
    audit = settings.audit
    chosen = banks.groups(settings, len(bank.shadow.target.log_odds))
    names, _ = binui.runnable(bank, ("iam_on", "iam_off"))
    lines: dict[str, list[Finding]] = {}
    pairs = [(e1, e2) for e1 in audit.sweep_e1 for e2 in audit.sweep_e2 if 0 < e2 < np.expm1(e1)]
    for e1, e2 in pairs:
        given = bank.options.constants._replace(e1=e1, e2=e2, offline_e1=e1, offline_e2=e2)
        for name in names:
            line = f"{name} e1={e1:g} e2={e2:g}"
            lines[line] = []
            for levels in audit.sweep_levels:
                changed = bank._replace(options=bank.options._replace(constants=given, levels=levels))
                scored = binui.score_all(changed, [name], chosen, role)
                lines[line].append(auc(scored[name], ~bank.forgotten, settings, line))
        reporter.say(f"e1 = {e1:g}, e2 = {e2:g}: {len(audit.sweep_levels)} numbers of levels")
    return Sweep(tuple(audit.sweep_levels), lines, (len(chosen),) * len(audit.sweep_levels))


def shadow_sources(
    bank: banks.Bank,
    parts: dict[str, banks.ShadowPart],
    settings: Settings,
    role: str,
    reporter: progress.Reporter,
) -> dict[str, judging.Scoreboard]:
    """One BinUI scoreboard per source of shadows (this run's, or other runs' by name)."""
    return {
        source: binui.run(bank._replace(shadow=part, pairs=bank.pairs if part.pairs_known is not None else {}),
                          settings, role, reporter)
        for source, part in parts.items()
    }  # fmt: skip
