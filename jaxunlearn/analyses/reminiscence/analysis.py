"""The Reminiscence Attack as an analysis: relearning trials in, which models remember out, composed into a report."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.reminiscence import inputs, measures, rows, sections
from jaxunlearn.analyses.reminiscence.inputs import Attacked, ReminiscenceInputs
from jaxunlearn.analyses.reminiscence.sections import Reminiscence
from jaxunlearn.report.section import Report
from jaxunlearn.settings import CLASS_KINDS, Settings


def analyse(given: ReminiscenceInputs, settings: Settings, context: Context) -> Reminiscence:
    """Attacks every role, and compares it with the control."""
    chosen = settings.reminisce
    attacks: dict[str, measures.Attack] = {}
    trials: dict[str, Attacked] = {}
    for title, load in given.roles.items():
        trials[title] = load()
        attacks[title] = measures.attack(
            trials[title], title, threshold=chosen.threshold, break_ties=chosen.break_ties,
            first_rate=chosen.learning_rates[0], confidence_level=chosen.confidence_level,
        )  # fmt: skip
    control = trials[given.control].trials if given.control else None
    if control is not None:
        others = {name: one.trials for name, one in trials.items() if name != given.control and one.trials is not None}
        judged = sum(name != "original" for name in others)
        units = np.unique(np.concatenate([control.unit, *(own.unit for own in others.values())]))
        confidence_level = 1 - (1 - chosen.confidence_level) / max(judged, 1)  # for all together, by Bonferroni
        for name, own in others.items():
            values = measures.against(attacks[name], own, attacks[given.control], control, units)
            numbers = {
                **attacks[name].metrics,
                "rea_excess": measures.excess(values, confidence_level, name, given.control),
            }
            attacks[name] = attacks[name]._replace(metrics=numbers, excess=values)
    return Reminiscence(
        attacks, given.control, trials, chosen.threshold, chosen.confidence_level, dict(given.about)
    )  # fmt: skip


def compose(found: Reminiscence, settings: Settings) -> Report:
    """Sections, the answer in words, every trial."""
    return Report(
        title="What is relearned too soon" if found.about else "What is relearned too soon, from given trials",
        answer=sections.in_words(found),
        summary=sections.summary(found),
        sections=tuple(sections.sections(found)),
        provenance={**found.about, "learned": f"accuracy of {found.threshold:g} on all probes"},
        stem=sections.STEM,
        arrays={"reminiscence.npz": sections.arrays(found)},
        records={"reminiscence.json": sections.plain(found)},
        files=sections.FILES,
        width=sections.WIDTH,
    )


def check(settings: Settings) -> None:
    """Refuses settings that no run can mend.

    Raises:
      ConfigError: no learning rate, one twice, or one that is not positive; roles of nothing.
    """
    chosen = settings.reminisce
    rates = chosen.learning_rates
    if not rates or not all(0 < rate < np.inf for rate in rates) or len(set(rates)) < len(rates):
        raise errors.ConfigError(
            f"reminisce.learning_rates = {rates}: at least one rate above 0 is needed, and none twice, e.g. (0.01,)."
        )
    if not chosen.roles:
        raise errors.ConfigError("reminisce.roles names nothing to attack; e.g. (original, retrained, unlearned).")
    if not roles(settings):
        raise errors.ConfigError(
            f"reminisce.roles = {chosen.roles}: none of them is copied (extract.roles = {settings.extract.roles}). "
            "Name the same roles in both."
        )


def check_run(run: RecordedRun) -> None:
    """Refuses runs that cannot be attacked, before anything is trained.

    Raises:
      UserError: no unseen classes, too few rows.
    """
    run.check_relearning()


def gather(run: RecordedRun, context: Context) -> ReminiscenceInputs:
    """Relearns role by role, as the analysis asks for them."""
    chosen = run.settings.reminisce
    roles = {run.title(name): functools.partial(_attacked, run, name) for name in run.roles}
    control = run.title("retrained") if "retrained" in run.roles else ""
    attacked = "the models themselves"
    if chosen.target == "extracted":
        from jaxunlearn.attacks import extraction  # trains populations: arrays need none of it

        queries = extraction.queries(extraction.of_settings(run.settings.extract))
        attacked = f"clones, copied from the answers to {queries:,} queries per model"
    about = {"attacked": attacked, "learning rates": ", ".join(f"{rate:g}" for rate in chosen.learning_rates)}
    left_out = [name for name in chosen.roles if name not in inputs.attacked_roles(run.settings)]
    if left_out:
        about["not attacked"] = f"{', '.join(left_out)}: not copied (extract.roles)"
    return ReminiscenceInputs(roles, control, about)


def _attacked(run: RecordedRun, name: str) -> Attacked:
    return rows.with_membership(run, name, run.relearned(name))


def describe(given: ReminiscenceInputs, settings: Settings) -> list[tuple[str, str]]:
    """What an analysis of these trials would do."""
    lines = []
    for name, load in given.roles.items():
        trials = load().trials
        if trials is not None:
            rates, sets = len(np.unique(trials.rate)), len(np.unique(trials.unit))
            kinds = f"{int(trials.forgotten.sum()):,} trials of forgotten and {int((~trials.forgotten).sum()):,} of "
            lines.append((name, f"{kinds}unseen classes, {sets} forget set(s), {rates} learning rate(s)"))
    return lines


def roles(settings: Settings) -> tuple[str, ...]:
    """The roles of a run that are attacked; see `inputs.attacked_roles`."""
    return inputs.attacked_roles(settings)


def narrow(settings: Settings) -> Settings:
    """The settings without models that only scores need; whole classes need no shadow models either."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    shadows = settings.shadows
    if settings.split.forget.kind in CLASS_KINDS or settings.split.forget.kind == "subclass":
        shadows = dataclasses.replace(shadows, count=1)
    return dataclasses.replace(settings, targets=targets, shadows=shadows)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> ReminiscenceInputs:
    """Inputs from checked arrays; see `inputs.from_arrays`."""
    return inputs.from_arrays(values, settings)


REMINISCENCE = Analysis(
    section="reminisce",
    compat="",
    flag="trajectories",
    fields=inputs.FIELDS,
    expected=inputs.EXPECTED,
    check=check,
    from_arrays=from_arrays,
    roles=roles,
    check_run=check_run,
    gather=gather,
    describe=describe,
    analyse=analyse,
    compose=compose,
    narrow=narrow,
    outputs=(
        "reminiscence.npz",
        "reminiscence.json",
        "relearned",
        "report/reminiscence*",
        "report/tables/reminiscence*",
    ),
)
