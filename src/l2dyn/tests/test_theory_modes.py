"""Equation (3) of the paper: against its printed form, its closed form and its ODE, and its limits."""

import itertools

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

from l2dyn.theory import (
    late_time_response,
    mode_evolution,
    mode_quotients,
    mode_residual,
    mode_residual_response,
    mode_response,
    slope_response,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_floating_point_trouble():
    with np.errstate(all="raise"):
        yield


# --- references -----------------------------------------------------------------------------------


def printed_factors(t, eigenvalue, l2, k):
    """(initial, target) factors of equation (3) as printed, by mpmath quadrature; k != 1, l2 > 0."""
    with mp.workdps(45):
        t, eigenvalue, l2, k = map(mp.mpf, (t, eigenvalue, l2, k))
        rate = 2 * (k - 1) * l2

        def exponent(s):
            return eigenvalue * mp.exp(-rate * s) / rate

        def integrand(s):
            return mp.exp(-k * l2 * t + exponent(t) - exponent(s) - (k - 2) * l2 * s)

        # The integrand may live on any scale near either end, and changes over 1/λ in between.
        points = {mp.mpf(0), t} | {t * f for d in range(1, 12, 2) for f in (mp.mpf(10) ** -d, 1 - mp.mpf(10) ** -d)}
        points |= {t * j / mp.ceil(l2 * t) for j in range(int(l2 * t) + 1)}
        initial = mp.exp(-k * l2 * t + exponent(t) - exponent(0))
        return float(initial), float(eigenvalue * mp.quad(integrand, sorted(points)))


def closed_form(t, eigenvalue, l2, k):
    """Factors (initial, target, residual, initial and target of df/d log t) by incomplete gamma functions; k >= 1."""
    with mp.workdps(80):
        t, eigenvalue, l2, k = map(mp.mpf, (t, eigenvalue, l2, k))
        now = eigenvalue * mp.exp(-2 * (k - 1) * l2 * t)
        if k == 1:
            initial = mp.exp(-(eigenvalue + l2) * t)
            target = eigenvalue / (eigenvalue + l2) * (1 - initial)
        else:
            rate, b = 2 * (k - 1) * l2, k / (2 * (k - 1))
            begin, end = eigenvalue / rate, now / rate
            initial = mp.exp(-k * l2 * t + end - begin)
            target = end**b * mp.exp(end) * (mp.gammainc(1 - b, end) - mp.gammainc(1 - b, begin))
        learned = now * (1 - target) - k * l2 * target if k != 1 else eigenvalue * initial
        return [float(v) for v in (initial, target, target - 1, -t * (now + k * l2) * initial, t * learned)]


def assert_close(actual, expected, rtol):
    """Relative agreement, down to the smallest numbers that a float64 holds with all digits."""
    with np.errstate(under="ignore"):
        assert_allclose(actual, expected, rtol=rtol, atol=1e-300)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "ratio", "decays"),
    [
        (0, 3.0, 0.4), (0, 1e-8, 30.0), (0.5, 1e4, 0.01), (0.5, 0.02, 12.0), (0.9, 1e-4, 15.0), (1.001, 7.0, 2.0),
        (1.5, 1e5, 3.0), (1.5, 0.3, 15.0), (2, 1e8, 1e-7), (2, 1e3, 50.0), (3, 2e2, 5.0), (5.5, 1.0, 5.0),
    ],
)  # fmt: skip
def test_printed_equation(k, ratio, decays):
    l2 = 0.013
    arguments = decays / l2, ratio * l2, l2, k
    initial, target = printed_factors(*arguments)
    exponent = 1 - np.log(max(initial, 1e-300))
    assert_close(mode_response(*arguments)[0], initial, 1e-14 * exponent)
    assert_close(mode_response(*arguments)[1], target, 1e-10)
    assert_close(mode_residual_response(*arguments)[1], target - 1, 1e-10 + 1e-15 / abs(target - 1 - 1e-30))
    value = mode_evolution(*arguments, target=-2.0, initial=0.7)
    assert abs(value - (0.7 * initial - 2 * target)) <= 1e-10 * (0.7 * initial + 2 * target) + 1e-300


