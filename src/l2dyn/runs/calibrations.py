"""Calibrations: what `l2dyn calibrate` measured on each device, kept in results/calibration.json."""

import dataclasses
import json
import logging
import math
import platform
from dataclasses import dataclass
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder, write_atomically

log = logging.getLogger(__name__)
# Nominal sustained rates, FLOP/s: a core of a laptop, and a data-centre GPU in float32 with TF32 products.
NOMINAL_RATE = {"cpu": 5e10, "cuda": 1e14}


@dataclass(frozen=True)
class KindCost:
    """Seconds that training of one kind takes on one device: a fixed part, and one for each member of the stack."""

    net: str  # the kind of net
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
    """What was measured on one device; `kinds` maps l2dyn.runs.cost.kind of a task to its cost."""

    device: str
    date: str
    job_s: float  # from the start of a job's process to its first step
    kinds: dict[str, KindCost]

    def of(self, kind: str, flops: float) -> KindCost | None:
        """As measured, else scaled from the kind of the same net that is nearest in operations; None without one."""
        if kind in self.kinds:
            return self.kinds[kind]
        net = json.loads(kind)["net"]["kind"]
        alike = [cost for cost in self.kinds.values() if cost.net == net]
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
    """Every device's calibration as JSON, by its name.

    Raises:
        UserError: for a damaged file.
    """
    path = calibration_path()
    try:
        devices = json.loads(path.read_text())
        for entry in devices.values():
            _calibration("", entry), entry["gpu"]
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

    A damaged file is a warning and counts as none, since it holds estimates only. Nothing here may import torch, so
    `auto` means a GPU where the driver has made its device file.
    """
    try:
        devices = read_calibrations()
    except UserError as error:
        log.warning("l2dyn: %s; times are estimated at a nominal rate", error)
        return None
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
