"""How far a training job is: a bar on a terminal, a line a minute in a log file.

Work is counted in model-steps: a step of a stack counts once for each of its members.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from l2dyn.runs.plan import Task
from l2dyn.training.trainer import Ended, Trainer

log = logging.getLogger(__name__)
EVERY_S = 60.0  # between two lines


class Progress:
    """Counts the runs and model-steps of a job."""

    def __init__(self, tasks: list[Task], bar: tqdm | None = None):
        self.done, self.ended = 0, 0  # model-steps, runs
        self._waiting = {task.run_id: task.steps for task in tasks}
        self._training: list[int] = []  # model-steps that each member of the stack still needs
        self._at = 0
        self._bar = bar
        self._started = self._said = time.monotonic()

    @property
    def runs(self) -> int:
        """Runs that this job trains."""
        return self.ended + len(self._training) + len(self._waiting)

    @property
    def total(self) -> int:
        """Model-steps done here and still to do: what was trained earlier, or diverged, is not among them."""
        return self.done + sum(self._training) + sum(self._waiting.values())

    def begin(self, trainer: Trainer) -> None:
        """A stack begins, at step 0 or where a checkpoint left it."""
        for task in trainer.tasks:
            self._waiting.pop(task.run_id, None)
        self._at = trainer.step
        self._show(trainer, 0)

    def left(self, ended: Ended, trainer: Trainer) -> None:
        """A run has ended and left its stack; call it before `advanced` counts those that go on."""
        self.ended += 1
        self._show(trainer, max(0, ended.steps - self._at))

    def advanced(self, trainer: Trainer) -> None:
        """The stack has trained on."""
        steps = (trainer.step - self._at) * len(trainer.tasks)
        self._at = trainer.step
        self._show(trainer, steps)

    def line(self) -> str:
        """Runs, speed and time left in one line.

        >>> Progress([]).line()
        '0 of 0 runs, no step yet'
        """
        runs = f"{self.ended} of {self.runs} runs"
        if not self.done:
            return f"{runs}, no step yet"
        rate = self.done / (time.monotonic() - self._started)
        left = tqdm.format_interval((self.total - self.done) / rate)
        return f"{runs}, {self.done:,} of {self.total:,} model-steps, {rate:,.0f} a second, {left} left"

    def _show(self, trainer: Trainer, steps: int) -> None:
        self.done += steps
        self._training = [task.steps - self._at for task in trainer.tasks]
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix_str(f"{self.ended}/{self.runs} runs", refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            log.info("%s", self.line())


@contextmanager
def progress(tasks: list[Task], bar: bool) -> Iterator[Progress]:
    """The progress of training these runs: on the terminal with `bar`, below the log's lines, else in the log."""
    if not bar:
        yield Progress(tasks)
        return
    with (
        logging_redirect_tqdm([logging.getLogger("l2dyn")]),
        tqdm(unit=" model-steps", unit_scale=True, dynamic_ncols=True) as shown,
    ):
        yield Progress(tasks, shown)
