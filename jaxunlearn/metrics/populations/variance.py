"""Where the ± of a mean over models comes from: training seed, forget set, their interaction, unlearning seed.

    y[a, f, u] = mu + A_a + F_f + (AF)_af + e_afu      a original, f forget set, u unlearning seed

Balanced tables by analysis of variance in float64: mean squares, components as their differences (negative ones keep
their sign here and are printed as 0), and the interval of the mean with Satterthwaite's degrees of freedom. Tables with
holes (diverged models) by dense REML. What a design cannot tell apart is NaN, never 0: the component that stands first
holds the sum, the residual that of everything that changes with every model.

Source: Searle, Casella and McCulloch, Variance Components, chapters 4
and 6; Satterthwaite 1946.
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
_SMALLEST, _LARGEST = -25.0, 6.0  # of the log of a component over the variance of all values


class Fit(NamedTuple):
    """A mean and the sources of its variance.

    Attributes:
      mean: of all models (REML: weighted).
      se_mean: its standard error; `df_mean`: degrees of freedom of its interval.
      components: [4] variances in the order of SOURCES; negative estimates keep their sign, NaN = not identifiable.
      mean_squares: [4] of the analysis of variance; NaN where there is none, or where REML was used.
      method: "analysis of variance" or "REML".
    """

    mean: float
    se_mean: float
    df_mean: float
    components: np.ndarray
    mean_squares: np.ndarray
    method: str = "analysis of variance"


def design_of(kind: str, models: int, repeats: int = 1) -> Design:
    """Returns the design of a role of so many models, `repeats` of each forget set."""
    return Design(kind, models // repeats, repeats)


def design_factors(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Returns which original and which forget set every model is of, [M] int each."""
    forget_set = np.repeat(np.arange(design.sets), design.repeats)
    original = {"shared": np.zeros_like(forget_set), "crossed": np.tile(np.arange(design.repeats), design.sets)}
    return original.get(design.kind, forget_set), forget_set


def fit(y: np.ndarray, design: Design) -> Fit:
    """Fits the values [M] of a role's models; those that are not finite (diverged) are left out."""
    return fit_levels(y, *design_factors(design))


