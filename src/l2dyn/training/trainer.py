"""What a trainer hands over when a run ends."""

from dataclasses import dataclass

import numpy as np

from l2dyn.runs.plan import Task
from l2dyn.runs.records import columns_of


@dataclass(frozen=True)
class Finished:
    """A run that finished or diverged: steps trained, columns, what it cost, and its state at the end."""

    task: Task
    status: str  # "finished" or "diverged"
    steps: int
    columns: dict[str, np.ndarray]
    wall_s: float  # its share of the time of those it trained with
    state: dict

    @classmethod
    def from_rows(cls, task: Task, status: str, steps: int, rows: list[list[float]], wall_s: float, state: dict):
        """From rows in the order of columns_of(task.spec)."""
        names = columns_of(task.spec)
        table = np.array(rows, dtype=np.float64).reshape(-1, len(names))
        columns = {name: table[:, i].copy() for i, name in enumerate(names)}
        columns["step"] = columns["step"].astype(np.int64)
        return cls(task, status, steps, columns, wall_s, state)
