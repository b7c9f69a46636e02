"""Variance components of a mean over models: training seed, forget set, their interaction, unlearning seed.

    y[a, f, u] = mu + A_a + F_f + (AF)_af + e_afu      a original, f forget set, u unlearning seed

Balanced tables: analysis of variance in float64, with mean squares, components as their differences (negative ones keep
their sign here and are printed as 0), and the interval of the mean with Satterthwaite's degrees of freedom. Tables with
missing entries (diverged models): dense REML. Components that a design cannot separate are NaN, never 0: the first of
them holds their sum, and the residual the sum of everything that changes with every model.

Source: Searle, Casella and McCulloch, Variance Components, chapters 4 and 6; Satterthwaite 1946.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats

from jaxunlearn import checks
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Design, Finding

SOURCES = ("training", "forget set", "interaction", "residual")
DRAWS = 2000
NAN = float("nan")
# Where the search for REML components starts, as shares of the variance of all values.
_STARTS = ((1, 1, 1, 1), (8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (4, 4, 0.1, 1), (0.01, 0.01, 0.01, 1))
_SMALLEST, _LARGEST = -25.0, 6.0  # of the log of a component relative to the variance of all values


class Fit(NamedTuple):
    """A mean and the sources of its variance.

    Attributes:
      mean: of all models (REML: weighted).
      se_mean: its standard error.
      df_mean: degrees of freedom of its interval.
      components: [4] variances in the order of SOURCES; negative estimates keep their sign, NaN = not identifiable.
      mean_squares: [4] of the analysis of variance; NaN if undefined, or for REML.
      method: "analysis of variance" or "REML".
    """

    mean: float
    se_mean: float
    df_mean: float
    components: np.ndarray
    mean_squares: np.ndarray
    method: str = "analysis of variance"


def design_of(kind: str, models: int, repeats: int = 1) -> Design:
    """Returns the design of a role of `models` models, `repeats` of each forget set."""
    return Design(kind, models // repeats, repeats)


def design_factors(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of the original and of the forget set of every model, [M] int each."""
    forget_set = np.repeat(np.arange(design.sets), design.repeats)
    original = {"shared": np.zeros_like(forget_set), "crossed": np.tile(np.arange(design.repeats), design.sets)}
    return original.get(design.kind, forget_set), forget_set


def fit(y: np.ndarray, design: Design) -> Fit:
    """Fits the values [M] of a role's models; non-finite ones (diverged models) are left out.

    Example:
      >>> from jaxunlearn.metrics.populations import variance
      >>> from jaxunlearn.records import Design
      >>> result = variance.fit([1.0, 1.0, 3.0, 3.0], Design("shared", 2, 2))  # 2 forget sets, 2 models of each
      >>> result.mean, result.components.tolist()
      (2.0, [nan, 2.0, nan, 0.0])
    """
    return fit_levels(y, *design_factors(design))