def fit_levels(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> Fit:
    """Fits values of models whose original and forget set are known.

    Args:
      y: [M] one number per model; non-finite ones are left out.
      original: [M] int, which original a model comes from.
      forget_set: [M] int, which forget set it is of.

    Returns:
      The analysis of variance where every (original, forget set) cell, or of one-to-one designs every set, has as many
      values; else REML.
    """
    kept = np.isfinite(np.asarray(y, np.float64))
    y = np.asarray(y, np.float64)[kept]
    original, forget_set = (np.unique(one[kept], return_inverse=True)[1] for one in (original, forget_set))
    if not len(y):
        return Fit(NAN, NAN, NAN, np.full(4, NAN), np.full(4, NAN))
    table = _balanced(y, original, forget_set)
    return anova(table) if table is not None else reml(y, original, forget_set)


def _balanced(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> np.ndarray | None:
    """[A, F, U] where the cells are equally full; one-to-one designs as [A, 1, U]; None otherwise."""
    shape = original.max() + 1, forget_set.max() + 1
    if _is_same(original, forget_set):
        forget_set, shape = np.zeros_like(forget_set), (shape[0], 1)
    cell = original * shape[1] + forget_set
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    if np.ptp(counts):
        return None
    return y[np.argsort(cell, kind="stable")].reshape(*shape, counts[0])


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two labellings cut the models into the same groups."""
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == first.max() + 1 == second.max() + 1


def anova(y: np.ndarray) -> Fit:
    """The balanced analysis of variance of y [A, F, U].

    A or F of 1 has no component; U of 1 leaves interaction and residual together (the residual holds their sum). The
    variance of the mean is (MS_training + MS_set - MS_interaction) / AFU, or max(MS_interaction, MS_residual) / AFU
    where that is not positive; of one factor alone it is that factor's mean square.

    Raises:
      ShapeError: not three axes.
    """
    y = np.asarray(y, np.float64)
    checks.shape("AFU", y=y)
    mean, rows, columns, cells = y.mean(), y.mean((1, 2)), y.mean((0, 2)), y.mean(2)
    parts = (rows - mean, columns - mean, cells - rows[:, None] - columns[None] + mean, y - cells[..., None])
    freedom = _freedom(y.shape)
    sums = np.asarray([y.size / part.size * np.square(part).sum() for part in parts])
    squares = np.where(freedom > 0, sums / np.maximum(freedom, 1), NAN)
    variance, df = _variance_of_the_mean(squares, freedom, y.size)
    se = math.sqrt(variance) if variance >= 0 else NAN
    return Fit(float(mean), se, df, _components(squares, y.shape), squares)


def _freedom(shape: tuple[int, ...]) -> np.ndarray:
    """[4] degrees of freedom of the mean squares of a table [A, F, U]."""
    a, f, u = shape
    return np.asarray([a - 1, f - 1, (a - 1) * (f - 1), a * f * (u - 1)])


def _components(squares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Components [..., 4] from mean squares [..., 4] of tables [A, F, U]."""
    a, f, u = shape
    training, forget, interaction, residual = np.moveaxis(squares, -1, 0)
    found = np.full(squares.shape, NAN)
    if a > 1 and f > 1:
        found[..., 0], found[..., 1] = (training - interaction) / (f * u), (forget - interaction) / (a * u)
        found[..., 2], found[..., 3] = (interaction - residual) / u, residual if u > 1 else interaction
        return found
    top, place = (training, 0) if a > 1 else (forget, 1)
    found[..., 3] = residual if u > 1 else top  # with one model per level the two are one
    if u > 1 and max(a, f) > 1:
        found[..., place] = (top - residual) / u
    return found


def _variance_of_the_mean(squares: np.ndarray, freedom: np.ndarray, size: int) -> tuple[float, float]:
    """The estimated variance of the mean of all values, and Satterthwaite's degrees of freedom."""
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
# tables with holes


def reml(y: np.ndarray, original: np.ndarray, forget_set: np.ndarray) -> Fit:
    """Restricted maximum likelihood with non-negative components, for tables with holes; dense, M of some hundreds.

    Args:
      y: [M] finite values.
      original: [M] int, which original a model comes from.
      forget_set: [M] int, which forget set it is of.

    Returns:
      Components of what the design tells apart; equal to those of `anova` where a table is whole and all are positive.
      The degrees of freedom are Satterthwaite's, from the expected information.
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
    places = [*names, 3]
    for start in _STARTS:
        shares = np.asarray(start, np.float64)[places]
        found = scipy.optimize.minimize(
            objective, np.log(shares / shares.sum()), jac=True, method="L-BFGS-B",
            bounds=[(_SMALLEST, _LARGEST)] * len(places), options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9},
        )  # fmt: skip
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    theta = np.where(best.x < _SMALLEST / 2, 0.0, np.exp(best.x))
    mean, variance, df = _of_the_mean(theta, centred, matrices)
    components = np.full(4, NAN)
    components[places] = theta * scale
    center = float(y.mean()) + mean * math.sqrt(scale)
    return Fit(center, math.sqrt(variance * scale), df, components, np.full(4, NAN), "REML")


def _kernels(original: np.ndarray, forget_set: np.ndarray) -> dict[int, np.ndarray]:
    """Place in SOURCES -> [M, M] whether two models share its level; what cannot be told apart is left out."""
    cell = original * (forget_set.max() + 1) + forget_set
    kept: dict[int, np.ndarray] = {}
    for place, confidence_level in enumerate((original, forget_set, cell)):
        count = len(np.unique(confidence_level))
        same = (confidence_level[:, None] == confidence_level[None]).astype(np.float64)
        is_known = any(np.array_equal(same, other) for other in kept.values())
        if 1 < count < len(confidence_level) and not is_known:
            kept[place] = same
    return kept


def _minus_log_likelihood(theta: np.ndarray, y: np.ndarray, matrices: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the restricted log-likelihood of centred values without its constant, and its gradient in theta."""
    projection, log_det = _projection(theta, matrices)
    weighted = projection @ y
    value = 0.5 * (log_det + float(y @ weighted))
    gradient = [0.5 * (float(np.sum(projection * one)) - float(weighted @ one @ weighted)) for one in matrices]
    return value, np.asarray(gradient)


def _projection(theta: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, float]:
    """P = V^-1 - V^-1 1 1' V^-1 / (1' V^-1 1), and log |V| + log 1' V^-1 1."""
    factor = scipy.linalg.cho_factor(np.tensordot(theta, matrices, 1), lower=True)
    inverse = scipy.linalg.cho_solve(factor, np.eye(matrices.shape[1]))
    ones = inverse.sum(1)
    log_det = 2 * float(np.log(np.diag(factor[0])).sum()) + math.log(ones.sum())
    return inverse - np.outer(ones, ones) / ones.sum(), log_det


def _of_the_mean(theta: np.ndarray, y: np.ndarray, matrices: np.ndarray) -> tuple[float, float, float]:
    """The weighted mean, its variance, and Satterthwaite's degrees of freedom from the expected information."""
    inverse = np.linalg.inv(np.tensordot(theta, matrices, 1))
    weights = inverse.sum(1) / inverse.sum()
    variance = 1 / float(inverse.sum())
    positive = theta > 0
    projection, _ = _projection(theta, matrices)
    products = [projection @ one for one in matrices[positive]]
    information = np.asarray([[0.5 * np.sum(one * other.T) for other in products] for one in products])
    slopes = np.asarray([weights @ one @ weights for one in matrices[positive]])
    spread = float(slopes @ np.linalg.pinv(information) @ slopes)
    return float(weights @ y), variance, 2 * variance**2 / spread if spread > 0 else NAN


# ---------------------------------------------------------------------------------------------------------------------
# what is printed


def mean(
    values: np.ndarray, design: Design, *, metric: str, of: str, against: str = "", confidence_level: float = 0.95
) -> Finding:
    """The mean of a role's models with Student's t interval for its design, and their deviation as spread.

    Args:
      values: [M] one number per model; non-finite ones are left out and not counted.
      design: of the models.
      metric: what is measured.
      of: of whom.
      against: on what.
      confidence_level: of the interval.
    """
    found = fit(values, design)
    known = np.asarray(values, np.float64)[np.isfinite(values)]
    half = NAN
    if found.df_mean > 0 and not math.isnan(found.se_mean):
        half = float(scipy.stats.t.ppf((1 + confidence_level) / 2, found.df_mean) * found.se_mean)
    method = "" if math.isnan(half) else f"{found.method}, originals {design.kind}"
    return Finding(
        found.mean, found.mean - half, found.mean + half, intervals.std(known), metric=metric, n=len(known),
        confidence_level=confidence_level, of=of, against=against, method=method,
    )  # fmt: skip


def told_apart(design: Design) -> dict[str, str]:
    """Returns which sources a design tells apart, in the words of tables: place in SOURCES -> what its sd is of."""
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
    """The variance of every source that the design tells apart, with its interval by a parametric bootstrap.

    Args:
      values: [M] one number per model.
      design: of the models.
      metric: what is measured.
      of: of whom.
      confidence_level: of the intervals.
      seed: of the bootstrap.

    Returns:
      One Finding per source, value = the variance, negative estimates with their sign; empty where the design tells
      nothing apart.
    """
    named = told_apart(design)
    if not named:
        return ()
    found = fit(values, design)
    ends = bootstrap(found, values, design, confidence_level, seed)
    made = []
    for source, text in named.items():
        place = SOURCES.index(source)
        low, high = (float(end) for end in ends[place])
        made.append(Finding(
            float(found.components[place]), low, high, metric=f"variance of {metric}: {text}",
            n=int(np.isfinite(values).sum()), confidence_level=confidence_level, of=of,
            method=f"{found.method}; parametric bootstrap, {DRAWS} draws",
        ))  # fmt: skip
    return tuple(made)


def bootstrap(
    found: Fit, values: np.ndarray, design: Design, confidence_level: float = 0.95, seed: int = 0, draws: int = DRAWS
) -> np.ndarray:
    """Intervals of the components [4, 2]: quantiles of the components of tables drawn from the fit.

    Mean squares of a balanced normal table are independent multiples of chi squared, so these are drawn.

    Args:
      found: the fit of the values.
      values: [M] one number per model.
      design: of the models.
      confidence_level: of the intervals.
      seed: of the draws.
      draws: tables.

    Returns:
      NaN where a component is not identifiable, or where models are missing (REML of so many tables takes too long).
    """
    original, forget_set = design_factors(design)
    values = np.asarray(values, np.float64)
    table = _balanced(values, original, forget_set) if np.isfinite(values).all() else None
    if table is None:
        return np.full((4, 2), NAN)
    a, f, u = table.shape
    freedom = _freedom(table.shape)
    training, forget, interaction, residual = np.clip(np.nan_to_num(found.components), 0, None)
    within = residual + u * interaction
    expected = np.asarray([within + f * u * training, within + a * u * forget, within, residual])
    drawn = np.random.default_rng(seed).chisquare(np.maximum(freedom, 1), (draws, 4)) / np.maximum(freedom, 1)
    components = _components(np.where(freedom > 0, expected * drawn, NAN), table.shape)
    ends = np.full((4, 2), NAN)
    for place in np.flatnonzero(np.isfinite(found.components)):
        ends[place] = np.quantile(components[:, place], [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return ends


def deviations(found: Fit, design: Design) -> dict[str, float]:
    """Returns what the design tells apart, in words -> standard deviation; negative estimates as 0."""
    known = {text: float(found.components[SOURCES.index(source)]) for source, text in told_apart(design).items()}
    return {text: math.sqrt(max(value, 0.0)) for text, value in known.items() if not math.isnan(value)}
