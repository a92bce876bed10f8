"""Training jobs: what is finished is not trained, a stop leaves a checkpoint, a damaged one costs only its own work."""

import errno
import os
import signal

import numpy as np
import pytest
import torch

from l2dyn.errors import UserError
from l2dyn.files import set_aside
from l2dyn.runs.bundles import Finished
from l2dyn.runs.cache import Cache
from l2dyn.runs.checkpoint_header import header_line, resumable
from l2dyn.runs.plan import Task
from l2dyn.runs.records import RecordHeader
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec
from l2dyn.specs.run import NUMERICS_VERSION, AugmentationSpec, AutoL2Spec
from l2dyn.tests.made_up import arrays_of, made_up_samples, make_task
from l2dyn.training import job
from l2dyn.training.checkpoint import CheckpointTimer, headers, read_checkpoint, write_checkpoint

SAMPLES = made_up_samples(train=64, test=50, downscale=2)
SMALL = FullyConnectedSpec(hidden_layers=1, width=8)
CONV = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)
EVERYTHING = {  # that a single net's state has to hold
    "net": CONV.model_copy(update={"batch_norm": True}),
    "batch": 16,
    "momentum": 0.9,
    "l2": 0.3,
    "lr": 0.05,
    "lr_decay_epochs": (5, 8),
    "auto_l2": AutoL2Spec(factor=0.5, interval=7),
    "augmentation": AugmentationSpec(flip=True, crop=1, mixup=0.3),
}


@pytest.fixture(autouse=True)
def _no_data_to_read(monkeypatch):
    monkeypatch.setattr("l2dyn.data.arrays.load", lambda *_, **__: arrays_of(SAMPLES))


def task_of(steps, l2=0.01, lr=0.1, net=SMALL, **fields) -> Task:
    return make_task(SAMPLES, steps, lr, l2, net=net, precision="float32", **fields)


def everything() -> list[Task]:
    return [task_of(36, grid=EvaluationGrid(every_epochs=2.0), **EVERYTHING)]


def tasks(steps=(40, 90, 150)) -> list[Task]:
    return [task_of(s, l2=0.01 * (i + 1)) for i, s in enumerate(steps)]


def checkpoints(finished):
    return headers(finished.cache.checkpoints)


def columns_of(finished, wanted):
    return {t.run_id: {k: v.tolist() for k, v in finished.load(t.run_id).columns.items()} for t in wanted}


class StopAfter(job.Deadline):
    """Stops at the n-th time it is asked, as a time limit would."""

    def __init__(self, asked_times):
        super().__init__()
        self.left = asked_times

    def reached(self):
        self.left -= 1
        return self.left < 0


def test_what_is_finished_is_not_trained_again(finished):
    wanted = tasks()
    first = job.train(wanted, finished)
    assert (first.trained, first.found, first.stopped) == (3, 0, False)
    written = finished.cache.path(wanted[0].run_id).stat().st_mtime_ns
    second = job.train(wanted, finished)
    assert (second.trained, second.found) == (0, 3)
    assert finished.cache.path(wanted[0].run_id).stat().st_mtime_ns == written
    provenance = finished.load(wanted[0].run_id).provenance
    assert provenance["torch"] == torch.__version__
    assert provenance["wall_s"] > 0
    assert {"revision", "device", "python", "l2dyn"} <= provenance.keys()


def test_stacks_and_single_nets_train_in_one_job(finished):
    wanted = [
        task_of(32, batch=16),
        task_of(32, lr=0.05, batch=16),
        task_of(32, net=CONV, batch=16, momentum=0.9, lr=0.05),
        task_of(32, batch=16, auto_l2=AutoL2Spec()),  # fully connected, but it does not stack
        task_of(100, lr=1e9, l2=0.1),
    ]
    outcome = job.train(wanted, finished)
    assert (outcome.trained, outcome.diverged, outcome.stopped) == (5, 1, False)
    for task in wanted[:4]:
        record = finished.load(task.run_id)
        assert (record.status, record.steps, record.spec) == ("finished", 32, task.spec)
        assert record.columns["train_loss"][-1] < record.columns["train_loss"][0]
    assert finished.load(wanted[4].run_id).status == "diverged"
    assert checkpoints(finished) == []
    longer = Task(wanted[4].spec, 10**6, (10**6,), wanted[4].grid)
    assert job.train([longer], finished).found == 1  # a diverged run answers for any horizon


