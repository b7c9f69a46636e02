"""Attacks with a support vector machine: SVC-MIA on five features, and Platt scaling. NumPy and scikit-learn.

    svc_mia       share of forgotten samples that an SVC, fitted to retained and test samples, calls non-members ("MIA")
    svc_attack    the same from features, with any targets
    platt_svc     decision function and P(member), for the conformal form of the attack (`miacr`)

An SVC with an RBF kernel on n samples per side costs about n^2: 10,000 per side take half a minute for all features.
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
    """Computes the share of forgotten samples that an SVC calls non-members, per feature ("MIA efficacy").

    Higher = better forgotten; compare with the retrained model, whose value is the goal. Shadow members are drawn from
    the retained samples, as many as there are test samples; non-members are the test samples. Tables print
    100 * "confidence". Differs from the published code, which takes the first retained samples in data order: if data
    are ordered by class, those are of a few classes only. compat="faithful" does the same.

    Args:
      retain_logits: [R, C] float of the audited model on retained samples, without augmentation.
      retain_labels: [R] int.
      test_logits: [T, C].
      test_labels: [T].
      forget_logits: [F, C].
      forget_labels: [F].
      compat: of the choice of members, and of the modified entropy, see `membership.features`.
      most: cap on shadow samples per side, drawn by `seed`; 0 = all (published). Time grows with its square.
      seed: of the draws.

    Returns:
      "correctness", "confidence", "entropy", "modified_entropy", "probability" -> [0, 1].

    Raises:
      ShapeError: arrays do not fit together. DataError: an empty set, fewer than 2 classes, NaN or infinite logits,
      labels out of range. ConfigError: unknown compat, most below 0.

    Source: SalUn code, evaluation with SVCs.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import svc
      >>> confident, uncertain = np.array([[9.0, 0.0]] * 4), np.array([[0.5, 0.0]] * 4)
      >>> labels = np.zeros(4, int)
      >>> svc.svc_mia(confident, labels, uncertain, labels, forget_logits=uncertain, forget_labels=labels)["confidence"]
      1.0
    """
    checks.in_range("most", most, 0)
    sizes = checks.shape(
        "RC TC FC", retain_logits=retain_logits, test_logits=test_logits, forget_logits=forget_logits
    )  # fmt: skip
    checks.shape("R", sizes, retain_labels=retain_labels)
    total, count = sizes["R"], min(sizes["R"], sizes["T"])
    members = np.arange(count) if compat == "faithful" or count == total else draw_rows(total, count, seed)
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
    """Fits one SVC per feature (C = 3, RBF with gamma = 1 / columns) to the shadows and judges the targets.

    Args:
      shadow_member: features of n known members of one model.
      shadow_non_member: of k known non-members.
      target_member: of members to be judged, or None.
      target_non_member: of non-members to be judged, or None; not both None.
      most: cap on shadow samples per side, drawn by `seed`; 0 = all.
      seed: of the draw.

    Returns:
      feature -> hit rate in [0, 1]: the share of members called members, of non-members called non-members, or the mean
      of both if there are targets of both kinds.

    Raises:
      ShapeError: numbers of classes differ, or features of several models. DataError: no target, or an empty set.
      ConfigError: most below 0.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import features, svc
      >>> member, other = (features(np.array([[x, 0.0]] * 4), np.zeros(4, int)) for x in (9.0, 0.5))
      >>> svc.svc_attack(member, other, None, target_non_member=other)["entropy"]
      1.0
    """
    checks.in_range("most", most, 0)
    candidates = ((target_member, True), (target_non_member, False))
    targets = [(target, is_member) for target, is_member in candidates if target is not None]
    if not targets:
        raise errors.DataError("the attack has no target: give target_member, target_non_member or both.")
    outputs: dict[str, Any] = {
        "shadow_member": shadow_member.probability,
        "shadow_non_member": shadow_non_member.probability,
        **{f"target_{'non_' * (not is_member)}member": target.probability for target, is_member in targets},
    }
    checks.shape("NC KC TC UC"[: 3 * len(outputs) - 1], **outputs)
    rates = {}
    for name in Features._fields:
        decide = fit_svc(*(at_most(getattr(side, name), most, seed) for side in (shadow_member, shadow_non_member)))
        shares = [((decide(getattr(target, name)) > 0) == is_member).mean() for target, is_member in targets]
        rates[name] = float(np.mean(shares))
    return rates


def fit_svc(member: np.ndarray, non_member: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fits the published classifier: an SVC with C = 3 and an RBF kernel, gamma = 1 / F.

    Args:
      member: [n] or [n, F] float.
      non_member: [k] or [k, F].

    Returns:
      A function from [N] or [N, F] to decision values [N] float64, above 0 = called a member.

    Raises:
      ShapeError: numbers of features differ. DataError: a side without samples, NaN or infinite values.
    """
    from sklearn.svm import SVC

    sides = [_columns(side) for side in (member, non_member)]
    checks.shape("NF KF", member=sides[0], non_member=sides[1])
    for name, side in zip(("member", "non_member"), sides, strict=True):
        if not len(side):
            raise errors.DataError(f"{name} contains no sample; the SVC needs members and non-members.")
        checks.finite(name, side, "NF")
    machine = SVC(C=COST, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate(sides), np.arange(len(sides[0]) + len(sides[1])) < len(sides[0]))
    return lambda values: machine.decision_function(_columns(values))