def fit_levels(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> Fit:
    """Fits values of models whose original and forget set are known.

    Args:
      y: [M] one number per model; non-finite ones are left out.
      original: [M] int, index of the model's original.
      forget_set: [M] int, index of its forget set.

    Returns:
      The analysis of variance if every (original, forget set) cell, or in one-to-one designs every set, has the same
      number of values; else REML.
    """
    mask = np.isfinite(np.asarray(y, np.float64))
    y = np.asarray(y, np.float64)[mask]
    original, forget_set = (np.unique(labels[mask], return_inverse=True)[1] for labels in (original, forget_set))
    if not len(y):
        return Fit(NAN, NAN, NAN, np.full(4, NAN), np.full(4, NAN))
    table = _balanced(y, original, forget_set)
    return anova(table) if table is not None else reml(y, original, forget_set)


def _balanced(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> np.ndarray | None:
    """Returns the table [A, F, U] of cells of equal size, [A, 1, U] for one-to-one designs; None if unbalanced."""
    shape = original.max() + 1, forget_set.max() + 1
    if _is_same(original, forget_set):
        forget_set, shape = np.zeros_like(forget_set), (shape[0], 1)
    cell = original * shape[1] + forget_set
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    if np.ptp(counts):
        return None
    return y[np.argsort(cell, kind="stable")].reshape(*shape, counts[0])


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    """Returns whether two labellings divide the models into the same groups."""
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == first.max() + 1 == second.max() + 1


def anova(y: np.ndarray) -> Fit:
    """Computes the balanced analysis of variance of y [A, F, U].

    A factor with one level has no component; with U = 1 the residual holds the sum of interaction and residual. The
    variance of the mean is (MS_training + MS_set - MS_interaction) / AFU, or max(MS_interaction, MS_residual) / AFU
    if that is not positive; with a single factor it is that factor's mean square / AFU.

    Raises:
      ShapeError: not three axes.
    """
    y = np.asarray(y, np.float64)
    checks.shape("AFU", y=y)
    mean, rows, columns, cells = y.mean(), y.mean((1, 2)), y.mean((0, 2)), y.mean(2)
    effects = (rows - mean, columns - mean, cells - rows[:, None] - columns[None] + mean, y - cells[..., None])
    freedom = _freedom(y.shape)
    sums = np.asarray([y.size / effect.size * np.square(effect).sum() for effect in effects])
    squares = np.where(freedom > 0, sums / np.maximum(freedom, 1), NAN)
    variance, df = _variance_of_the_mean(squares, freedom, y.size)
    se = math.sqrt(variance) if variance >= 0 else NAN
    return Fit(float(mean), se, df, _components(squares, y.shape), squares)


def _freedom(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the [4] degrees of freedom of the mean squares of a table [A, F, U]."""
    a, f, u = shape
    return np.asarray([a - 1, f - 1, (a - 1) * (f - 1), a * f * (u - 1)])


def _components(squares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Computes components [..., 4] from mean squares [..., 4] of tables [A, F, U]."""
    a, f, u = shape
    training, forget, interaction, residual = np.moveaxis(squares, -1, 0)
    components = np.full(squares.shape, NAN)
    if a > 1 and f > 1:
        components[..., 0], components[..., 1] = (training - interaction) / (f * u), (forget - interaction) / (a * u)
        components[..., 2], components[..., 3] = (interaction - residual) / u, residual if u > 1 else interaction
        return components
    mean_square, index = (training, 0) if a > 1 else (forget, 1)
    components[..., 3] = residual if u > 1 else mean_square  # with one model per level they coincide
    if u > 1 and max(a, f) > 1:
        components[..., index] = (mean_square - residual) / u
    return components


def _variance_of_the_mean(squares: np.ndarray, freedom: np.ndarray, size: int) -> tuple[float, float]:
    """Estimates the variance of the mean of all values, with Satterthwaite's degrees of freedom."""
    signs = np.asarray([1, 1, -1, 0]) * (freedom > 0)
    if not signs.any():
        signs = np.asarray([0, 0, 0, 1])  # one original and one forget set: only the unlearning seeds differ
    terms = np.where(signs != 0, signs * squares, 0.0)
    if terms.sum() <= 0 < freedom[2]:
        signs = np.arange(4) == (2 if not squares[3] > squares[2] else 3)
        terms = np.where(signs, squares, 0.0)
    variance = float(terms.sum()) / size
    if not variance > 0:
        return variance, float(freedom[signs != 0].max()) or NAN
    return variance, float(terms.sum() ** 2 / np.sum(terms[signs != 0] ** 2 / freedom[signs != 0]))


# ---------------------------------------------------------------------------------------------------------------------
# tables with missing entries


def reml(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> Fit:
    """Fits non-negative components by restricted maximum likelihood; dense, for up to some hundred models.

    Args:
      y: [M] finite values.
      original: [M] int, index of the model's original.
      forget_set: [M] int, index of its forget set.

    Returns:
      The identifiable components; equal to those of `anova` if the table is balanced and all of them are positive. The
      degrees of freedom are Satterthwaite's, from the expected information.
    """
    y = np.asarray(y, np.float64)
    scale = float(np.var(y))
    if len(y) < 2 or scale <= 0:
        se, df = (0.0, float(len(y) - 1)) if len(y) > 1 else (NAN, NAN)
        return Fit(float(y.mean()), se, df, np.full(4, NAN), np.full(4, NAN), "REML")
    kernels = _kernels(original, forget_set)
    names = list(kernels)
    matrices = np.stack([*kernels.values(), np.eye(len(y))])
    centred = (y - y.mean()) / math.sqrt(scale)

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        theta = np.exp(logs)
        value, gradient = _minus_log_likelihood(theta, centred, matrices)
        return value, gradient * theta

    best = None
    indices = [*names, 3]
    for start in _STARTS:
        shares = np.asarray(start, np.float64)[indices]
        optimum = scipy.optimize.minimize(
            objective, np.log(shares / shares.sum()), jac=True, method="L-BFGS-B",
            bounds=[(_SMALLEST, _LARGEST)] * len(indices), options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9},
        )  # fmt: skip
        if best is None or optimum.fun < best.fun:
            best = optimum
    assert best is not None
    theta = np.where(best.x < _SMALLEST / 2, 0.0, np.exp(best.x))
    mean, variance, df = _of_the_mean(theta, centred, matrices)
    components = np.full(4, NAN)
    components[indices] = theta * scale
    center = float(y.mean()) + mean * math.sqrt(scale)
    return Fit(center, math.sqrt(variance * scale), df, components, np.full(4, NAN), "REML")


def _kernels(original: np.ndarray, forget_set: np.ndarray) -> dict[int, np.ndarray]:
    """Returns index in SOURCES -> [M, M] whether two models share its level; only of identifiable sources."""
    cell = original * (forget_set.max() + 1) + forget_set
    kernels: dict[int, np.ndarray] = {}
    for index, labels in enumerate((original, forget_set, cell)):
        count = len(np.unique(labels))
        same = (labels[:, None] == labels[None]).astype(np.float64)
        is_duplicate = any(np.array_equal(same, other) for other in kernels.values())
        if 1 < count < len(labels) and not is_duplicate:
            kernels[index] = same
    return kernels


def _minus_log_likelihood(theta: np.ndarray, y: np.ndarray, matrices: np.ndarray) -> tuple[float, np.ndarray]:
    """Computes minus the restricted log-likelihood of centred values, up to a constant, and its gradient in theta."""
    projection, log_det = _projection(theta, matrices)
    weighted = projection @ y
    value = 0.5 * (log_det + float(y @ weighted))
    gradient = [0.5 * (float(np.sum(projection * kernel)) - float(weighted @ kernel @ weighted)) for kernel in matrices]
    return value, np.asarray(gradient)


def _projection(theta: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, float]:
    """Computes P = V^-1 - V^-1 1 1' V^-1 / (1' V^-1 1), and log |V| + log 1' V^-1 1."""
    factor = scipy.linalg.cho_factor(np.tensordot(theta, matrices, 1), lower=True)
    inverse = scipy.linalg.cho_solve(factor, np.eye(matrices.shape[1]))
    ones = inverse.sum(1)
    log_det = 2 * float(np.log(np.diag(factor[0])).sum()) + math.log(ones.sum())
    return inverse - np.outer(ones, ones) / ones.sum(), log_det


def _of_the_mean(theta: np.ndarray, y: np.ndarray, matrices: np.ndarray) -> tuple[float, float, float]:
    """Computes the weighted mean, its variance, and Satterthwaite's degrees of freedom (expected information)."""
    inverse = np.linalg.inv(np.tensordot(theta, matrices, 1))
    weights = inverse.sum(1) / inverse.sum()
    variance = 1 / float(inverse.sum())
    positive = theta > 0
    projection, _ = _projection(theta, matrices)
    products = [projection @ kernel for kernel in matrices[positive]]
    information = np.asarray([[0.5 * np.sum(product * other.T) for other in products] for product in products])
    slopes = np.asarray([weights @ kernel @ weights for kernel in matrices[positive]])
    spread = float(slopes @ np.linalg.pinv(information) @ slopes)
    return float(weights @ y), variance, 2 * variance**2 / spread if spread > 0 else NAN


# ---------------------------------------------------------------------------------------------------------------------
# findings


def mean(
    values: np.ndarray, design: Design, *, metric: str, of: str, against: str = "", confidence_level: float = 0.95
) -> Finding:
    """Computes the mean of a role's models with Student's t interval for its design, and their standard deviation.

    Args:
      values: [M] one number per model; non-finite ones are left out and not counted.
      design: of the models.
      metric: its name.
      of: what was measured.
      against: what it was measured on.
      confidence_level: of the interval.
    """
    estimate = fit(values, design)
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    half_width = NAN
    if estimate.df_mean > 0 and not math.isnan(estimate.se_mean):
        half_width = float(scipy.stats.t.ppf((1 + confidence_level) / 2, estimate.df_mean) * estimate.se_mean)
    method = "" if math.isnan(half_width) else f"{estimate.method}, originals {design.kind}"
    return Finding(
        estimate.mean, estimate.mean - half_width, estimate.mean + half_width, intervals.std(finite),
        metric=metric, n=len(finite),
        confidence_level=confidence_level, of=of, against=against, method=method,
    )  # fmt: skip


def separable_sources(design: Design) -> dict[str, str]:
    """Returns the sources that a design can separate: entry of SOURCES -> its name in tables."""
    if design.repeats < 2:
        return {}
    if design.kind == "crossed":
        return {"training": "train", "forget set": "set", "residual": "rest"} if design.sets > 1 else {}
    if design.kind == "shared":
        return {"forget set": "set", "residual": "unlearn"} if design.sets > 1 else {"residual": "unlearn"}
    if design.kind == "per_set":
        return {"training": "train and set", "residual": "unlearn"} if design.sets > 1 else {"residual": "unlearn"}
    return {}


def component_findings(
    values: np.ndarray, design: Design, *, metric: str, of: str, confidence_level: float = 0.95, seed: int = 0
) -> tuple[Finding, ...]:
    """Computes the variance of every source that the design can separate, with parametric bootstrap intervals.

    Args:
      values: [M] one number per model.
      design: of the models.
      metric: its name.
      of: what was measured.
      confidence_level: of the intervals.
      seed: of the bootstrap.

    Returns:
      One Finding per source, value = the variance, negative estimates with their sign; empty if the design can separate
      none.
    """
    sources = separable_sources(design)
    if not sources:
        return ()
    estimate = fit(values, design)
    ends = bootstrap(estimate, values, design, confidence_level, seed)
    findings = []
    for source, text in sources.items():
        index = SOURCES.index(source)
        low, high = (float(end) for end in ends[index])
        findings.append(Finding(
            float(estimate.components[index]), low, high, metric=f"variance of {metric}: {text}",
            n=int(np.isfinite(values).sum()), confidence_level=confidence_level, of=of,
            method=f"{estimate.method}; parametric bootstrap, {DRAWS} draws",
        ))  # fmt: skip
    return tuple(findings)


def bootstrap(
    estimate: Fit, values: np.ndarray, design: Design, confidence_level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> np.ndarray:
    """Computes intervals [4, 2] of the components: quantiles over tables drawn from the fit.

    Mean squares of a balanced normal table are independent multiples of chi squared, so these are drawn.

    Args:
      estimate: the fit of the values.
      values: [M] one number per model.
      design: of the models.
      confidence_level: of the intervals.
      seed: of the draws.
      draws: number of tables.

    Returns:
      NaN for components that are not identifiable, and if models are missing (REML of all draws takes too long).
    """
    original, forget_set = design_factors(design)
    values = np.asarray(values, np.float64)
    table = _balanced(values, original, forget_set) if np.isfinite(values).all() else None
    if table is None:
        return np.full((4, 2), NAN)
    a, f, u = table.shape
    freedom = _freedom(table.shape)
    training, forget, interaction, residual = np.clip(np.nan_to_num(estimate.components), 0, None)
    within = residual + u * interaction
    expected = np.asarray([within + f * u * training, within + a * u * forget, within, residual])
    chi_squares = np.random.default_rng(seed).chisquare(np.maximum(freedom, 1), (draws, 4)) / np.maximum(freedom, 1)
    components = _components(np.where(freedom > 0, expected * chi_squares, NAN), table.shape)
    ends = np.full((4, 2), NAN)
    for index in np.flatnonzero(np.isfinite(estimate.components)):
        ends[index] = np.quantile(components[:, index], [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return ends


def deviations(estimate: Fit, design: Design) -> dict[str, float]:
    """Returns name of each source that the design can separate -> standard deviation; negative estimates as 0."""
    variances = {
        text: float(estimate.components[SOURCES.index(source)]) for source, text in separable_sources(design).items()
    }
    return {text: math.sqrt(max(value, 0.0)) for text, value in variances.items() if not math.isnan(value)}
