"""The Reminiscence Attack as an analysis: relearning trials in, residual memory of each model out, as one report."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.reminiscence import inputs, measures, rows, sections
from jaxunlearn.analyses.reminiscence.inputs import ReminiscenceInputs, RoleTrials
from jaxunlearn.analyses.reminiscence.sections import Reminiscence
from jaxunlearn.report.section import Report
from jaxunlearn.settings import CLASS_KINDS, Settings


def analyse(attack_inputs: ReminiscenceInputs, settings: Settings, context: Context) -> Reminiscence:
    """Attacks every role, and compares each with the control."""
    options = settings.reminisce
    attacks: dict[str, measures.Attack] = {}
    trials: dict[str, RoleTrials] = {}
    for title, load in attack_inputs.roles.items():
        trials[title] = load()
        attacks[title] = measures.attack(
            trials[title], title, threshold=options.threshold, break_ties=options.break_ties,
            first_rate=options.learning_rates[0], confidence_level=options.confidence_level,
        )  # fmt: skip
    control = trials[attack_inputs.control].trials if attack_inputs.control else None
    if control is not None:
        trials_of = {
            name: attacked.trials
            for name, attacked in trials.items()
            if name != attack_inputs.control and attacked.trials is not None
        }
        num_compared = sum(name != "original" for name in trials_of)
        units = np.unique(np.concatenate([control.unit, *(role_trials.unit for role_trials in trials_of.values())]))
        confidence_level = 1 - (1 - options.confidence_level) / max(num_compared, 1)  # for all together, by Bonferroni
        for name, role_trials in trials_of.items():
            values = measures.against(attacks[name], role_trials, attacks[attack_inputs.control], control, units)
            metrics = {
                **attacks[name].metrics,
                "rea_excess": measures.excess(values, confidence_level, name, attack_inputs.control),
            }
            attacks[name] = attacks[name]._replace(metrics=metrics, excess=values)
    return Reminiscence(
        attacks, attack_inputs.control, trials, options.threshold, options.confidence_level, dict(attack_inputs.about)
    )  # fmt: skip


def compose(reminiscence: Reminiscence, settings: Settings) -> Report:
    """Composes sections, the answer in words, and every trial."""
    return Report(
        title="What is relearned too soon" if reminiscence.about else "What is relearned too soon, from given trials",
        answer=sections.answer_text(reminiscence),
        summary=sections.summary(reminiscence),
        sections=tuple(sections.sections(reminiscence)),
        provenance={**reminiscence.about, "learned": f"accuracy of {reminiscence.threshold:g} on all probes"},
        stem=sections.STEM,
        arrays={"reminiscence.npz": sections.arrays(reminiscence)},
        records={"reminiscence.json": sections.plain(reminiscence)},
        files=sections.FILES,
        width=sections.WIDTH,
        result=reminiscence,
    )


def check(settings: Settings) -> None:
    """Refuses settings that are invalid with any input.

    Raises:
      ConfigError: no learning rate, a repeated one, or one that is not positive; no roles.
    """
    options = settings.reminisce
    rates = options.learning_rates
    if not rates or not all(0 < rate < np.inf for rate in rates) or len(set(rates)) < len(rates):
        raise errors.ConfigError(
            f"reminisce.learning_rates = {rates}: at least one rate above 0 is needed, and none twice, e.g. (0.01,)."
        )
    if not options.roles:
        raise errors.ConfigError("reminisce.roles names nothing to attack; e.g. (original, retrained, unlearned).")
    if not roles(settings):
        raise errors.ConfigError(
            f"reminisce.roles = {options.roles}: none of them is copied (extract.roles = {settings.extract.roles}). "
            "Name the same roles in both."
        )


def check_run(run: RecordedRun) -> None:
    """Refuses runs that cannot be attacked, before anything is trained.

    Raises:
      UserError: no unseen classes, too few rows.
    """
    run.check_relearning()


def gather(run: RecordedRun, context: Context) -> ReminiscenceInputs:
    """Returns inputs that relearn role by role, when the analysis loads them."""
    options = run.settings.reminisce
    roles = {run.title(name): functools.partial(_attacked, run, name) for name in run.roles}
    control = run.title("retrained") if "retrained" in run.roles else ""
    attacked_models = "the models themselves"
    if options.target == "extracted":
        from jaxunlearn.attacks import extraction  # trains populations: arrays need none of it

        queries = extraction.queries(extraction.of_settings(run.settings.extract))
        attacked_models = f"clones, copied from the answers to {queries:,} queries per model"
    about = {"attacked": attacked_models, "learning rates": ", ".join(f"{rate:g}" for rate in options.learning_rates)}
    left_out = [name for name in options.roles if name not in inputs.attacked_roles(run.settings)]
    if left_out:
        about["not attacked"] = f"{', '.join(left_out)}: not copied (extract.roles)"
    return ReminiscenceInputs(roles, control, about)


def _attacked(run: RecordedRun, name: str) -> RoleTrials:
    return rows.with_membership(run, name, run.relearned(name))


def describe(attack_inputs: ReminiscenceInputs, settings: Settings) -> list[tuple[str, str]]:
    """Describes what an analysis of these trials would do, for a dry run."""
    lines = []
    for name, load in attack_inputs.roles.items():
        trials = load().trials
        if trials is not None:
            rates, sets = len(np.unique(trials.rate)), len(np.unique(trials.unit))
            counts = f"{int(trials.forgotten.sum()):,} trials of forgotten and {int((~trials.forgotten).sum()):,} of "
            lines.append((name, f"{counts}unseen classes, {sets} forget set(s), {rates} learning rate(s)"))
    return lines


def roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles of a run that are attacked; see `inputs.attacked_roles`."""
    return inputs.attacked_roles(settings)


def narrow(settings: Settings) -> Settings:
    """Returns the settings without models that only scores need; whole classes need no shadow models either."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    shadows = settings.shadows
    if settings.split.forget.kind in CLASS_KINDS or settings.split.forget.kind == "subclass":
        shadows = dataclasses.replace(shadows, count=1)
    return dataclasses.replace(settings, targets=targets, shadows=shadows)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> ReminiscenceInputs:
    """Builds the inputs from checked arrays; see `inputs.from_arrays`."""
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