@pytest.mark.parametrize("k", [1, 1.2, 1.9, 2, 5.5])
def test_closed_form_over_the_whole_range(k):
    """Of slopes, learning and forgetting are each exact: their difference is off by a rounding of learning."""
    l2 = 0.002
    decays, ratios = np.meshgrid([1e-9, 1e-4, 0.03, 0.5, 2, 7, 20, 50], [1e-8, 1e-5, 0.01, 1, 100, 1e5, 1e8])
    t, eigenvalues = decays.ravel() / l2, ratios.ravel() * l2
    expected = np.array([closed_form(*pair, l2, k) for pair in zip(t, eigenvalues, strict=True)]).T
    initial, target = mode_response(t, eigenvalues, l2, k)
    assert_close(initial, expected[0], 1e-12)
    assert_close(target, expected[1], 1e-10)
    assert_close(mode_residual_response(t, eigenvalues, l2, k)[1], expected[2], 1e-10)
    initial, target = slope_response(t, eigenvalues, l2, k)
    with np.errstate(under="ignore"):
        assert (abs(initial - expected[3]) <= 1e-10 * abs(expected[3]) + 1e-290).all()
        assert (abs(target - expected[4]) <= 2e-9 * abs(expected[4]) + 1e-12 * abs(expected[3]) + 1e-290).all()


@pytest.mark.parametrize("k", [0, 0.5, 1, 1.5, 2, 5.5])
@pytest.mark.parametrize("ratio", [0.05, 40.0])
def test_differential_equation(k, ratio):
    l2, target, initial = 0.3, 1.7, -0.6
    times = np.array([0.1, 1.0, 3.0, 8.0])
    eigenvalue = ratio * l2

    def derivative(t, f):
        return eigenvalue * np.exp(-2 * (k - 1) * l2 * t) * (target - f) - k * l2 * f

    with np.errstate(under="ignore"):
        solution = solve_ivp(derivative, (0, 8), [initial], method="LSODA", t_eval=times, rtol=1e-10, atol=1e-12)
    assert_allclose(mode_evolution(times, eigenvalue, l2, k, target, initial), solution.y[0], rtol=0, atol=3e-8)


