"""A training job under Slurm: its time, and the third attempt at what failed twice."""

import time

import pytest

from l2dyn.errors import UserError
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Slice
from l2dyn.tests.made_up import made_up_samples, make_task
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

    def begin(number: int, step: int | None = None) -> None:
        if step is not None:
            write_checkpoint(cache.checkpoints / "x.ckpt", [task.run_id], [task.steps], {"step": step})
        refuse_a_fault(cache, part, {"L2DYN_ATTEMPT": str(number)} if number else {})

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
