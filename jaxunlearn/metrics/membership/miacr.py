"""MIACR: the conformal form of the membership attack on the confidence. NumPy, scikit-learn, JAX for one attack.

    shadow confidences --attack--> P(member | x) --calibration samples--> q_hat --forgotten samples--> sets --> shares

MIACR scores a label by 1 - P(label | x) and puts it into a sample's set where the score is at most q_hat, the conformal
quantile of 1 - P(member | x) over calibration samples. Those are non-members: "member" is missing in about alpha of the
sets of samples that the model has never seen. So a perfectly retrained model has MIACR = alpha, the original about 0,
and values far above alpha mean that forgotten samples look less familiar than unseen ones.

MIACR has two attacks. "svc" is the published one: SVC, Platt scaling; half a minute for 10,000 shadows per side.
"threshold" needs milliseconds and takes all models in one jitted call: the confidence x itself is the evidence.
- Hard call: member if x is at or above the threshold with the best balanced accuracy.
- Score of "member": any decreasing function of x gives the same sets, so -x is used, without rounding.
- Score of "non-member" has to be on the same scale, because one q_hat serves both labels. As in the published form it
  is P(member | x), here a logistic regression on the shadows (Platt's targets, slope >= 0, so that P never decreases
  with x). With u = slope x + intercept, "non-member" is in the set where u <= -u_q: the reflection at P = 1/2 of the
  confidence x_q below which "member" is missing.
MIACR itself depends only on the order of confidences; both attacks agree on it as far as the SVC's P increases with x.

Source: Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach, and its code.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxunlearn import checks, errors
from jaxunlearn.metrics.conformal import conformal
from jaxunlearn.metrics.membership import svc

ATTACKS = ("svc", "threshold")
COMPAT = ("corrected", "faithful")
# Newton steps of the jitted logistic regression, and the fractions of a step that are tried.
STEPS = 25
FRACTIONS = (1.0, 0.25, 0.0625, 0.015625, 0.0)
RIDGE = 1e-6


class AttackSets(NamedTuple):
    """Conformal answers to "was this sample trained on?" for one model; shares lie in [0, 1].

    Attributes:
      q_hat: threshold on 1 - P; inf with too few calibration samples: all sets are full.
      sets: [N, 2] bool, columns non-member and member.
      excludes_member: share whose set lacks "member": MIACR as published, higher = better forgotten.
      excludes_non_member: share whose set lacks "non-member"; lower = better forgotten.
      exact: share whose set is {non-member}: MIACR as the paper defines it, without empty sets.
      set_size: mean size in [0, 2].
    """

    q_hat: float
    sets: np.ndarray
    excludes_member: float
    excludes_non_member: float
    exact: float
    set_size: float


class Unseen(NamedTuple):
    """Non-members judged by the same attack; floats, or [M].

    Attributes:
      non_member: share called non-members, in [0, 1].
      excluded: share whose set lacks "non-member".
      set_size: mean size of the sets, in [0, 2].
    """

    non_member: Any
    excluded: Any
    set_size: Any


class Miacr(NamedTuple):
    """Result of `miacr`; floats of one model, or [M] float64.

    Attributes:
      traditional: share of forgotten samples called members; lower = better forgotten (1 - it is the usual MIA).
      miacr: share whose set lacks "member"; higher = more forgotten, retrained = about alpha.
      exact: share whose set is {non-member}; at most `miacr`.
      set_size: mean size of the sets, in [0, 2].
      q_hat: threshold on 1 - P; inf = too few calibration samples for alpha, all sets full.
      test: `Unseen` of `test_forget`, or None.
    """

    traditional: Any
    miacr: Any
    exact: Any
    set_size: Any
    q_hat: Any
    test: Unseen | None


def attack_sets(
    calibration: np.ndarray, target: np.ndarray, *, alpha: float = 0.05, quantile_rule: str = "published"
) -> AttackSets:
    """Computes conformal sets from the probabilities of any attack.

    Args:
      calibration: [n, 2] float, columns P(non-member) and P(member), of calibration samples, which are non-members.
      target: [N, 2] of the samples to be judged.
      alpha: share of unseen samples whose set may lack "member", in (0, 1).
      quantile_rule: see `conformal.rank_of`.

    Raises:
      ShapeError: not [n, 2]. DataError: no sample, or rows that are not probabilities. ConfigError: alpha or
        quantile_rule.

    Source: conformal unlearning paper and code (MIACR).

    Example:
      >>> from jaxunlearn.metrics.membership import miacr
      >>> calibration = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
      >>> miacr.attack_sets(calibration, [[0.99, 0.01], [0.1, 0.9]], alpha=0.4).sets.tolist()
      [[True, False], [True, True]]
    """
    calibration, target = np.asarray(calibration, np.float64), np.asarray(target, np.float64)
    for name, values in (("calibration", calibration), ("target", target)):
        checks.shape("NK", {"K": 2}, **{name: values})
        checks.finite(name, values, "NK")
        if not len(values) or values.min() < 0 or np.abs(values.sum(1) - 1).max() > 1e-3:
            raise errors.DataError(f"{name} must contain at least one row of P(non-member), P(member) with sum 1.")
    q_hat = conformal.threshold(1 - calibration[:, 1], alpha, quantile_rule)
    sets = 1 - target <= q_hat
    exact = sets[:, 0] & ~sets[:, 1]
    lacking = (~sets).mean(0)
    return AttackSets(q_hat, sets, float(lacking[1]), float(lacking[0]), float(exact.mean()), float(sets.sum(1).mean()))


def miacr(
    shadow_member: np.ndarray,
    shadow_non_member: np.ndarray,
    calibration: np.ndarray,
    forget: np.ndarray,
    *,
    alpha: float = 0.05,
    attack: str = "svc",
    quantile_rule: str = "published",
    test_forget: np.ndarray | None = None,
    compat: str = "corrected",
    seed: int = 0,
    most: int = 0,
) -> Miacr:
    """Runs the conformal membership attack on the confidences of one unlearned model, or of M models.

    Args:
      shadow_member: [n] or [M, n] float, confidences (`membership.features`) of known members: retained samples drawn
        at random, as many as there are test samples. The threshold attack also takes any increasing function of the
        confidence; log-odds have fewer ties, which make sets too large where confidences are near 1.
      shadow_non_member: [k] or [M, k], of test samples.
      calibration: [c] or [M, c], of other samples of the test distribution. At alpha = 0.05, c >= 19.
      forget: [f] or [M, f], of forgotten samples.
      alpha: share of unseen samples whose set may lack "member", in (0, 1).
      attack: "svc" (published) or "threshold" (fast, float32), see the module.
      quantile_rule: of the quantile, see `conformal.rank_of`.
      test_forget: [t] or [M, t], of test samples of the forgotten class: fills `test`.
      compat: "corrected" judges `test_forget`; "faithful" judges the forgotten samples instead, as the published code.
      seed: of the folds of Platt scaling, the same for every model.
      most: cap on shadow samples per side of the SVC, drawn by `seed`; 0 = all (published).

    Returns:
      `Miacr`.

    Raises:
      ConfigError: unknown attack, quantile_rule or compat, alpha outside (0, 1), most below 0. ShapeError: neither all
      [n] nor all [M, n]. DataError: an empty set, NaN or infinite values, fewer than 2 shadows of a kind (svc).

    Source: conformal unlearning paper, section on MIACR, and code.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import miacr
      >>> member, other = np.linspace(0.8, 1.0, 20), np.linspace(0.2, 0.7, 20)
      >>> result = miacr.miacr(member, other, calibration=other, forget=member[:5], attack="threshold")
      >>> result.traditional, result.miacr
      (1.0, 0.0)
    """
    checks.choice("attack", attack, ATTACKS)
    checks.choice("compat", compat, COMPAT)
    checks.choice("quantile rule", quantile_rule, conformal.QUANTILE_RULES)
    checks.in_range("most", most, 0)
    (alpha,) = conformal.check_alphas(alpha)
    sample_sets: dict[str, Any] = {
        "shadow_member": shadow_member,
        "shadow_non_member": shadow_non_member,
        "calibration": calibration,
        "forget": forget,
    }
    if test_forget is not None:
        sample_sets["test_forget"] = test_forget
    is_single = np.ndim(shadow_member) == 1
    arrays = _checked(sample_sets, is_single, np.float64 if attack == "svc" else np.float32)
    if attack == "svc":
        results = [
            _by_svc(*model, alpha=alpha, quantile_rule=quantile_rule, seed=seed, most=most)
            for model in zip(*arrays, strict=True)
        ]
        q_hat = np.array([threshold for threshold, _ in results])
        answers = [
            _Answers(*map(np.stack, zip(*model_answers, strict=True)))
            for model_answers in zip(*(target_answers for _, target_answers in results), strict=True)
        ]
    else:
        index = conformal.rank_of(arrays[2].shape[1], alpha, quantile_rule)
        q_hat, answers = jax.tree.map(np.asarray, _by_threshold(*arrays[:3], tuple(arrays[3:]), index))
    forgotten, unseen = answers[0], answers[-1 if compat == "corrected" else 0]
    exact = forgotten.sets[..., 0] & ~forgotten.sets[..., 1]
    test = None
    if test_forget is not None:
        test = Unseen(
            non_member=(~unseen.called).mean(1),
            excluded=(~unseen.sets[..., 0]).mean(1),
            set_size=unseen.sets.sum(2).mean(1),
        )
    result = Miacr(
        traditional=forgotten.called.mean(1),
        miacr=(~forgotten.sets[..., 1]).mean(1),
        exact=exact.mean(1),
        set_size=forgotten.sets.sum(2).mean(1),
        q_hat=np.asarray(q_hat, np.float64),
        test=test,
    )
    return jax.tree.map(lambda values: float(values[0]), result) if is_single else result


class _Answers(NamedTuple):
    """Calls [..., N] bool (member) and sets [..., N, 2] bool (non-member, member) of one set of samples."""

    called: Any
    sets: Any


def _checked(sample_sets: dict[str, Any], is_single: bool, dtype: type) -> list[np.ndarray]:
    """Returns every array as [M, n]."""
    letters = "ABCDE"[: len(sample_sets)]
    checks.shape(" ".join(letter if is_single else f"M{letter}" for letter in letters), **sample_sets)
    arrays = []
    for name, values in sample_sets.items():
        if not np.size(values):
            raise errors.DataError(f"{name} has shape {np.shape(values)}: MIACR needs at least 1 sample in every set.")
        with np.errstate(over="ignore"):
            array: np.ndarray = np.asarray(values, dtype)
        checks.finite(name, array, "N" if is_single else "MN")
        arrays.append(array[None] if is_single else array)
    return arrays


def _by_svc(
    member: np.ndarray,
    non_member: np.ndarray,
    calibration: np.ndarray,
    *targets: np.ndarray,
    alpha: float,
    quantile_rule: str,
    seed: int,
    most: int,
) -> tuple[float, list[_Answers]]:
    """Returns q_hat of one model, and the answers of every target set."""
    decide, sigmoid = svc.platt_svc(svc.at_most(member, most, seed), svc.at_most(non_member, most, seed), seed=seed)

    def probabilities(decisions: np.ndarray) -> np.ndarray:
        p = scipy.special.expit(sigmoid.slope * decisions + sigmoid.intercept)
        return np.stack([1 - p, p], 1)

    calibration_probabilities = probabilities(decide(calibration))
    answers = []
    for target in targets:
        decisions = decide(target)
        conformal_sets = attack_sets(
            calibration_probabilities, probabilities(decisions), alpha=alpha, quantile_rule=quantile_rule
        )
        answers.append(_Answers(decisions > 0, conformal_sets.sets))
    return conformal_sets.q_hat, answers


@jax.jit
def _by_threshold(
    member: jax.Array, non_member: jax.Array, calibration: jax.Array, targets: tuple[jax.Array, ...], index: Any
) -> tuple[jax.Array, tuple[_Answers, ...]]:
    """Returns q_hat [M], and the answers [M, ...] of every target set; models one after another."""
    full = index >= calibration.shape[1]

    def attack_model(model: Any) -> tuple[jax.Array, tuple[_Answers, ...]]:
        member, non_member, calibration, targets = model
        border = _best_threshold(member, non_member)
        log_odds = _fit_log_odds(member, non_member)
        # The index counts down from the largest confidence, the smallest score.
        last = jnp.sort(calibration)[jnp.maximum(calibration.shape[0] - 1 - index, 0)]
        answers = tuple(
            _Answers(target >= border, jnp.stack([log_odds(target) <= -log_odds(last), target >= last], -1) | full)
            for target in targets
        )
        return jnp.where(full, jnp.inf, jax.nn.sigmoid(-log_odds(last))), answers

    return jax.lax.map(attack_model, (member, non_member, calibration, targets))


def _best_threshold(member: jax.Array, non_member: jax.Array) -> jax.Array:
    """Computes `membership.best_threshold` in float32."""
    values = jnp.concatenate([member, non_member])
    above = member.shape[0] - jnp.searchsorted(jnp.sort(member), values, method="sort")
    below = jnp.searchsorted(jnp.sort(non_member), values, method="sort")
    return values[jnp.argmax(above / member.shape[0] + below / non_member.shape[0])]


def _fit_log_odds(member: jax.Array, non_member: jax.Array) -> Any:
    """Fits x -> log-odds of membership: `svc.platt` with a slope >= 0, by a fixed number of Newton steps."""
    x = jnp.concatenate([member, non_member])
    n, k = member.shape[0], non_member.shape[0]
    targets = jnp.where(jnp.arange(n + k) < n, (n + 1) / (n + 2), 1 / (k + 2))
    centre, scale = x.mean(), x.std()
    unit = (x - centre) / jnp.where(scale > 0, scale, 1.0)

    def step(_: int, theta: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(theta[0] * unit + theta[1])
        miss, weight = p - targets, p * (1 - p)
        # The curvature [[a, b], [b, c]]; the small ridge keeps it regular if every sample is saturated.
        a, b, c = jnp.mean(weight * unit**2) + RIDGE, jnp.mean(weight * unit), jnp.mean(weight) + RIDGE
        slope, level = jnp.mean(miss * unit), jnp.mean(miss)
        newton = jnp.stack([c * slope - b * level, a * level - b * slope]) / (a * c - b * b)
        candidates = theta - jnp.asarray(FRACTIONS)[:, None] * newton
        log_odds = candidates[:, :1] * unit + candidates[:, 1:]
        return candidates[jnp.argmin(jnp.mean(jax.nn.softplus(log_odds) - targets * log_odds, 1))]

    # Odds of the mean target; in this form exactly 1 for equal numbers of members and non-members.
    odds = (n * (n + 1) / (n + 2) + k / (k + 2)) / (n / (n + 2) + k * (k + 1) / (k + 2))
    flat = jnp.array([0.0, math.log(odds)], jnp.float32)
    theta = jax.lax.fori_loop(0, STEPS, step, flat)
    theta = jnp.where(theta[0] > 0, theta, flat)
    return lambda values: theta[0] * (values - centre) / jnp.where(scale > 0, scale, 1.0) + theta[1]
