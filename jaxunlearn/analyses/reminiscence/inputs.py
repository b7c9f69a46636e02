"""Inputs of the Reminiscence Attack: relearning trials of every model under attack, from arrays or from a run."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.arrays import ArrayField
from jaxunlearn.settings import Settings

ALL_METHODS = "unlearned"  # selects every method of unlearn.methods
ROLE = "given model"  # default name of a user's models
FIELDS = {
    "accuracy": ArrayField("TS", "fractions", required=True),
    "loss": ArrayField("TS", "numbers"),
    "forgotten": ArrayField("T", "flags", required=True),
    "set": ArrayField("T", "ids"),
    "rate": ArrayField("T", "numbers"),
    "model": ArrayField("T", "ids"),
    # Further arrays of reminiscence.npz.
    **{name: ArrayField("", "ignored") for name in ("score", "called_forgotten", "judged", "recovery__*")},
}
EXPECTED = (
    "It contains relearning trials: `accuracy` [t, s] of every trial on all its probes after each of s steps, and "
    "`forgotten` [t], 1 = the probes are of what was forgotten, 0 = of a class that no model ever saw "
    "(docs/reminiscence.md)."
)


class TrialResults(NamedTuple):
    """T relearning trials of the models of one role.

    Attributes:
      accuracy: [T, S] in [0, 1], of each trial on all its probes after every step.
      loss: [T, S] mean cross entropy, or None.
      forgotten: [T] bool, True = probes of the class to be forgotten, False = of a class that no model ever saw.
      unit: [T] int, the forget set whose model is attacked: the independent unit of every interval.
      rate: [T] float, learning rate.
    """

    accuracy: np.ndarray
    loss: np.ndarray | None
    forgotten: np.ndarray
    unit: np.ndarray
    rate: np.ndarray


class Recovery(NamedTuple):
    """Relearning on retained rows alone: the forgotten accuracy that returns without any forgotten row.

    Attributes:
      accuracy: [R, T] on the forgotten rows after each of T steps, per forget set.
      before: [R] before the first step.
      per_epoch: steps per pass over the retained rows.
      sets: [R] int forget sets (models that diverged are left out).
      models: [R] int index of each among the recorded models of the role.
      rows: [n] int32 sorted, logits: [R, n, C] of the fine-tuned models, if forget sets are single rows; else None.
    """

    accuracy: np.ndarray
    before: np.ndarray
    per_epoch: int
    sets: np.ndarray
    models: np.ndarray
    rows: np.ndarray | None = None
    logits: np.ndarray | None = None


class Membership(NamedTuple):
    """Sample-wise: LiRA scores of single rows, before and after fine-tuning on retained rows.

    Attributes:
      before, after: [n] scores of the rows of all forget sets, higher = trained on.
      forgotten: [n] bool, True = requested to be forgotten, False = never used for training.
      unit: [n] int forget set.
    """

    before: np.ndarray
    after: np.ndarray
    forgotten: np.ndarray
    unit: np.ndarray


class RoleTrials(NamedTuple):
    """Attack data of one role; each field may be missing."""

    trials: TrialResults | None = None
    recovery: Recovery | None = None
    membership: Membership | None = None


class ReminiscenceInputs(NamedTuple):
    """Validated inputs of the Reminiscence Attack.

    Attributes:
      roles: title -> () -> RoleTrials, one role at a time; retrained models, if there are any, are the control.
      control: title of the role that never saw the forgotten rows; "" = there is none.
      about: provenance; empty for a user's arrays.
    """

    roles: Mapping[str, Callable[[], RoleTrials]]
    control: str = ""
    about: Mapping[str, str] = {}


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> ReminiscenceInputs:
    """Builds the inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError: a model with trials of one kind only at some learning rate, or one that shares no forget set and rate
        with the retrained models.
    """
    num_trials = len(values["forgotten"])
    forgotten = np.asarray(values["forgotten"], bool)
    sets, unit = np.unique(values.get("set", np.zeros(num_trials, int)), return_inverse=True)
    rate = np.asarray(values.get("rate", np.ones(num_trials)), np.float64)
    models = np.asarray(values.get("model", np.full(num_trials, ROLE))).astype(str)
    roles: dict[str, Callable[[], RoleTrials]] = {}
    for name in dict.fromkeys(models.tolist()):
        mask = models == name
        trials = TrialResults(
            np.asarray(values["accuracy"], np.float64)[mask], values["loss"][mask] if "loss" in values else None,
            forgotten[mask], unit[mask], rate[mask],
        )  # fmt: skip
        check(name, trials, sets)
        roles[name] = functools.partial(RoleTrials, trials)
    control = next((name for name in roles if name.lower() in ("retrained", "retrain")), "")
    if control:
        control_pairs = _pairs(unit[models == control], rate[models == control])
        for name in roles:
            if not control_pairs & _pairs(unit[models == name], rate[models == name]):
                raise errors.DataError(
                    f"{name} shares no forget set and learning rate with {control}, the models that it is compared "
                    "with. Relearn both at the same rates, or leave one of them out."
                )
    return ReminiscenceInputs(roles, control)


def _pairs(unit: np.ndarray, rate: np.ndarray) -> set[tuple[int, float]]:
    return set(zip(unit.tolist(), rate.tolist(), strict=True))


def check(name: str, trials: TrialResults, sets: np.ndarray) -> None:
    """Refuses trials without both kinds of probes; `sets`: the user's names of the forget sets.

    Raises:
      DataError: all trials of some forget set and learning rate are of one kind.
    """
    for unit in np.unique(trials.unit):
        for rate in np.unique(trials.rate):
            is_forgotten = trials.forgotten[(trials.unit == unit) & (trials.rate == rate)]
            if is_forgotten.all() or not is_forgotten.any():
                raise errors.DataError(
                    f"{name}: the trials of forget set {sets[unit]} at learning rate {rate:g} are "
                    f"{int(is_forgotten.sum())} of what was forgotten and {int((~is_forgotten).sum())} of unseen "
                    "classes; the attack needs both kinds."
                )


def attacked_roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles of a run that are attacked: `unlearned` stands for all of unlearn.methods.

    If clones are attacked, these are the roles that are copied (extract.roles).
    """
    options, extracted = settings.reminisce, settings.extract.roles
    if options.target != "extracted":
        return tuple(options.roles)
    return tuple(
        name for name in options.roles
        if name in extracted or (ALL_METHODS in extracted and name.startswith(f"{ALL_METHODS}:"))
    )  # fmt: skip