def platt(decisions: np.ndarray, is_member: np.ndarray) -> Sigmoid:
    """Fits P(member) as a sigmoid of held-out decision values (Platt scaling).

    Targets are (n + 1) / (n + 2) for n members and 1 / (k + 2) for k non-members, which keeps the slope finite if the
    decision values separate the two.

    Args:
      decisions: [N] float, higher = more like a member, of samples that the SVC was not fitted to.
      is_member: [N] bool, both kinds present.

    Raises:
      ShapeError: lengths differ. DataError: NaN or infinite values, or one kind only.

    Source: Platt; Lin, Lin and Weng (see the module).
    """
    decisions, is_member = np.asarray(decisions, np.float64), np.asarray(is_member, bool)
    checks.shape("N", decisions=decisions, is_member=is_member)
    checks.finite("decisions", decisions)
    members = int(is_member.sum())
    non_members = len(is_member) - members
    if not members or not non_members:
        raise errors.DataError(f"Platt scaling needs both kinds, but has {members} members, {non_members} non-members.")
    targets = np.where(is_member, (members + 1) / (members + 2), 1 / (non_members + 2))
    return fit_sigmoid(decisions, targets, np.ones_like(decisions), ridge=0.0)


def platt_svc(
    member: np.ndarray, non_member: np.ndarray, *, seed: int = 0
) -> tuple[Callable[[np.ndarray], np.ndarray], Sigmoid]:
    """Fits `fit_svc` to all samples, and P(member) as a sigmoid of the decision values of 5 stratified folds.

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
            raise errors.DataError(f"{name} contains 1 sample; Platt scaling needs at least 2 of each kind.")
    generator = np.random.default_rng(seed)
    folds = [generator.permutation(len(side)) % FOLDS for side in sides]
    decisions = [np.zeros(len(side)) for side in sides]
    for test_fold in range(min(FOLDS, max(map(len, sides)))):
        held_out_masks = [fold == test_fold for fold in folds]
        decide_fold = fit_svc(*(side[~held_out] for side, held_out in zip(sides, held_out_masks, strict=True)))
        for values, side, held_out in zip(decisions, sides, held_out_masks, strict=True):
            if held_out.any():
                values[held_out] = decide_fold(side[held_out])
    is_member = np.arange(len(sides[0]) + len(sides[1])) < len(sides[0])
    return decide, platt(np.concatenate(decisions), is_member)


def _columns(values: np.ndarray) -> np.ndarray:
    """Returns [N, F] float64 from [N, F] or from one feature [N]."""
    values = np.asarray(values, np.float64)
    return values[:, None] if values.ndim == 1 else values


def at_most(values: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Draws `most` rows if there are more; 0 = all. Evenly spaced rows could all be of one class."""
    return values if not most or len(values) <= most else values[draw_rows(len(values), most, seed)]


def draw_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Draws [count] of the indices 0 .. total - 1 without replacement, in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
