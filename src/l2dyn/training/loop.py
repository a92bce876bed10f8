"""The loop that all trainers share: when members are measured, what is noted of them, who leaves and when."""

import bisect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from l2dyn.runs.plan import Task
from l2dyn.training.trainer import MEASURES, Ended

LOOK_S = 1.0  # between two looks at the clock, as nearly as whole steps allow
MUST_BE_FINITE = MEASURES.index("train_loss"), MEASURES.index("param_norm")  # or the member has diverged


class TrainingLoop(ABC):
    """A Trainer (see there) but for its arithmetic: how it steps, measures and lets members go.

    stretch: the most steps between two looks at the clock, which are about LOOK_S seconds apart. pending_limit:
    evaluations that wait on the device before the host asks for them; with more than one, a member's divergence may be
    noticed that much later, its record being the same.
    """

    stretch: int = 32
    pending_limit: int = 1

    def __init__(self, tasks: list[Task]):
        self.tasks = list(tasks)
        self.step = 0
        self.wall_s = [0.0] * len(tasks)
        self.rows: list[list[list[float]]] = [[] for _ in tasks]  # of each member, in the order of columns_of
        self._pending: list[tuple[int, list[tuple[float, float]], Tensor]] = []  # step, rates, measures
        self._at_once = 1  # steps until the next look at the clock
        self._plan_evaluations()

    def prepare(self) -> bool:
        """Do what precedes the first step, if anything; whether there was something to do. No run's time counts it."""
        return False

    @abstractmethod
    def advance(self, steps: int) -> None:
        """See Trainer."""

    @abstractmethod
    def measure(self) -> Tensor:
        """See Trainer."""

    @abstractmethod
    def rates(self) -> list[tuple[float, float]]:
        """(learning rate, λ) of each member, as its next step uses them."""

    @abstractmethod
    def keep(self, members: list[int]) -> None:
        """Drop the tensors of all but these members; `tasks` still lists all of them."""

    @abstractmethod
    def tensors(self) -> dict:
        """The part of the state that is not the loop's."""

    @abstractmethod
    def load_tensors(self, state: dict) -> None:
        """Take over that part of a state."""

    def train(self, pause: Callable[["TrainingLoop"], bool] = lambda trainer: False) -> Iterator[Ended]:
        """See Trainer."""
        if self.step == 0 and not any(self.rows):
            yield from self._evaluate()
            if self.tasks and pause(self):
                return
        if self.tasks and self.prepare() and pause(self):
            return
        while self.tasks:
            upcoming = self._grid[bisect.bisect_right(self._grid, self.step)]
            while self.step < upcoming:
                self._advance_until(upcoming)
                if self.step < upcoming and pause(self):
                    return
            yield from self._evaluate()
            if self.tasks and pause(self):
                return

    def state_dict(self) -> dict:
        """See Trainer."""
        self._note_pending()
        return {
            "step": self.step,
            "rows": [torch.tensor(rows, dtype=torch.float64) for rows in self.rows],
            "wall_s": list(self.wall_s),
            "diverged": dict(self._diverged),
            **self.tensors(),
        }

    def load_state_dict(self, state: dict) -> None:
        """See Trainer."""
        self.step = state["step"]
        self.rows = [rows.tolist() for rows in state["rows"]]
        self.wall_s = list(state["wall_s"])
        self._diverged = dict(state["diverged"])
        self.load_tensors(state)

    def charge(self, seconds: float) -> None:
        """Add to the members' time, in equal shares."""
        share = seconds / max(1, len(self.tasks))
        self.wall_s = [spent + share for spent in self.wall_s]

    def _advance_until(self, upcoming: int) -> None:
        """Take steps for about LOOK_S; twice as many as before at most, since the first ones may not be typical."""
        steps, started = min(upcoming - self.step, self._at_once), time.monotonic()
        self.advance(steps)
        took = time.monotonic() - started
        self.charge(took)
        fitting = int(LOOK_S * steps / took) if took else self.stretch
        self._at_once = max(1, min(fitting, 2 * self._at_once, self.stretch))

    def _evaluate(self) -> list[Ended]:
        """Measure every member, charge all for it, and let those go that have finished or diverged."""
        started = time.monotonic()
        self._pending.append((self.step, self.rates(), self.measure()))
        noted = len(self._pending) >= self.pending_limit or any(self.step >= task.steps for task in self.tasks)
        if noted:
            self._note_pending()
        self.charge(time.monotonic() - started)
        return self._leaving() if noted else []

    def _leaving(self) -> list[Ended]:
        """Those that have finished or diverged, who leave."""
        statuses = {}
        for member, task in enumerate(self.tasks):
            if member in self._diverged or self.step >= task.steps:
                statuses[member] = "diverged" if member in self._diverged else "finished"
        ended = []
        for member, status in statuses.items():
            steps = self._diverged.get(member, self.step)
            ended.append(Ended.from_rows(self.tasks[member], status, steps, self.rows[member], self.wall_s[member]))
        if statuses:
            self._let_go(statuses)
        return ended

    def _note_pending(self) -> None:
        """Bring the evaluations made since the last call to the host, as rows; a diverged member gets no more."""
        if not self._pending:
            return
        steps, rates, measured = zip(*self._pending, strict=True)
        self._pending = []
        for step, of_step, table in zip(steps, rates, torch.stack(measured).cpu().tolist(), strict=True):
            for member, (task, values) in enumerate(zip(self.tasks, table, strict=True)):
                if member in self._diverged or step not in self._own_grids[member]:
                    continue  # measured for others; its record must not depend on its company
                if not all(math.isfinite(values[i]) for i in MUST_BE_FINITE):
                    self._diverged[member] = step
                    continue
                self.rows[member].append([step, step / task.spec.steps_per_epoch, *of_step[member], *values])

    def _let_go(self, leaving: dict[int, str]) -> None:
        staying = [member for member in range(len(self.tasks)) if member not in leaving]
        self.keep(staying)
        self.tasks = [self.tasks[m] for m in staying]
        self.rows = [self.rows[m] for m in staying]
        self.wall_s = [self.wall_s[m] for m in staying]
        self._plan_evaluations()

    def _plan_evaluations(self) -> None:
        self._own_grids = [set(task.evaluations()) for task in self.tasks]
        self._grid = sorted(set().union(*self._own_grids))
        self._diverged: dict[int, int] = {}  # member: the step at which it was found
