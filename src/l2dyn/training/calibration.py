"""A short calibration: how long steps and evaluations of a scale's kinds of training take on this device."""

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime

import numpy as np
import torch

from l2dyn.data.samples import Samples
from l2dyn.runs.calibrations import NOMINAL_RATE, Calibration, KindCost, cpu_name, write_calibration
from l2dyn.runs.cost import evaluated_samples, kind, step_flops
from l2dyn.runs.plan import Task, stacks
from l2dyn.specs.data_sets import DataSpec
from l2dyn.training.devices import chosen_device, limit_threads, taken_device
from l2dyn.training.dispatch import trainer_for
from l2dyn.training.precision import products_in

log = logging.getLogger(__name__)
TIMED_S = 0.5  # each timing lasts at least this long, and as long before it warms up
TOO_LONG_S = 5.0  # a kind whose nominal step takes longer is left to the estimate from its operations
STEPS = 8  # between two looks at the clock


def calibrate(slices: Iterable[list[Task]], device: str, threads: int) -> Calibration:
    """Time each kind of training that occurs in these slices, alone and in its largest stack, and keep it.

    Takes one to three seconds a kind on a CPU.

    Raises:
        UserError: where a GPU is asked for and there is none.
    """
    device = chosen_device(device)
    limit_threads(threads)
    largest: dict[str, list[Task]] = {}
    for stack in (stack for slice_ in slices for stack in stacks(slice_)):
        key = kind(stack[0])
        largest[key] = max(largest.get(key, []), stack, key=len)
    nominal = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * torch.get_num_threads()
    with taken_device(device, stop=lambda: False):
        kinds = {}
        for key, stack in largest.items():
            if step_flops(stack[0]) / nominal > TOO_LONG_S:
                log.info("a step of %s takes too long here; its cost will be estimated", key)
                continue
            kinds[key] = _timed(stack, device)
            log.info("%s: %.3g s a step of %d", key, sum(kinds[key].step_s), len(stack))
        name = torch.cuda.get_device_name() if device == "cuda" else cpu_name(torch.get_num_threads())
    calibration = Calibration(name, datetime.now().isoformat(timespec="seconds"), _job_start(), kinds)
    write_calibration(calibration, is_gpu=device == "cuda")
    return calibration


def _timed(stack: list[Task], device: str) -> KindCost:
    sizes = sorted({1, len(stack)})
    times = []
    for size in sizes:
        with products_in(stack[0].spec.precision):
            times.append(_of_members(stack[:size], device))
    step, sample = (_line(sizes, values) for values in zip(*times, strict=True))
    return KindCost(stack[0].spec.net.kind, step_flops(stack[0]), step, sample)


def _line(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """(fixed, each): seconds ≈ fixed + each·members; all of it is `each` where only one size was timed."""
    if len(sizes) == 1:
        return 0.0, seconds[0] / sizes[0]
    each = max(0.0, (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]))
    return max(0.0, seconds[0] - each * sizes[0]), each


def _of_members(tasks: list[Task], device: str) -> tuple[float, float]:
    """Seconds of a step, and of an evaluation for each sample, of a stack of these runs on made-up data."""
    trainer = trainer_for(tasks, random_samples(tasks[0].spec.data), device)
    step = _seconds(lambda: trainer.advance(STEPS), device) / STEPS
    evaluation = _seconds(lambda: trainer.measure().cpu(), device)
    return step, evaluation / evaluated_samples(tasks[0])


def _seconds(run: Callable, device: str) -> float:
    """Seconds of one call, the mean over TIMED_S, after a warm-up."""
    for _ in range(2):  # the first round warms up: caches, compiled nets, captured graphs
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < TIMED_S or not calls:
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            calls += 1
    return elapsed / calls


def random_samples(spec: DataSpec) -> Samples:
    """Random images and labels in the shapes of a run's data."""
    info = spec.data_set
    generator = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        images = generator.integers(0, 256, size=(count, *info.shape), dtype=np.uint8)
        return images, generator.integers(0, info.classes, size=count)

    return Samples(spec, *split(spec.train_samples), *split(spec.test_samples))


def _job_start() -> float:
    """Seconds in which a job's process starts and imports what it needs."""
    started = time.perf_counter()
    command = [sys.executable, "-c", "import l2dyn.training.job, pyarrow.parquet"]
    subprocess.run(command, check=True, capture_output=True)
    log.info("a job starts in %.1f s (Python %s)", elapsed := time.perf_counter() - started, platform.python_version())
    return elapsed
