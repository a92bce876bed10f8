"""ReLU kernels against random finite nets and angular integrals; the mean loss against the vector ODE."""

import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad, solve_ivp

from l2dyn.theory import mean_loss, mode_residual, relu_ntk

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- kernels ----------------------------------------------------------------------------------------


def finite_net(x, hidden_layers, weight_std, width, rng):
    """Conditional NNGP (given all but the last layer) and NTK of one random net, from explicit gradients."""
    fans = [x.shape[1]] + [width] * hidden_layers
    weights = [rng.standard_normal((fan_out, fan_in)) for fan_in, fan_out in zip(fans, [*fans[1:], 1], strict=True)]
    scales = [weight_std / np.sqrt(fan) for fan in fans]
    jacobian = []
    for sample in x:
        activations, slopes = [sample], []
        for weight, scale in zip(weights[:-1], scales, strict=False):
            preactivation = scale * weight @ activations[-1]
            activations.append(np.maximum(preactivation, 0))
            slopes.append((preactivation > 0).astype(float))
        back, gradients = np.ones(1), []
        for layer in reversed(range(len(weights))):
            gradients.append(scales[layer] * np.outer(back, activations[layer]).ravel())
            if layer:
                back = scales[layer] * (back @ weights[layer]) * slopes[layer - 1]
        jacobian.append(np.concatenate(gradients))
    last = np.array([gradient[:width] for gradient in jacobian])
    jacobian = np.array(jacobian)
    return last @ last.T, jacobian @ jacobian.T


@pytest.mark.parametrize(
    ("hidden_layers", "weight_std", "width", "nets"),
    [(1, 1.0, 4000, 12), (1, 1.4, 4000, 12), (2, 1.2, 500, 30)],
)
def test_random_nets(hidden_layers, weight_std, width, nets, rng):
    x = rng.standard_normal((4, 3)) * np.array([[1.0], [0.5], [2.0], [1.0]])
    samples = [finite_net(x, hidden_layers, weight_std, width, rng) for _ in range(nets)]
    for kernel, drawn in zip(relu_ntk(x, x, hidden_layers, weight_std), zip(*samples, strict=True), strict=True):
        drawn = np.array(drawn)
        error = drawn.std(axis=0, ddof=1) / np.sqrt(nets)
        typical = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert (error < 0.03 * typical).all()
        assert (abs(drawn.mean(axis=0) - kernel) < 4.5 * error + 0.01 * typical).all()


def expectations(covariance):
    """E[relu(u) relu(v)] and E[relu'(u) relu'(v)] of a Gaussian pair, by integrating over its direction."""
    (a, b), (_, c) = covariance
    factor = np.linalg.cholesky([[a, b], [b, c]])

    def relu_pair(phi):
        u, v = factor @ (np.cos(phi), np.sin(phi))
        return max(u, 0) * max(v, 0), float(u > 0 and v > 0)

    # The radius is independent of the direction and its square has mean 2.
    angle = np.arctan2(factor[1, 0], factor[1, 1])
    kinks = sorted((phi + np.pi) % (2 * np.pi) - np.pi for phi in (np.pi / 2, -np.pi / 2, -angle, np.pi - angle))
    both = [quad(lambda phi, i=i: relu_pair(phi)[i], -np.pi, np.pi, points=kinks, epsabs=1e-12)[0] for i in range(2)]
    return 2 * both[0] / (2 * np.pi), both[1] / (2 * np.pi)


@pytest.mark.parametrize(("hidden_layers", "weight_std"), [(1, 1.0), (2, 1.0), (3, 1.5), (5, 0.7)])
def test_direct_recursion(hidden_layers, weight_std, rng):
    x = rng.standard_normal((2, 7)) * [[1.0], [3.0]]
    variance = weight_std**2
    nngp = variance * x @ x.T / 7
    ntk = nngp
    for _ in range(hidden_layers):
        cross, slope = expectations(nngp)
        ntk = variance * np.diag([0.5, 0.5]) * ntk + variance * slope * (ntk - np.diag(np.diag(ntk)))
        nngp = variance * (np.diag(np.diag(nngp)) / 2 + cross * (1 - np.eye(2)))
        ntk = ntk + nngp
    computed = relu_ntk(x, x, hidden_layers, weight_std)
    assert_allclose(computed[0], nngp, rtol=1e-8)
    assert_allclose(computed[1], ntk, rtol=1e-8)


