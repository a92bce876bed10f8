"""Where f = 0 is stable: against every direction in two dimensions, and against nets that are trained."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l2dyn.theory import survival_width

COORDINATES = st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def best_in_two_dimensions(x, y):
    """max |mean(y relu(w·x))| over unit vectors: where a relu switches, or along the gradient of a sector between."""
    switches = [np.arctan2(x[:, 1], x[:, 0]) + turn for turn in (-np.pi / 2, np.pi / 2)]
    kinks = np.sort(np.mod(np.concatenate(switches), 2 * np.pi))
    middles = kinks + np.diff(kinks, append=kinks[0] + 2 * np.pi) / 2
    along = [((x @ [np.cos(a), np.sin(a)] > 0) * y) @ x for a in middles]
    along += [-g for g in along] + [(np.cos(a), np.sin(a)) for a in kinks]
    units = [np.divide(w, np.linalg.norm(w)) for w in along if np.linalg.norm(w) > 0]
    return max(abs(np.maximum(x @ w, 0) @ y) / len(y) for w in units)


@settings(max_examples=12)
@example([(1.0, 1.0, -1.0), (1.0, 0.25, -1.0), (1.0, -3.0, -1.0), (0.5, -1.75, 2.0)])  # two basins, nearly as high
@given(st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES), min_size=1, max_size=6))
def test_in_two_dimensions_no_direction_is_better(samples):
    samples = np.array(samples)
    x, y, l2, weight_std = samples[:, :2], samples[:, 2], 0.2, 1.3
    expected = (weight_std**2 * best_in_two_dimensions(x, y) / np.sqrt(2) / l2) ** 2
    assert survival_width(x, y, l2, weight_std) == pytest.approx(expected, rel=1e-5)


def test_one_sample_is_the_linear_net():
    """|x|² = d, y: n = (y/λ)², whatever d."""
    for d in (1, 50):
        x = np.random.default_rng(d).standard_normal((1, d))
        x *= np.sqrt(d) / np.linalg.norm(x)
        assert survival_width(x, [-0.7], 0.02) == pytest.approx((0.7 / 0.02) ** 2, rel=1e-9)


def test_it_scales_as_the_labels_and_as_1_over_l2(rng):
    x, y = rng.standard_normal((12, 5)), rng.standard_normal(12)
    width = survival_width(x, y, 0.1)
    assert survival_width(x, 3 * y, 0.1) == pytest.approx(9 * width)
    assert survival_width(x, -y, 0.1) == pytest.approx(width)
    assert survival_width(x, y, 0.05) == pytest.approx(4 * width)
    assert survival_width(np.vstack([x, x]), np.tile(y, 2), 0.1) == pytest.approx(width)  # the mean, not the sum
    assert survival_width(np.hstack([x, np.zeros((12, 15))]), y, 0.1) == pytest.approx(width / 4)  # d is 20, not 5


def late_function(x, y, l2, width, start, t, lr=0.1):
    """Root mean square of f over the samples after gradient descent on a net, from parameters of size `start`."""
    generator = np.random.default_rng(0)
    w, v = (generator.standard_normal(shape) * start for shape in ((width, x.shape[1]), width))
    factor = 1 / np.sqrt(w.size)
    for _ in range(round(t / lr)):
        hidden = np.maximum(x @ w.T, 0)
        residual = (factor * hidden @ v - y) / len(x)
        towards_w = factor * (residual[:, None] * (hidden > 0) * v).T @ x
        w, v = w - lr * (towards_w + l2 * w), v - lr * (factor * hidden.T @ residual + l2 * v)
    return np.sqrt(((factor * np.maximum(x @ w.T, 0) @ v) ** 2).mean())


@pytest.mark.parametrize("start", [0.05, 1.0])
def test_narrower_nets_live_and_wider_ones_die(rng, start):
    """Every weight trained, from a small and from the usual start."""
    x, y, l2 = rng.standard_normal((6, 3)), rng.standard_normal(6), 0.1
    width = survival_width(x, y, l2)
    assert 20 < width < 200
    below, above = (late_function(x, y, l2, round(f * width), start, 600.0) for f in (0.7, 1.4))
    assert below > 0.01
    assert above < 1e-5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"x": [1.0]}, "x must"),
        ({"x": np.ones((0, 2)), "y": []}, "x must"),
        ({"x": [[np.nan]]}, "x"),
        ({"y": [1.0, 2.0]}, "y must"),
        ({"y": [np.inf]}, "y"),
        ({"l2": 0.0}, "l2"),
        ({"l2": -1.0}, "l2"),
        ({"weight_std": 0.0}, "weight_std"),
    ],
)
def test_bad_arguments_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        survival_width(**({"x": [[1.0]], "y": [1.0], "l2": 0.1} | change))
