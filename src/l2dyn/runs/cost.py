"""What a run costs, estimated from floating-point operations; used by `l2dyn plan` and for time limits on a cluster."""

import math
from itertools import pairwise

from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.runs.spec import layer_widths

# Nominal sustained rates, FLOP/s: a core of a laptop, and a data-centre GPU in float32 with TF32 products.
NOMINAL_RATE = {"cpu": 5e10, "cuda": 1e14}
RECORD_BYTES = 8000  # of a Parquet file besides its rows


def layer_flops(task: Task) -> list[float]:
    """Floating-point operations of each layer's product in a forward pass of one sample."""
    info = DATASETS[task.spec.data.name]
    outputs = 1 if task.spec.data.labels == "parity" else info.classes
    widths = layer_widths(task.spec.model, math.prod(info.shape), outputs)
    return [2.0 * a * b for a, b in pairwise(widths)]


def training_flops(task: Task) -> float:
    """Floating-point operations of the whole run, steps and evaluations.

    A step costs the forward pass three times, less the gradient of the inputs, which nobody needs.
    """
    layers = layer_flops(task)
    samples = task.spec.batch or task.spec.data.train
    evaluated = len(task.evaluations()) * (task.spec.data.train + task.spec.data.test)
    return (3.0 * sum(layers) - layers[0]) * samples * task.steps + sum(layers) * evaluated


def estimated_hours(tasks: list[Task], device: str, threads: int = 1) -> float:
    """Hours on one device (`threads` CPU cores or one GPU) at the nominal rate."""
    rate = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    return sum(training_flops(task) for task in tasks) / rate / 3600


def record_bytes(task: Task) -> float:
    """Disk that the run's record takes, before compression."""
    return RECORD_BYTES + 8.0 * len(COLUMNS) * len(task.evaluations())
