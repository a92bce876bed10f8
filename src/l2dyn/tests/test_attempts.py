"""A training job under Slurm: its time, and the third attempt at what failed twice."""

import logging
import time

import pytest

from l2dyn.cli.main import main
from l2dyn.errors import UserError
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Slice
from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training import job
from l2dyn.training.attempts import limit_under_slurm, refuse_a_fault
from l2dyn.training.checkpoint import write_checkpoint


def test_the_limit_is_what_slurm_leaves_less_a_margin():
    slurm = {"SLURM_JOB_ID": "7"}
    assert limit_under_slurm({}) is None
    assert limit_under_slurm({"L2DYN_RUNTIME_MINUTES": "60"}) is None
    assert limit_under_slurm(slurm) is None
    assert limit_under_slurm(slurm | {"L2DYN_RUNTIME_MINUTES": "60"}) == 3540.0
    assert limit_under_slurm(slurm | {"L2DYN_RUNTIME_MINUTES": "1"}) == 48.0
    end = {"SLURM_JOB_END_TIME": str(time.time() + 600), "L2DYN_RUNTIME_MINUTES": "60"}
    assert limit_under_slurm(slurm | end) == pytest.approx(540, abs=5)
    assert limit_under_slurm(slurm | {"SLURM_JOB_END_TIME": str(time.time() - 5)}) == 1.0


@pytest.fixture
def attempt(tmp_path):
    """attempt(n): what the job says at its start when Snakemake tries it for the nth time."""
    task = make_task(made_up_samples())
    cache, part = Cache(tmp_path), Slice("fig2ab", 1, 3, (task,))

    def begin(number: int, step: int | None = None, under_slurm: bool = True) -> None:
        if step is not None:
            write_checkpoint(cache.checkpoints / "x.ckpt", [task.run_id], [task.steps], {"step": step})
        slurm = {"SLURM_JOB_ID": "7"} if under_slurm else {}
        refuse_a_fault(cache, part, {"L2DYN_ATTEMPT": str(number)} | slurm if number else {})

    return begin


def test_what_failed_twice_without_progress_is_not_tried_again(attempt):
    attempt(1)
    attempt(2)
    with pytest.raises(UserError, match="failed twice without a newer checkpoint"):
        attempt(3)
    attempt(1)  # another call of Snakemake begins anew


def test_a_newer_checkpoint_is_progress(attempt):
    for number in range(1, 12):
        attempt(number, step=10 * number)


def test_by_hand_nothing_is_counted(attempt):
    for _ in range(5):
        attempt(0)


def test_without_slurm_a_file_is_written_only_for_what_is_tried_again(attempt, tmp_path):
    attempt(1, under_slurm=False)
    assert not list(tmp_path.rglob("*.attempts"))
    attempt(2, under_slurm=False)
    attempt(3, under_slurm=False)
    with pytest.raises(UserError, match="failed twice"):
        attempt(4, under_slurm=False)
    attempt(1, under_slurm=False)  # another call of Snakemake
    assert not list(tmp_path.rglob("*.attempts"))


@pytest.fixture
def call(workplace, monkeypatch):
    """call(stopped, *arguments): the time limit of a job under Slurm, an hour there, which stops or is done at once."""
    for name, value in {"SLURM_JOB_ID": "7", "L2DYN_RUNTIME_MINUTES": "60", "L2DYN_ATTEMPT": "1"}.items():
        monkeypatch.setenv(name, value)
    log = logging.getLogger("l2dyn")  # the command line sets it up; leave it as it was
    before = (list(log.handlers), log.level, log.propagate)

    def train(stopped, *arguments) -> float:
        limits = []

        def trained(*_, deadline, **__):
            limits.append(deadline.limit_s)
            return job.Outcome(0, 0, 0, stopped)

        monkeypatch.setattr(job, "train", trained)
        code = main(["train", "--scale", "tiny", "--experiment", "first", *arguments])
        assert code == (75 if stopped else 0)
        return limits[0]

    yield train
    log.handlers[:], log.level, log.propagate = before


def test_the_smaller_of_two_time_limits_counts(call):
    assert call(False) == 3540.0
    assert call(False, "--time-limit", "9m") == 540.0
    assert call(False, "--time-limit", "2h") == 3540.0


def test_what_was_noted_of_attempts_goes_when_the_slice_is_done(call, workplace):
    call(True)
    assert len(list(workplace.rglob("*.attempts"))) == 1
    call(False)
    assert not list(workplace.rglob("*.attempts"))
