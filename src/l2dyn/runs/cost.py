"""What a run costs, estimated from floating-point operations; used by `l2dyn plan` and for time limits on a cluster."""

import math
from itertools import pairwise

from l2dyn.runs.datasets import DATASETS, input_shape
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.runs.spec import ConvNetSpec, FullyConnectedSpec, WideResNetSpec, layer_widths

# Nominal sustained rates, FLOP/s: a core of a laptop, and a data-centre GPU in float32 with TF32 products.
NOMINAL_RATE = {"cpu": 5e10, "cuda": 1e14}
RECORD_BYTES = 8000  # of a Parquet file besides its rows


def layer_flops(task: Task) -> list[float]:
    """Floating-point operations of each layer's product in a forward pass of one sample, the first layer first."""
    data = task.spec.data
    shape = input_shape(data.name, data.pool)
    outputs = 1 if data.labels == "parity" else DATASETS[data.name].classes
    model = task.spec.model
    if isinstance(model, FullyConnectedSpec):
        return [2.0 * a * b for a, b in pairwise(layer_widths(model, math.prod(shape), outputs))]
    if isinstance(model, ConvNetSpec):
        return _conv_net_flops(model, shape, outputs)
    return _wide_resnet_flops(model, shape, outputs)


def _conv_net_flops(model: ConvNetSpec, shape: tuple[int, int, int], outputs: int) -> list[float]:
    height, width, channels = shape
    flops = []
    for same, valid in (model.channels[:2], model.channels[2:]):
        flops.append(18.0 * channels * same * height * width)
        height, width = height - 2, width - 2
        flops.append(18.0 * same * valid * height * width)
        height, width = ((side - model.pool) // model.pool_stride + 1 for side in (height, width))
        channels = valid
    return [*flops, 2.0 * channels * height * width * model.dense, 2.0 * model.dense * outputs]


def _wide_resnet_flops(model: WideResNetSpec, shape: tuple[int, int, int], outputs: int) -> list[float]:
    height, width, channels = shape
    flops = [18.0 * channels * 16 * height * width]
    channels = 16
    for group, stride in enumerate((1, 2, 2)):
        for block in range((model.depth - 4) // 6):
            out = 16 * model.width * 2**group
            if block == 0:
                height, width = -(-height // stride), -(-width // stride)
            shortcut = 2.0 * channels * out if channels != out else 0.0
            flops.append((18.0 * channels * out + 18.0 * out * out + shortcut) * height * width)
            channels = out
    return [*flops, 2.0 * channels * outputs]


def training_flops(task: Task) -> float:
    """Floating-point operations of the whole run, steps and evaluations.

    A step costs the forward pass three times, less the gradient of the inputs, which nobody needs.
    """
    layers = layer_flops(task)
    samples = task.spec.batch or task.spec.data.train
    evaluated = len(task.evaluations()) * ((task.grid.train_samples or task.spec.data.train) + task.spec.data.test)
    return (3.0 * sum(layers) - layers[0]) * samples * task.steps + sum(layers) * evaluated


def estimated_hours(tasks: list[Task], device: str, threads: int = 1) -> float:
    """Hours on one device (`threads` CPU cores or one GPU) at the nominal rate."""
    rate = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    return sum(training_flops(task) for task in tasks) / rate / 3600


def record_bytes(task: Task) -> float:
    """Disk that the run's record takes, before compression."""
    return RECORD_BYTES + 8.0 * len(COLUMNS) * len(task.evaluations())
