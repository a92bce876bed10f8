"""t*, peaks, censoring and power laws, against brute force and independent fits."""

import contextlib
import math
import signal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from l2dyn.metrics import fit_power_law, peak, time_to_peak

ACCURACIES = st.lists(st.integers(0, 1000).map(lambda i: i / 1000), min_size=1, max_size=40)


def brute_force(t, accuracy, tolerance):
    best = max(map(Fraction, accuracy))
    return next(time for time, a in zip(t, accuracy, strict=True) if Fraction(a) >= best - tolerance)


@given(accuracy=ACCURACIES, scale=st.floats(0.01, 1e4))
def test_time_to_peak_is_the_first_within_tolerance(accuracy, scale):
    t = [scale * i for i in range(len(accuracy))]
    # 0.005 is a number of thousandths here, so a bound half a thousandth away has no rounding to argue about
    assert time_to_peak(t, accuracy, 0.0055) == brute_force(t, accuracy, Fraction(11, 2000))
    assert time_to_peak(t, accuracy, 0) == t[int(np.argmax(accuracy))]
    assert time_to_peak(t, accuracy, 1.0) == 0.0


@pytest.mark.parametrize("samples", [200, 1000, 4000, 10_000])
@pytest.mark.parametrize("form", [lambda k, n: k / n, lambda k, n: 1 - (n - k) / n], ids=["k/n", "1-e/n"])
def test_exactly_the_tolerance_counts_as_within(samples, form):
    """0.5 points are a whole number of samples: whether they count must not hang on rounding."""
    gap = samples // 200
    for right in range(gap, samples + 1):
        best, below = form(right, samples), form(right - gap, samples)
        assert time_to_peak([0, 1], [below, best]) == 0
        if right > gap:
            assert time_to_peak([0, 1], [form(right - gap - 1, samples), best]) == 1


@pytest.mark.parametrize(
    ("t", "accuracy", "tolerance"),
    [
        ([], [], 0.005),
        ([1, 2], [0.5], 0.005),
        ([[1, 2]], [[0.5, 0.6]], 0.005),
        (1.0, 0.5, 0.005),
        ([1, math.nan], [0.5, 0.6], 0.005),
        ([1, 2], [0.5, math.nan], 0.005),
        ([1, 2], [0.5, math.inf], 0.005),
        ([1, 2], [0.5, 0.6], -0.1),
        ([1, 2], [0.5, 0.6], math.nan),
    ],
)
def test_bad_curves_are_refused(t, accuracy, tolerance):
    with pytest.raises(ValueError, match=r"t and accuracy|tolerance"):
        time_to_peak(t, accuracy, tolerance)


def test_peak_reads_the_curve():
    found = peak([0, 1, 2, 4, 8, 16], [0.1, 0.5, 0.897, 0.9, 0.9, 0.6], horizon=16)
    assert (found.max_accuracy, found.t_argmax, found.t_star, found.t_before) == (0.9, 4.0, 2.0, 1.0)
    assert found.censored is False


def test_peak_at_the_first_measurement():
    found = peak([3, 4, 8], [0.9, 0.5, 0.4], horizon=8)
    assert (found.t_star, found.t_before, found.censored) == (3.0, 3.0, False)


@pytest.mark.parametrize(
    ("accuracy", "censored"),
    [
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9], True),  # still rising
        ([0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], False),  # flat since long
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9, 0.8, 0.7], False),  # late, but came down
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9, 0.9, 0.896], True),  # late, ends within the tolerance
        ([0.2, 0.3, 0.4, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], False),  # at half the horizon
        ([0.2, 0.3, 0.4, 0.896, 0.9, 0.9, 0.9, 0.9, 0.9], False),
        ([0.2, 0.3, 0.4, 0.894, 0.896, 0.9, 0.9, 0.9, 0.9], False),
        ([0.2, 0.3, 0.4, 0.5, 0.894, 0.9, 0.9, 0.9, 0.9], True),
        ([0.2, 0.9, 0.3, 0.3, 0.3, 0.3, 0.5, 0.6, 0.901], False),  # within the tolerance early, and again at the end
    ],
)
def test_censoring(accuracy, censored):
    assert peak(range(9), accuracy, horizon=8).censored is censored


