"""What a run costs, estimated from floating-point operations; used by `l2dyn plan` and for time limits on a cluster."""

from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.runs.spec import layer_widths

# Nominal sustained rates, FLOP/s: a core of a laptop, and a data-centre GPU in float32 with TF32 products.
NOMINAL_RATE = {"cpu": 5e10, "cuda": 1e14}
RECORD_BYTES = 8000  # of a Parquet file besides its rows


def forward_flops(task: Task) -> float:
    """Floating-point operations of a forward pass of one sample."""
    height, width, channels = DATASETS[task.spec.data.name].shape
    widths = layer_widths(task.spec.model, height * width * channels, 10)
    return 2.0 * sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True))


def training_flops(task: Task) -> float:
    """Floating-point operations of the whole run: steps (a backward pass costs two forward ones) and evaluations."""
    samples = task.spec.batch or task.spec.data.train
    evaluated = len(task.evaluations()) * (task.spec.data.train + task.spec.data.test)
    return forward_flops(task) * (3.0 * samples * task.steps + evaluated)


def estimated_hours(tasks: list[Task], device: str, threads: int = 1) -> float:
    """Hours on one device (`threads` CPU cores or one GPU) at the nominal rate."""
    rate = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    return sum(training_flops(task) for task in tasks) / rate / 3600


def record_bytes(task: Task) -> float:
    """Disk that the run's record takes, before compression."""
    return RECORD_BYTES + 8.0 * len(COLUMNS) * len(task.evaluations())
