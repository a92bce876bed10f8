"""An experiment: a grid of runs as config/<scale>.yaml lists it, in the terms of the specs."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from l2dyn.specs.base import Count, Enumerated, NaturalNumber, NonNegative, Positive, Spec
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid, Horizon, Schedule
from l2dyn.specs.nets import AnyNetSpec
from l2dyn.specs.optimizers import AnyOptimizerSpec, SGDSpec
from l2dyn.specs.run import AugmentationSpec, AutoL2Spec, Loss, Precision, RunSpec
from l2dyn.specs.units import Units, from_torch, to_torch

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")]


class SelectedL2(Spec):
    """An l2 selection: λ that is measured, not listed, one for every learning rate and budget of the experiment.

    predicted_from: an experiment that measures c = t*·λ; λ = c/T for a budget of T epochs, c/T1 where the learning rate
    first decays at epoch T1. at: the λ of that experiment on which c is measured (default: all of them, combined).
    reading: which of the two readings of c counts, the smoothed maximum ("argmax", the
    paper's figure 4a) or the first time within 0.5 points of the maximum ("within"). tuned_from: an experiment that
    trains a grid of λ; λ = the best of them within the budget.
    """

    predicted_from: Name | None = None
    tuned_from: Name | None = None
    at: Positive | None = None
    reading: Literal["argmax", "within"] = "argmax"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.predicted_from is None) == (self.tuned_from is None):
            raise ValueError("give one of predicted_from and tuned_from")
        for key in ("reading", "at"):
            if self.tuned_from is not None and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: goes with predicted_from")
        return self

    @property
    def source(self) -> str:
        """The experiment that it is measured on."""
        return self.predicted_from or self.tuned_from

    def describe(self) -> str:
        """Where λ comes from in a few words."""
        return f"predicted from {self.predicted_from}" if self.predicted_from else f"tuned on {self.tuned_from}"


Grid = Annotated[tuple[NonNegative, ...], Field(min_length=1)]
L2 = Annotated[
    Annotated[Grid, Tag("listed")] | Annotated[SelectedL2, Tag("selected")],
    Discriminator(lambda value: "selected" if isinstance(value, dict | SelectedL2) else "listed"),
]


class ExperimentConfig(Spec):
    """A grid of runs: every learning rate with every L2 coefficient and every seed.

    shows: what it is for, in words (`l2dyn plan` prints it). units: in which lr, l2 and every horizon that holds one of
    them are written (specs/units.py); runs are in PyTorch's. slices: how many training jobs share its runs.
    """

    shows: str
    units: Units = "torch"
    net: AnyNetSpec
    data: DataSpec
    optimizer: AnyOptimizerSpec = SGDSpec()
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    l2: L2
    seeds: Annotated[tuple[NaturalNumber, ...], Field(min_length=1)] = (0,)
    batch: NaturalNumber = 0
    order_shards: Count = 1
    loss: Loss = "cross_entropy"
    precision: Precision = "float32"
    kernel_samples: NaturalNumber = 0
    auto_l2: AutoL2Spec | None = None
    lr_schedule: Schedule | None = None
    augmentation: AugmentationSpec = AugmentationSpec()
    horizon: Horizon
    evaluation: EvaluationGrid = EvaluationGrid()
    slices: Enumerated = 1

    @model_validator(mode="after")
    def _consistent(self):
        for key in ("lr", "seeds", *(() if self.selected else ("l2",))):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: a value stands there twice")
        if self.data.checksum != self.data.data_set.checksum:  # another one is an old record's
            raise ValueError(f"data.checksum: that of {self.data.name} is {self.data.data_set.checksum}; leave it out")
        if self.evaluation.train_subset > self.data.train_samples:
            raise ValueError(f"evaluation.train_subset: more than the {self.data.train_samples} training samples")
        if self.auto_l2 is not None and (self.selected or 0 in self.l2 or not self.horizon.fixed):
            raise ValueError("auto_l2: starts at a listed l2 > 0 and needs horizon.epochs or horizon.budgets")
        if self.selected:
            if not self.horizon.fixed or self.horizon.cap_epochs:
                raise ValueError("l2: a selected one needs horizon.epochs or horizon.budgets, without cap_epochs")
        elif 0 in self.l2 and not self.horizon.covers(0):
            raise ValueError("horizon: l2 holds 0, so give epochs_without_l2, t_lr or epochs")
        elif any(self.l2) and not self.horizon.covers(max(self.l2)):
            raise ValueError("horizon: l2 holds values above 0, so give epochs, t_lr_l2 or t_l2")
        if self.units != "torch" and self.loss != "cross_entropy":
            raise ValueError(f"units: {self.units} is defined for loss cross_entropy only")
        try:  # what no run could be is refused here
            run = self.run(self.lr[0], 1.0, self.seeds[0], epochs=1.0)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        if run.stacks and self.evaluation.train_subset:
            raise ValueError("evaluation.train_subset: runs that train as a stack are measured on all samples")
        try:
            self.net.layer_flops(self.data.image_shape, self.data.outputs)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        interval = self.evaluation.every_epochs
        if 0 < interval * run.steps_per_epoch < 1 - 1e-9:
            raise ValueError(
                f"evaluation.every_epochs: {interval:g} is less than a step, 1/{run.steps_per_epoch} of an epoch"
            )
        if self.lr_schedule is not None:
            self._check_schedule(run.steps_per_epoch)
        return self

    def _check_schedule(self, steps_per_epoch: int) -> None:
        """Raise ValueError where a run is so short that its learning rate would be lowered before the first step."""
        for horizon, lr in self.horizons():
            for l2 in (1.0,) if self.selected else self.l2:
                try:
                    declared = horizon.steps(lr, l2, steps_per_epoch)
                except ArithmeticError:
                    continue  # the plan refuses it
                if declared is None:
                    continue
                run = self.run(lr, l2, self.seeds[0], declared[0] / steps_per_epoch)
                if run.lr_at(0) < run.lr:
                    first = f"{min(self.lr_schedule.at):g} of the horizon"
                    raise ValueError(f"lr_schedule.at: {first} lies before the first of the {declared[0]} steps")

    @property
    def selected(self) -> bool:
        """Whether λ is an l2 selection instead of being listed."""
        return isinstance(self.l2, SelectedL2)

    def describe(self) -> str:
        """What is trained, on what and for how long, in one line: for captions."""
        l2 = self.l2.describe() if self.selected else "= " + ", ".join(f"{value:g}" for value in self.l2)
        parts = [
            self.net.describe(),
            f"{self.data.train_samples} samples of {self.data.data_set.title}",
            f"{self.optimizer.describe()}, {f'batches of {self.batch}' if self.batch else 'full batch'}",
            f"η = {', '.join(f'{value:g}' for value in self.lr)}",
            f"λ {l2}" + (f", then AutoL2 ({self.auto_l2.rule})" if self.auto_l2 else ""),
            self.horizon.describe(),
        ]
        parts += [f"{self.augmentation.describe()}"] * (self.augmentation != AugmentationSpec())
        parts += ["learning-rate schedule"] * (self.lr_schedule is not None)
        seeds = f"{len(self.seeds)} seed" + "s" * (len(self.seeds) > 1)
        return "; ".join([*parts, f"{self.units} units", seeds])

    def run(self, lr: float, l2: float, seed: int, epochs: float) -> RunSpec:
        """One run of the grid, lr and l2 in the experiment's units; `epochs`: its horizon, for an lr schedule."""
        lr, l2 = self.run_rates(lr, l2)
        return RunSpec(
            net=self.net,
            data=self.data,
            optimizer=self.optimizer,
            lr=lr,
            l2=l2,
            batch=self.batch,
            order_shards=self.order_shards,
            loss=self.loss,
            init_seed=seed,
            order_seed=seed,
            precision=self.precision,
            auto_l2=self.auto_l2,
            augmentation=self.augmentation,
            augmentation_seed=seed,
            kernel_samples=self.kernel_samples,
            **(self.lr_schedule.fields(epochs) if self.lr_schedule else {}),
        )

    def run_rates(self, lr: float, l2: float = 0.0) -> tuple[float, float]:
        """(lr, l2), in the experiment's units, as its runs have them: in PyTorch's."""
        return to_torch(self.units, self.data.outputs, lr=lr, l2=l2)

    def shown(self, spec: RunSpec) -> tuple[float, float]:
        """(lr, l2) of one of its runs in the experiment's units."""
        return from_torch(self.units, self.data.outputs, lr=spec.lr, l2=spec.l2)

    def shown_l2(self, value: float) -> float:
        """λ, or anything proportional to it (c = t*·λ), from PyTorch's units to the experiment's."""
        return from_torch(self.units, self.data.outputs, l2=value)[1]

    def horizons(self) -> Iterator[tuple[Horizon, float]]:
        """(horizon, learning rate) of every part of the grid, one horizon for each budget."""
        for horizon in self.horizon.each():
            for lr in self.lr:
                yield horizon, lr

    def trains_like(self, other: "ExperimentConfig") -> str | None:
        """None where both train the same net on the same data in the same way, else the first key that differs."""
        keys = ("net", "data", "optimizer", "batch", "order_shards", "loss", "augmentation", "precision")
        return next((key for key in keys if getattr(self, key) != getattr(other, key)), None)
