"""How long a run trains and when it is measured; every declared duration becomes steps here and nowhere else."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from l2dyn.specs.base import NaturalNumber, NonNegative, Positive, Spec


class Horizon(Spec):
    """A declared training time; times t are in epochs.

    epochs: a fixed number. budgets: several fixed numbers; a run is trained to the longest and counts at each of them.
    t_lr_l2: t·η·λ. t_l2: t·λ. For runs at λ = 0: epochs_without_l2, a number that no cap touches, or t_lr, t·η; without
    either they fall back to `epochs`. cap_epochs: the longest a run may get; beyond_cap "cut" trains that long and
    marks the run `capped`, "skip" leaves the run out of the grid.
    """

    epochs: Positive | None = None
    budgets: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    t_lr_l2: Positive | None = None
    t_l2: Positive | None = None
    t_lr: Positive | None = None
    epochs_without_l2: Positive | None = None
    cap_epochs: Positive | None = None
    beyond_cap: Literal["cut", "skip"] = "cut"

    @model_validator(mode="after")
    def _one(self):
        given = [k for k in ("epochs", "budgets", "t_lr_l2", "t_l2") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if not given and self.t_lr is None and self.epochs_without_l2 is None:
            raise ValueError("give one of epochs, budgets, t_lr_l2, t_l2 (and t_lr for l2 = 0)")
        if self.budgets and len(set(self.budgets)) != len(self.budgets):
            raise ValueError("budgets: a value stands there twice")
        return self

    @property
    def fixed(self) -> list[float]:
        """The fixed numbers of epochs, shortest first; none where the horizon depends on λ."""
        return sorted(self.budgets or ([self.epochs] if self.epochs else []))

    @property
    def scaled(self) -> bool:
        """Whether each λ > 0 trains for a time in proportion to 1/λ."""
        return self.t_lr_l2 is not None or self.t_l2 is not None

    def describe(self) -> str:
        """The training time in a few words, for captions.

        >>> Horizon(t_lr_l2=2.0, t_lr=60, cap_epochs=600).describe(), Horizon(budgets=[8, 16]).describe()
        ('t·η·λ = 2 (t·η = 60 at λ = 0), 600 epochs at most', 'budgets of 8, 16 epochs')
        """
        said = [f"budgets of {', '.join(f'{epochs:g}' for epochs in self.fixed)} epochs"] * bool(self.budgets)
        given = {"{:g} epochs": self.epochs, "t·η·λ = {:g}": self.t_lr_l2, "t·λ = {:g}": self.t_l2}
        said += [text.format(value) for text, value in given.items() if value is not None]
        without = {"t·η = {:g}": self.t_lr, "{:g} epochs": self.epochs_without_l2}
        at_zero = [f"{text.format(value)} at λ = 0" for text, value in without.items() if value is not None]
        whole = " ".join([*said, *(f"({text})" for text in at_zero)] if said else at_zero)
        return whole + (f", {self.cap_epochs:g} epochs at most" if self.cap_epochs else "")

    @property
    def reached(self) -> list[float]:
        """The fixed numbers of epochs as they are trained: what lies beyond the cap is cut there, or left out."""
        cap = math.inf if self.cap_epochs is None else self.cap_epochs
        return [min(epochs, cap) for epochs in self.fixed if epochs <= cap or self.beyond_cap == "cut"]

    def each(self) -> list["Horizon"]:
        """One horizon for each budget, the shortest first, or this one alone."""
        if self.budgets is None:
            return [self]
        return [self.model_copy(update={"budgets": None, "epochs": epochs}) for epochs in self.fixed]

    def covers(self, l2: float) -> bool:
        """Whether something is declared for a run with this λ."""
        if self.fixed:
            return True
        if l2 == 0:
            return self.t_lr is not None or self.epochs_without_l2 is not None
        return self.t_lr_l2 is not None or self.t_l2 is not None

    def steps(self, lr: float, l2: float, steps_per_epoch: int) -> tuple[int, bool] | None:
        """(steps, capped), or None for a run that is left out.

        Raises:
            ValueError: where nothing is declared for it.

        >>> Horizon(t_lr_l2=2.0).steps(lr=0.5, l2=0.01, steps_per_epoch=1)
        (400, False)
        >>> Horizon(t_lr_l2=2.0, cap_epochs=100).steps(lr=0.5, l2=0.01, steps_per_epoch=1)
        (100, True)
        """
        if not self.covers(l2) or self.budgets:
            raise ValueError(f"no single horizon for l2 = {l2:g}")
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
        return self.t_lr_l2 / (lr * l2) if self.t_lr_l2 is not None else self.t_l2 / l2


class EvaluationGrid(Spec):
    """The steps at which a run is measured; its grid does not depend on its horizon.

    ratio: between log-spaced steps (at most 1.1). every_epoch_up_to: also after each epoch up to this one.
    doubling_until: up to this epoch only at steps 1, 2, 4, …, where nothing is to be timed yet. every_epochs: measure
    at this interval instead (0: log-spaced). train_subset: how many of the training samples, the
    first ones, train_loss and train_error are taken on (0: all; the stacked trainer takes them on all).
    """

    ratio: Annotated[float, Field(gt=1.0, le=1.1, strict=True)] = 1.1
    every_epoch_up_to: NaturalNumber = 0
    doubling_until: NonNegative = 0.0
    every_epochs: NonNegative = 0.0
    train_subset: NaturalNumber = 0

    def steps(self, limit: int, steps_per_epoch: int, budgets: tuple[int, ...] = ()) -> list[int]:
        """Sorted steps from 0 to `limit`, both included, and every budget up to it.

        >>> EvaluationGrid(ratio=1.1).steps(12, steps_per_epoch=1)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        >>> EvaluationGrid(ratio=1.1).steps(140, steps_per_epoch=1)[-8:]
        [79, 86, 94, 103, 113, 124, 136, 140]
        >>> EvaluationGrid(doubling_until=4).steps(20, steps_per_epoch=4)
        [0, 1, 2, 4, 8, 16, 17, 18, 19, 20]
        """
        wanted = {0, limit, *(b for b in budgets if b <= limit)}
        if self.every_epochs:
            count = math.floor(limit / (self.every_epochs * steps_per_epoch) + 1e-9)
            wanted |= {max(1, round(i * self.every_epochs * steps_per_epoch)) for i in range(1, count + 1)}
        else:
            step = 1
            while step < limit:
                wanted.add(step)
                dense = max(step + 1, math.floor(step * self.ratio))
                step = 2 * step if 2 * step <= self.doubling_until * steps_per_epoch else dense
        epochs = min(self.every_epoch_up_to, limit // steps_per_epoch)
        wanted |= {epoch * steps_per_epoch for epoch in range(1, epochs + 1)}
        return sorted(s for s in wanted if s <= limit)


class Schedule(Spec):
    """A piecewise-constant learning rate: multiplied by `factor` at these fractions of the horizon."""

    factor: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.2
    at: Annotated[tuple[Annotated[float, Field(gt=0, lt=1, strict=True)], ...], Field(min_length=1)]

    def fields(self, epochs: float) -> dict:
        """The RunSpec's fields for a run of so many epochs."""
        return {"lr_decay_epochs": tuple(round(part * epochs, 9) for part in self.at), "lr_decay_factor": self.factor}