@pytest.mark.parametrize("k", [0.0, 0.4, 0.9, 1.0, 1.0000001, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("ratio", [0.05, 40.0])
def test_slopes_are_those_of_the_curve(k, ratio):
    l2, h = 0.3, 1e-4
    for t in (0.01, 1.0, 8.0):
        curve = [mode_response(t * np.exp(step), ratio * l2, l2, k) for step in (-2 * h, -h, h, 2 * h)]
        differences = (curve[0][i] - 8 * curve[1][i] + 8 * curve[2][i] - curve[3][i] for i in (0, 1))
        for found, difference in zip(slope_response(t, ratio * l2, l2, k), differences, strict=True):
            assert found == pytest.approx(difference / (12 * h), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("huge", ["t", "eigenvalue", "l2", "k", "t and l2", "t and eigenvalue"])
def test_the_largest_numbers_have_limits(k, huge):
    given = {"t": 2.0, "eigenvalue": 1.0, "l2": 0.1, "k": k} | dict.fromkeys(huge.split(" and "), 1e307)
    with np.errstate(all="raise", under="ignore"):
        factors = [*mode_response(**given), *mode_residual_response(**given), *slope_response(**given)]
        assert np.isfinite(factors).all()
        assert 0 <= factors[1] <= 1 + 1e-12
    if huge in ("l2", "t and l2") and k > 1:
        assert factors[1] == 0


# --- limits ---------------------------------------------------------------------------------------

EIGENVALUES = np.array([0.0, 1e-9, 0.3, 20.0, 1e7])
TIMES = np.array([[1e-7], [0.01], [1.0], [30.0]])


@pytest.mark.parametrize("k", [1.05, 1.5, 2.0, 3.0])
def test_late_time_response_is_the_incomplete_gamma_function(k):
    """w^b e^w Γ(1-b, w) by mpmath, relatively, over 200 decades of w; and what mode_evolution tends to."""
    w = np.array([1e-200, 1e-100, 1e-8, 0.01, 0.7, 1.0, 3.0, 50.0, 1e4, 1e12])
    with mp.workdps(50):
        b = mp.mpf(k) / (2 * (mp.mpf(k) - 1))
        expected = [float(mp.mpf(v) ** b * mp.exp(mp.mpf(v)) * mp.gammainc(1 - b, mp.mpf(v))) for v in w]
    assert_allclose(late_time_response(w, k), expected, rtol=1e-9)
    assert_allclose(late_time_response(1.0, 2), float(mp.e * mp.e1(1)), rtol=1e-11)
    t, l2 = 40.0, 0.1
    left = 5.0 * np.exp(-2 * (k - 1) * l2 * t) / (2 * (k - 1) * l2)
    assert_allclose(mode_evolution(t, 5.0, l2, k, 1.7, initial=-3.0), 1.7 * late_time_response(left, k), rtol=1e-6)


def test_late_time_response_limits():
    assert_allclose(late_time_response([0.0, np.finfo(float).max], 2.5), [0.0, 1.0], rtol=1e-14)
    assert late_time_response(np.ones((2, 1)), [1.5, 2.0, 3.0]).shape == (2, 3)
    with pytest.raises(ValueError, match="k must be above 1"):
        late_time_response(1.0, 1.0)
    with pytest.raises(ValueError, match="w must not be negative"):
        late_time_response(-1.0, 2.0)


@settings(max_examples=30)
@given(
    t=st.floats(0, 100),
    eigenvalue=st.floats(1e-6, 1e6) | st.just(0.0),
    l2=st.floats(0, 1.0),
    k=st.floats(0, 5),
    start=st.floats(-3, 3),
)
def test_quotients_are_those_of_the_evolution(t, eigenvalue, l2, k, start):
    of_initial, of_target = mode_quotients(t, eigenvalue, l2, k)
    assert np.isfinite([of_initial, of_target]).all()
    with np.errstate(under="ignore"):
        moved = mode_evolution(t, eigenvalue, l2, k, 2.0, start) - np.exp(-k * l2 * t) * start
        assert_allclose(eigenvalue * (of_initial * start + of_target * 2.0), moved, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 2.0, 3.3])
def test_quotients_have_a_limit_at_eigenvalue_0(k):
    t, l2 = 3.0, 0.4
    small, zero = mode_quotients(t, 1e-7, l2, k), mode_quotients(t, 0.0, l2, k)
    assert_allclose(small, zero, rtol=1e-5)
    with np.errstate(all="ignore"):
        tiny = mode_quotients(t, 1e-290, l2, k)
    assert_allclose(tiny, zero, rtol=1e-12)


@pytest.mark.parametrize("k", [0, 0.5, 1, 2, 3])
def test_start_is_the_initial_value(k):
    for initial in (0.25, 3.0):
        assert_array_equal(mode_evolution(0.0, EIGENVALUES, 0.1, k, 3.0, initial), np.full(5, initial))
        assert_array_equal(mode_residual(0.0, EIGENVALUES, 0.1, k, 3.0, initial), np.full(5, initial - 3))


@pytest.mark.parametrize("k", [0, 0.5, 1, 2, 3])
def test_without_l2_the_residual_decays_exponentially(k):
    with np.errstate(under="ignore"):
        decay, learned = np.exp(-EIGENVALUES * TIMES), -np.expm1(-EIGENVALUES * TIMES)
    assert_close(mode_evolution(TIMES, EIGENVALUES, 0.0, k, 3.0), 3 * learned, 1e-12)
    assert_close(mode_evolution(TIMES, EIGENVALUES, 0.0, k, 0.0, 2.0), 2 * decay, 1e-12)
    assert_close(mode_residual(TIMES, EIGENVALUES, 0.0, k, 3.0, 5.0), 2 * decay, 1e-12)


def test_linear_model():
    l2 = 0.02
    rate = EIGENVALUES + l2
    with np.errstate(under="ignore"):
        decay, done = np.exp(-rate * TIMES), -np.expm1(-rate * TIMES)
        value = 0.4 * decay + 3 * EIGENVALUES / rate * done
        residual = (0.4 - 3) * decay - 3 * l2 / rate * done
    assert_close(mode_evolution(TIMES, EIGENVALUES, l2, 1, 3.0, 0.4), value, 1e-12)
    assert_close(mode_residual(TIMES, EIGENVALUES, l2, 1, 3.0, 0.4), residual, 1e-12)
    final = mode_evolution(1e5, EIGENVALUES, l2, 1, 3.0, 0.4)
    assert_close(final, 3 * EIGENVALUES / rate, 1e-12)


@pytest.mark.parametrize("k", [0, 0.3, 1, 1.5, 2, 5.5])
def test_no_eigenvalue_no_learning(k):
    l2, times = 0.1, TIMES[:, 0]
    assert_allclose(mode_evolution(times, 0.0, l2, k, 3.0, 2.0), 2 * np.exp(-k * l2 * times), rtol=1e-13)
    assert_array_equal(mode_evolution(times, 0.0, l2, k, 3.0), np.zeros(4))
    assert_allclose(mode_residual(times, 0.0, l2, k, 3.0), np.full(4, -3.0), rtol=1e-13)


def test_no_jump_at_the_regular_points():
    times = TIMES[1:, 0]
    for step in (1e-13, -1e-13):
        linear = mode_evolution(times, 2.0, 0.1, 1.0, 1.0, 0.5)
        assert_allclose(mode_evolution(times, 2.0, 0.1, 1.0 + step, 1.0, 0.5), linear, rtol=1e-11)
    free = mode_evolution(times, 2.0, 0.0, 2.0, 1.0, 0.5)
    assert_allclose(mode_evolution(times, 2.0, 1e-16, 2.0, 1.0, 0.5), free, rtol=1e-12)


@pytest.mark.parametrize("k", [0.5, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("mode", [mode_evolution, mode_residual])
def test_smooth_across_the_quadrature_rules(k, mode):
    # Where the range or the panels change, the curve must not jump; differences of order 8 leave only jumps.
    curve = mode(np.linspace(2.0, 60.0, 4001), 0.5, 0.1, k, 1.0)
    assert abs(np.diff(np.log(abs(curve)), 8)).max() < 1e-9


@pytest.mark.parametrize("k", [0.0, 0.5])
def test_growing_kernel_learns_and_stays_finite(k):
    value = mode_evolution([1e3, 1e4, 1e6], 1.0, 1.0, k, 2.0, 5.0)
    assert_allclose(value, [2.0, 2.0, 2.0], rtol=1e-13)
    # Quasi-stationary: γ(t) (f - y) = -kλ y up to λ/γ(t).
    residual = mode_residual(100.0, 1e-3, 0.1, k, 2.0)
    kernel = 1e-3 * np.exp(2 * (1 - k) * 0.1 * 100)
    assert residual <= 0
    if k > 0:
        assert_allclose(residual, -2 * k * 0.1 / kernel, rtol=5 * 0.1 / kernel)


@pytest.mark.parametrize(
    ("k", "rate", "power"),
    [(1.25, 0.5, 0), (1.5, 1.0, 0), (2, 2.0, 1), (2.5, 2.5, 0), (3, 3.0, 0), (5.5, 5.5, 0)],
)
@pytest.mark.parametrize("ratio", [0.1, 100.0])
def test_late_decay(k, rate, power, ratio):
    l2 = 0.01
    # For k = 2 the law is (t + constant) e^{-2λt}, so compare slopes of f / t^power at three times.
    times = np.array([60.0, 70.0, 80.0]) / l2
    f = mode_evolution(times, ratio * l2, l2, k, 1.0) * np.exp(rate * l2 * (times - times[0]))
    if power == 1:
        assert_allclose(f[2] - f[1], f[1] - f[0], rtol=1e-9)
        assert f[2] / f[0] > 1.1
    else:
        assert_allclose(f, f[0], rtol=1e-6)


def test_learning_and_decay_times():
    l2 = 0.01
    times = np.geomspace(1e-3, 1e4, 800)
    learned = mode_evolution(times, 1.0, l2, 2, 1.0)
    assert 0.9 < learned.max() < 1
    assert 1 < times[learned.argmax()] < 20
    assert 1 < l2 * times[np.flatnonzero(learned > 0.5)[-1]] < 5
    assert mode_evolution(times, 1e-4, l2, 2, 1.0).max() < 0.01


# --- residual, shapes, errors ---------------------------------------------------------------------


def test_residual_keeps_its_digits_where_f_equals_y():
    # γ ≫ λ: f - y ≈ -kλy/γ(t), far below the rounding of f.
    for k in (0.5, 1.0, 2.0, 3.0):
        residual = mode_residual(1e-3, 1e8, 1e-12, k, 1.0, 4.0)
        assert_allclose(mode_evolution(1e-3, 1e8, 1e-12, k, 1.0, 4.0), 1.0, rtol=1e-14)
        assert_allclose(residual, -k * 1e-20, rtol=1e-9)
    # f0 = y: the residual starts at 0 and grows as -kλyt.
    assert_allclose(mode_residual(1e-12, 2.0, 0.1, 2.0, 3.0, 3.0), -2 * 0.1 * 3 * 1e-12, rtol=1e-10)


positive = st.floats(-10, 1.69).map(lambda e: 10.0**e)


@settings(max_examples=60)
@given(
    decays=st.one_of(st.just(0.0), positive),
    ratio=st.one_of(st.just(0.0), st.floats(-8, 8).map(lambda e: 10.0**e)),
    l2=st.floats(-6, 2).map(lambda e: 10.0**e),
    k=st.one_of(st.sampled_from([0, 0.5, 1, 1.5, 2, 3, 5.5]), st.floats(0, 6)),
    target=st.floats(-5, 5),
    initial=st.floats(-5, 5),
)
def test_finite_bounded_and_consistent(decays, ratio, l2, k, target, initial):
    arguments = decays / l2, ratio * l2, l2, k
    with np.errstate(all="raise", under="ignore"):
        initial_factor, target_factor = mode_response(*arguments)
        shortfall_factor = mode_residual_response(*arguments)[1]
        assert 0 <= initial_factor <= 1
        assert 0 <= target_factor <= 1 + 1e-12
        assert -1 - 1e-12 <= shortfall_factor <= 0
        assert_allclose(target_factor - shortfall_factor, 1.0, rtol=1e-10)
        f, residual = (mode(*arguments, target, initial) for mode in (mode_evolution, mode_residual))
        assert abs(residual - (f - target)) <= 1e-10 * (abs(initial) + abs(target))


@settings(max_examples=50)
@given(
    t=st.floats(-9, 9).map(lambda e: 10.0**e),
    eigenvalue=st.floats(-20, 20).map(lambda e: 10.0**e),
    l2=st.floats(-20, 6).map(lambda e: 10.0**e),
    k=st.floats(0, 20),
)
def test_finite_far_outside_the_range(t, eigenvalue, l2, k):
    with np.errstate(all="raise", under="ignore"):
        factors = *mode_response(t, eigenvalue, l2, k), -mode_residual_response(t, eigenvalue, l2, k)[1]
    assert all(0 <= factor <= 1 + 1e-9 for factor in factors)


def test_array_equals_scalars_and_loops():
    t, eigenvalue = np.geomspace(1e-2, 1e3, 23)[:, None], np.geomspace(1e-5, 1e3, 17)
    k = np.array([0.0, 0.7, 1.0, 2.0, 4.0])[:, None, None]
    initial = np.linspace(-1, 1, 17)
    for mode in (mode_evolution, mode_residual):
        together = mode(t, eigenvalue, 0.05, k, 1.5, initial)
        assert together.shape == (5, 23, 17)
        assert together.dtype == np.float64
        for i, j, m in itertools.product(range(5), range(0, 23, 11), range(0, 17, 8)):
            one = mode(float(t[j, 0]), float(eigenvalue[m]), 0.05, float(k[i, 0, 0]), 1.5, float(initial[m]))
            assert np.ndim(one) == 0
            assert_allclose(one, together[i, j, m], rtol=1e-13)
    # More elements than one block holds.
    many = mode_evolution(np.full(30_000, 3.0), np.arange(30_000) / 1e4, 0.05, 2, 1.0)
    assert_allclose(many[[0, 9_999, 29_999]], mode_evolution(3.0, [0.0, 0.9999, 2.9999], 0.05, 2, 1.0), rtol=1e-13)


def test_target_and_initial_broadcast_beyond_the_modes():
    f = mode_evolution(1.0, [1.0, 2.0], 0.1, 2, target=np.ones((3, 1)), initial=np.zeros((4, 1, 1)))
    assert f.shape == (4, 3, 2)
    assert mode_evolution(np.empty((0, 1)), [1.0, 2.0], 0.1, 2, 1.0).shape == (0, 2)


VALID = {"t": [1.0, 2.0], "eigenvalue": [1.0, 2.0], "l2": 0.1, "k": 2.0, "target": [1.0, 1.0], "initial": 0.0}


@pytest.mark.parametrize("name", list(VALID))
@pytest.mark.parametrize("mode", [mode_evolution, mode_residual])
def test_bad_values_are_refused_by_name(mode, name):
    bad = [np.nan, np.inf, "a", 1j, None] + ([] if name in ("target", "initial") else [-1.0, [0.1, -1e-9]])
    for value in bad:
        with pytest.raises(ValueError, match=name):
            mode(**{**VALID, name: value})
    if name not in ("l2", "k"):
        with pytest.raises(ValueError, match=rf"broadcast.*\b{name}\b"):
            mode(**{**VALID, name: np.ones(3)})
