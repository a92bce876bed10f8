"""Plain NumPy (float64) reference of a pre-activation Wide ResNet: forward, loss, backward pass, SGD.

Everything is NCHW. Layouts of the parameters are PyTorch's. Nothing here is fast.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = dict[str, Array]
EPS = 1e-5


def parameter_shapes(depth: int, width: int = 1, channels: int = 3, classes: int = 10) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters, in forward order."""
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise ValueError(f"depth must be 6 N + 4 with N >= 1, got {depth}")
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, ins: int, outs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outs, ins, 3, 3), (outs,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (size,), (size,)

    conv("stem", channels, 16)
    ins = 16
    for g in range(3):
        outs = 16 * 2**g * width
        for b in range(count):
            name = f"groups.{g}.{b}"
            norm(f"{name}.norm1", ins)
            conv(f"{name}.conv1", ins, outs)
            norm(f"{name}.norm2", outs)
            conv(f"{name}.conv2", outs, outs)
            if b == 0:
                conv(f"{name}.shortcut", ins, outs)
            ins = outs
    norm("norm", ins)
    shapes["readout.weight"], shapes["readout.bias"] = (classes, ins), (classes,)
    return shapes


def parameter_names(depth: int) -> list[str]:
    """Names of all parameters, in forward order."""
    return list(parameter_shapes(depth))


def _same_padding(side: int, stride: int) -> tuple[int, int, int]:
    """Output side, padding before and padding after ("SAME", kernel 3)."""
    out = -(-side // stride)
    total = max((out - 1) * stride + 3 - side, 0)
    return out, total // 2, total - total // 2


def _conv(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    h, top, bottom = _same_padding(x.shape[2], stride)
    w, left, right = _same_padding(x.shape[3], stride)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    y = np.zeros((x.shape[0], h, w, weight.shape[0]))
    for i in range(3):
        for j in range(3):
            tap = padded[:, :, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
            y += np.tensordot(tap, weight[:, :, i, j], axes=(1, 1))
    return (y + bias).transpose(0, 3, 1, 2)


def _conv_back(dy: Array, x: Array, weight: Array, stride: int) -> tuple[Array, Array, Array]:
    """Gradients with respect to input, weight and bias."""
    h, top, bottom = _same_padding(x.shape[2], stride)
    w, left, right = _same_padding(x.shape[3], stride)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
    for i in range(3):
        for j in range(3):
            at = np.s_[:, :, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
            dweight[:, :, i, j] = np.tensordot(dy, padded[at], axes=((0, 2, 3), (0, 2, 3)))
            dpadded[at] += np.tensordot(dy, weight[:, :, i, j], axes=(1, 0)).transpose(0, 3, 1, 2)
    dx = dpadded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dweight, dy.sum((0, 2, 3))


def _standardize(x: Array, group: int) -> tuple[Array, Array]:
    """Standardized input and inverse deviation, both [groups, group, C, H, W] (or broadcastable)."""
    n, *rest = x.shape
    if n % group:
        raise ValueError(f"group {group} does not divide the batch {n}")
    grouped = x.reshape(n // group, group, *rest)
    centered = grouped - grouped.mean((1, 3, 4), keepdims=True)
    inverse = 1 / np.sqrt((centered**2).mean((1, 3, 4), keepdims=True) + EPS)
    return centered * inverse, inverse


def _norm_relu(x: Array, weight: Array, bias: Array, group: int) -> Array:
    unit = _standardize(x, group)[0].reshape(x.shape)
    return np.maximum(unit * weight[:, None, None] + bias[:, None, None], 0)


def _norm_relu_back(dy: Array, x: Array, weight: Array, bias: Array, group: int) -> tuple[Array, Array, Array]:
    """Gradients of BN followed by ReLU with respect to input, scale and shift."""
    unit, inverse = _standardize(x, group)
    flat = unit.reshape(x.shape)
    dy = dy * (flat * weight[:, None, None] + bias[:, None, None] > 0)
    dunit = (dy * weight[:, None, None]).reshape(unit.shape)
    mean = dunit.mean((1, 3, 4), keepdims=True)
    slope = (dunit * unit).mean((1, 3, 4), keepdims=True)
    dx = (dunit - mean - unit * slope) * inverse
    return dx.reshape(x.shape), (dy * flat).sum((0, 2, 3)), dy.sum((0, 2, 3))


def _pair(parameters: Parameters, name: str) -> tuple[Array, Array]:
    return parameters[f"{name}.weight"], parameters[f"{name}.bias"]


def _blocks(depth: int) -> list[tuple[str, int, bool]]:
    """Name, stride and whether it is the first of its group, of every block."""
    count = (depth - 4) // 6
    return [(f"groups.{g}.{b}", 2 if g and b == 0 else 1, b == 0) for g in range(3) for b in range(count)]


def _run(parameters: Parameters, images: Array, depth: int, width: int, group: int) -> tuple[Array, dict[str, Array]]:
    """Outputs and the inputs of all layers (by layer name)."""
    channels, classes = images.shape[1], parameters["readout.bias"].size
    shapes = {name: value.shape for name, value in parameters.items()}
    if shapes != parameter_shapes(depth, width, channels, classes):
        raise ValueError("names or shapes of the parameters do not fit depth, width and images")
    tape: dict[str, Array] = {}

    def conv(name: str, x: Array, stride: int = 1) -> Array:
        tape[name] = x
        return _conv(x, *_pair(parameters, name), stride)

    def norm(name: str, x: Array) -> Array:
        tape[name] = x
        return _norm_relu(x, *_pair(parameters, name), group)

    x = conv("stem", np.asarray(images, np.float64))
    for name, stride, first in _blocks(depth):
        y = conv(f"{name}.conv1", norm(f"{name}.norm1", x), stride)
        y = conv(f"{name}.conv2", norm(f"{name}.norm2", y))
        x = y + (conv(f"{name}.shortcut", x, stride) if first else x)
    tape["pool"] = norm("norm", x)
    tape["readout"] = tape["pool"].mean((2, 3))
    weight, bias = _pair(parameters, "readout")
    return tape["readout"] @ weight.T + bias, tape


def forward(parameters: Parameters, images: Array, depth: int, width: int, group: int) -> Array:
    """Outputs [n, classes] for images [n, channels, height, width]."""
    return _run(parameters, images, depth, width, group)[0]


def _log_softmax(outputs: Array) -> Array:
    shifted = outputs - outputs.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def loss(outputs: Array, targets: Array) -> float:
    """Mean over samples and classes of -targets * log_softmax(outputs)."""
    return float(-(targets * _log_softmax(outputs)).mean())


def gradients(
    parameters: Parameters, images: Array, targets: Array, depth: int, width: int, group: int
) -> tuple[float, Parameters]:
    """Loss (no penalty) and its gradients with respect to all parameters."""
    outputs, tape = _run(parameters, images, depth, width, group)
    grads: Parameters = {}

    def conv(name: str, dy: Array, stride: int = 1) -> Array:
        dx, *grad = _conv_back(dy, tape[name], parameters[f"{name}.weight"], stride)
        grads[f"{name}.weight"], grads[f"{name}.bias"] = grad
        return dx

    def norm(name: str, dy: Array) -> Array:
        dx, *grad = _norm_relu_back(dy, tape[name], *_pair(parameters, name), group)
        grads[f"{name}.weight"], grads[f"{name}.bias"] = grad
        return dx

    doutputs = (np.exp(_log_softmax(outputs)) * targets.sum(1, keepdims=True) - targets) / outputs.size
    grads["readout.weight"], grads["readout.bias"] = doutputs.T @ tape["readout"], doutputs.sum(0)
    features = doutputs @ parameters["readout.weight"]
    pool = tape["pool"]
    dx = norm("norm", np.broadcast_to(features[:, :, None, None] / (pool.shape[2] * pool.shape[3]), pool.shape))
    for name, stride, first in reversed(_blocks(depth)):
        dy = norm(f"{name}.norm2", conv(f"{name}.conv2", dx))
        dy = norm(f"{name}.norm1", conv(f"{name}.conv1", dy, stride))
        dx = dy + (conv(f"{name}.shortcut", dx, stride) if first else dx)
    conv("stem", dx)
    return loss(outputs, targets), {name: grads[name] for name in parameters}


def train(
    parameters: Parameters, batches: Iterable[tuple[Array, Array]], lr: float, l2: float, momentum: float,
    depth: int, width: int, group: int,
) -> Parameters:  # fmt: skip
    """Parameters after one SGD step per (images, targets) of batches, from zero velocity; the input stays as it is.

    Objective: loss + l2 * sum of squares of all parameters. v <- momentum v + grad; theta <- theta - lr v.
    """
    current = {name: np.array(value, np.float64) for name, value in parameters.items()}
    velocity = {name: np.zeros_like(value) for name, value in current.items()}
    for images, targets in batches:
        grads = gradients(current, images, targets, depth, width, group)[1]
        for name, value in current.items():
            velocity[name] = momentum * velocity[name] + grads[name] + 2 * l2 * value
            current[name] = value - lr * velocity[name]
    return current
