"""The convolutional nets, their batch norm and their initialization, against PyTorch and plain re-computations."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.build import build_net
from l2dyn.nets.conv_net import ConvNet
from l2dyn.nets.initialization import initialize
from l2dyn.nets.wide_resnet import WideResNet
from l2dyn.specs.nets import ConvNetSpec, WideResNetSpec

SMALL_CONV = ConvNetSpec(channels=(4, 5, 6, 7), dense=9, pool=2, pool_stride=2)
SMALL_CONV_BN = SMALL_CONV.model_copy(update={"batch_norm": True})
SMALL_WRN = WideResNetSpec(depth=10, width=1)
CHANNELS_LAST = torch.channels_last


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


def random_affine(norm, seed=1):
    """The norm with scale and shift of its own, so that tests see them."""
    with torch.no_grad():
        norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator(seed)) + 0.5)
        norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator(seed + 1)))
    return norm


def by_hand(x, weight, bias, eps):
    """Batch norm of one part, written out."""
    dims = [0, *range(2, x.dim())]
    mean = x.mean(dim=dims, keepdim=True)
    variance = (x - mean).square().mean(dim=dims, keepdim=True)
    shape = mean.shape
    return (x - mean) / (variance + eps).sqrt() * weight.view(shape) + bias.view(shape)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_ungrouped_norm_is_pytorchs(shape):
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    theirs = random_affine(kind(3, track_running_stats=False))
    ours = random_affine(GroupedBatchNorm(3))
    x = torch.randn(shape, generator=generator()) * 2 + 1
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=0, atol=0)
    assert set(ours.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("pixels", "memory_format"),
    [((), torch.contiguous_format)]
    + [(pixels, layout) for pixels in ((3, 5), (1, 1)) for layout in (torch.contiguous_format, CHANNELS_LAST)],
)
@pytest.mark.parametrize(
    ("group", "sizes"), [(4, [4, 4, 4]), (6, [6, 6]), (12, [12]), (5, [6, 6]), (8, [6, 6]), (9, [12]), (100, [12])]
)
def test_groups_are_normalized_apart(group, sizes, pixels, memory_format):
    norm = random_affine(GroupedBatchNorm(3, group=group)).double()
    x = torch.randn(12, 3, *pixels, generator=generator(), dtype=torch.float64)
    x = x * torch.linspace(0.5, 3, 12).view(-1, *[1] * (x.dim() - 1)) + 1
    x = x.contiguous(memory_format=memory_format)
    expected = torch.cat([by_hand(part, norm.weight, norm.bias, 1e-5) for part in x.split(sizes)])
    for mode in (True, False):
        got = norm.train(mode)(x)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        assert got.is_contiguous(memory_format=memory_format)


def test_parts_of_unequal_size():
    norm = random_affine(GroupedBatchNorm(2, group=4)).double()
    x = torch.randn(11, 2, 3, 3, generator=generator(), dtype=torch.float64)
    expected = torch.cat([by_hand(part, norm.weight, norm.bias, 1e-5) for part in x.split([4, 4, 3])])
    torch.testing.assert_close(norm(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("group", [2, 4, 0])
@pytest.mark.parametrize("pixels", [(), (2, 1)])
def test_gradients_of_the_norm(group, pixels):
    norm = GroupedBatchNorm(2, group=group).double()  # of 6 samples: three parts of 2, two of 3, one
    x = torch.randn(6, 2, *pixels, generator=generator(), dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, generator=generator(1), dtype=torch.float64, requires_grad=True)
    bias = torch.rand(2, generator=generator(2), dtype=torch.float64, requires_grad=True)

    def call(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, weight, bias))
    if pixels:
        last = x.detach().contiguous(memory_format=CHANNELS_LAST).requires_grad_()
        assert torch.autograd.gradcheck(call, (last, weight, bias))


@pytest.mark.parametrize("group", [0, 4])
def test_without_epsilon_the_norm_is_scale_invariant(group):
    norm = GroupedBatchNorm(3, group=group, eps=0.0).double()
    x = torch.randn(8, 3, 2, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(norm(x * 1e-6), norm(x), rtol=1e-9, atol=1e-9)
    assert (norm(x).var(dim=(0, 2, 3), unbiased=False) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("group", [0, 4, 3])
def test_channels_must_match(group, memory_format):
    with pytest.raises(RuntimeError):
        GroupedBatchNorm(3, group=group)(torch.zeros(8, 6, 2, 2).contiguous(memory_format=memory_format))


def test_one_value_a_channel_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        GroupedBatchNorm(3, group=1)(torch.zeros(4, 3))


def wrn_parameters(depth, k, channels, outputs):
    """Counted layer by layer from the paper's table of the architecture."""
    total = 9 * channels * 16
    fan_in = 16
    for width in (16 * k, 32 * k, 64 * k):
        for _ in range((depth - 4) // 6):
            total += 2 * fan_in + 9 * fan_in * width + 2 * width + 9 * width * width
            total += fan_in * width if fan_in != width else 0
            fan_in = width
    return total + 2 * fan_in + fan_in * outputs + outputs


def test_sizes_of_wide_resnets():
    with torch.device("meta"):
        published = WideResNet(WideResNetSpec(depth=28, width=10), (32, 32, 3), 10)
        smaller = WideResNet(WideResNetSpec(depth=16, width=4), (32, 32, 3), 10)
        narrow = WideResNet(WideResNetSpec(depth=10, width=1), (14, 14, 1), 10)
    assert count(published) == 36_479_194
    assert count(smaller) == wrn_parameters(16, 4, 3, 10) == 2_748_890
    assert count(narrow) == wrn_parameters(10, 1, 1, 10)


def test_size_of_the_paper_s_convnet():
    with torch.device("meta"):
        plain = ConvNet(ConvNetSpec(), (32, 32, 3), 10)
        normed = ConvNet(ConvNetSpec(batch_norm=True), (32, 32, 3), 10)
        assert plain.features(torch.empty(2, 3, 32, 32)).shape == (2, 300, 18, 18)
    # 27·300 + 300, three times 2700·300 + 300, 18·18·300·500 + 500, 500·10 + 10
    assert count(plain) == 8_400 + 3 * 810_300 + 48_600_500 + 5_010
    assert count(normed) == count(plain) + 4 * 600 + 1000


@pytest.mark.parametrize("image_shape", [(32, 32, 3), (15, 18, 2)])
@pytest.mark.parametrize("spec", [SMALL_CONV_BN, SMALL_WRN, WideResNetSpec(depth=16, width=2)])
def test_shapes(spec, image_shape):
    height, width, channels = image_shape
    out = build_net(spec, image_shape, 7, seed=0)(torch.randn(4, channels, height, width, generator=generator()))
    assert out.shape == (4, 7)
    assert out.isfinite().all()


def test_no_such_convnet():
    with pytest.raises(ValueError, match="too small"):
        build_net(ConvNetSpec(), (14, 14, 1), 10, seed=0)


@pytest.mark.parametrize(
    "spec", [ConvNetSpec(channels=(32, 32, 32, 32), pool=2), WideResNetSpec(depth=10, width=4, weight_std=0.7)]
)
def test_initial_parameters(spec):
    net = build_net(spec, (14, 14, 1), 10, seed=3)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            normed = layer.weight.double() * math.sqrt(layer.weight[0].numel()) / spec.weight_std
            n = normed.numel()
            assert abs(normed.mean()) < 5 / math.sqrt(n)
            assert abs(normed.square().mean() - 1) < 5 * math.sqrt(2 / n)
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, GroupedBatchNorm):
            assert bool((layer.weight == 1).all())
            assert not layer.bias.any()