def test_exact_values():
    x = np.array([[3.0, 4.0], [0.0, 2.0], [-6.0, -8.0], [0.0, 0.0]])
    nngp, ntk = relu_ntk(x, x)
    square = (x**2).sum(axis=1) / 2
    assert_allclose(np.diag(nngp), square / 2, rtol=1e-15)
    assert_allclose(np.diag(ntk), square, rtol=1e-15)
    assert_allclose([nngp[0, 2], ntk[0, 2]], 0, atol=1e-14)
    assert_array_equal(np.array([nngp[3], ntk[3]]), 0)
    # Deeper: each layer halves the NNGP, and the NTK is its sum over the trained layers.
    nngp, ntk = relu_ntk(x, x, hidden_layers=3, weight_std=2.0)
    assert_allclose(np.diag(nngp), square * 4**4 / 8, rtol=1e-15)
    assert_allclose(np.diag(ntk), 4 * square * 4**4 / 8, rtol=1e-15)
    # Orthogonal inputs, one layer: (1/2π) |x||x'|/d for both kernels, as the slope term multiplies x·x' = 0.
    nngp, ntk = relu_ntk([[2.0, 0.0]], [[0.0, 3.0]])
    assert_allclose([nngp.item(), ntk.item()], 3 / (2 * np.pi), rtol=1e-14)


@pytest.mark.parametrize("hidden_layers", [1, 2, 4])
def test_symmetric_positive_and_homogeneous(hidden_layers, rng):
    x, other = rng.standard_normal((30, 4)), rng.standard_normal((11, 4))
    a, b = rng.uniform(0.01, 50, 30), rng.uniform(0.01, 50, 11)
    together = relu_ntk(x, x, hidden_layers)
    crossed = relu_ntk(x, other, hidden_layers)
    scaled = relu_ntk(a[:, None] * x, b[:, None] * other, hidden_layers)
    swapped = relu_ntk(other, x, hidden_layers)
    for square, cross, stretched, transposed in zip(together, crossed, scaled, swapped, strict=True):
        assert_allclose(square, square.T, rtol=1e-14)
        assert np.linalg.eigvalsh(square).min() > -1e-13 * np.trace(square)
        assert cross.shape == (30, 11)
        assert cross.dtype == np.float64
        assert_allclose(stretched, a[:, None] * b * cross, rtol=1e-12)
        assert_allclose(transposed, cross.T, rtol=1e-13)


def exact_kernels(x1, x2, hidden_layers):
    """Arc-cosine recursion in 60 digits."""
    with mp.workdps(60):
        u, v = mp.matrix([mp.mpf(float(a)) for a in x1]), mp.matrix([mp.mpf(float(a)) for a in x2])
        scale = mp.norm(u) * mp.norm(v) / len(x1)
        cosine = mp.fdot(u, v) / len(x1) / scale
        ntk = scale * cosine
        for _ in range(hidden_layers):
            angle = mp.acos(cosine)
            next_cosine = (mp.sin(angle) + (mp.pi - angle) * cosine) / mp.pi
            ntk = scale / 2 * next_cosine + (mp.pi - angle) / (2 * mp.pi) * ntk
            scale, cosine = scale / 2, next_cosine
        return scale * cosine, ntk


