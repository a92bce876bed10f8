"""What training costs: floating-point operations, and seconds from a calibration of the device.

Used by `l2dyn plan` and for time limits on a cluster.
"""

import bisect
import dataclasses
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.runs.datasets import DATASETS, input_shape
from l2dyn.runs.files import results_folder, write_atomically
from l2dyn.runs.plan import Task, batches
from l2dyn.runs.records import COLUMNS
from l2dyn.runs.spec import ConvNetSpec, FullyConnectedSpec, WideResNetSpec, canonical_json, layer_widths, to_dict

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

    Counted as plain products, also where the ensemble needs fewer (l2dyn.nets.fully_connected.Span).
    """
    return step_flops(task) * task.steps + sum(layer_flops(task)) * evaluated_samples(task) * len(task.evaluations())


def step_flops(task: Task) -> float:
    """Floating-point operations of one step: three forward passes, less the gradient of the inputs."""
    layers = layer_flops(task)
    return (3.0 * sum(layers) - layers[0]) * (task.spec.batch or task.spec.data.train)


def evaluated_samples(task: Task) -> int:
    """Samples of one evaluation, training and test."""
    return (task.grid.train_samples or task.spec.data.train) + task.spec.data.test


def kind(task: Task) -> str:
    """What decides the cost of a step, as canonical JSON: net, samples of a step, loss, precision, augmentation."""
    spec = task.spec
    how = {
        "model": to_dict(spec.model),
        "image": input_shape(spec.data.name, spec.data.pool),
        "samples": spec.batch or spec.data.train,
        "full batch": spec.batch == 0,
        "loss": spec.loss,
        "momentum": spec.momentum > 0,
        "precision": spec.precision,
        "augmentation": to_dict(spec.augmentation),
    }
    return canonical_json(how)


@dataclass(frozen=True)
class KindCost:
    """Seconds that training of one kind takes on one device: a fixed part, and one for each member of the batch."""

    net: str  # the model's kind
    step_flops: float  # of one member
    step_s: tuple[float, float]
    sample_s: tuple[float, float]  # of one evaluated sample

    def scaled(self, flops: float) -> "KindCost":
        """An estimate for another net of this kind: the members' part grows with the operations."""
        ratio = flops / self.step_flops
        step, sample = ((fixed, each * ratio) for fixed, each in (self.step_s, self.sample_s))
        return KindCost(self.net, flops, step, sample)


@dataclass(frozen=True)
class Calibration:
    """What `l2dyn calibrate` measured on one device; `kinds` maps `kind(task)` to its cost."""

    device: str
    date: str
    job_s: float  # from the start of a job's process to its first step
    kinds: dict[str, KindCost]

    def of(self, task: Task) -> KindCost | None:
        """As measured, else scaled from the kind of the same net that is nearest in operations; None without one."""
        name = kind(task)
        if name in self.kinds:
            return self.kinds[name]
        wanted, flops = json.loads(name), step_flops(task)
        alike = [cost for cost in self.kinds.values() if cost.net == wanted["model"].get("kind", "fc")]
        if not alike:
            return None
        return min(alike, key=lambda cost: abs(math.log(cost.step_flops / flops))).scaled(flops)


def cpu_name(threads: int) -> str:
    """The processor as a calibration names it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def calibration_path() -> Path:
    """Where the calibrations of all devices lie."""
    return results_folder() / "calibration.json"


def read_calibrations() -> dict[str, dict]:
    """Every device's calibration as JSON, by its name. Raises UserError for a damaged file."""
    path = calibration_path()
    try:
        devices = json.loads(path.read_text())
        for entry in devices.values():
            _calibration("", entry)
        return devices
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it, then l2dyn calibrate writes it anew") from None


def write_calibration(calibration: Calibration, is_gpu: bool) -> None:
    """Add or replace one device's entry."""
    entry = dataclasses.asdict(calibration) | {"gpu": is_gpu}
    name = entry.pop("device")
    devices = read_calibrations() | {name: entry}
    write_atomically(calibration_path(), (json.dumps(devices, indent=1) + "\n").encode())


def calibration_for(device: str, threads: int) -> Calibration | None:
    """The calibration of this machine's processor, or for cuda the latest of a GPU; None where there is none.

    Nothing here may import torch, so `auto` means a GPU where the driver has made its device file.
    """
    devices = read_calibrations()
    if device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists()):
        gpus = [name for name, entry in devices.items() if entry["gpu"]]
        latest = max(gpus, key=lambda name: devices[name]["date"], default=None)
    else:
        latest = cpu_name(threads) if cpu_name(threads) in devices else None
    return _calibration(latest, devices[latest]) if latest else None


def _calibration(name: str, entry: dict) -> Calibration:
    def cost(c: dict) -> KindCost:
        return KindCost(c["net"], float(c["step_flops"]), _pair(c["step_s"]), _pair(c["sample_s"]))

    kinds = {key: cost(value) for key, value in entry["kinds"].items()}
    return Calibration(name, str(entry["date"]), float(entry["job_s"]), kinds)


def _pair(values: list) -> tuple[float, float]:
    fixed, each = values
    return float(fixed), float(each)


def training_seconds(tasks: Iterable[Task], device: str, threads: int, calibration: Calibration | None) -> float:
    """Seconds that a job needs to train these runs on one device (`threads` CPU cores or one GPU), start included.

    From the calibration where it knows the net or one of its kind, else from the nominal rate.
    """
    nominal = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    seconds = 0.0
    for batch in batches(tasks):
        cost = calibration.of(batch[0]) if calibration else None
        if cost is None:
            seconds += sum(training_flops(task) for task in batch) / nominal
        else:
            seconds += _batch_seconds(batch, cost)
    return seconds + (calibration.job_s if calibration and seconds else 0.0)


def _batch_seconds(batch: list[Task], cost: KindCost) -> float:
    """Seconds of one batch, sorted by horizon: members leave as theirs end, and each evaluation measures those left."""
    grid = sorted(set().union(*(task.evaluations() for task in batch)))
    samples = evaluated_samples(batch[0])
    (step_fixed, step_each), (sample_fixed, sample_each) = cost.step_s, cost.sample_s
    seconds, reached, evaluated = 0.0, 0, 0
    for gone, task in enumerate(batch):
        members = len(batch) - gone
        seconds += (task.steps - reached) * (step_fixed + step_each * members)
        upto = bisect.bisect_right(grid, task.steps)
        seconds += (upto - evaluated) * samples * (sample_fixed + sample_each * members)
        reached, evaluated = task.steps, upto
    return seconds


def record_bytes(task: Task) -> float:
    """Disk that the run's record takes, before compression."""
    return RECORD_BYTES + 8.0 * len(COLUMNS) * len(task.evaluations())
