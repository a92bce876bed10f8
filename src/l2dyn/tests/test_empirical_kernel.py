"""The kernel of finite nets: against autograd, and its convergence to the theory with width."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from l2dyn.nets.empirical_kernel import empirical_ntk
from l2dyn.nets.fully_connected import StackedFullyConnected
from l2dyn.runs.spec import FullyConnectedSpec
from l2dyn.theory import relu_ntk


def nets(width, seeds, hidden_layers=2, inputs=6, outputs=1, **how):
    how = {"bias": False, "parameterization": "ntk", "weight_std": 1.3} | how
    spec = FullyConnectedSpec(hidden_layers=hidden_layers, width=width, **how)
    return StackedFullyConnected.initialized(spec, inputs, outputs, list(seeds), torch.float64, "cpu")


def inputs(count, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("how", [{}, {"bias": True}, {"parameterization": "standard"}, {"hidden_layers": 1}])
def test_it_is_the_product_of_autograd_gradients(how):
    net = nets(7, (0, 1), **how)
    x1, x2 = inputs(4), inputs(3, seed=1)
    for b in net.biases:
        b.normal_(generator=torch.Generator().manual_seed(2))
    parameters = [p.requires_grad_() for p in net.parameters]

    def gradients(x):
        rows = []
        for member in range(2):
            outputs = net.forward(x)[-1][member, :, 0]
            found = [torch.autograd.grad(f, parameters, retain_graph=True) for f in outputs]
            rows.append(torch.stack([torch.cat([g.flatten() for g in gs]) for gs in found]))
        return torch.stack(rows)

    # the written-out forward pass overwrites in place, which autograd refuses
    net.forward = lambda x: _forward(net, x)
    expected = gradients(x1) @ gradients(x2).mT
    with torch.no_grad():
        plain = nets(7, (0, 1), **how)
        for held, value in zip(plain.parameters, parameters, strict=True):
            held.copy_(value)
        assert_allclose(empirical_ntk(plain, x1, x2), expected, rtol=1e-10)
        assert_allclose(empirical_ntk(plain, x1), empirical_ntk(plain, x1, x1), rtol=1e-12)


def _forward(net, x):
    hidden = x.expand(len(net), *x.shape)
    for layer, weight in enumerate(net.weights):
        hidden = hidden @ weight * net.multipliers[layer]
        if net.biases:
            hidden = hidden + net.biases[layer]
        if layer < len(net.weights) - 1:
            hidden = hidden.relu()
    return [hidden]


@pytest.mark.parametrize("hidden_layers", [1, 2, 3])
def test_it_converges_to_the_theory_with_width(hidden_layers):
    """Over seeds: RMS deviation as width^-1/2; the bias, where there is one, as 1/width."""
    x = inputs(5)
    theory = relu_ntk(x.numpy(), x.numpy(), hidden_layers, 1.3)[1]
    widths, seeds = np.array([32, 64, 128, 256]), range(400 if hidden_layers < 3 else 150)
    rms, bias, noise = [], [], []
    for width in widths:
        kernels = empirical_ntk(nets(int(width), seeds, hidden_layers), x).numpy()
        deviation = (kernels - theory) / np.sqrt(np.outer(np.diag(theory), np.diag(theory)))
        rms.append(np.sqrt((deviation**2).mean()))
        bias.append(np.sqrt((deviation.mean(axis=0) ** 2).mean()))
        noise.append(rms[-1] / np.sqrt(len(seeds)))
    slope = np.polyfit(np.log(widths), np.log(rms), 1)[0]
    assert -0.56 < slope < -0.44
    # a bias of order 1/width stays below the noise of the mean times a constant, at every width
    assert (np.array(bias) < 3 * np.array(noise) + 8.0 * hidden_layers / widths).all()
    assert bias[-1] < bias[0] / 2


def test_several_outputs_are_refused():
    with pytest.raises(ValueError, match="one output"):
        empirical_ntk(nets(4, (0,), outputs=3), inputs(2))


def test_a_spanned_net_shows_the_weights_it_has_now():
    net = nets(5, (0, 1))
    x = inputs(4)
    net.hold_in_span(x)
    net.span.coefficients.normal_(generator=torch.Generator().manual_seed(0))
    net.span.scale.fill_(0.7)
    plain = StackedFullyConnected([w.clone() for w in net.weights], [], net.multipliers)
    plain.weights[0] = 0.7 * plain.weights[0] + net.multipliers[0] * x.T @ net.span.coefficients
    assert_allclose(empirical_ntk(net, x), empirical_ntk(plain, x), rtol=1e-12)
