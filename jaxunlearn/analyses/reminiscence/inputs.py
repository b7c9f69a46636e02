"""Inputs of the Reminiscence Attack: relearning trials of every model under attack, from arrays or from a run."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.arrays import ArrayField
from jaxunlearn.settings import Settings

ALL_METHODS = "unlearned"  # stands for every method of unlearn.methods
ROLE = "given model"  # what a user's models are called where nothing else is said
FIELDS = {
    "accuracy": ArrayField("TS", "fractions", required=True),
    "loss": ArrayField("TS", "numbers"),
    "forgotten": ArrayField("T", "flags", required=True),
    "set": ArrayField("T", "ids"),
    "rate": ArrayField("T", "numbers"),
    "model": ArrayField("T", "ids"),
    # What reminiscence.npz holds in addition.
    **{name: ArrayField("", "ignored") for name in ("score", "called_forgotten", "judged", "recovery__*")},
}
EXPECTED = (
    "It holds relearning trials: `accuracy` [t, s] of every trial on all its probes after each of s steps, and "
    "`forgotten` [t], 1 = the probes are of what was forgotten, 0 = of a class that no model ever saw (README)."
)


class Trials(NamedTuple):
    """T relearning trials of the models of one role.

    Attributes:
      accuracy: [T, S] in [0, 1], of each trial on all its probes after every step.
      loss: [T, S] mean cross entropy, or None.
      forgotten: [T] bool, True = probes of what was to be forgotten, False = of a class that no model ever saw.
      unit: [T] int, the forget set whose model is attacked: the independent unit of every interval.
      rate: [T] float, learning rate.
    """

    accuracy: np.ndarray
    loss: np.ndarray | None
    forgotten: np.ndarray
    unit: np.ndarray
    rate: np.ndarray


class Recovery(NamedTuple):
    """Relearning on retained rows alone: what comes back without a single forgotten row.

    Attributes:
      accuracy: [R, T] on the forgotten rows after each of T steps, per forget set.
      before: [R] before the first step.
      per_epoch: steps per pass over the retained rows.
      sets: [R] int, which forget sets these are (models that diverged are left out).
      models: [R] int, which recorded model of the role each is.
      rows: [n] int32 sorted, logits: [R, n, C] of the fine-tuned models, where forget sets are single rows; else None.
    """

    accuracy: np.ndarray
    before: np.ndarray
    per_epoch: int
    sets: np.ndarray
    models: np.ndarray
    rows: np.ndarray | None = None
    logits: np.ndarray | None = None


class Membership(NamedTuple):
    """Sample-wise: LiRA's answers on single rows, before and after fine-tuning on retained rows.

    Attributes:
      before, after: [n] scores of the rows of all forget sets, higher = trained on.
      forgotten: [n] bool, True = was to be forgotten, False = nobody trained on it.
      unit: [n] int forget set.
    """

    before: np.ndarray
    after: np.ndarray
    forgotten: np.ndarray
    unit: np.ndarray


class Attacked(NamedTuple):
    """What is known of one role; each part may be missing."""

    trials: Trials | None = None
    recovery: Recovery | None = None
    membership: Membership | None = None


class ReminiscenceInputs(NamedTuple):
    """What is measured.

    Attributes:
      roles: title -> () -> Attacked, one role at a time; the retrained models, where there are any, are the control.
      control: title of the role that never saw what was to be forgotten; "" = there is none.
      about: provenance; empty for a user's arrays.
    """

    roles: Mapping[str, Callable[[], Attacked]]
    control: str = ""
    about: Mapping[str, str] = {}


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> ReminiscenceInputs:
    """Inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError: a model all of whose trials are of one kind at some learning rate, or one that shares no forget set and
        rate with the retrained models.
    """
    count = len(values["forgotten"])
    forgotten = np.asarray(values["forgotten"], bool)
    sets, unit = np.unique(values.get("set", np.zeros(count, int)), return_inverse=True)
    rate = np.asarray(values.get("rate", np.ones(count)), np.float64)
    models = np.asarray(values.get("model", np.full(count, ROLE))).astype(str)
    roles: dict[str, Callable[[], Attacked]] = {}
    for name in dict.fromkeys(models.tolist()):
        own = models == name
        trials = Trials(
            np.asarray(values["accuracy"], np.float64)[own], values["loss"][own] if "loss" in values else None,
            forgotten[own], unit[own], rate[own],
        )  # fmt: skip
        check(name, trials, sets)
        roles[name] = functools.partial(Attacked, trials)
    control = next((name for name in roles if name.lower() in ("retrained", "retrain")), "")
    if control:
        known = _pairs(unit[models == control], rate[models == control])
        for name in roles:
            if not known & _pairs(unit[models == name], rate[models == name]):
                raise errors.DataError(
                    f"{name} shares no forget set and learning rate with {control}, the models that it is compared "
                    "with. Relearn both at the same rates, or leave one of them out."
                )
    return ReminiscenceInputs(roles, control)


def _pairs(unit: np.ndarray, rate: np.ndarray) -> set[tuple[int, float]]:
    return set(zip(unit.tolist(), rate.tolist(), strict=True))


def check(name: str, trials: Trials, sets: np.ndarray) -> None:
    """Refuses trials by which nothing can be told; `sets` are the forget sets as the user calls them.

    Raises:
      DataError: of some forget set and learning rate, all trials are of one kind.
    """
    for unit in np.unique(trials.unit):
        for rate in np.unique(trials.rate):
            own = trials.forgotten[(trials.unit == unit) & (trials.rate == rate)]
            if own.all() or not own.any():
                raise errors.DataError(
                    f"{name}: the trials of forget set {sets[unit]} at learning rate {rate:g} are {int(own.sum())} of "
                    f"what was forgotten and {int((~own).sum())} of unseen classes; the attack needs both kinds."
                )


def attacked_roles(settings: Settings) -> tuple[str, ...]:
    """The roles of a run that are attacked: `unlearned` stands for all of unlearn.methods.

    Clones are attacked of the roles that are copied (extract.roles).
    """
    chosen, copied = settings.reminisce, settings.extract.roles
    if chosen.target != "extracted":
        return tuple(chosen.roles)
    return tuple(
        name for name in chosen.roles
        if name in copied or (ALL_METHODS in copied and name.startswith(f"{ALL_METHODS}:"))
    )  # fmt: skip