@pytest.mark.parametrize(("kind", "stop"), [("stack", 3), ("stack", 9), ("single", 3)])
def test_a_stopped_job_goes_on_and_ends_like_an_uninterrupted_one(finished, tmp_path, kind, stop):
    wanted = tasks() if kind == "stack" else everything()
    outcome = job.train(wanted, finished, deadline=StopAfter(stop))
    assert outcome.stopped
    (header,) = checkpoints(finished)
    assert header.step > 0
    assert set(header.run_ids) == {t.run_id for t in wanted if finished.header(t.run_id) is None}
    rest = job.train(wanted, finished)
    assert outcome.trained + rest.trained == len(wanted)
    assert not rest.stopped
    assert checkpoints(finished) == []
    whole = Finished(Cache(tmp_path / "whole"), finished.shelf)
    job.train(wanted, whole)
    assert columns_of(finished, wanted) == columns_of(whole, wanted)


def test_a_time_limit_stops_before_it(finished, caplog):
    class Aging(job.Deadline):
        """Seen by a job for which a second passes whenever it looks at the clock."""

        def reached(self):
            self.started -= 1.0
            return super().reached()

    caplog.set_level("INFO")
    wanted = tasks()
    outcome = job.train(wanted, finished, deadline=Aging(limit_s=6.0))
    assert outcome.stopped
    (header,) = checkpoints(finished)
    assert not job.train(wanted, finished).stopped
    assert f"resumed a stack of {len(header.run_ids)} runs at step {header.step}" in caplog.messages


def test_a_checkpoint_is_resumed_with_its_members_even_when_one_is_finished_since(finished):
    wanted = tasks()
    job.train(wanted, finished, deadline=StopAfter(3))
    job.train(wanted[:1], finished)  # by another call, on its own
    (header,) = checkpoints(finished)
    assert len(header.run_ids) == 3
    outcome = job.train(wanted, finished)
    assert (outcome.trained, outcome.found) == (2, 1)