@pytest.mark.parametrize("spec", [SMALL_CONV_BN, SMALL_WRN])
def test_a_seed_is_a_net(spec):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (build_net(spec, (14, 14, 1), 10, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    in_double = type(first)(spec, (14, 14, 1), 10).double()  # contiguous, too
    initialize(in_double, spec.weight_std, seed=0)
    pairs = zip(first.named_parameters(), again.parameters(), other.parameters(), in_double.parameters(), strict=True)
    for (name, p), same, different, double in pairs:
        assert torch.equal(p, same)
        assert torch.equal(p, double.float())
        assert double.dtype == torch.float64
        assert p.dim() == 1 or not torch.equal(p, different), name


def test_the_first_draw_is_the_first_layer_s():
    net = build_net(SMALL_WRN, (14, 14, 1), 10, seed=5)
    expected = torch.randn(16, 1, 3, 3, generator=generator(5)) * (1 / 3)
    assert torch.equal(net.stem.weight, expected)


def test_layers_without_a_rule_are_refused():
    with pytest.raises(TypeError, match="LayerNorm"):
        initialize(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), 1.0, seed=0)


def perturbed(net, seed=7):
    """The net in float64 with every parameter moved, biases and affine ones included."""
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(seed), dtype=torch.float64))
    return net


@pytest.mark.parametrize(("depth", "width", "shape"), [(10, 1, (14, 14, 1)), (16, 2, (16, 16, 3))])
def test_wide_resnet_recomputed(depth, width, shape):
    net = perturbed(build_net(WideResNetSpec(depth=depth, width=width), shape, 10, seed=0))
    p = net.state_dict()
    x = torch.randn(5, shape[2], *shape[:2], generator=generator(), dtype=torch.float64)

    def active(h, name):
        return by_hand(h, p[f"{name}.weight"], p[f"{name}.bias"], 1e-5).clamp(min=0)

    h = F.conv2d(x, p["stem.weight"], padding=1)
    for group in range(3):
        for block in range((depth - 4) // 6):
            at = f"groups.{group}.{block}"
            stride = 2 if group > 0 and block == 0 else 1
            a = active(h, f"{at}.norm1")
            inner = active(F.conv2d(a, p[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.norm2")
            inner = F.conv2d(inner, p[f"{at}.conv2.weight"], padding=1)
            projected = block == 0 and h.shape[1] != inner.shape[1]
            assert (f"{at}.shortcut.weight" in p) == projected
            h = inner + (F.conv2d(a, p[f"{at}.shortcut.weight"], stride=stride) if projected else h)
    pooled = active(h, "norm").flatten(2).mean(dim=2)
    expected = pooled @ p["readout.weight"].T + p["readout.bias"]
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.eval()(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", [SMALL_CONV, SMALL_CONV_BN])
def test_convnet_recomputed(spec):
    net = perturbed(build_net(spec, (14, 14, 2), 10, seed=0))
    parameters = list(net.parameters())
    x = torch.randn(5, 2, 14, 14, generator=generator(), dtype=torch.float64)

    def take(n):
        taken, parameters[:n] = parameters[:n], []
        return taken

    def active(h):
        return (by_hand(h, *take(2), 1e-5) if spec.batch_norm else h).clamp(min=0)

    h = x
    for _ in range(2):
        h = active(F.conv2d(F.pad(h, (1, 1, 1, 1)), *take(2)))
        h = active(F.conv2d(h, *take(2)))
        rows, columns = h.shape[2] // 2, h.shape[3] // 2
        h = h[:, :, : 2 * rows, : 2 * columns].reshape(*h.shape[:2], rows, 2, columns, 2).amax(dim=(3, 5))
    h = active(F.linear(h.flatten(1), *take(2)))
    torch.testing.assert_close(net(x), F.linear(h, *take(2)), rtol=1e-9, atol=1e-9)
    assert not parameters


@pytest.mark.parametrize("group", [0, 4])
@pytest.mark.parametrize("spec", [SMALL_CONV, SMALL_CONV_BN, SMALL_WRN])
def test_a_step_moves_every_parameter(spec, group):
    net = build_net(spec.model_copy(update={"norm_group": group}), (14, 14, 1), 10, seed=0)
    x = torch.randn(8, 1, 14, 14, generator=generator())
    before = [p.detach().clone() for p in net.parameters()]
    loss = F.cross_entropy(net(x), torch.arange(8))
    loss.backward()
    torch.optim.SGD(net.parameters(), lr=0.01).step()
    normed = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][:-1]
    # batch norm subtracts these biases again, so that only rounding is left of their gradients
    idle = {id(layer.bias) for layer in normed} if getattr(spec, "batch_norm", False) else set()
    for (name, p), old in zip(net.named_parameters(), before, strict=True):
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert id(p) in idle or not torch.equal(p, old), name
    assert F.cross_entropy(net(x), torch.arange(8)) < loss


@pytest.mark.parametrize("group", [0, 4])
@pytest.mark.parametrize("spec", [SMALL_CONV, SMALL_CONV_BN, SMALL_WRN])
def test_channels_last_throughout(spec, group):
    net = build_net(spec.model_copy(update={"norm_group": group}), (14, 14, 2), 10, seed=0)
    seen = []

    def look(module, inputs, output):
        if output.dim() == 4:
            seen.append(output.is_contiguous(memory_format=CHANNELS_LAST) and not output.is_contiguous())

    kinds = (nn.Conv2d, GroupedBatchNorm, nn.MaxPool2d)
    for layer in net.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(look)
    net(torch.randn(8, 14, 14, 2, generator=generator()).permute(0, 3, 1, 2))
    assert len(seen) >= 6
    assert all(seen)


@pytest.mark.parametrize("spec", [SMALL_CONV_BN, SMALL_WRN])
def test_directional_derivatives_pass_through(spec):
    """θ·∇f by forward differentiation, as the measure of homogeneity needs it, is that of a finite difference."""
    net = perturbed(build_net(spec, (14, 14, 1), 3, seed=0))
    x = torch.randn(6, 1, 14, 14, generator=generator(), dtype=torch.float64)
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def outputs(p):
        return torch.func.functional_call(net, p, (x,))

    derivative = torch.func.jvp(outputs, (parameters,), (parameters,))[1]
    moved = [outputs({name: p * (1 + step) for name, p in parameters.items()}) for step in (1e-6, -1e-6)]
    torch.testing.assert_close(derivative, (moved[0] - moved[1]).detach() / 2e-6, rtol=1e-5, atol=1e-6)


def test_without_biases_and_batch_norm_it_is_six_homogeneous():
    spec = SMALL_CONV.model_copy(update={"bias": False})
    net = build_net(spec, (14, 14, 1), 3, 0).double()
    assert not any("bias" in name for name, _ in net.named_parameters())
    x = torch.randn(4, 1, 14, 14, generator=generator(), dtype=torch.float64)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    doubled = torch.func.functional_call(net, {name: 2 * p for name, p in parameters.items()}, (x,))
    torch.testing.assert_close(doubled, 2.0**6 * net(x).detach())
