"""Attacks with a support vector machine: SVC-MIA on five features, and Platt scaling. NumPy and scikit-learn.

    svc_mia       does an SVC, shown retained and test samples, call forgotten ones non-members? The "MIA" column
    svc_attack    the same from features, with any targets
    platt_svc     decision function and P(member), for the conformal form of the attack (`miacr`)

An RBF machine on n samples per side costs about n^2: 10,000 per side take half a minute for all five features.
Source: SalUn code, evaluation with SVCs; Platt, Probabilistic outputs for support vector machines; Lin, Lin and Weng, A
note on Platt's probabilistic outputs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.membership.membership import Features, Sigmoid, features, fit_sigmoid

FOLDS = 5
COST = 3.0


def svc_mia(
    retain_logits: np.ndarray,
    retain_labels: np.ndarray,
    test_logits: np.ndarray,
    test_labels: np.ndarray,
    forget_logits: np.ndarray,
    forget_labels: np.ndarray,
    *,
    compat: str = "corrected",
    most: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Share of forgotten samples that an SVC calls non-members, per feature; "MIA efficacy" of the literature.

    Higher = better forgotten; compare with the retrained model, whose value is the goal. Shadow members are drawn from
    the retained samples, as many as there are test samples; non-members are the test samples. Tables print
    100 * "confidence". Differs from the published code, which takes the first retained samples in data order: of data
    in order of the classes those are a few classes. compat="faithful" does so, too.

    Args:
      retain_logits: [R, C] float of the audited model on retained samples, without augmentation.
      retain_labels: [R] int.
      test_logits: [T, C].
      test_labels: [T].
      forget_logits: [F, C].
      forget_labels: [F].
      compat: of the choice of members, and of the modified entropy, see `membership.features`.
      most: shadow samples per side, drawn from those above; 0 = all (published). Time grows with its square.
      seed: of the draws.

    Returns:
      "correctness", "confidence", "entropy", "modified_entropy", "probability" -> [0, 1].

    Raises:
      ShapeError: arrays do not fit together. DataError: an empty set, fewer than 2 classes, NaN or infinite logits,
      labels out of range. ConfigError: unknown compat, most below 0.

    Source: SalUn code, evaluation with SVCs.
    """
    checks.in_range("most", most, 0)
    sizes = checks.shape(
        "RC TC FC", retain_logits=retain_logits, test_logits=test_logits, forget_logits=forget_logits
    )  # fmt: skip
    checks.shape("R", sizes, retain_labels=retain_labels)
    number, count = sizes["R"], min(sizes["R"], sizes["T"])
    members = np.arange(count) if compat == "faithful" or count == number else drawn(number, count, seed)
    return svc_attack(
        features(np.asarray(retain_logits)[members], np.asarray(retain_labels)[members], compat=compat, name="retain"),
        features(test_logits, test_labels, compat=compat, name="test"),
        None,
        features(forget_logits, forget_labels, compat=compat, name="forget"),
        most=most,
        seed=seed,
    )


