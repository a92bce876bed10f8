"""Which device a job takes: real lock files, real processes, a real kill -9."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l2dyn.errors import UserError
from l2dyn.training import devices, job
from l2dyn.training.devices import NoDevice, locked

HOLD = """
import sys, types
from pathlib import Path
sys.modules["torch"] = types.ModuleType("torch")  # importing it takes seconds, and locking needs none of it
from l2dyn.training.devices import locked
with locked(["one", "two"], lambda: False, Path(sys.argv[1])) as index:
    print(index, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holders(tmp_path):
    """Start processes that each hold a device until they are told to end."""
    started = []

    def start():
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        how = {"env": os.environ | {"PYTHONPATH": str(Path(devices.__file__).parents[2])}, "text": True}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def held_now(folder):
    """The device that is free now, None if none is."""
    try:
        with locked(["one", "two"], lambda: True, folder) as index:
            return index
    except NoDevice:
        return None


def test_two_jobs_take_two_devices_and_a_third_waits_for_one(tmp_path, holders, monkeypatch):
    monkeypatch.setattr(devices, "LOOK_AGAIN_S", 0.01)
    (_, first), (second_process, second) = holders(), holders()
    assert (first, second) == (0, 1)
    assert held_now(tmp_path) is None
    looks = iter([False, False, True])

    def freed_while_waiting():
        if next(looks):
            raise AssertionError("it should have got the device that was freed")
        second_process.communicate("")  # ends, as a job does
        return False

    with locked(["one", "two"], freed_while_waiting, tmp_path) as index:
        assert index == 1


def test_a_killed_job_frees_its_device(tmp_path, holders):
    process, index = holders()
    assert held_now(tmp_path) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert held_now(tmp_path) == index == 0


def test_another_users_lock_file_is_enough(tmp_path):
    """It cannot be written by this user; locking needs no more than reading."""
    for name in ("one", "two"):
        path = tmp_path / f"l2dyn-gpu-{name}.lock"
        path.touch(mode=0o444)
    assert held_now(tmp_path) == 0


class Gpu:
    name, uuid = "an accelerator", "7f3a"


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """As if torch saw two GPUs; the numbers of those made current are noted."""
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: Gpu if i == 0 else type("B", (Gpu,), {"uuid": "b"})
    )
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return current


def test_a_job_says_which_gpu_it_took(two_gpus, tmp_path, caplog):
    caplog.set_level("INFO")
    with locked(["7f3a"], lambda: True, tmp_path), devices.taken_device("cuda", lambda: True) as device:
        assert device == "cuda"
    assert two_gpus == [1]
    assert "GPU 1 of 2: an accelerator, b" in caplog.text


def test_jobs_that_share_a_slurm_allocation_take_different_gpus(two_gpus, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with locked(["7f3a"], lambda: True, tmp_path), devices.taken_device("cuda", lambda: True):
        pass
    assert two_gpus == [1]


def test_the_only_gpu_that_slurm_gave_is_not_locked(two_gpus, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with devices.taken_device("cuda", lambda: True):
        assert not list(tmp_path.iterdir())
    assert "Slurm gave: an accelerator, 7f3a" in caplog.text


def test_a_job_that_waits_for_a_gpu_stops_when_asked(two_gpus, tmp_path, monkeypatch, finished):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    task = type("Task", (), {"run_id": "a", "steps": 1, "evaluations": lambda: [0, 1]})
    with locked(["7f3a"], lambda: True, tmp_path), locked(["b"], lambda: True, tmp_path):
        outcome = job.train([task], finished, "auto", deadline=job.Deadline(limit_s=0.0))
    assert outcome == job.Outcome(trained=0, diverged=0, found=0, stopped=True)


def test_threads_never_exceed_the_cores(caplog):
    caplog.set_level("INFO")
    before, cores = torch.get_num_threads(), devices.usable_cores()
    try:
        devices.limit_threads(cores + 3)
        assert torch.get_num_threads() == cores
        assert f"{cores} threads instead of {cores + 3}" in caplog.text
        devices.limit_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_no_gpu_is_one_clear_line():
    if torch.cuda.is_available():
        assert devices.chosen_device("auto") == "cuda"
    else:
        assert devices.chosen_device("auto") == "cpu"
        with pytest.raises(UserError, match="no GPU is visible"):
            devices.chosen_device("cuda")
