"""When the loss is least and the accuracy largest: against brute force, many digits and the laws they follow."""

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from l2dyn.theory import (
    accuracy_maximum,
    evolve,
    law_window,
    loss_minimum,
    mode_evolution,
    power_law_spectrum,
    relu_ntk,
    spectrum_minima,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def brute_minimum(eigenvalues, target, l2, k, initial):
    """The smallest loss on a grid of all times, and then on a fine one around it."""
    t = np.geomspace(1e-4 / max(eigenvalues), 300 / l2, 1001)
    for _ in range(2):
        loss = ((mode_evolution(t[:, None], eigenvalues, l2, k, target, initial) - target) ** 2).sum(axis=1) / 2
        best = loss.argmin()
        found, t = (t[best], loss[best]), np.geomspace(t[best - 1], t[best + 1], 1001)
    return found


@pytest.mark.parametrize("k", [1.3, 2.0, 3.0])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_loss_minimum_is_that_of_a_fine_grid(rng, k, scale):
    eigenvalues, target = np.geomspace(1e-3, 10, 5), rng.standard_normal(5)
    initial = scale * rng.standard_normal(5)
    found = loss_minimum(eigenvalues, target, 1e-2, k, initial)
    t, loss = brute_minimum(eigenvalues, target, 1e-2, k, initial)
    assert_allclose(found.value, loss, rtol=1e-7)
    assert_allclose(found.t, t, rtol=1e-4)
    assert pytest.approx(1e-2 * found.t) == found.C


def test_where_there_is_no_interior_minimum():
    eigenvalues = [1.0, 0.1]
    assert loss_minimum(eigenvalues, 1.0, 0.0, 2) is None  # no L2
    assert loss_minimum(eigenvalues, 1.0, 0.1, 1) is None  # a linear model from 0 only comes down
    assert loss_minimum([0.0], 1.0, 0.1, 2) is None
    assert loss_minimum([1e-14], 1.0, 1.0, 2) is None  # never learned to speak of
    overshooting = loss_minimum([1e-3, 0.0], 1.0, 0.1, 1, initial=[2.0, 0.0])
    assert overshooting is not None  # a linear model from above passes y on its way down


def test_a_single_mode_does_not_follow_the_law():
    """|f - y|/y ≈ e^{-γt} + (2λ/γ) e^{2λt}, which is least where t = 2 log(γ/2λ)/γ: only a logarithm of λ."""
    for l2 in (1e-3, 1e-7):
        assert loss_minimum([1.0], [1.0], l2, 2).t == pytest.approx(2 * np.log(1 / (2 * l2)), rel=0.01)


@pytest.mark.parametrize("k", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("l2", [1e-2, 1e-12, 1e-60])
def test_the_minimum_of_one_mode_to_all_digits(k, l2):
    """df/dt changes its sign there, in as many digits as that takes: the loss itself is level to rounding."""
    with mp.workdps(200):
        rate, b = 2 * (mp.mpf(k) - 1) * mp.mpf(l2), mp.mpf(k) / (2 * (mp.mpf(k) - 1))

        def moving(t):
            start, now = 1 / rate, mp.exp(-rate * t) / rate
            f = now**b * mp.exp(now) * (mp.gammainc(1 - b, now) - mp.gammainc(1 - b, start))
            return mp.exp(-rate * t) * (1 - f) - k * mp.mpf(l2) * f

        found = loss_minimum([1.0], [1.0], l2, k)
        assert moving(found.t * (1 - mp.mpf(10) ** -10)) > 0 > moving(found.t * (1 + mp.mpf(10) ** -10))


def test_t_min_does_not_depend_on_the_labels_scale():
    expected = loss_minimum([1.0, 0.1], [1.0, -2.0], 1e-3, 2, initial=[0.5, 0.3])
    for scale in (1e-170, 1e160):
        found = loss_minimum([1.0, 0.1], [scale, -2 * scale], 1e-3, 2, initial=[0.5 * scale, 0.3 * scale])
        assert found.t == pytest.approx(expected.t, rel=1e-12)
        assert found.value == pytest.approx(expected.value * scale * scale, rel=1e-9)


def test_float64_ends_far_below_any_l2():
    assert loss_minimum([1.0], [1.0], 1e-130, 2).t == pytest.approx(2 * np.log(0.5e130), rel=0.01)
    assert loss_minimum([1.0], [1.0], 1e-200, 2) is None
    assert loss_minimum([1.0], [1.0], 5e-324, 2) is None


@pytest.mark.parametrize("p", [2.5, 3.0, 4.0])
def test_steep_power_laws_follow_another_one(p):
    """t^{-p-1} ∝ λ³: what is learned still against what is forgotten, which the large eigenvalues decide for p > 2."""
    table = spectrum_minima(*power_law_spectrum(p, points=120), l2=np.geomspace(1e-9, 1e-6, 3), k=2)
    assert_allclose(table["slope"], -3 / (p + 1), atol=0.02)


def test_far_above_every_eigenvalue_the_constant_is_a_half():
    """f ≈ γ t e^{-2λt} y there, whatever the spectrum."""
    for eigenvalues, target in (([1.0], [1.0]), ([1.0, 0.03, 1e-6], [1.0, -2.0, 0.4])):
        assert_allclose(loss_minimum(eigenvalues, target, 1e3, 2).C, 0.5, rtol=1e-3)


@pytest.mark.parametrize(("p", "constant"), [(0.25, 0.39), (0.5, 0.37), (1.0, 0.31), (1.5, 0.23)])
def test_power_laws_follow_the_law_with_a_constant_of_their_own(p, constant):
    """Section 5 of the paper's page: λ·t_min for k = 2 from f = 0, independent of λ over six decades."""
    table = spectrum_minima(*power_law_spectrum(p, points=120), l2=np.geomspace(1e-10, 1e-4, 4), k=2)
    assert_allclose(table["C"], constant, atol=0.007)
    assert_allclose(table["slope"], -1, atol=0.02)
    assert law_window(table["l2"], table["slope"]) == (table["l2"][0], table["l2"][-1])


def test_the_law_ends_at_the_smallest_eigenvalue():
    eigenvalues, weights = power_law_spectrum(0.5, smallest=1e-4, points=100)
    l2 = np.geomspace(1e-8, 1e-1, 12)
    table = spectrum_minima(eigenvalues, weights, l2, 2)
    low, high = law_window(l2, table["slope"])
    assert 1e-5 < low < 1e-3 < high
    below = l2 < 1e-7
    assert (table["slope"][below] > -0.5).all()  # only a logarithm is left
    assert law_window(l2[below], table["slope"][below]) is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"eigenvalues": [-1.0]}, "eigenvalues"),
        ({"eigenvalues": 1.0, "target": 1.0}, "eigenvalues"),
        ({"weights": [-1.0]}, "weights"),
        ({"target": [1.0, 2.0], "eigenvalues": [1.0, 2.0, 3.0]}, "target"),
        ({"l2": -1}, "l2"),
        ({"k": -1}, "k"),
        ({"initial": np.nan}, "initial"),
    ],
)
def test_bad_spectra_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        loss_minimum(**({"eigenvalues": [1.0], "target": [1.0], "l2": 0.1, "k": 2} | change))
    with pytest.raises(ValueError, match="l2 must be increasing"):
        spectrum_minima([1.0], [1.0], [0.2, 0.1], 2)
    with pytest.raises(ValueError, match="needs p > 0"):
        power_law_spectrum(0.5, smallest=2.0)
    for points in (0, 1, -3, 2.5, "many"):
        with pytest.raises(ValueError, match="points must be an integer of at least 2"):
            power_law_spectrum(0.5, points=points)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"slope": [-1, -1]}, "slope"),
        ({"slope": [-1, -1, -1, -1]}, "slope"),
        ({"l2": [0.3, 0.2, 0.1]}, "l2"),
        ({"l2": [-0.3, 0.2, 0.4]}, "l2"),
        ({"l2": 0.1}, "l2"),
        ({"tolerance": np.nan}, "tolerance"),
        ({"tolerance": "x"}, "tolerance"),
    ],
)
def test_law_window_names_what_it_does_not_take(change, name):
    with pytest.raises(ValueError, match=name):
        law_window(**({"l2": [0.1, 0.2, 0.3], "slope": [-1.0, -1.0, np.nan]} | change))