def svc_attack(
    shadow_member: Features,
    shadow_non_member: Features,
    target_member: Features | None,
    target_non_member: Features | None,
    *,
    most: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """One SVC per feature (C = 3, RBF with gamma = 1 / columns), fitted to shadows, judging targets.

    Args:
      shadow_member: features of n known members of one model.
      shadow_non_member: of k known non-members.
      target_member: of members to be judged, or None.
      target_non_member: of non-members to be judged, or None; not both None.
      most: cap on shadow samples per side, drawn by `seed`; 0 = all.
      seed: of the draw.

    Returns:
      feature -> mean over the targets there are of: share of members called members, share of non-members called
      non-members.

    Raises:
      ShapeError: numbers of classes differ, or features of several models. DataError: no target, or an empty set.
      ConfigError: most below 0.
    """
    checks.in_range("most", most, 0)
    targets = [(one, called) for one, called in ((target_member, True), (target_non_member, False)) if one is not None]
    if not targets:
        raise errors.DataError("the attack has nobody to judge: give target_member, target_non_member or both.")
    outputs: dict[str, Any] = {
        "shadow_member": shadow_member.probability,
        "shadow_non_member": shadow_non_member.probability,
        **{f"target_{'non_' * (not called)}member": one.probability for one, called in targets},
    }
    checks.shape("NC KC TC UC"[: 3 * len(outputs) - 1], **outputs)
    found = {}
    for name in Features._fields:
        decide = fit_svc(*(at_most(getattr(side, name), most, seed) for side in (shadow_member, shadow_non_member)))
        shares = [((decide(getattr(one, name)) > 0) == is_member).mean() for one, is_member in targets]
        found[name] = float(np.mean(shares))
    return found


def fit_svc(member: np.ndarray, non_member: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The published classifier: an SVC with C = 3 and an RBF kernel, gamma = 1 / F.

    Args:
      member: [n] or [n, F] float.
      non_member: [k] or [k, F].

    Returns:
      A function of [N] or [N, F] to decision values [N] float64, above 0 = called a member.

    Raises:
      ShapeError: numbers of features differ. DataError: a side without samples, NaN or infinite values.
    """
    from sklearn.svm import SVC

    sides = [_columns(side) for side in (member, non_member)]
    checks.shape("NF KF", member=sides[0], non_member=sides[1])
    for name, side in zip(("member", "non_member"), sides, strict=True):
        if not len(side):
            raise errors.DataError(f"{name} holds no sample; the SVC needs members and non-members.")
        checks.finite(name, side, "NF")
    machine = SVC(C=COST, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate(sides), np.arange(len(sides[0]) + len(sides[1])) < len(sides[0]))
    return lambda values: machine.decision_function(_columns(values))


def platt(decisions: np.ndarray, is_member: np.ndarray) -> Sigmoid:
    """Platt scaling: the sigmoid of held-out decision values that is P(member).

    Targets are (n + 1) / (n + 2) for n members and 1 / (k + 2) for k non-members, which keeps the slope finite where
    the decision values separate the two.

    Args:
      decisions: [N] float, higher = more like a member, of samples that the machine was not fitted to.
      is_member: [N] bool, both kinds present.

    Raises:
      ShapeError: lengths differ. DataError: NaN or infinite values, or one kind only.

    Source: Platt; Lin, Lin and Weng (see the module).
    """
    decisions, is_member = np.asarray(decisions, np.float64), np.asarray(is_member, bool)
    checks.shape("N", decisions=decisions, is_member=is_member)
    checks.finite("decisions", decisions)
    members = int(is_member.sum())
    others = len(is_member) - members
    if not members or not others:
        raise errors.DataError(f"Platt scaling needs both kinds, but has {members} members, {others} non-members.")
    targets = np.where(is_member, (members + 1) / (members + 2), 1 / (others + 2))
    return fit_sigmoid(decisions, targets, np.ones_like(decisions), ridge=0.0)


def platt_svc(
    member: np.ndarray, non_member: np.ndarray, *, seed: int = 0
) -> tuple[Callable[[np.ndarray], np.ndarray], Sigmoid]:
    """`fit_svc` on all samples, and the sigmoid of its decision values, fitted to those of 5 stratified folds.

    Args:
      member: [n] or [n, F], n >= 2.
      non_member: [k] or [k, F], k >= 2.
      seed: of the folds; scikit-learn's own probabilities take them from NumPy's global state.

    Raises:
      As `fit_svc`; DataError also for a side with 1 sample.
    """
    sides = [_columns(side) for side in (member, non_member)]
    decide = fit_svc(*sides)
    for name, side in zip(("member", "non_member"), sides, strict=True):
        if len(side) < 2:
            raise errors.DataError(f"{name} holds 1 sample; Platt scaling needs at least 2 of each kind.")
    generator = np.random.default_rng(seed)
    folds = [generator.permutation(len(side)) % FOLDS for side in sides]
    decisions = [np.zeros(len(side)) for side in sides]
    for number in range(min(FOLDS, max(map(len, sides)))):
        held = [fold == number for fold in folds]
        fitted = fit_svc(*(side[~out] for side, out in zip(sides, held, strict=True)))
        for values, side, out in zip(decisions, sides, held, strict=True):
            if out.any():
                values[out] = fitted(side[out])
    is_member = np.arange(len(sides[0]) + len(sides[1])) < len(sides[0])
    return decide, platt(np.concatenate(decisions), is_member)


def _columns(values: np.ndarray) -> np.ndarray:
    """[N, F] float64 of [N, F] or of one feature [N]."""
    values = np.asarray(values, np.float64)
    return values[:, None] if values.ndim == 1 else values


def at_most(values: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Draws `most` rows where there are more; 0 = all. Evenly spaced ones could all be of one class."""
    return values if not most or len(values) <= most else values[drawn(len(values), most, seed)]


def drawn(number: int, count: int, seed: int) -> np.ndarray:
    """[count] of the positions 0 .. number - 1, without repetition, in rising order."""
    return np.sort(np.random.default_rng(seed).choice(number, count, replace=False))
