"""How long a run trains and when it is evaluated; every declared duration becomes steps here and nowhere else."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Horizon:
    """A declared training time, exactly one of the first three for λ > 0; times t are in epochs.

    epochs: a fixed number. t_lr_l2: t·η·λ. t_l2: t·λ. For runs at λ = 0: epochs_without_l2, a number that no cap
    touches, or t_lr, t·η; without either they fall back to `epochs`. cap_epochs: the longest a run may get; beyond_cap
    "cut" trains that long and marks the run `capped`, "skip" leaves the run out of the grid.
    """

    epochs: float | None = None
    t_lr_l2: float | None = None
    t_l2: float | None = None
    t_lr: float | None = None
    epochs_without_l2: float | None = None
    cap_epochs: float | None = None
    beyond_cap: str = "cut"

    def steps(self, lr: float, l2: float, steps_per_epoch: int) -> tuple[int, bool] | None:
        """(steps, capped), or None for a run that is left out. Raises ValueError when nothing is declared for it.

        >>> Horizon(t_lr_l2=2.0).steps(lr=0.5, l2=0.01, steps_per_epoch=1)
        (400, False)
        >>> Horizon(t_lr_l2=2.0, cap_epochs=100).steps(lr=0.5, l2=0.01, steps_per_epoch=1)
        (100, True)
        """
        if l2 == 0 and self.epochs_without_l2 is not None:
            return max(1, round(self.epochs_without_l2 * steps_per_epoch)), False
        epochs = self._epochs(lr, l2)
        capped = self.cap_epochs is not None and epochs > self.cap_epochs * (1 + 1e-9)  # beyond rounding
        if capped:
            if self.beyond_cap == "skip":
                return None
            epochs = self.cap_epochs
        return max(1, round(epochs * steps_per_epoch)), capped

    def _epochs(self, lr: float, l2: float) -> float:
        if l2 == 0 and self.t_lr is not None:
            return self.t_lr / lr
        if self.epochs is not None:
            return self.epochs
        if l2 == 0:
            raise ValueError("no horizon for l2 = 0: give epochs_without_l2, t_lr or epochs")
        if self.t_lr_l2 is not None:
            return self.t_lr_l2 / (lr * l2)
        if self.t_l2 is not None:
            return self.t_l2 / l2
        raise ValueError("no horizon for l2 > 0: give epochs, t_lr_l2 or t_l2")


@dataclass(frozen=True)
class EvaluationGrid:
    """The steps at which a run is measured; its grid does not depend on its horizon.

    ratio: between log-spaced steps (at most 1.1). every_epoch_up_to: also after each epoch up to this one.
    every_epochs: measure at this interval instead (0: log-spaced). train_samples: how many of the training samples, the
    first ones, train_loss and train_error are taken on (0: all).
    """

    ratio: float = 1.1
    every_epoch_up_to: int = 0
    every_epochs: float = 0.0
    train_samples: int = 0

    def steps(self, limit: int, steps_per_epoch: int, budgets: tuple[int, ...] = ()) -> list[int]:
        """Sorted steps from 0 to `limit`, both included, and every budget up to it.

        >>> EvaluationGrid(ratio=1.1).steps(12, steps_per_epoch=1)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        >>> EvaluationGrid(ratio=1.1).steps(140, steps_per_epoch=1)[-8:]
        [79, 86, 94, 103, 113, 124, 136, 140]
        """
        wanted = {0, limit, *(b for b in budgets if b <= limit)}
        if self.every_epochs:
            count = math.floor(limit / (self.every_epochs * steps_per_epoch) + 1e-9)
            wanted |= {max(1, round(i * self.every_epochs * steps_per_epoch)) for i in range(1, count + 1)}
        else:
            step = 1
            while step < limit:
                wanted.add(step)
                step = max(step + 1, math.floor(step * self.ratio))
        wanted |= {e * steps_per_epoch for e in range(1, self.every_epoch_up_to + 1) if e * steps_per_epoch <= limit}
        return sorted(s for s in wanted if s <= limit)

    def describe(self) -> list:
        """What a marker's name carries of the grid."""
        return [
            self.ratio,
            self.every_epoch_up_to,
            self.every_epochs,
            *([self.train_samples] if self.train_samples else []),
        ]
