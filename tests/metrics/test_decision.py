import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics.inference import decision


def naive_adjusted(p):
    n = len(p)
    rank = [sum(q <= value for q in p) for value in p]
    return np.array([min([1.0] + [n * p[j] / rank[j] for j in range(n) if p[j] >= p[i]]) for i in range(n)])


@trials(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=25), st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]))
def test_benjamini_hochberg_equals_its_definition(ranks, level):
    p = np.array(ranks) / 20
    rejections = decision.benjamini_hochberg(p, level)
    np.testing.assert_allclose(rejections.adjusted, naive_adjusted(p), atol=1e-12)
    np.testing.assert_allclose(rejections.adjusted, scipy.stats.false_discovery_control(p), atol=1e-12)
    np.testing.assert_array_equal(rejections.rejected, rejections.adjusted <= level)


def test_benjamini_hochberg_of_conformal_p_values_controls_the_false_discovery_rate():
    """All samples share one null, as in an audit; a third of them are truly different."""
    rng = np.random.default_rng(3)
    different = np.arange(150) < 50
    fractions, power = [], []
    for _ in range(400):
        statistic = rng.normal(size=150) + 3.0 * different
        null = np.sort(rng.normal(size=1000))
        p = (1 + 1000 - np.searchsorted(null, statistic)) / 1001
        rejected = decision.benjamini_hochberg(p, 0.2).rejected
        fractions.append((rejected & ~different).sum() / max(rejected.sum(), 1))
        power.append((rejected & different).sum() / 50)
    # The bound is 0.2 * 2 / 3 = 0.133; the standard error of 400 repetitions is about 0.003.
    assert 0.09 < np.mean(fractions) < 0.145
    assert np.mean(power) > 0.7


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: decision.benjamini_hochberg(np.array([0.5, 1.5])), errors.DataError, "entry 1 is 1.5"),
        (lambda: decision.benjamini_hochberg(np.array([np.nan])), errors.DataError, "entry 0 is nan"),
        (lambda: decision.benjamini_hochberg(np.ones(2), 2.0), errors.ConfigError, "fdr = 2"),
    ],
)
def test_the_border_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()
