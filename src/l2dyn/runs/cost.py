"""What training costs: floating-point operations, and seconds from a calibration of the device.

Used by `l2dyn plan` and for time limits on a cluster.
"""

import bisect
from collections.abc import Iterable

from l2dyn.runs.calibrations import NOMINAL_RATE, Calibration, KindCost
from l2dyn.runs.plan import Task, stacks
from l2dyn.runs.records import columns_of
from l2dyn.specs.base import canonical_json, to_dict

RECORD_BYTES = 8000  # of a Parquet file besides its rows


def layer_flops(task: Task) -> list[float]:
    """Floating-point operations of each layer's product in a forward pass of one sample, the first layer first."""
    data = task.spec.data
    return task.spec.net.layer_flops(data.image_shape, data.outputs)


def step_flops(task: Task) -> float:
    """Floating-point operations of one step: three forward passes, less the gradient of the inputs."""
    layers = layer_flops(task)
    return (3.0 * sum(layers) - layers[0]) * task.spec.samples_a_step


def training_flops(task: Task) -> float:
    """Floating-point operations of the whole run, steps and evaluations.

    Counted as plain products, also where a stack needs fewer (l2dyn.nets.stacked_fully_connected.Span).
    """
    return step_flops(task) * task.steps + sum(layer_flops(task)) * evaluated_samples(task) * len(task.evaluations())


def evaluated_samples(task: Task) -> int:
    """Samples of one evaluation, training and test."""
    return (task.grid.train_subset or task.spec.data.train_samples) + task.spec.data.test_samples


def kind(task: Task) -> str:
    """What decides the cost of a step, as canonical JSON: net, samples of a step, loss, precision, augmentation."""
    spec = task.spec
    how = {
        "net": to_dict(spec.net),
        "image": spec.data.image_shape,
        "samples": spec.samples_a_step,
        "full batch": spec.batch == 0,
        "stacks": spec.stacks,
        "loss": spec.loss,
        "optimizer": spec.optimizer.kind,
        "momentum": spec.momentum > 0,
        "precision": spec.precision,
        "augmentation": to_dict(spec.augmentation),
    }
    return canonical_json(how)


def training_seconds(tasks: Iterable[Task], device: str, threads: int, calibration: Calibration | None) -> float:
    """Seconds that a job needs to train these runs on one device (`threads` CPU cores or one GPU), start included.

    From the calibration where it knows the net or one of its kind, else from the nominal rate.
    """
    nominal = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    seconds = 0.0
    for stack in stacks(tasks):
        cost = calibration.of(kind(stack[0]), step_flops(stack[0])) if calibration else None
        if cost is None:
            seconds += sum(training_flops(task) for task in stack) / nominal
        else:
            seconds += _stack_seconds(stack, cost)
    return seconds + (calibration.job_s if calibration and seconds else 0.0)


def _stack_seconds(stack: list[Task], cost: KindCost) -> float:
    """Seconds of one stack, sorted by horizon: members leave as theirs end, and each evaluation measures those left."""
    grid = sorted(set().union(*(task.evaluations() for task in stack)))
    samples = evaluated_samples(stack[0])
    (step_fixed, step_each), (sample_fixed, sample_each) = cost.step_s, cost.sample_s
    seconds, reached, evaluated = 0.0, 0, 0
    for gone, task in enumerate(stack):
        members = len(stack) - gone
        seconds += (task.steps - reached) * (step_fixed + step_each * members)
        upto = bisect.bisect_right(grid, task.steps)
        seconds += (upto - evaluated) * samples * (sample_fixed + sample_each * members)
        reached, evaluated = task.steps, upto
    return seconds


def record_bytes(task: Task) -> float:
    """Disk that the run's record takes, before compression."""
    return RECORD_BYTES + 8.0 * len(columns_of(task.spec)) * len(task.evaluations())


def readable(seconds: float) -> str:
    """A time in hours, minutes or seconds.

    >>> readable(5400), readable(90), readable(0.25)
    ('1.5 h', '1.5 min', '0.2 s')
    """
    unit, size = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 0)) if seconds >= s)
    return f"{seconds / (size or 1):.1f} {unit}"
