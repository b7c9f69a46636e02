"""Every score the plain way, straight from logits: float64, loops, SciPy's distributions."""

import numpy as np
import scipy.special
import scipy.stats

LEVELS = 5


def log_odds(logits, labels):
    z = np.asarray(logits, np.float64)
    true = np.take_along_axis(z, np.broadcast_to(labels, z.shape[:-1])[..., None], -1)
    others = np.where(np.arange(z.shape[-1]) == np.asarray(labels)[..., None], -np.inf, z)
    return true[..., 0] - scipy.special.logsumexp(others, -1)


def true_logit(logits, labels):
    z = np.asarray(logits, np.float64)
    return np.take_along_axis(z, np.broadcast_to(labels, z.shape[:-1])[..., None], -1)[..., 0]


def confidence(logits, labels):
    return scipy.special.expit(log_odds(logits, labels))


def minus_loss(logits, labels):
    return -np.logaddexp(0, -log_odds(logits, labels))


def carlini(logits, labels):
    return np.clip(log_odds(logits, labels), -103.27893, 103.27893)


def log_log(logits, labels, e1=1e-2, e2=1e-5):
    def signal(p):
        return -np.log(e1 - np.log(e2 + p))

    return (signal(confidence(logits, labels)) - signal(0.0)) / (signal(1.0) - signal(0.0))


def margin(logits, labels, temperature=2.0):
    x = np.asarray(logits, np.float64) / temperature
    is_true = np.arange(x.shape[-1]) == np.asarray(labels)[..., None]
    u = np.where(is_true, x - 0.6, x)
    below = 1.5 * (-1 - np.minimum(u, -1))
    powers = np.where(u > -1, 1 + u + u**2 / 2 + u**3 / 6, (1 / 3) / (1 + below + below**2 / 2 + below**3 / 6))
    return (powers * is_true).sum(-1) / powers.sum(-1)


def iam(o, u, s, levels=100, family="gumbel", spread="pooled"):
    """Membership by the published algorithm, one level and one observation at a time."""
    o, u, s = (np.asarray(values, np.float64) for values in (o, u, s))
    total, weights = np.zeros(len(u)), 0.0
    for k in range(levels - 1):
        a, weight = k / (levels - 1), (k + 1) / (levels - 1)
        x = np.stack([shadow + a * (o - shadow) for shadow in s])
        mean = x.mean(0)
        std = np.full(len(u), x.std()) if spread == "pooled" or len(s) == 1 else x.std(0)
        std = np.maximum(std, 1e-10)
        if family == "gumbel":
            scale = np.sqrt(6) * std / np.pi
            with np.errstate(over="ignore"):
                value = scipy.stats.gumbel_r.cdf(u, mean - 0.5772 * scale, scale)
        elif family == "norm":
            value = scipy.stats.norm.cdf(u, mean, std)
        elif family == "ecdf":
            value = np.mean([interpolated <= u for interpolated in x], 0)
        elif family == "kde":
            value = np.mean([scipy.stats.norm.cdf(u, interpolated, std) for interpolated in x], 0)
        else:
            mean = np.clip(mean, 1e-10, 1 - 1e-10)
            mass = np.maximum(mean * (1 - mean) / std**2 - 1, 1e-10)
            value = scipy.stats.beta.cdf(u, np.maximum(mean * mass, 1e-10), np.maximum((1 - mean) * mass, 1e-10))
        total, weights = total + weight * value, weights + weight
    return total / weights


def dominated(ratios, others, gamma=2.0):
    return np.array([np.mean([r * (1 / z) > gamma for z in others]) for r in ratios])


def rmia_offline(u, s, population, population_s, a=0.33, gamma=2.0):
    def guess(values):
        return (1 + a) / 2 * scipy.stats.trim_mean(values, 0.2) + (1 - a) / 2

    return dominated(u / guess(s), population / guess(population_s), gamma)


def rmia_online(u, o, s, population, population_in, population_s, gamma=2.0):
    def average(inside, outside):
        return scipy.stats.trim_mean(np.concatenate([outside, np.stack([inside] * len(outside))]), 0.2)

    return dominated(u / average(o, s), population / average(population_in, population_s), gamma)


def emia_reference(u, s):
    losses, loss = np.logaddexp(0, -np.asarray(s, np.float64)), np.logaddexp(0, -np.asarray(u, np.float64))
    knots = [np.sort([0.0, *losses[:, n], 1000.0]) for n in range(len(loss))]
    ranks = np.linspace(0, 1, len(losses) + 2)
    return 1 - np.array([np.interp(loss[n], knots[n], ranks) for n in range(len(loss))])


