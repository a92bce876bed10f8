"""Which device a job trains on: a free GPU under a lock file, the one that Slurm gave it, or the CPU's cores."""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from l2dyn.errors import UserError

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 1.0  # while every GPU is taken


class NoDevice(Exception):
    """Asked to stop before a GPU became free."""


def chosen_device(wanted: str) -> str:
    """Either "cpu" or "cuda".

    Raises:
        UserError: where a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: no GPU is visible here; choose device: cpu or auto, or a machine that has one")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(wanted: int) -> None:
    """Let PyTorch use `wanted` threads, but never more than there are cores: that is many times slower."""
    threads = min(wanted, usable_cores())
    if threads < wanted:
        log.info("%d threads instead of %d: this process may use no more cores", threads, wanted)
    torch.set_num_threads(threads)


@contextmanager
def taken_device(device: str, stop: Callable[[], bool]) -> Iterator[str]:
    """Hold a device for a job and say which; afterwards "cuda" means the GPU taken.

    Where several GPUs are visible, one of them is locked on this machine, for all users, until the job ends in whatever
    way: also inside a Slurm allocation of several, in which more than one job may run. A single GPU that Slurm gave is
    this job's own.

    Raises:
        NoDevice: when `stop` says so while all are taken.
    """
    if device != "cuda":
        yield device
        return
    visible = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if "SLURM_JOB_ID" in os.environ and len(visible) == 1:
        log.info("the GPU that Slurm gave: %s, %s", visible[0].name, visible[0].uuid)
        yield device
        return
    with locked([str(gpu.uuid) for gpu in visible], stop) as index:
        torch.cuda.set_device(index)
        log.info("GPU %d of %d: %s, %s", index, len(visible), visible[index].name, visible[index].uuid)
        yield device


@contextmanager
def locked(uuids: list[str], stop: Callable[[], bool], folder: Path | None = None) -> Iterator[int]:
    """Hold the lock of one of these devices, the first that is free, waiting for it; yields its index.

    folder: of the lock files, by default the machine's temporary one. The system frees a lock when its process dies.

    Raises:
        NoDevice: when `stop` says so while waiting.
    """
    folder = folder or Path(tempfile.gettempdir())
    waiting = False
    while True:
        for index, uuid in enumerate(uuids):
            handle = _lock(folder / f"l2dyn-gpu-{uuid}.lock")
            if handle is not None:
                try:
                    yield index
                finally:
                    os.close(handle)
                return
        if stop():
            raise NoDevice
        if not waiting:
            log.info("all %d GPUs are taken by other jobs; waiting", len(uuids))
            waiting = True
        time.sleep(LOOK_AGAIN_S)


def _lock(path: Path) -> int | None:
    """An open file that holds the lock; None while another process has it."""
    try:
        handle = os.open(path, os.O_RDONLY)  # another user's file opens like this only
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
