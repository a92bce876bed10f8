"""Functions on and off the training set, of any loss: against solvers, linear algebra and many digits."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

from l2dyn.theory import evolve, integrate, mode_evolution, relu_ntk

pytestmark = pytest.mark.filterwarnings("error")
K = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]


@pytest.fixture
def problem(rng):
    """Kernels of 6 training and 4 test points, two outputs, and a function at the start."""
    x, x_test = rng.standard_normal((6, 5)), rng.standard_normal((4, 5))
    kernel, kernel_test = relu_ntk(x, x)[1], relu_ntk(x_test, x)[1]
    y, start, start_test = (rng.standard_normal((n, 2)) for n in (6, 6, 4))
    return kernel, kernel_test, y, start, start_test


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def explicit(kernel, kernel_test, y, start, start_test, l2, k, t, gradient, scale):
    """Equation (1) on all points at once, by an explicit integrator of high order."""
    both = np.vstack([kernel, kernel_test])
    shape = (len(both), y.shape[1])

    def slope(time, state):
        f = state.reshape(shape)
        pull = both @ gradient(f[: len(y)], y)
        return (-scale * np.exp(-2 * (k - 1) * l2 * time) * pull - k * l2 * f).ravel()

    begin = np.vstack([start, start_test]).ravel()
    solved = solve_ivp(slope, (0, t[-1]), begin, method="DOP853", t_eval=t, rtol=1e-11, atol=1e-13)
    return solved.y.T.reshape(len(t), *shape)


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_evolve_follows_equation_1(problem, k, reduction):
    kernel, kernel_test, y, start, start_test = problem
    t = np.array([0.0, 0.3, 2.0, 11.0])
    scale = 1 / len(y) if reduction == "mean" else 1.0
    expected = explicit(*problem, 0.1, k, t, lambda f, y: f - y, scale)
    train, test = evolve(kernel, y, 0.1, k, t, kernel_test, start, start_test, reduction)
    assert_allclose(np.concatenate([train, test], axis=1), expected, atol=1e-9)


@pytest.mark.parametrize("loss", ["half_mse", "cross_entropy", "callable"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_integrate_follows_equation_1_for_any_loss(problem, loss, reduction):
    kernel, kernel_test, y, start, start_test = problem
    if loss == "cross_entropy":
        y = np.eye(2)[[0, 1, 1, 0, 1, 0]]

    def softmax_gradient(f, y):
        return np.exp(f) / np.exp(f).sum(axis=1, keepdims=True) - y

    gradient = {
        "half_mse": lambda f, y: f - y,
        "cross_entropy": softmax_gradient,
        "callable": lambda f, y: np.tanh(f - y),
    }[loss]
    t = np.array([0.0, 0.3, 2.0, 11.0])
    scale = 1 / len(y) if reduction == "mean" else 1.0
    expected = explicit(kernel, kernel_test, y, start, start_test, 0.1, 2.0, t, gradient, scale)
    given = gradient if loss == "callable" else loss
    train, test = integrate(kernel, y, given, 0.1, 2.0, t, kernel_test, start, start_test, reduction)
    assert_allclose(np.concatenate([train, test], axis=1), expected, atol=2e-6)


@pytest.mark.parametrize("k", [0.0, 1.0, 2.0])
def test_integrate_agrees_with_evolve_on_a_stiff_kernel(rng, k):
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    kernel = (basis * np.geomspace(1e-6, 1e3, 8)) @ basis.T
    kernel, y, t = (kernel + kernel.T) / 2, rng.standard_normal(8), np.geomspace(1e-3, 1e2 if k < 1 else 1e3, 7)
    assert_allclose(
        integrate(kernel, y, "half_mse", 1e-2, k, t), evolve(kernel, y, 1e-2, k, t), atol=1e-5 * abs(y).max()
    )


def by_formula(eigenvalue, l2, k, t):
    """(f(t), (f(t) - e^{-kλt} f(0))/γ) of one mode as factors of (f(0), y), by mpmath; k = 1, or k > 1 and λ > 0."""
    with mp.workdps(60):
        t, eigenvalue, l2, k = map(mp.mpf, (t, eigenvalue, l2, k))
        if k == 1:
            initial = mp.exp(-(eigenvalue + l2) * t)
            target = eigenvalue / (eigenvalue + l2) * (1 - initial) if eigenvalue else mp.mpf(0)
        else:
            rate, b = 2 * (k - 1) * l2, k / (2 * (k - 1))
            start, now = eigenvalue / rate, eigenvalue * mp.exp(-rate * t) / rate
            initial = mp.exp(-k * l2 * t + now - start)
            target = now**b * mp.exp(now) * (mp.gammainc(1 - b, now) - mp.gammainc(1 - b, start))
        faded = mp.exp(-k * l2 * t)
        return [float(v) for v in (initial, target, (initial - faded) / eigenvalue, target / eigenvalue)]


@settings(max_examples=25)
@given(
    ratios=st.lists(st.floats(-8, 8), min_size=1, max_size=4),
    l2=st.floats(-6, 2),
    decays=st.floats(-10, 1.69),
    k=st.sampled_from([1.0, 1.5, 2.0, 3.0]) | st.floats(1.1, 6),
    reduction=st.sampled_from(["sum", "mean"]),
    seed=st.integers(0, 1000),
)
def test_evolve_over_the_whole_range(ratios, l2, decays, k, reduction, seed):
    """Every mode of a turned kernel with γ/λ from 1e-8 to 1e8, on training points and off them, by mpmath."""
    l2, count = 10.0**l2, len(ratios)
    eigenvalues, t = l2 * 10.0 ** np.array(ratios), 10.0**decays / l2
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((count, count)))[0]
    factor = count if reduction == "mean" else 1
    kernel = (basis * eigenvalues) @ basis.T
    kernel = (kernel + kernel.T) / 2 * factor
    kernel_test = rng.standard_normal((3, count)) * np.sqrt(eigenvalues) @ basis.T * factor
    y, start, start_test = rng.standard_normal(count), rng.standard_normal(count), rng.standard_normal(3)
    train, test = evolve(kernel, y, l2, k, t, kernel_test, start, start_test, reduction)
    factors = np.array([by_formula(g, l2, k, t) for g in eigenvalues]).T
    y_, start_ = basis.T @ y, basis.T @ start
    # the stored kernel is rounded, so its small eigenvalues are off by a rounding of the largest
    off = 1e-9 + 1e-14 * eigenvalues.max() * t
    assert_allclose(train, basis @ (factors[0] * start_ + factors[1] * y_), atol=off * (abs(y) + abs(start)).sum())
    quotients = factors[2] * start_ + factors[3] * y_
    moved = kernel_test / factor @ basis * quotients
    size = abs(moved).sum() + abs(start_test).sum()
    assert_allclose(test, np.exp(-k * l2 * t) * start_test + moved.sum(axis=1), atol=off * size)


@settings(max_examples=25)
@given(
    count=st.integers(1, 6),
    outputs=st.integers(1, 3),
    l2=st.just(0.0) | st.floats(-6, 1).map(lambda e: 10.0**e),
    k=st.floats(0, 5),
    t=st.floats(0, 20),
    seed=st.integers(0, 1000),
)
def test_evolve_is_linear_in_labels_and_start_and_the_same_in_any_order(count, outputs, l2, k, t, seed):
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((count, count + 1))
    kernel, kernel_test = half @ half.T, rng.standard_normal((2, count))
    first, second = (
        {"y": rng.standard_normal((count, outputs)), "initial": rng.standard_normal((count, outputs))} for _ in range(2)
    )

    def at(y, initial, order=slice(None)):
        train, test = evolve(kernel[order][:, order], y[order], l2, k, t, kernel_test[:, order], initial[order])
        return np.concatenate([train, test])

    sums = {name: 2 * first[name] - 3 * second[name] for name in first}
    size = max(abs(at(**first)).max(), abs(at(**second)).max(), 1)
    assert np.isfinite(size)
    assert_allclose(at(**sums), 2 * at(**first) - 3 * at(**second), atol=1e-9 * size)
    order = rng.permutation(count)
    turned = at(**first, order=order)
    assert_allclose(turned[:count], at(**first)[:count][order], atol=1e-8 * size)
    assert_allclose(turned[count:], at(**first)[count:], atol=1e-7 * size)
    alone = evolve(kernel, first["y"][:, 0], l2, k, t, initial=first["initial"][:, 0])
    assert_allclose(alone, at(**first)[:count, 0], atol=1e-9 * size)


@settings(max_examples=10)
@given(
    loss=st.sampled_from(["half_mse", "cross_entropy"]),
    method=st.sampled_from(["Radau", "BDF", "RK45", "DOP853"]),
    l2=st.just(0.0) | st.floats(-4, 0).map(lambda e: 10.0**e),
    k=st.floats(0.5, 4),
    seed=st.integers(0, 100),
)
def test_integrate_satisfies_equation_1_at_any_time(loss, method, l2, k, seed):
    """The slope between neighbouring times against the right-hand side, written out."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((5, 6))
    kernel, y = half @ half.T / 6, np.eye(3)[rng.integers(3, size=5)]
    t = np.array([0.0, 0.7, 1.9999, 2.0, 2.0001, 5.0])
    f = integrate(kernel, y, loss, l2, k, t, initial=rng.standard_normal((5, 3)), rtol=1e-9, method=method)
    pull = f[3] - y if loss == "half_mse" else np.exp(f[3]) / np.exp(f[3]).sum(axis=1, keepdims=True) - y
    slope = -np.exp(-2 * (k - 1) * l2 * 2.0) * kernel @ pull - k * l2 * f[3]
    assert_allclose((f[4] - f[2]) / 2e-4, slope, atol=1e-4 * max(1, abs(slope).max()))