def test_a_checkpoint_whose_runs_are_all_finished_is_removed(finished):
    wanted = tasks()
    job.train(wanted, finished, deadline=StopAfter(3))
    for task in wanted:
        job.train([task], finished)
    assert len(checkpoints(finished)) == 1
    job.train(wanted, finished)
    assert checkpoints(finished) == []


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_its_runs_start_anew(finished, damage, caplog):
    wanted = tasks()
    job.train(wanted, finished, deadline=StopAfter(9))
    (header,) = checkpoints(finished)
    content = bytearray(header.path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 16
    header.path.write_bytes({"bit": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    with caplog.at_level("WARNING"):
        outcome = job.train(wanted, finished)
    assert not outcome.stopped
    assert all(finished.serves(t.run_id, t.steps) for t in wanted)
    assert header.path.with_name(header.path.name + ".corrupt").exists()
    assert sum("damaged checkpoint" in message for message in caplog.messages) == 1


def test_checkpoints_that_nobody_goes_on_with_are_removed_by_whichever_job_comes(finished):
    """Of runs that the cache holds at their horizons, and of an older numerics version."""
    mine, other = task_of(20), task_of(60, l2=0.5)
    job.train([task_of(60, l2=0.3)], finished)
    job.train([other], finished)
    folder, state = finished.cache.checkpoints, {"step": 4}
    write_checkpoint(folder / "finished.ckpt", [task_of(60, l2=0.3).run_id, other.run_id], [60, 60], state)
    write_checkpoint(folder / "half.ckpt", [other.run_id, "0123456789ab"], [60, 60], state)
    write_checkpoint(folder / "longer.ckpt", [other.run_id], [90], state)
    for name, version in (("older", NUMERICS_VERSION - 1), ("newer", NUMERICS_VERSION + 1)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("l2dyn.training.checkpoint.NUMERICS_VERSION", version)
            write_checkpoint(folder / f"{name}.ckpt", ["0123456789ab"], [60], state)
    job.train([mine], finished)
    assert [header.path.stem for header in checkpoints(finished)] == ["half", "longer", "newer"]


def test_what_only_the_shelf_holds_may_still_be_trained_by_a_job_without_it(finished):
    theirs = task_of(60, l2=0.5)
    write_checkpoint(finished.cache.checkpoints / "x.ckpt", [theirs.run_id], [60], {"step": 4})
    shelved = RecordHeader(theirs.run_id, "x", "finished", 60, NUMERICS_VERSION, "")
    finished.shelf.headers[theirs.run_id] = shelved
    assert finished.serves(theirs.run_id, 60)
    job.train([task_of(20)], finished)
    assert len(checkpoints(finished)) == 1


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
@pytest.mark.parametrize("whole", [False, True], ids=["header", "state"])
def test_a_checkpoint_that_cannot_be_read_now_is_kept(finished, monkeypatch, error, whole):
    """One line that names it, whosever it is: its job would start its runs anew and write over it."""
    wanted = tasks()
    job.train(wanted, finished, deadline=StopAfter(3))
    (header,) = checkpoints(finished)

    def refused(*_, **__):
        raise error

    plain = open
    if whole:
        monkeypatch.setattr(type(header.path), "read_bytes", refused)
    else:
        opened = lambda path, *how: refused() if path == header.path else plain(path, *how)  # noqa: E731
        monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(UserError, match=f"^{header.path}: cannot be read now .(Too many|MemoryError)"):
        job.train(wanted, finished)
    monkeypatch.undo()
    assert checkpoints(finished) == [header]


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(finished, monkeypatch):
    """As NFS says of a checkpoint that another job writes just then."""
    path = finished.cache.checkpoints / "x.ckpt"
    write_checkpoint(path, ["r"], [10], {"step": 4})
    plain, stale = open, [OSError(errno.ESTALE, "Stale file handle")]

    def opened(file, *how):
        if file == path and stale:
            raise stale.pop()
        return plain(file, *how)

    monkeypatch.setattr("builtins.open", opened)
    assert [header.step for header in checkpoints(finished)] == [4]
    assert not stale


def test_a_whole_checkpoint_that_does_not_load_is_kept(finished, monkeypatch):
    path = finished.cache.checkpoints / "x.ckpt"
    write_checkpoint(path, ["r"], [10], {"step": 4})

    def refused(*_, **__):
        raise RuntimeError("not enough memory\nand a trace")

    monkeypatch.setattr("torch.load", refused)
    with pytest.raises(UserError, match=r"x.ckpt: cannot be loaded now \(not enough memory\)"):
        read_checkpoint(path)
    path.write_bytes(header_line({"run_ids": ["r"]}))
    with pytest.raises(UserError, match=r"x.ckpt: written by another version"):
        read_checkpoint(path)
    assert path.exists()


def test_what_was_set_aside_before_stays(tmp_path):
    path = tmp_path / "x.ckpt"
    for content in ("one", "two", "three"):
        path.write_text(content)
        assert set_aside(path).read_text() == content
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "x.ckpt.corrupt": "one",
        "x.ckpt.2.corrupt": "two",
        "x.ckpt.3.corrupt": "three",
    }


def test_a_checkpoint_of_another_numerics_version_is_not_used(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, ["r"], [10], {"step": 4, "tensor": torch.ones(3)})
    header, state = read_checkpoint(path)
    assert (header.run_ids, header.step, state["tensor"].tolist()) == (["r"], 4, [1, 1, 1])
    assert resumable(headers(tmp_path), {("r", 10)}) == [header]
    for module in ("training.checkpoint", "runs.checkpoint_header"):
        monkeypatch.setattr(f"l2dyn.{module}.NUMERICS_VERSION", 10**6)
    assert read_checkpoint(path) is None
    assert resumable(headers(tmp_path), {("r", 10)}) == []
    assert path.exists()


def test_the_next_checkpoint_waits_fifty_times_the_cost_of_the_last(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("l2dyn.training.checkpoint.time.monotonic", lambda: now[0])
    timer = CheckpointTimer(first_after_s=5)
    assert not timer.due()
    now[0] = 105.0
    assert timer.due()
    timer.wrote(cost_s=2.0)
    now[0] = 204.9
    assert not timer.due()
    now[0] = 205.0
    assert timer.due()


def test_a_longer_horizon_is_trained_from_the_start(finished):
    short, long = task_of(60), task_of(200)
    assert short.run_id == long.run_id
    job.train([short], finished)
    before = finished.load(short.run_id).columns
    assert job.train([long], finished).trained == 1
    record = finished.load(long.run_id)
    assert record.steps == 200
    np.testing.assert_array_equal(record.prefix(59)["train_loss"], before["train_loss"][:-1])


def test_a_longer_run_that_another_job_trained_meanwhile_stays(finished):
    short, long = task_of(60), task_of(200)

    class Meanwhile(job.Deadline):
        def reached(self):
            if finished.header(long.run_id) is None:
                job.train([long], finished)
            return False

    assert job.train([short], finished, deadline=Meanwhile()).trained == 1
    assert finished.load(long.run_id).steps == 200


def test_sigterm_asks_for_a_stop():
    deadline = job.Deadline()
    with deadline.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert deadline.reached()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
