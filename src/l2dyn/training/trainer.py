"""What a trainer is: the one interface behind which stacks and single nets train, and what it hands over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS, columns_of

MEASURES = COLUMNS[4:]  # train_loss, train_error, test_loss, test_accuracy, param_norm


@dataclass(frozen=True)
class Ended:
    """A run that finished or diverged.

    step, epoch, lr, l2, train_loss and param_norm are finite in every row, also where it diverged: the evaluation that
    found it makes no row. test_loss and kernel_norm may overflow to infinity or NaN; kernel_rotation is NaN where
    kernel_norm is 0.
    """

    task: Task
    status: str  # "finished" or "diverged"
    steps: int  # trained; of a diverged run up to the evaluation that found it
    columns: dict[str, np.ndarray]  # those of a record, [evaluations]
    wall_s: float  # its share of the time of those it trained with

    @classmethod
    def from_rows(cls, task: Task, status: str, steps: int, rows: list[list[float]], wall_s: float) -> "Ended":
        """From rows in the order of columns_of(task.spec)."""
        names = columns_of(task.spec)
        table = np.array(rows, dtype=np.float64).reshape(-1, len(names))
        columns = {name: table[:, i].copy() for i, name in enumerate(names)}
        columns["step"] = columns["step"].astype(np.int64)
        return cls(task, status, steps, columns, wall_s)


class Trainer(Protocol):
    """Trains E runs of one net on one data set, its members, step by step and all at the same step.

    One step of a member: g = ∂L/∂θ + λθ over ALL parameters, biases included, handed to the run's optimizer; L is the
    loss without the penalty. A member that has finished or diverged leaves; what it records does not depend on its
    company, beyond rounding.
    """

    tasks: list[Task]  # of the members that are still training, in the order of all that is stacked
    step: int  # steps taken

    def train(self, pause: Callable[["Trainer"], bool]) -> Iterator[Ended]:
        """Train to every member's horizon, yielding members as they end.

        pause: called between short stretches of steps and after each evaluation, with the trainer; when it returns
        True, training stops here, to be resumed from `state_dict`.
        """

    def advance(self, steps: int) -> None:
        """Take that many steps, measuring nothing; on a GPU they may still be under way."""

    def measure(self) -> Tensor:
        """The members as they are now: [E, measures] float64, on the device.

        Columns as in MEASURES, then `kernel_norm` and `kernel_rotation` where the spec has kernel_samples: means over
        samples of the loss without the penalty, fractions of samples, and ‖θ‖ over all parameters.
        """

    def state_dict(self) -> dict:
        """Everything needed to go on, as tensors, numbers, lists and dictionaries."""

    def load_state_dict(self, state: dict) -> None:
        """Go on from the state of a trainer of the same members in the same order."""
