"""The progress of a job: counted on real training, shown on a pseudo-terminal."""

import logging
import os
import pty
import sys
import termios
import threading

import pytest

from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training import progress as module
from l2dyn.training.progress import Progress, progress
from l2dyn.training.stacked import StackedTrainer


def followed(tasks, trainer, shown, stop_at=None):
    """Train as a job does; the model-steps of each pause."""
    counts = []

    def pause(trainer):
        shown.advanced(trainer)
        counts.append(shown.done)
        return stop_at is not None and trainer.step >= stop_at

    shown.begin(trainer)
    for ended in trainer.train(pause):
        shown.left(ended, trainer)
    return counts


def test_model_steps_are_counted_once_however_members_leave():
    samples = made_up_samples()
    tasks = [make_task(samples, steps=s, init_seed=i) for i, s in enumerate((40, 90, 200))]
    wild = make_task(samples, steps=300, lr=1e6)  # diverges
    shown = Progress([*tasks, wild])
    assert (shown.total, shown.runs) == (630, 4)
    counts = followed([*tasks, wild], StackedTrainer([*tasks, wild], samples), shown)
    assert counts == sorted(counts)
    assert (shown.done, shown.ended) == (shown.total, 4)
    assert 330 < shown.done < 400  # what the diverged run did not need has left the total
    assert "4 of 4 runs" in shown.line()
    assert "00:00 left" in shown.line()


def test_what_was_trained_earlier_does_not_count():
    samples = made_up_samples()
    tasks = [make_task(samples, steps=s, init_seed=i) for i, s in enumerate((150, 200))]
    first = StackedTrainer(tasks, samples)
    assert followed(tasks, first, Progress(tasks), stop_at=100)[-1] == 2 * first.step
    second, shown = StackedTrainer(tasks, samples), Progress(tasks)
    second.load_state_dict(first.state_dict())
    followed(tasks, second, shown)
    assert shown.done == shown.total == 350 - 2 * first.step


def test_a_log_gets_a_line_now_and_then(monkeypatch, caplog):
    caplog.set_level("INFO")
    samples = made_up_samples()
    task = make_task(samples)
    followed([task], StackedTrainer([task], samples), Progress([task]))
    assert not caplog.text  # less than a minute has passed
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    followed([task], StackedTrainer([task], samples), Progress([task]))
    assert "0 of 1 runs" in caplog.text
    assert "of 200 model-steps" in caplog.text


def on_a_terminal(run) -> str:
    """What run(stream) writes to a terminal, a pseudo-terminal of 100 columns."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    written = []

    def read():
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            written.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with open(its, "w", encoding="utf-8") as stream:
        run(stream)
    reader.join()
    os.close(ours)
    return b"".join(written).decode()


@pytest.mark.parametrize("bar", [True, False])
def test_a_terminal_shows_a_bar_and_whole_lines_above_it(monkeypatch, bar):
    """Where it is asked for."""
    samples = made_up_samples()
    tasks = [make_task(samples, steps=s, init_seed=i) for i, s in enumerate((40, 90))]
    log = logging.getLogger("l2dyn.somewhere")

    def run(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        handler = logging.StreamHandler(stream)
        logging.getLogger("l2dyn").addHandler(handler)
        try:
            with progress(tasks, bar) as shown:
                trainer = StackedTrainer(tasks, samples)
                shown.begin(trainer)
                for ended in trainer.train(shown.advanced):
                    log.warning("run %s finished", ended.task.run_id)
                    shown.left(ended, trainer)
        finally:
            logging.getLogger("l2dyn").removeHandler(handler)
            monkeypatch.undo()

    written = on_a_terminal(run)
    lines = [line.rstrip("\r").split("\r")[-1] for line in written.split("\n")]
    assert [line for line in lines if line.endswith(" finished")] == [f"run {task.run_id} finished" for task in tasks]
    assert ("%|" in written) == ("model-steps/s" in written) == ("2/2 runs" in written) == bar
