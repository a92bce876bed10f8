"""Time limits of jobs, by a clock that moves only by what is said to take time: each call returns before its own."""

import itertools

import pytest

from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.tests.made_up import arrays_of, assert_same_columns, made_up_samples, make_task
from l2dyn.training import checkpoint, job
from l2dyn.training.checkpoint import headers
from l2dyn.training.loop import TrainingLoop
from l2dyn.training.stacked import StackedTrainer

SAMPLES = made_up_samples(train=64, test=50, downscale=2)
SPARSE = EvaluationGrid(every_epochs=1000)


def task_of(steps, l2=0.01, grid=None, **fields):
    return make_task(SAMPLES, steps, l2=l2, grid=grid, net=FullyConnectedSpec(hidden_layers=1, width=8), **fields)


class Clock:
    """The time in seconds, in place of time.monotonic."""

    def __init__(self, patch):
        self.now, self._patch = 1000.0, patch
        patch.setattr("time.monotonic", lambda: self.now)

    def takes(self, owner, name: str, seconds) -> None:
        """From now on a call of `owner.name` takes these seconds; a function gets its arguments."""
        plain = getattr(owner, name)

        def slow(*args):
            self.now += seconds(*args) if callable(seconds) else seconds
            return plain(*args)

        self._patch.setattr(owner, name, slow)

    def a_step_takes(self, seconds: float) -> None:
        self.takes(StackedTrainer, "advance", lambda _, steps: seconds * steps)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("l2dyn.data.arrays.load", lambda *_, **__: arrays_of(SAMPLES))
    return Clock(monkeypatch)


def calls(clock, finished, wanted, limit: float):
    """(seconds, header of the checkpoint or None) of each call of a job until all is trained."""
    for _ in range(300):
        started = clock.now
        outcome = job.train(wanted, finished, deadline=job.Deadline(limit, started))
        yield clock.now - started, next(iter(headers(finished.cache.checkpoints)), None)
        if not outcome.stopped:
            return
    pytest.fail("no end")


@pytest.mark.parametrize(
    ("limit", "takes"),
    [
        (3, {"step": 0.2}),
        (8, {"step": 1.5}),
        (20, {"step": 0.2, "evaluation": 2.0}),
        (20, {"step": 0.01, "evaluation": 3.0, "preparing": 4.0}),
        (30, {"step": 0.2, "checkpoint": 0.5}),
        (60, {"step": 0.1, "evaluation": 1.0, "checkpoint": 0.7, "loading": 8.0, "preparing": 11.0}),
    ],
)
def test_every_call_returns_before_its_limit_and_gets_on(clock, finished, limit, takes):
    clock.a_step_takes(takes["step"])
    clock.takes(StackedTrainer, "measure", takes.get("evaluation", 0.0))
    clock.takes(TrainingLoop, "prepare", takes.get("preparing", 0.0))
    clock.takes(checkpoint, "write_atomically", takes.get("checkpoint", 0.0))
    clock.takes(job, "trainer_for", takes.get("loading", 0.0))
    wanted, before = [task_of(90), task_of(150, l2=0.02)], 0
    for count, (seconds, header) in enumerate(calls(clock, finished, wanted, limit), 1):  # noqa: B007
        assert seconds <= limit
        assert header is None or header.step > before
        before = header.step if header else 0
    assert count > 1
    assert all(finished.serves(task.run_id, task.steps) for task in wanted)


@pytest.mark.parametrize("limit", [1e-6, 0.5, 2.0])
def test_a_limit_too_short_for_anything_still_takes_a_step_a_call(clock, finished, limit):
    clock.a_step_takes(3.0)
    clock.takes(StackedTrainer, "measure", 3.0)
    steps = [header.step for _, header in calls(clock, finished, [task_of(8, grid=SPARSE)], limit) if header]
    assert steps == list(range(1, 8))


def test_asked_to_terminate_before_the_first_step_a_job_stops_at_once(clock, finished):
    outcome = job.train([task_of(8)], finished, deadline=job.Deadline(asked=True))
    assert (outcome.trained, outcome.stopped) == (0, True)
    assert headers(finished.cache.checkpoints) == []


def test_the_margin_before_a_limit(clock):
    assert [job.Deadline(limit).margin_s for limit in (3600, 10, 5, 0.5)] == [2.0, 2.0, 1.0, 0.1]
    deadline = job.Deadline(100.0, clock.now)
    for passed in (1.0, 4.0, 2.0):
        assert not deadline.reached()
        clock.now += passed
    assert not deadline.reached()
    assert deadline.margin_s == 1.5 * 4.0
    deadline.checkpoint_s = 0.3
    assert deadline.margin_s == pytest.approx(6.0 + 3.0)
    while not deadline.reached():
        clock.now += 1.0
    assert clock.now - deadline.started == 91.0


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [(1e-4, [1, 2, 4, 8, 16, 32, 32, 32, 32, 32]), (0.2, [1, 2, 4, 5, 5, 5, 5]), (3.0, [1, 1, 1, 1])],
)
def test_a_look_at_the_clock_about_every_second_changes_no_result(clock, step_s, expected):
    task = task_of(200, grid=SPARSE)
    (plain,) = StackedTrainer([task], SAMPLES).train()
    clock.a_step_takes(step_s)
    looks = [0]
    (ended,) = StackedTrainer([task], SAMPLES).train(lambda trainer: looks.append(trainer.step))
    first = looks.index(1) - 1  # the first evaluation comes before
    strides = [after - before for before, after in itertools.pairwise(looks[first:])]
    assert strides[: len(expected)] == expected
    assert max(strides) <= StackedTrainer.stretch
    assert_same_columns(ended.columns, plain.columns)


def test_a_run_is_charged_for_its_steps_and_all_its_evaluations(clock):
    clock.a_step_takes(0.01)
    clock.takes(StackedTrainer, "measure", 0.3)
    clock.takes(TrainingLoop, "prepare", 100.0)  # compiling, which no run's time counts
    alone = task_of(20, grid=SPARSE)
    (ended,) = StackedTrainer([alone], SAMPLES).train()
    assert ended.wall_s == pytest.approx(20 * 0.01 + 2 * 0.3)
    pair = [alone, task_of(50, l2=0.02, grid=SPARSE)]
    shares = {ended.task.steps: ended.wall_s for ended in StackedTrainer(pair, SAMPLES).train()}
    assert shares[20] == pytest.approx((20 * 0.01 + 2 * 0.3) / 2)
    assert shares[50] == pytest.approx(shares[20] + 30 * 0.01 + 0.3)
