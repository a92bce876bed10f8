"""The fit of t* ∝ 1/(ηλ): exact laws, polyfit, and what the interval covers."""

import math

import numpy as np
import pytest

from l2dyn.measures.power_laws import fit_power_law


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 2.0])
def test_one_exponent_is_recovered(exponent):
    x = np.geomspace(0.001, 0.1, 7)
    fit = fit_power_law(3 * x**exponent, x, resamples=50)
    assert fit.slopes == pytest.approx((exponent,), abs=1e-12)
    assert math.exp(fit.intercept) == pytest.approx(3)
    assert fit.low == pytest.approx((exponent,), abs=1e-10)
    assert fit.high == pytest.approx((exponent,), abs=1e-10)
    assert (fit.points, fit.confidence) == (7, 0.9)
    assert fit.decades == pytest.approx((2.0,))


def test_two_exponents_are_recovered():
    lr, l2 = np.meshgrid([0.05, 0.15, 0.5], [0.001, 0.01, 0.1])
    fit = fit_power_law(2 / (lr.ravel() * l2.ravel() ** 0.9), lr.ravel(), l2.ravel(), resamples=50)
    assert fit.slopes == pytest.approx((-1.0, -0.9), abs=1e-12)
    assert math.exp(fit.intercept) == pytest.approx(2)
    assert fit.decades == pytest.approx((1.0, 2.0))


def test_a_noisy_fit_agrees_with_polyfit():
    generator = np.random.default_rng(0)
    x = generator.uniform(0.1, 10, 20)
    y = 5 * x**-0.7 * np.exp(generator.normal(0, 0.3, 20))
    fit = fit_power_law(y, x, resamples=50)
    assert (fit.slopes[0], fit.intercept) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1), rel=1e-10)


def test_the_interval_agrees_with_a_bootstrap_by_polyfit():
    generator = np.random.default_rng(1)
    x = np.geomspace(0.01, 1, 25)
    y = x**-1 * np.exp(generator.normal(0, 0.4, 25))
    fit = fit_power_law(y, x, confidence=0.8, resamples=800, seed=5)
    draws = []
    for _ in range(800):
        chosen = generator.integers(25, size=25)
        draws.append(np.polyfit(np.log(x[chosen]), np.log(y[chosen]), 1)[0])
    low, high = np.quantile(draws, [0.1, 0.9])
    width = high - low
    assert fit.low[0] == pytest.approx(low, abs=0.2 * width)
    assert fit.high[0] == pytest.approx(high, abs=0.2 * width)
    assert fit.low[0] < fit.slopes[0] < fit.high[0]


def test_the_interval_covers():
    generator = np.random.default_rng(2)
    x = np.geomspace(0.01, 1, 30)
    hits = 0
    for _ in range(40):
        fit = fit_power_law(x**-1 * np.exp(generator.normal(0, 0.3, 30)), x, resamples=100)
        hits += fit.low[0] <= -1 <= fit.high[0]
    assert 28 <= hits <= 40  # nominally 36
    assert hits < 40 or fit.high[0] - fit.low[0] < 1


def test_confidence_widens_and_the_seed_decides():
    x = np.geomspace(0.01, 1, 12)
    y = x**-1 * np.exp(np.random.default_rng(3).normal(0, 0.3, 12))
    narrow, wide = (fit_power_law(y, x, confidence=c, resamples=200) for c in (0.5, 0.95))
    assert wide.low[0] < narrow.low[0] < narrow.high[0] < wide.high[0]
    assert fit_power_law(y, x, resamples=50) == fit_power_law(y, x, resamples=50)
    assert fit_power_law(y, x, resamples=50) != fit_power_law(y, x, resamples=50, seed=1)


@pytest.mark.parametrize(
    ("y", "xs"),
    [
        ([], [[]]),
        ([1.0], [[1.0]]),
        ([1.0, 2.0], [[1.0, 2.0]]),
        ([1.0, 2.0, 3.0], [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]),
        ([1.0, 2.0, 3.0], [[2.0, 2.0, 2.0]]),
        ([1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]]),
        ([1.0, 2.0, 3.0, 5.0, 4.0], [[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]]),  # collinear
        ([1.0, 2.0, 3.0, 5.0], [[0.3, 0.1 + 0.2, 0.3, 0.3]]),  # varies by rounding only
    ],
)
def test_what_is_too_little_or_cannot_be_told_apart_is_not_fitted(y, xs):
    assert fit_power_law(y, *xs) is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_power_law_needs_positive_values_of_equal_length(bad):
    for y, x in (([1.0, bad, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]), ([1.0, 2.0, 2.0, 3.0], [1.0, bad, 3.0, 4.0])):
        with pytest.raises(ValueError, match="positive"):
            fit_power_law(y, x)
    for x in ([1.0, 2.0], [[1.0, 2.0, 3.0]], 1.0):
        with pytest.raises(ValueError, match="equally long"):
            fit_power_law([1.0, 2.0, 3.0], x)
