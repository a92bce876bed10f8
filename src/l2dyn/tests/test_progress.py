"""The progress of a job: counted on real training, shown on a real pseudo-terminal."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training import progress as module
from l2dyn.training.progress import Progress
from l2dyn.training.stacked import StackedTrainer

ROOT = Path(__file__).parents[3]


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


@pytest.fixture
def command(tmp_path, copy_digits):
    environment = os.environ | {"L2DYN_RESULTS": str(tmp_path), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    base = [sys.executable, "-m", "l2dyn"]
    how = {"cwd": ROOT, "env": environment}
    copy_digits(tmp_path)
    return [*base, "train", "--scale", "smoke", "--experiment", "fig2ab", "--slice", "1/2"], how


def on_a_terminal(command, how) -> str:
    """What the command writes to a terminal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, **how)
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the terminal is closed when the process ends
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_a_terminal_shows_a_bar_and_whole_lines_above_it(command):
    written = on_a_terminal(*command)
    assert "%|" in written
    assert "model-steps/s" in written
    done, of = written.rsplit(" runs", 1)[0].rsplit(" ", 1)[-1].split("/")
    assert done == of != "0"
    lines = [line.rstrip("\r").split("\r")[-1] for line in written.split("\n")]
    assert [line for line in lines if " finished after " in line]
    assert not [line for line in lines if " finished after " in line and "%|" in line]


def test_with_a_log_the_terminal_stays_quiet(command, tmp_path):
    (words, how), log = command, tmp_path / "train.log"
    assert on_a_terminal([*words, "--log", str(log)], how) == ""
    text = log.read_text()
    assert "finished after" in text
    assert "%|" not in text
    assert not set("\r\x1b") & set(text)