def test_accuracy_maximum_reads_t_as_the_experiments_do(rng):
    """Noisy labels: the accuracy rises, stays, and falls when f is all gone; found on the curve itself."""
    x, x_test = rng.standard_normal((30, 4)), rng.standard_normal((200, 4))
    y, y_test = np.sign(x[:, 0]), np.sign(x_test[:, 0])
    y = np.where(rng.random(30) < 0.2, -y, y)
    t = np.geomspace(1e-2, 1e3, 60)
    kernels = relu_ntk(x, x)[1], relu_ntk(x_test, x)[1]
    found = accuracy_maximum(kernels[0], y, kernels[1], y_test, 0.01, 2, t)
    _, outputs = evolve(kernels[0], y, 0.01, 2, t, kernels[1])
    curve = (np.sign(outputs) == y_test).mean(axis=1)
    assert found.value == curve.max()
    assert found.t == t[np.flatnonzero(curve >= curve.max() - 0.005)[0]]
    one_hot = (np.stack([y == -1, y == 1], axis=1), np.stack([y_test == -1, y_test == 1], axis=1))
    classes = accuracy_maximum(kernels[0], one_hot[0] * 1.0, kernels[1], one_hot[1] * 1.0, 0.01, 2, t)
    assert classes.value == pytest.approx(found.value, abs=0.02)
    good = (kernels[0], y, kernels[1], y_test, 0.01, 2, t)
    bad = [("y_test", 3, y_test[:5]), ("kernel_test", 2, None)]
    bad += [("t", 6, times) for times in ([2.0, 1.0], [1.0, 1.0], 1.0)]
    for name, place, value in bad:
        with pytest.raises(ValueError, match=rf"\b{name} "):
            accuracy_maximum(*good[:place], value, *good[place + 1 :])
    for bad in (np.inf, np.nan, -0.1, 0.5, "0.005"):  # half a point as 0.5 percent
        with pytest.raises(ValueError, match=r"^tolerance must"):
            accuracy_maximum(kernels[0], y, kernels[1], y_test, 0.01, 2, t, tolerance=bad)