def emia_population(u, others):
    # Minus the raw logit orders as the loss does, and exactly so: no rounding makes or breaks a tie.
    return 1 - np.array([np.mean([-other < -logit for other in others]) for logit in u])


def _spread(s):
    return s.std(0) if len(s) >= 128 else s.std()


def lira_offline(u, s):
    return scipy.stats.norm.cdf(u, s.mean(0), _spread(s))


def log_ratio(u, inside, inside_std, outside, outside_std):
    """Of one logit; below the lowest point left of the OUT mean, found on a grid, its value."""

    def ratio(c):
        return scipy.stats.norm.logpdf(c, inside, inside_std) - scipy.stats.norm.logpdf(c, outside, outside_std)

    if inside_std <= outside_std:
        return ratio(u)
    grid = np.linspace(u, max(u, outside), 2001)
    return ratio(u) if ratio(u) <= ratio(grid).min() else ratio(grid).min()


def lira_online(u, o, s):
    outside, std = s.mean(0), np.broadcast_to(_spread(s), u.shape)
    return np.array([log_ratio(u[n], o[n], o.std(), outside[n], std[n]) for n in range(len(u))])


def lira_standard(u, reference, member, per_sample):
    """Per sample a Gaussian for its IN and one for its OUT models; the deviation of each, or one for all samples."""
    columns = range(len(u))
    gaussians = []
    for side in (member, ~member):
        values = [reference[side[:, n], n] for n in columns]
        residuals = np.concatenate([v - v.mean() for v in values])
        std = [values[n].std() if per_sample else np.sqrt(np.mean(residuals**2)) for n in columns]
        gaussians.append([(values[n].mean(), max(std[n], 1e-6)) for n in columns])
    return np.array([log_ratio(u[n], *gaussians[0][n], *gaussians[1][n]) for n in columns])


def bavaria(u, o, s, density):
    """Row by row; the lowest value between the answer and the OUT mean where IN is the wider side."""
    a0 = 2 if density == "t" else 1

    def side(values, mean0, scale0):
        k = len(values)
        mean = np.mean(values) if k else 0.0
        kappa, a = 1 + k, a0 + k / 2
        b = scale0 + np.sum((values - mean) ** 2) / 2 + k * (mean - mean0) ** 2 / (2 * kappa)
        if density == "t":
            return scipy.stats.t(2 * a, (mean0 + k * mean) / kappa, np.sqrt(max(b * (kappa + 1) / (a * kappa), 1e-10)))
        return scipy.stats.norm(mean if k else mean0, np.sqrt(max(b / (a - 1) if a > 1 else b, 1e-10)))

    inside, outside = ((v.mean(), max(v.var() * max(a0 - 1, 1), 1e-10)) for v in (o, s))
    minima = []
    for n in range(len(u)):
        high, low = side(np.empty(0), *inside), side(s[:, n], *outside)
        grid = low.mean() - np.concatenate([[0], np.geomspace(1e-3, 1e5, 60_001)]) * low.std()
        grid = np.append(grid[grid > u[n]], u[n])
        ratio = high.logpdf(grid) - low.logpdf(grid)
        minima.append(ratio.min() if high.mean() > low.mean() and u[n] < low.mean() else ratio[-1])
    return np.array(minima)


def base(u, s):
    return np.log(scipy.special.expit(u)) - np.log(scipy.special.expit(s).mean(0))


def informia(u, s, population, population_s, a=0.33):
    def mixed(values):
        return ((1 + a) * scipy.special.expit(values).mean(0) + 1 - a) / 2

    p, z = scipy.special.expit(u), scipy.special.expit(population)
    return np.log(p / mixed(s)) + np.mean(np.log(mixed(population_s) / z))


def ldiff(u, o, population_u, population_o):
    def tail(values):
        return scipy.stats.norm.sf(values, population_u.mean(), population_u.std(ddof=1))

    change = population_u - population_o
    first = (tail(u) - tail(o) + 1) / 2
    middle = np.median(change)
    second = scipy.stats.laplace.sf(u - o, middle, np.abs(change - middle).mean())
    return 1 - (first + second) / 2


def unleak_features(original, unlearned):
    rows = []
    for before, after in zip(original, unlearned, strict=True):
        flat = []
        for z in (before, after):
            p = scipy.special.softmax(np.asarray(z, np.float64))
            top = np.argsort(p)[-3:]
            flattened = np.full(len(p), (1 - p[top].sum()) / (len(p) - 3))
            flattened[top] = p[top]
            flat.append(flattened)
        order = np.argsort(flat[0])
        rows.append(flat[0][order] - flat[1][order])
    return np.array(rows)


