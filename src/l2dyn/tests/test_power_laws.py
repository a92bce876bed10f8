"""The fit of t* ∝ 1/(ηλ): exact laws, SciPy's regression, a likelihood written down here, and what intervals cover."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from l2dyn.measures.power_laws import fit_power_law
from l2dyn.measures.regression import mean_interval


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 2.0])
def test_one_exponent_is_recovered(exponent):
    x = np.geomspace(0.001, 0.1, 7)
    fit = fit_power_law(3 * x**exponent, x)
    assert fit.slopes == pytest.approx((exponent,), abs=1e-12)
    assert math.exp(fit.intercept) == pytest.approx(3)
    assert (*fit.low, *fit.high) == pytest.approx((exponent, exponent), abs=1e-10)
    assert (fit.points, fit.bounds, fit.confidence) == (7, 0, 0.9)
    assert fit.decades == pytest.approx((2.0,))


def test_two_exponents_are_recovered():
    lr, l2 = np.meshgrid([0.05, 0.15, 0.5], [0.001, 0.01, 0.1])
    fit = fit_power_law(2 / (lr.ravel() * l2.ravel() ** 0.9), lr.ravel(), l2.ravel())
    assert fit.slopes == pytest.approx((-1.0, -0.9), abs=1e-12)
    assert math.exp(fit.intercept) == pytest.approx(2)
    assert fit.decades == pytest.approx((1.0, 2.0))


def noisy(seed: int, x, slope: float = -1.0, spread: float = 0.3):
    return x**slope * np.exp(np.random.default_rng(seed).normal(0, spread, len(x)))


def test_without_bounds_it_is_scipys_regression():
    x = np.geomspace(0.01, 1, 12)
    y = noisy(0, x)
    fit, known = fit_power_law(y, x, confidence=0.8), stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.9, 10) * known.stderr
    assert fit.slopes[0] == pytest.approx(known.slope, rel=1e-12)
    assert (fit.low[0], fit.high[0]) == pytest.approx((known.slope - half, known.slope + half), rel=1e-9)
    residual = np.log(y) - known.intercept - known.slope * np.log(x)
    assert fit.spread == pytest.approx(math.sqrt((residual**2).sum() / 10), rel=1e-9)


def test_bounds_enter_by_their_likelihood():
    """Against a general optimizer on the likelihood, and its profile, as they stand in any textbook."""
    x = np.geomspace(0.01, 1, 15)
    y, limit = noisy(3, x), 1.1 / x**0.9
    censored = y > limit
    assert 2 < censored.sum() < 9
    fit = fit_power_law(np.minimum(y, limit), x, censored=censored)
    logs, design = np.log(np.minimum(y, limit)), np.log(x)

    def cost(p, slope=None):
        intercept, log_sigma = p[0], p[1]
        z = (logs - intercept - (p[2] if slope is None else slope) * design) / math.exp(log_sigma)
        return -(stats.norm.logpdf(z[~censored]) - log_sigma).sum() - stats.norm.logsf(z[censored]).sum()

    found = optimize.minimize(cost, [0.0, -1.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert (fit.intercept, fit.slopes[0]) == pytest.approx((found.x[0], found.x[2]), abs=1e-5)
    free = (~censored).sum() - 2
    drop = 0.5 * (free + 2) * math.log1p(stats.t.ppf(0.95, free) ** 2 / free)
    for end in (fit.low[0], fit.high[0]):
        profile = optimize.minimize(cost, found.x[:2], args=(end,), method="Nelder-Mead", options={"fatol": 1e-12}).fun
        assert profile - found.fun == pytest.approx(drop, abs=1e-4)


def test_dropping_bounds_would_bias():
    """Runs cut at a horizon: those that lie late are lost first, at the smallest λ."""
    x = np.repeat(np.geomspace(0.01, 1, 5), 3)
    kept, dropped = [], []
    for seed in range(60):
        y = noisy(seed, x, spread=0.5)
        censored = y > 70
        kept.append(fit_power_law(np.minimum(y, 70), x, censored=censored).slopes[0])
        dropped.append(fit_power_law(y[~censored], x[~censored]).slopes[0])
    assert abs(np.mean(kept) + 1) < 0.03 < np.mean(dropped) + 1


@pytest.mark.parametrize("cut", [math.inf, 40.0])
def test_the_interval_covers(cut):
    x = np.repeat(np.geomspace(0.01, 1, 4), 3)
    hits = 0
    for seed in range(200):
        y = noisy(1000 + seed, x)
        fit = fit_power_law(np.minimum(y, cut), x, censored=y > cut)
        hits += fit.low[0] <= -1 <= fit.high[0]
    assert 165 <= hits <= 194  # 180 expected


def test_no_law_from_too_little():
    assert fit_power_law([1.0, 2.0], [1.0, 2.0]) is None
    assert fit_power_law([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) is None
    assert fit_power_law([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) is None
    assert fit_power_law([4.0, 2.0, 1.0], [1.0, 2.0, 4.0], censored=[True, True, False]) is None
    assert fit_power_law([8.0, 4.0, 2.0, 1.0], [1.0, 2.0, 4.0, 8.0], censored=[True, False, False, False]) is None


@pytest.mark.parametrize("bad", [[1.0, 0.0, 2.0], [1.0, -1.0, 2.0], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_refuses_what_has_no_logarithm(bad):
    with pytest.raises(ValueError, match="positive, finite"):
        fit_power_law(bad, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="positive, finite"):
        fit_power_law([1.0, 2.0, 3.0], bad)


def test_refuses_another_length():
    for arguments in (([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], [[1.0]])):
        with pytest.raises(ValueError, match="equally long"):
            fit_power_law(*arguments)
    with pytest.raises(ValueError, match="equally long"):
        fit_power_law([1.0, 2.0], [1.0, 2.0], censored=[True])


def test_means_share_one_variance():
    """Against the residual variance and t interval of a regression on group indicators."""
    groups = [[1.0, 1.4, 1.2], [2.0, 2.6], [0.5]]
    values = np.concatenate(groups)
    design = np.repeat(np.eye(3), [3, 2, 1], axis=0)
    solution, residual, *_ = np.linalg.lstsq(design, values, rcond=None)
    covariance = residual[0] / 3 * np.linalg.inv(design.T @ design)
    half = stats.t.ppf(0.95, 3) * np.sqrt(np.diag(covariance))
    for (mean, low, high), wanted, reach in zip(mean_interval(groups), solution, half, strict=True):
        assert (mean, low, high) == pytest.approx((wanted, wanted - reach, wanted + reach))


def test_single_values_have_no_interval():
    (mean, low, high), _ = mean_interval([[1.0], [2.0]])
    assert mean == 1.0
    assert math.isnan(low)
    assert math.isnan(high)
    with pytest.raises(ValueError, match="without values"):
        mean_interval([[1.0], []])


@pytest.mark.parametrize("seed", range(20))
def test_a_law_that_holds_to_rounding_with_bounds_has_no_interval(seed):
    """No spread, no likelihood: None, as where it holds exactly."""
    draw, l2 = np.random.default_rng(seed), np.tile(np.geomspace(1e-5, 1, 6), 5)
    lr, censored = np.repeat(draw.uniform(0.01, 50, 5), 6), draw.random(30) < 0.2
    t = 0.4 / (lr * l2) * np.where(censored, 0.5, 1 + 1e-15 * draw.normal(size=30))
    assert fit_power_law(t, l2, lr, censored=censored) is None