def test_the_linear_model_ends_at_ridge_regression(problem):
    kernel, kernel_test, y, start, start_test = problem
    for reduction, penalty in (("sum", 0.3), ("mean", 0.3 * len(y))):
        _, test = evolve(kernel, y, 0.3, 1, 1e3, kernel_test, start, start_test, reduction)
        assert_allclose(test, kernel_test @ np.linalg.solve(kernel + penalty * np.eye(6), y), atol=1e-12)


def test_without_l2_a_singular_kernel_interpolates_what_it_sees(problem):
    """Two equal points with different labels: both get the mean, and nothing is divided by 0."""
    kernel, kernel_test, y, *_ = problem
    twice = np.ix_([0, 0, 1, 2], [0, 0, 1, 2])
    train, test = evolve(kernel[twice], y[:4], 0.0, 2, 1e6, kernel_test[:, [0, 0, 1, 2]])
    assert_allclose(train[:2], np.tile((y[0] + y[1]) / 2, (2, 1)), atol=1e-9)
    once = evolve(kernel[:3, :3], np.array([(y[0] + y[1]) / 2, y[2], y[3]]), 0.0, 2, 1e6, kernel_test[:, :3])[1]
    assert_allclose(test, once, atol=1e-6)


@pytest.mark.parametrize("k", K)
def test_evolve_starts_at_the_initial_function_and_takes_any_shape_of_times(problem, k):
    kernel, kernel_test, y, start, start_test = problem
    train, test = evolve(kernel, y, 0.2, k, 0.0, kernel_test, start, start_test)
    assert_allclose(train, start, atol=1e-13)
    assert_allclose(test, start_test, atol=1e-13)
    t = np.array([[0.1, 1.0, 3.0], [7.0, 0.0, 2.0]])
    whole = evolve(kernel, y[:, 0], 0.2, k, t, initial=start[:, 0])
    assert whole.shape == (2, 3, 6)
    for index in np.ndindex(2, 3):
        alone = evolve(kernel, y[:, 0], 0.2, k, t[index], initial=start[:, 0])
        assert_allclose(whole[index], alone, atol=1e-14)