def _of(signal):
    """(evidence) -> the signal of unlearned, original and shadows."""
    return lambda e: tuple(signal(values, e.labels) for values in (e.unlearned, e.original, e.shadows))


def _iam(signal, offline=False, **options):
    def score(e):
        u, o, s = _of(signal)(e)
        if offline:
            o = np.full(len(u), np.mean(signal(e.shadow_train_logits, e.shadow_train_labels)))
        return iam(o, u, s, LEVELS, **options)

    return score


def _change(signal):
    return lambda e: signal(e.unlearned, e.labels) - signal(e.original, e.labels)


def _population(e, name, signal=margin):
    return signal(getattr(e, f"population_{name}"), e.population_labels)


def _rmia_off(e):
    u, _, s = _of(margin)(e)
    return rmia_offline(u, s, _population(e, "unlearned"), _population(e, "shadows"))


def _rmia_on(e):
    of_population = (_population(e, name) for name in ("unlearned", "in", "shadows"))
    return rmia_online(*_of(margin)(e), *of_population)


def _lira_off(e):
    u, _, s = _of(carlini)(e)
    return lira_offline(u, s)


def _lira_on(e):
    return lira_online(*_of(carlini)(e))


def _update(e):
    u, o, s = _of(carlini)(e)
    return lira_offline(u, s) - lira_offline(o, s)


def _bavaria(density):
    def score(e):
        return bavaria(
            *(log_odds(getattr(e, name), e.labels) for name in ("unlearned", "original", "shadows")), density
        )

    return score


def _base(e):
    return base(log_odds(e.unlearned, e.labels), log_odds(e.shadows, e.labels))


def _informia(e):
    odds = (log_odds(getattr(e, name), e.labels) for name in ("unlearned", "shadows"))
    names = ("population_unlearned", "population_shadows")
    return informia(*odds, *(log_odds(getattr(e, name), e.population_labels) for name in names))


def _over_views(score):
    def mean(e):
        views = zip(e.unlearned_views, e.original_views, e.shadows_views, strict=True)
        return np.mean([score(e.replace(unlearned=u, original=o, shadows=s)) for u, o, s in views], 0)

    return mean


# Scores of evidence under the default options but for LEVELS; `unleak` and `random` draw.
SCORES = {
    "bavaria_t": _bavaria("t"),
    "bavaria_n": _bavaria("n"),
    "base": _base,
    "informia": _informia,
    "iam_on": _iam(log_log),
    "iam_off": _iam(log_log, True),
    "iam_raw": _iam(log_log),
    "iam_confidence": _iam(confidence, family="norm"),
    "iam_tsm": _iam(margin, family="norm"),
    "iam_carlini": _iam(carlini, family="norm"),
    "iam_loss": _iam(minus_loss, family="norm"),
    "iam_carlini_off": _iam(carlini, True, family="norm"),
    **{
        f"iam_{family}_{side}": _iam(confidence, side == "off", family=family)
        for family in ("ecdf", "kde", "beta")
        for side in ("on", "off")
    },
    "rmia_on": _rmia_on,
    "rmia_off": _rmia_off,
    "lira_on": _lira_on,
    "lira_off": _lira_off,
    "lira": lambda e: lira_standard(carlini(e.unlearned, e.labels), carlini(e.reference, e.labels), e.reference_member,
                                    len(e.reference) >= 256),
    "emia_r": lambda e: emia_reference(true_logit(e.unlearned, e.labels), true_logit(e.shadows, e.labels)),
    "emia_p": lambda e: emia_population(true_logit(e.unlearned, e.labels), _population(e, "unlearned", true_logit)),
    "update": _update,
    "confidence": lambda e: confidence(e.unlearned, e.labels),
    "loss": lambda e: minus_loss(e.unlearned, e.labels),
    "margin": lambda e: margin(e.unlearned, e.labels),
    "confidence_diff": _change(confidence),
    "loss_diff": _change(minus_loss),
    "carlini_diff": _change(carlini),
    "logloss_diff": _change(log_log),
    "ldiff": lambda e: ldiff(*_of(carlini)(e)[:2], _population(e, "unlearned", carlini),
                             _population(e, "original", carlini)),
    "lira_on_views": _over_views(_lira_on),
    "lira_off_views": _over_views(_lira_off),
    "rmia_on_views": _over_views(_rmia_on),
    "rmia_off_views": _over_views(_rmia_off),
}  # fmt: skip
