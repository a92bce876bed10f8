"""k = 0: training with L2 is training without it at a growing rate, on nets of scale-invariant parameters."""

import mpmath
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn import functional

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.theory import equivalent_learning_rate


class Invariant(nn.Module):
    """Two layers, each followed by batch norm with ε = 0, and a fixed readout: f(aθ) = f(θ)."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, bias=False, dtype=torch.float64)
        self.dense = nn.Linear(4 * 36, 6, bias=False, dtype=torch.float64)
        self.norms = nn.ModuleList([GroupedBatchNorm(n, eps=0.0).double().requires_grad_(False) for n in (4, 6)])
        self.register_buffer("readout", torch.randn(6, 3, generator=generator, dtype=torch.float64))

    def forward(self, x):
        hidden = self.norms[0](self.conv(x)).relu().flatten(1)
        return self.norms[1](self.dense(hidden)).relu() @ self.readout


@pytest.fixture
def problem():
    torch.manual_seed(0)
    net = Invariant()
    x, y = torch.randn(32, 1, 8, 8, dtype=torch.float64), torch.randint(3, (32,))
    return net, lambda: functional.cross_entropy(net(x), y)


def gradient(net, loss):
    return torch.autograd.grad(loss(), [net.conv.weight, net.dense.weight])


def put(net, values):
    with torch.no_grad():
        for held, value in zip((net.conv.weight, net.dense.weight), values, strict=True):
            held.copy_(value)


@pytest.mark.parametrize("lr_l2", [1e-6, 1e-3, 0.1, 0.9])
def test_every_single_step_is_the_same_to_rounding(problem, lr_l2):
    """From the same function at any step s: θ_s with L2 at η, φ_s = θ_s (1-ηλ)^-s without at η_s."""
    net, loss = problem
    lr = 0.3
    l2 = lr_l2 / lr
    theta = [net.conv.weight.detach().clone(), net.dense.weight.detach().clone()]
    for s in range(12):
        put(net, theta)
        with_l2 = [t - lr * (g + l2 * t) for t, g in zip(theta, gradient(net, loss), strict=True)]
        shrunk = (1 - lr * l2) ** s
        phi = [t / shrunk for t in theta]
        put(net, phi)
        rate = float(equivalent_learning_rate(lr, l2, s))
        without = [p - rate * g for p, g in zip(phi, gradient(net, loss), strict=True)]
        for a, b in zip(with_l2, without, strict=True):
            assert_allclose(b * shrunk * (1 - lr * l2), a, rtol=1e-13, atol=1e-13 * float(a.abs().max()))
        theta = with_l2


def test_a_stable_trajectory_is_the_same_function(problem):
    """Over 100 steps at a small rate; where training is chaotic rounding grows and only single steps compare."""
    net, loss = problem
    lr, l2 = 0.01, 0.05
    theta = [net.conv.weight.detach().clone(), net.dense.weight.detach().clone()]
    phi, losses = [t.clone() for t in theta], []
    for s in range(100):
        put(net, theta)
        losses.append([loss().item()])
        theta = [t - lr * (g + l2 * t) for t, g in zip(theta, gradient(net, loss), strict=True)]
        put(net, phi)
        losses[-1].append(loss().item())
        rate = float(equivalent_learning_rate(lr, l2, s))
        phi = [p - rate * g for p, g in zip(phi, gradient(net, loss), strict=True)]
    losses = np.array(losses)
    assert losses[-1, 0] < losses[0, 0]
    assert_allclose(losses[:, 1], losses[:, 0], rtol=1e-9)


def test_the_formula_in_many_digits():
    for lr, l2, s in [(0.1, 1e-9, 10**6), (0.2, 0.01, 12345), (0.5, 1.9, 3), (1e-3, 0.0, 10**9)]:
        with mpmath.workdps(60):
            expected = mpmath.mpf(lr) * (1 - mpmath.mpf(lr) * mpmath.mpf(l2)) ** (-2 * s - 1)
        assert_allclose(equivalent_learning_rate(lr, l2, s), float(expected), rtol=1e-11)


def test_the_limit_of_small_rates():
    lr, l2 = 0.1, 1e-5
    s = np.array([0, 10**3, 10**5, 10**6])
    assert_allclose(equivalent_learning_rate(lr, l2, s), lr * np.exp(2 * lr * l2 * s), rtol=3e-6)
    assert equivalent_learning_rate(0.5, 1.0, 10**6) == np.inf


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-0.1, 0.1, 1), "lr"),
        ((0.1, -0.1, 1), "l2"),
        ((0.1, 0.1, -1), "step"),
        ((1.0, 1.0, 1), "below 1"),
        (([1, 2], [1, 2, 3], 0), "shapes"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        equivalent_learning_rate(*arguments)
