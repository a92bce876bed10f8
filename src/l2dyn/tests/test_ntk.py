"""The kernel of finite nets: against autograd, and its convergence to the theory with width."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from l2dyn.nets.ntk import as_drawn, empirical_ntk, norm_and_rotation
from l2dyn.nets.stacked_fully_connected import StackedFullyConnected
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.theory import relu_ntk


def nets(width, seeds, hidden_layers=2, inputs=6, outputs=1, **how):
    how = {"bias": False, "parameterization": "ntk", "weight_std": 1.3} | how
    spec = FullyConnectedSpec(hidden_layers=hidden_layers, width=width, **how)
    return StackedFullyConnected.initialized(spec, inputs, outputs, list(seeds), torch.float64, "cpu")


def inputs(count, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "how", [{}, {"bias": True}, {"parameterization": "standard"}, {"hidden_layers": 1}, {"outputs": 3, "bias": True}]
)
def test_it_is_the_product_of_autograd_gradients(how):
    net = nets(7, (0, 1), **how)
    x1, x2 = inputs(4), inputs(3, seed=1)
    for b in net.biases:
        b.normal_(generator=torch.Generator().manual_seed(2))

    def gradients(x):
        """[members, points, outputs·parameters]; the product of two is then the sum over outputs."""
        layers = len(net.weights)

        def outputs(*parameters):  # of a member touch that member's parameters only, so all members' at once
            held = StackedFullyConnected(list(parameters[:layers]), list(parameters[layers:]), net.multipliers)
            return held.forward(x)[-1].sum(dim=0)

        jacobian = torch.autograd.functional.jacobian(outputs, tuple(net.parameters))
        of_members = [part.flatten(3).movedim(2, 0) for part in jacobian]  # [members, points, outputs, parameters]
        return torch.cat(of_members, dim=3).flatten(2)

    expected = gradients(x1) @ gradients(x2).mT / how.get("outputs", 1)
    assert_allclose(empirical_ntk(net, x1, x2), expected, rtol=1e-10)
    assert_allclose(empirical_ntk(net, x1), empirical_ntk(net, x1, x1), rtol=1e-12)


def test_a_kernel_that_has_vanished_has_no_rotation():
    first = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    turned = torch.ones(3, 3, dtype=torch.float64)  # ⟨Θ, Θ₀⟩ = 3, ‖Θ‖ = 3, ‖Θ₀‖ = √3
    last = torch.stack([2 * first[0], turned, torch.zeros_like(turned), 1e-200 * turned])
    norm, rotation = norm_and_rotation(last, first)
    assert_allclose(norm, [2 * 3**0.5, 3, 0, 0])  # (1e-200)² is 0
    assert_allclose(rotation, [0, 1 - 3**-0.5, np.nan, np.nan], atol=1e-15)


def deviations(width, seeds, hidden_layers, x):
    """Of each seed's kernel from the theory, in units of the theory's diagonal, [seeds, N, N]."""
    theory = relu_ntk(x.numpy(), x.numpy(), hidden_layers, 1.3)[1]
    parts = [range(first, first + 500) for first in range(0, seeds, 500)]
    kernels = torch.cat([empirical_ntk(nets(width, part, hidden_layers), x) for part in parts]).numpy()
    return (kernels - theory) / np.sqrt(np.outer(np.diag(theory), np.diag(theory)))


@pytest.mark.parametrize("hidden_layers", [1, 3])
def test_single_nets_come_nearer_to_the_theory_as_the_root_of_the_width(hidden_layers):
    widths = [32, 64, 128]
    spread = [np.sqrt((deviations(width, 500, hidden_layers, inputs(5)) ** 2).mean()) for width in widths]
    assert -0.56 < np.polyfit(np.log(widths), np.log(spread), 1)[0] < -0.44


@pytest.mark.parametrize("hidden_layers", [1, 2])
def test_their_mean_comes_nearer_as_the_width(hidden_layers):
    """The mean over nets is exact on the diagonal and for one hidden layer; elsewhere it is off by order 1/width."""
    widths, pairs = [4, 8, 16], ~np.eye(5, dtype=bool)
    found = [deviations(width, 8000, hidden_layers, inputs(5)) for width in widths]
    bias = np.array([d.mean(axis=0) for d in found])
    noise = np.array([d.std(axis=0) for d in found]) / np.sqrt(8000)
    assert (abs(bias) < 5 * noise)[:, ~pairs].all()
    if hidden_layers == 1:
        assert (abs(bias) < 5 * noise).all()
        return
    size = np.sqrt((bias**2 - noise**2)[:, pairs].mean(axis=1))
    assert size[-1] > 2 * np.sqrt((noise[-1][pairs] ** 2).mean())
    assert -1.2 < np.polyfit(np.log(widths), np.log(size), 1)[0] < -0.8


def test_the_kernel_of_a_net_as_drawn_and_its_function():
    spec = FullyConnectedSpec(hidden_layers=2, width=7)
    x1, x2 = inputs(4), inputs(3, seed=1)
    (f1, f2), kernel = as_drawn(spec, 3, 5, x1.numpy(), x2.numpy())
    net = StackedFullyConnected.initialized(spec, 6, 3, [4, 5], torch.float64, "cpu")
    assert_allclose(f1, net.forward(x1)[-1][1], rtol=1e-12)
    assert_allclose(f2, net.forward(x2)[-1][1], rtol=1e-12)
    assert_allclose(kernel(1, 0), empirical_ntk(net, x2, x1)[1], rtol=1e-12)


def test_a_spanned_net_shows_the_weights_it_has_now():
    net = nets(5, (0, 1))
    x = inputs(4)
    net.hold_in_span(x)
    net.span.coefficients.normal_(generator=torch.Generator().manual_seed(0))
    net.span.scale.fill_(0.7)
    plain = StackedFullyConnected([w.clone() for w in net.weights], [], net.multipliers)
    plain.weights[0] = 0.7 * plain.weights[0] + net.multipliers[0] * x.T @ net.span.coefficients
    assert_allclose(empirical_ntk(net, x), empirical_ntk(plain, x), rtol=1e-12)
