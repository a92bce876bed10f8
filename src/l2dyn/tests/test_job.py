"""Training jobs: the store is asked first, a stop leaves a checkpoint, a damaged checkpoint costs only its own work."""

import numpy as np
import pytest
import torch
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.spec import DataSpec, FullyConnectedSpec, RunSpec
from l2dyn.runs.store import RunStore

from l2dyn.runs.plan import Task
from l2dyn.training import job
from l2dyn.training.checkpoint import CheckpointTimer, headers, read_checkpoint, write_checkpoint

DATA = DataSpec(name="digits", checksum=DATASETS["digits"].checksum, train=64, test=50)


@pytest.fixture
def store(copy_digits, tmp_path):
    copy_digits(tmp_path)
    return RunStore(tmp_path, tmp_path / "nothing shipped")


def tasks(steps=(40, 90, 200), **fields):
    model = FullyConnectedSpec(hidden_layers=1, width=8)
    specs = [RunSpec(model=model, data=DATA, lr=0.1, l2=0.01 * (i + 1), **fields) for i in range(len(steps))]
    return [Task(spec, s, (s,), EvaluationGrid()) for spec, s in zip(specs, steps, strict=True)]


def columns_of(store, wanted):
    return {t.run_id: {k: v.tolist() for k, v in store.load(t.run_id).columns.items()} for t in wanted}


class StopAfter(job.Deadline):
    """Stops at the n-th time it is asked, as a time limit would."""

    def __init__(self, asked_times):
        super().__init__()
        self.left = asked_times

    def reached(self):
        self.left -= 1
        return self.left < 0


def test_what_is_stored_is_not_trained_again(store):
    wanted = tasks()
    first = job.train(wanted, store)
    assert (first.trained, first.found, first.stopped) == (3, 0, False)
    written = store.path(wanted[0].run_id).stat().st_mtime_ns
    second = job.train(wanted, store)
    assert (second.trained, second.found) == (0, 3)
    assert store.path(wanted[0].run_id).stat().st_mtime_ns == written
    provenance = store.load(wanted[0].run_id).provenance
    assert provenance["torch"] == torch.__version__
    assert provenance["wall_s"] > 0
    assert {"revision", "device", "python", "l2dyn"} <= provenance.keys()


@pytest.mark.parametrize("stop", [3, 5, 9, 13])
def test_a_stopped_job_goes_on_and_ends_like_an_uninterrupted_one(store, tmp_path, stop):
    wanted = tasks()
    outcome = job.train(wanted, store, deadline=StopAfter(stop))
    assert outcome.stopped
    (header,) = headers(store.results / "checkpoints")
    assert header.step > 0
    assert set(header.run_ids) == {t.run_id for t in wanted if not store.trained(t.run_id)}
    rest = job.train(wanted, store)
    assert outcome.trained + rest.trained == 3
    assert not rest.stopped
    assert headers(store.results / "checkpoints") == []
    whole = RunStore(tmp_path / "whole", tmp_path / "nothing shipped")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "data").symlink_to(store.results / "data")
    job.train(wanted, whole)
    assert columns_of(store, wanted) == columns_of(whole, wanted)


def test_a_checkpoint_is_resumed_with_its_members_even_when_one_was_stored_since(store):
    wanted = tasks()
    job.train(wanted, store, deadline=StopAfter(3))
    job.train(wanted[:1], RunStore(store.results, store.shipped))  # by another call, on its own
    (header,) = headers(store.results / "checkpoints")
    assert len(header.run_ids) == 3
    outcome = job.train(wanted, store)
    assert (outcome.trained, outcome.found) == (2, 1)


def test_a_checkpoint_whose_runs_are_all_stored_is_removed(store):
    wanted = tasks()
    job.train(wanted, store, deadline=StopAfter(3))
    for task in wanted:
        job.train([task], store)
    job.train(wanted, store)
    assert headers(store.results / "checkpoints") == []


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_its_runs_start_anew(store, damage, capsys, caplog):
    wanted = tasks()
    job.train(wanted, store, deadline=StopAfter(9))
    (header,) = headers(store.results / "checkpoints")
    content = bytearray(header.path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 16
    header.path.write_bytes({"bit": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    with caplog.at_level("WARNING"):
        outcome = job.train(wanted, store)
    assert not outcome.stopped
    assert all(store.trained(t.run_id) for t in wanted)
    assert header.path.with_name(header.path.name + ".corrupt").exists()
    assert sum("damaged checkpoint" in message for message in caplog.messages) == 1


def test_a_checkpoint_of_another_numerics_version_is_not_used(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, ["r"], [10], {"step": 4, "tensor": torch.ones(3)})
    header, state = read_checkpoint(path)
    assert (header.run_ids, header.step, state["tensor"].tolist()) == (["r"], 4, [1, 1, 1])
    monkeypatch.setattr("l2dyn.training.checkpoint.NUMERICS_VERSION", 10**6)
    assert read_checkpoint(path) is None
    assert headers(tmp_path) == []
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


def test_a_kept_final_state_is_lengthened(store, caplog):
    short, long = tasks(steps=(60,), batch=16)[0], tasks(steps=(200,), batch=16)[0]
    job.train([short], store, keep_final_state=True)
    with caplog.at_level("INFO"):
        job.train([long], store, keep_final_state=True)
    assert any("60 to 200 steps" in message for message in caplog.messages)
    lengthened = store.load(long.run_id)
    assert lengthened.steps == 200
    store.path(long.run_id).unlink()
    job.train([long], store)
    whole = store.load(long.run_id)
    shared = np.isin(lengthened.columns["step"], whole.columns["step"])
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(lengthened.columns[name][shared], values, err_msg=name)


def test_a_longer_run_that_another_job_trained_meanwhile_stays(store, caplog):
    """With its final state, from which it is lengthened."""
    short, long, longest = (tasks(steps=(steps,))[0] for steps in (60, 200, 300))

    class Meanwhile(job.Deadline):
        def reached(self):
            if not store.trained(long.run_id):
                job.train([long], RunStore(store.results, store.shipped), keep_final_state=True)
            return False

    assert job.train([short], store, deadline=Meanwhile(), keep_final_state=True).trained == 1
    assert store.load(long.run_id).steps == 200
    with caplog.at_level("INFO"):
        job.train([longest], store)
    assert any("200 to 300 steps" in message for message in caplog.messages)


def test_without_a_kept_state_a_short_record_is_trained_anew(store):
    short, long = tasks(steps=(60,))[0], tasks(steps=(200,))[0]
    job.train([short], store)
    assert job.train([long], store).trained == 1
    assert store.load(long.run_id).steps == 200


def test_a_diverged_run_is_stored_and_found(store):
    (task,) = tasks(steps=(100,))
    wild = Task(RunSpec(model=task.spec.model, data=DATA, lr=1e9, l2=0.1), 100, (100,), EvaluationGrid())
    outcome = job.train([task, wild], store)
    assert (outcome.trained, outcome.diverged) == (2, 1)
    assert store.load(wild.run_id).status == "diverged"
    assert job.train([Task(wild.spec, 10**6, (10**6,), EvaluationGrid())], store).found == 1


def test_sigterm_asks_for_a_stop():
    import os
    import signal

    deadline = job.Deadline()
    with deadline.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert deadline.reached()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