@pytest.mark.parametrize("hidden_layers", [1, 2, 5])
@pytest.mark.parametrize("distance", [1e-1, 1e-4, 1e-7, 1e-10, 1e-13])
def test_near_identical_inputs(hidden_layers, distance, rng):
    x = rng.standard_normal((1, 20))
    near = x + distance * rng.standard_normal((1, 20))
    diagonal, exact_diagonal = (
        relu_ntk(x, x, hidden_layers)[1].item(),
        exact_kernels(x[0], x[0], hidden_layers)[1],
    )
    for sign in (1, -1):
        for kernel, exact in zip(
            relu_ntk(x, sign * near, hidden_layers),
            exact_kernels(x[0], sign * near[0], hidden_layers),
            strict=True,
        ):
            assert abs(kernel.item() - float(exact)) < 1e-15 * diagonal * 2
    assert_allclose(diagonal, float(exact_diagonal), rtol=1e-15)


def test_many_scales_of_inputs():
    x = np.array([[1e-120, 2e-120], [1e130, -1e130]])
    assert_allclose(relu_ntk(x, x)[0].diagonal(), [1.25e-240, 5e259], rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x1", {"x1": np.ones(3)}), ("x2", {"x2": np.ones((1, 2, 3))}),
        ("x1", {"x1": [[1.0, np.nan, 0.0]]}),
        ("x2", {"x2": [[1.0, np.inf, 0.0]]}), ("x1 and x2", {"x2": np.ones((2, 4))}),
        ("x1", {"x1": np.ones((2, 0))}),
        ("hidden_layers", {"hidden_layers": 0}), ("hidden_layers", {"hidden_layers": 1.5}),
        ("hidden_layers", {"hidden_layers": None}), ("weight_std", {"weight_std": 0.0}),
        ("weight_std", {"weight_std": -1.0}), ("weight_std", {"weight_std": [1.0, 1.0]}),
    ],
)  # fmt: skip
def test_bad_inputs_are_refused_by_name(name, change):
    with pytest.raises(ValueError, match=name) as refused:
        relu_ntk(**({"x1": np.ones((2, 3)), "x2": np.ones((2, 3))} | change))
    assert "\n" not in str(refused.value)


def test_no_norm_is_too_large_or_too_small():
    """Homogeneous in each input: by hand for one hidden layer, equal directions, NNGP = NTK/2 = |x||x'|/(2d)."""
    for size1, size2 in ((1e200, 1e-200), (1e200, 1.0), (1e-100, 1e-170), (1e-300, 1.0)):
        nngp, ntk = relu_ntk([[3 * size1, 4 * size1]], [[3 * size2, 4 * size2]])
        assert_allclose([nngp[0, 0], ntk[0, 0] / 2], 25 * size1 * size2 / 4, rtol=1e-12)


# --- mean loss --------------------------------------------------------------------------------------


def integrated_loss(times, kernel, labels, l2, k, columns):
    """Mean of ½ E (f - y)² by the vector ODE, from f0 = 0 and the columns of a root of the covariance."""
    count = len(labels)

    def flow(initial):
        def derivative(t, f):
            return -np.exp(-2 * (k - 1) * l2 * t) * kernel @ (f - labels) / count - k * l2 * f

        return solve_ivp(derivative, (0, times[-1]), initial, method="LSODA", t_eval=times, rtol=1e-10, atol=1e-12).y

    base = flow(np.zeros(count))
    second_moment = (base - labels[:, None]) ** 2
    for column in columns:
        second_moment += (flow(column) - base) ** 2  # f is affine in f0, which has mean 0
    return second_moment.sum(axis=0) / (2 * count)


@pytest.mark.parametrize("k", [0.5, 1, 2, 3])
@pytest.mark.parametrize("random_start", [False, True])
def test_mean_loss_follows_the_vector_ode(k, random_start, rng):
    x, labels, l2 = rng.standard_normal((5, 8)), rng.choice([-1.0, 1.0], 5), 0.05
    nngp, ntk = relu_ntk(x, x)
    times = np.array([0.0, 0.3, 2.0, 10.0, 40.0])
    columns = np.linalg.cholesky(nngp).T if random_start else []
    expected = integrated_loss(times, ntk, labels, l2, k, columns)
    loss = mean_loss(times, ntk, labels, l2, k, nngp if random_start else None)
    assert loss.shape == (5,)
    assert_allclose(loss, expected, rtol=1e-6)
    assert_allclose(loss[0], 0.5 + (np.trace(nngp) / 10 if random_start else 0), rtol=1e-13)


