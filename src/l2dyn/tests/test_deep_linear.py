"""Deep linear nets of finite width: against gradient flow and plain gradient descent of the full weight matrices."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from l2dyn.theory import linear_net_flow, mode_evolution, two_layer_flow

pytestmark = pytest.mark.filterwarnings("error")


def drawn(width, layers, rng, inputs=3):
    """N(0, 1) weights and an input of norm 1."""
    sizes = [inputs, *[width] * (layers - 1), 1]
    x = rng.standard_normal(inputs)
    return [rng.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)], x / np.linalg.norm(x)


def descended(weights, x, y, l2, step, steps):
    """f of every step of plain gradient descent, with gradients by the chain rule written for two or three layers."""
    weights, width = [w.copy() for w in weights], len(weights[0])
    factor, found = width ** (-(len(weights) - 1) / 2), []
    for _ in range(steps):
        if len(weights) == 2:
            w, v = weights
            f = factor * (v @ w @ x)[0]
            grads = [factor * np.outer(v[0], x), factor * (w @ x)[None]]
        else:
            w, u, v = weights
            f = factor * (v @ u @ w @ x)[0]
            grads = [factor * np.outer((v @ u)[0], x), factor * np.outer(v[0], w @ x), factor * (u @ w @ x)[None]]
        found.append(f)
        weights = [a - step * ((f - y) * g + l2 * a) for a, g in zip(weights, grads, strict=True)]
    return np.array(found)


@pytest.mark.parametrize("layers", [2, 3])
def test_the_flow_is_the_limit_of_gradient_descent(layers):
    weights, x = drawn(5, layers, np.random.default_rng(0))
    t = np.arange(1, 5) * 1.0
    f, _ = linear_net_flow(weights, x, 1.5, 0.1, t)
    errors = []
    for step in (4e-3, 2e-3):
        index = np.rint(t / step).astype(int)
        errors.append(abs(descended(weights, x, 1.5, 0.1, step, index[-1] + 1)[index] - f).max())
    assert errors[1] < 4e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order in the step


@pytest.mark.parametrize("width", [2, 7, 50])
def test_two_layers_need_two_numbers(width):
    """The reduced equations against the flow of all weights, from the net's own f and kernel."""
    weights, x = drawn(width, 2, np.random.default_rng(width))
    t = np.concatenate([[0.0], np.geomspace(0.1, 60, 12)])
    f, kernel = linear_net_flow(weights, x, 1.0, 0.05, t)
    reduced = two_layer_flow(t, 1.0, 0.05, width, kernel=kernel[0], initial=f[0])
    assert_allclose(reduced, [f, kernel], atol=1e-7)


def test_the_kernel_is_the_squared_gradient():
    weights, x = drawn(4, 3, np.random.default_rng(3))
    _, kernel = linear_net_flow(weights, x, 1.0, 0.1, [0.0])
    step, square = 1e-6, 0.0
    for i, w in enumerate(weights):
        for index in np.ndindex(w.shape):
            moved = [m.copy() for m in weights]
            values = []
            for sign in (1, -1):
                moved[i][index] = w[index] + sign * step
                values.append((moved[2] @ moved[1] @ moved[0] @ x)[0] / 4)
            square += ((values[0] - values[1]) / (2 * step)) ** 2
    assert_allclose(kernel, square, rtol=1e-6)


def test_infinite_width_is_equation_3():
    t = np.concatenate([[0.0], np.geomspace(0.01, 400, 30)])
    f, kernel = two_layer_flow(t, 1.3, 0.02, np.inf, kernel=2.0, initial=0.4)
    assert_allclose(f, mode_evolution(t, 2.0, 0.02, 2, 1.3, 0.4), atol=1e-8)
    assert_allclose(kernel, 2.0 * np.exp(-2 * 0.02 * t), rtol=1e-7)


def test_width_departs_from_theory_late_and_as_its_inverse():
    t = np.array([1.0, 10.0, 50.0])
    theory = mode_evolution(t, 2.0, 0.02, 2, 1.0)
    gaps = np.array([two_layer_flow(t, 1.0, 0.02, n)[0] - theory for n in (1e5, 2e5)])
    assert gaps[0, -1] > 10 * gaps[0, :2].max()
    assert_allclose(gaps[0] / gaps[1], 2, rtol=0.01)


@pytest.mark.parametrize(("y", "l2", "width"), [(1.0, 0.02, 100), (2.0, 0.3, 9), (1.0, 0.11, 100), (0.5, 0.2, 64)])
def test_two_layers_end_at_the_larger_of_zero_and_y_minus_l2_root_width(y, l2, width):
    f, _ = two_layer_flow([0.0, 400 / l2], y, l2, width)
    assert_allclose(f[-1], max(0.0, y - l2 * np.sqrt(width)), atol=1e-7)
    assert (f[-1] > 1e-3) == (width < (y / l2) ** 2)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: two_layer_flow([1.0, 1.0], 1, 0.1, 4), "t must"),
        (lambda: two_layer_flow([0.0], 1, -0.1, 4), "l2"),
        (lambda: two_layer_flow([0.0], 1, 0.1, 0), "width"),
        (lambda: two_layer_flow([0.0], 1, 0.1, 4, kernel=1.0, initial=2.0), "kernel must be at least"),
        (lambda: linear_net_flow([[[1.0, 1.0]], [[1.0]]], [1.0], 1, 0.1, [0.0]), "weights"),
        (lambda: linear_net_flow([[[1.0], [1.0]]], [1.0], 1, 0.1, [0.0]), "weights"),
        (lambda: linear_net_flow([[[1.0]], [[1.0]]], 1.0, 1, 0.1, [0.0]), "x must"),
        (lambda: linear_net_flow([[[1.0]], [[1.0]]], [1.0], [1.0, 2.0], 0.1, [0.0]), "y must"),
        (lambda: linear_net_flow(1.0, [1.0], 1.0, 0.1, [0.0]), "weights must"),
        (lambda: two_layer_flow([0.0, 1.0], [1.0, 2.0], 0.1, 10), "y must"),
        (lambda: two_layer_flow([0.0, 1.0], 1.0, 0.1, 10, initial=[0.0, 1.0]), "initial must"),
        (lambda: two_layer_flow([0.0, 1.0], 1.0, 0.1, "wide"), "width must"),
        (lambda: two_layer_flow([0.0, 1.0], 1.0, 0.1, np.nan), "width must"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