def test_on_the_training_set_evolve_is_mode_evolution(problem):
    kernel, _, y, start, _ = problem
    eigenvalues, modes = np.linalg.eigh(kernel)
    components = mode_evolution(3.0, eigenvalues, 0.1, 2.5, modes.T @ y[:, 0], modes.T @ start[:, 0])
    assert_allclose(evolve(kernel, y[:, 0], 0.1, 2.5, 3.0, initial=start[:, 0]), modes @ components, atol=1e-13)


BAD = {
    "kernel_train": (
        np.diag([1.0, -1.0, 1, 1, 1, 1]),
        np.ones((6, 5)),
        np.triu(np.ones((6, 6))),
        np.full((6, 6), np.nan),
    ),
    "y": (np.ones((6, 2, 1)), np.zeros(0), np.array([np.inf] * 6)),
    "l2": (-0.1, [0.1, 0.2]),
    "k": (-1.0, np.nan),
    "t": (-1.0, np.nan),
    "kernel_test": (np.ones((4, 5)), np.ones(6)),
    "initial": (np.ones(5),),
    "initial_test": (np.ones((3, 3)),),
    "reduction": ("median", None),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_bad_arguments_are_named(problem, name, value):
    kernel, kernel_test, y, start, start_test = problem
    good = {"kernel_train": kernel, "y": y, "l2": 0.1, "k": 2, "t": 1.0, "kernel_test": kernel_test}
    good |= {"initial": start, "initial_test": start_test, "reduction": "sum"}
    with pytest.raises(ValueError, match=name):
        evolve(**{**good, name: value})


def test_integrate_names_what_it_does_not_take(problem):
    kernel, _, y, *_ = problem
    good = {"kernel_train": kernel, "y": y, "loss": "half_mse", "l2": 0.1, "k": 2, "t": [0.0, 1.0]}
    bad = [("method", "Euler"), ("loss", "hinge"), ("kernel_train", -kernel)]
    bad += [("rtol", rtol) for rtol in (0, -1e-6, np.nan, "x", None)]
    bad += [("t", t) for t in (1.0, [1.0, 1.0], [2.0, 1.0])]
    bad += [(name, np.eye(2)) for name in ("loss", "method", "reduction")]
    gradients = (lambda f, y: 1.0, lambda f, y: f[0], lambda f, y: f * np.nan, lambda f, y: None, lambda f: f)
    bad += [("loss", gradient) for gradient in gradients]
    for name, value in bad:
        with pytest.raises(ValueError, match=f"{name} must"):
            integrate(**good | {name: value})
    for labels in (y, y[:, 0], np.tile([0.5, 0.4], (6, 1)), np.ones(6), np.tile([2.0, -1.0], (6, 1))):
        with pytest.raises(ValueError, match="y must hold probabilities"):
            integrate(**good | {"y": labels, "loss": "cross_entropy"})
    with pytest.raises(ValueError, match="k = 0 has grown"):
        integrate(kernel, y, "half_mse", 1.0, 0, [0.0, 400.0])
    with pytest.raises(ValueError, match="initial_test goes with kernel_test"):
        evolve(kernel, y, 0.1, 2, 1.0, initial_test=1.0)