def test_mean_over_drawn_initial_functions(rng):
    x, labels = rng.standard_normal((4, 3)), np.array([1.0, -1.0, 1.0, 2.0])
    nngp, ntk = relu_ntk(x, x)
    eigenvalues, modes = np.linalg.eigh(ntk)
    starts = rng.multivariate_normal(np.zeros(4), nngp, size=20_000, method="eigh")
    residuals = mode_residual(3.0, eigenvalues / 4, 0.1, 2, modes.T @ labels, starts @ modes)
    drawn = (residuals**2).sum(axis=1) / 8
    expected = mean_loss(3.0, ntk, labels, 0.1, 2, nngp)
    assert abs(drawn.mean() - expected) < 5 * drawn.std() / np.sqrt(len(drawn))


def test_loss_minimum_and_return_to_the_start(rng):
    x = rng.standard_normal((40, 10))
    labels, l2 = np.sign(x[:, 0] * x[:, 1]), 0.002
    times = np.geomspace(1e-2, 1e5, 400)
    kernel = relu_ntk(x, x)[1]
    loss, linear = mean_loss(times, kernel, labels, l2, 2), mean_loss(times, kernel, labels, l2, 1)
    assert 0.05 < l2 * times[loss.argmin()] < 1
    assert_allclose(loss[-1], 0.5, rtol=1e-12)
    assert (np.diff(linear) <= 1e-15).all()
    assert linear[-1] < loss.min()
    ridge = np.linalg.solve(kernel / 40 + l2 * np.eye(40), labels) * l2  # y - f of kernel ridge regression
    assert_allclose(linear[-1], (ridge**2).mean() / 2, rtol=1e-9)


def test_singular_kernels_are_clipped():
    labels = np.array([1.0, -1.0, 0.5])
    loss = mean_loss([0.0, 5.0, 1e4], np.ones((3, 3)), labels, 0.0, 2)
    # Without L2 only the mean of the labels can be learned.
    assert_allclose(loss[-1], ((labels - labels.mean()) ** 2).mean() / 2, rtol=1e-12)
    slightly = np.ones((3, 3)) - 1e-11 * np.eye(3)
    assert_allclose(
        mean_loss(1.0, slightly, labels, 0.1, 2), mean_loss(1.0, np.ones((3, 3)), labels, 0.1, 2), rtol=1e-9
    )
    assert_array_equal(mean_loss([1.0, 9.0], np.zeros((3, 3)), labels, 0.1, 2), np.full(2, (labels**2).mean() / 2))


VALID = {"t": [0.0, 1.0], "kernel": np.eye(3), "labels": np.ones(3), "l2": 0.1, "k": 2, "initial_covariance": np.eye(3)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t", -1.0), ("t", [0.0, np.nan]), ("l2", -0.1), ("l2", [0.1, 0.2]),
        ("k", -1), ("k", np.inf), ("k", [1, 2]),
        ("labels", np.ones((3, 1))), ("labels", [1.0, np.nan, 1.0]), ("labels", []),
        ("kernel", np.eye(4)), ("kernel", np.ones(3)), ("kernel", np.full((3, 3), np.nan)),
        ("kernel", np.triu(np.ones((3, 3)))), ("kernel", np.diag([1.0, 1.0, -1e-9])), ("kernel", -np.eye(3)),
        ("initial_covariance", np.eye(2)), ("initial_covariance", np.triu(np.ones((3, 3)))),
        ("initial_covariance", np.diag([1.0, 1.0, -1.0])), ("initial_covariance", [[np.inf] * 3] * 3),
    ],
)  # fmt: skip
def test_bad_problems_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        mean_loss(**(VALID | {name: value}))
