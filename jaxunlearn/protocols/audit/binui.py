"""BinUI: how well does each score tell forgotten from retained samples, with exact retraining as the truth?

For every group of shadows and every forget set all scores of the whole target set; the sets are pooled (N * R values,
one ROC per group), the table shows the mean and deviation over groups. Source: IAM, section on BinUI.
"""

import time

import numpy as np

from jaxunlearn import errors, progress, scores
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.audit import judging
from jaxunlearn.settings import Settings


def runnable(bank: banks.Bank, names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Scores whose inputs are there, and why others are skipped."""
    skipped = scores.skipped_for(names, banks.available(bank))
    return [name for name in names if name not in skipped], skipped


def score_all(
    bank: banks.Bank,
    names: list[str],
    chosen: list[np.ndarray],
    role: str,
    reporter: progress.Reporter | None = None,
    lost: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Membership scores of all groups and forget sets, name -> [G, R, N].

    Args:
      bank: the evidence.
      names: scores whose inputs are there.
      chosen: [G] groups of shadow numbers.
      role: whose models are audited.
      reporter: for progress.
      lost: takes scores that are not finite, with the reason; where it is None they are an error.

    Raises:
      DataError: a score is not finite, and there is no `lost`.
    """
    audited = banks.cases(bank, role)
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    if reporter is not None:
        reporter.begin(f"scoring {role}")
    for number, group in enumerate(chosen):
        shared = banks.shared(bank, group)
        for place, name in enumerate(names):
            # A score without shadows is the same in every group.
            if number and name in scores.SCORES and not _reads_shadows(name) and values[name]:
                values[name].append(values[name][0])
                continue
            if lost is not None and name in lost:
                continue
            try:
                values[name].append(scores.compute_cases(name, shared, audited, bank.options))
            except errors.DataError as error:
                if lost is None:
                    raise
                lost[name] = str(error).rstrip(".")
            if reporter is not None:
                done = number * len(names) + place + 1
                reporter.update(done, len(chosen) * len(names), "scores", f"{name}, shadow group {number}")
    return {name: np.stack(found) for name, found in values.items() if not lost or name not in lost}


def _reads_shadows(name: str) -> bool:
    needs = scores.SCORES[name].needs
    return name == "random" or any("shadow" in field or field.startswith("pairs") for field in needs)


def run(bank: banks.Bank, settings: Settings, role: str, reporter: progress.Reporter) -> judging.Scoreboard:
    """BinUI of one role over all groups of shadows."""
    begun = time.monotonic()
    names, skipped = runnable(bank, scores.names_of(settings.audit.scores))
    chosen = banks.groups(settings, len(bank.shadow.target.log_odds))
    values = score_all(bank, names, chosen, role, reporter, skipped)
    if names and not values:
        raise errors.DataError(f"no score of {role} could be computed: {names[0]}: {skipped[names[0]]}.")
    board = judging.judge(judging.Scored(values, ~bank.forgotten, skipped), settings.audit.interval)
    number = bank.forgotten.size
    reporter.say(
        f"{role}: {len(names)} scores x {len(chosen)} shadow group(s) x {number:,} pooled samples in "
        f"{progress.duration(time.monotonic() - begun)}"
    )
    return board