def test_a_short_record_is_judged_by_its_horizon():
    assert peak([0, 1, 2], [0.2, 0.5, 0.9], horizon=8).censored is False
    assert peak([0, 1, 2], [0.2, 0.5, 0.9], horizon=2).censored is True


@given(accuracy=ACCURACIES, chance=st.sampled_from([0.0, 0.1, 0.5]))
def test_peak_agrees_with_its_rule(accuracy, chance):
    t = list(range(len(accuracy)))
    found = peak(t, accuracy, horizon=t[-1], chance=chance, tolerance=0.0055)
    best, tolerance = max(map(Fraction, accuracy)), Fraction(11, 2000)
    if abs(best - Fraction(chance) - Fraction(1, 10)) < Fraction(1, 10**9):
        return  # exactly 10 points above chance
    if best < Fraction(chance) + Fraction(1, 10):
        assert found is None
        return
    t_star = brute_force(t, accuracy, tolerance)
    late, down = t_star > Fraction(t[-1], 2), Fraction(accuracy[-1]) < best - tolerance
    assert (found.t_star, found.censored) == (t_star, late and not down)
    assert found.t_before == max(t_star - 1, 0)
    assert found.max_accuracy == max(accuracy)
    assert found.t_argmax == accuracy.index(max(accuracy))


@pytest.mark.parametrize("samples", [200, 4000, 10_000])
def test_one_tolerance_for_entering_and_for_leaving_the_band(samples):
    """A run that ends exactly 0.5 points below its maximum ends within them, as it would enter within them."""
    gap = samples // 200
    wrong = []
    for errors in range(samples // 2):
        best, last = 1 - errors / samples, 1 - (errors + gap) / samples
        if not peak([0, 6, 7, 8], [0.1, best, best, last], horizon=8).censored:
            wrong.append(errors)
    assert wrong == []


def test_chance():
    assert peak([0, 1], [0.1, 0.19], horizon=1) is None
    assert peak([0, 1], [0.1, 0.21], horizon=1) is not None
    assert peak([0, 1], [0.1, 0.59], horizon=1, chance=0.5) is None
    assert peak([0, 1], [0.1, 0.61], horizon=1, chance=0.5) is not None


def test_peak_refuses_what_time_to_peak_refuses():
    with pytest.raises(ValueError, match="finite"):
        peak([0, 1], [0.5, math.nan], horizon=1)
    with pytest.raises(ValueError, match="empty"):
        peak([], [], horizon=1)


# --- fits -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_most(seconds):
    """An endless loop fails the test instead of stopping the tests."""

    def stop(*_):
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
    ],
)
def test_too_little_for_a_fit(y, xs):
    assert fit_power_law(y, *xs) is None


@pytest.mark.parametrize(
    ("y", "xs"),
    [
        ([1.0, 2.0, 3.0, 5.0, 4.0], [[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]]),  # collinear
        ([1.0, 2.0, 3.0, 5.0], [[0.3, 0.1 + 0.2, 0.3, 0.3]]),  # varies by rounding only
    ],
    ids=["collinear", "rounding"],
)
def test_what_cannot_be_told_apart_is_not_fitted(y, xs):
    with at_most(1.0):
        assert fit_power_law(y, *xs, resamples=20) is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_power_law_needs_positive_values(bad):
    with pytest.raises(ValueError, match="positive"):
        fit_power_law([1.0, bad, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="positive"):
        fit_power_law([1.0, 2.0, 2.0, 3.0], [1.0, bad, 3.0, 4.0])


@pytest.mark.parametrize("x", [[1.0, 2.0], [[1.0, 2.0, 3.0]], 1.0])
def test_a_power_law_needs_equal_lengths(x):
    with pytest.raises(ValueError, match="equally long"):
        fit_power_law([1.0, 2.0, 3.0], x)
