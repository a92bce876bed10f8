"""A scale: the whole of config/<scale>.yaml, and what may be set from outside."""

from typing import Any, Literal

from pydantic import Field, model_validator

from l2dyn.config.experiment import ExperimentConfig, Name
from l2dyn.config.theory import CURVES, TheoryConfig
from l2dyn.specs.base import Count, NaturalNumber, Spec
from l2dyn.specs.optimizers import SGDSpec


class FigureConfig(Spec):
    """What a figure is drawn from; config/figures.yaml has it for all scales."""

    experiments: tuple[Name, ...] = ()
    theory: tuple[Literal[CURVES], ...] = ()


class ScaleConfig(Spec):
    """One scale.

    about: what it is for, in words (`l2dyn plan` prints it). templates: a place for YAML anchors. train: whether the
    workflow trains; false draws what is recorded. reuse: whether runs that ship with the project count. train_together:
    by experiment, those whose runs train in its slices instead of their own. micro_batch: samples that go through a net
    at once (0: what a GPU's memory takes), see l2dyn.training.micro_batches.
    """

    about: str
    templates: dict[str, Any] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "auto"] = "auto"
    threads: Count = 1
    runtime_minutes: Count = 60
    train: bool = True
    reuse: bool = True
    train_together: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    micro_batch: NaturalNumber = 0
    data_dir: str | None = None
    experiments: dict[Name, ExperimentConfig]
    theory: TheoryConfig = TheoryConfig()
    figures: dict[Name, FigureConfig]

    @model_validator(mode="after")
    def _references(self):
        for name, figure in self.figures.items():
            for experiment in figure.experiments:
                if experiment not in self.experiments:
                    raise ValueError(f"figures.{name}.experiments: no experiment {experiment!r} in this file")
            for curve in figure.theory:
                if self.theory.curve(curve) is None:
                    raise ValueError(f"figures.{name}.theory: no theory.{curve} in this file")
        for name, experiment in self.experiments.items():
            if experiment.selected:
                self._check_source(f"experiments.{name}.l2", experiment)
        self._check_together()
        for curve in CURVES:
            for name in self.theory.curve(curve).needs if self.theory.curve(curve) else ():
                self._check_drawable(f"theory.{curve}.experiment{'s' * (curve == 'constant')}", name)
        for name in self.theory.constant.experiments if self.theory.constant else ():
            self._check_gradient_flow("theory.constant.experiments", name)
        return self

    @property
    def selected(self) -> list[str]:
        """The experiments whose λ are l2 selections."""
        return [name for name, experiment in self.experiments.items() if experiment.selected]

    def trainer(self, experiment: str) -> str:
        """The experiment in whose slices this one's runs train: itself, unless train_together says otherwise."""
        return next((name for name, others in self.train_together.items() if experiment in others), experiment)

    def _check_together(self) -> None:
        """Raise ValueError where train_together names what has no slices to share, or one experiment twice."""
        seen = set()
        for name, others in self.train_together.items():
            for one in (name, *others):
                where = f"train_together.{name}"
                if one not in self.experiments:
                    raise ValueError(f"{where}: no experiment {one!r} in this file")
                if self.experiments[one].selected:
                    raise ValueError(f"{where}: {one} has an l2 selection, whose runs train in slices of its own")
                if one in seen:
                    raise ValueError(f"{where}: {one} stands in train_together twice")
                seen.add(one)

    def _check_drawable(self, where: str, name: str) -> None:
        """Raise ValueError where no theory curve can be drawn for an experiment."""
        if name not in self.experiments:
            raise ValueError(f"{where}: no experiment {name!r} in this file")
        if self.experiments[name].selected:
            raise ValueError(f"{where}: {name} lists no l2 to draw the curves at")

    def _check_gradient_flow(self, where: str, name: str) -> None:
        """Raise ValueError where gradient flow in function space cannot stand beside an experiment's runs."""
        experiment, first = self.experiments[name], self.experiments[self.theory.constant.experiments[0]]
        if not experiment.net.stacked_module:
            raise ValueError(f"{where}: {name} does not train fully-connected nets")
        if experiment.batch or experiment.optimizer != SGDSpec():
            raise ValueError(f"{where}: {name} does not train by plain gradient descent on the full batch")
        if experiment.data.name != first.data.name:
            raise ValueError(f"{where}: {name} trains on another data set than the first")

    def _check_source(self, where: str, experiment: ExperimentConfig) -> None:
        """Raise ValueError where λ cannot be measured on the experiment that is named as its source."""
        wanted = experiment.l2
        where = f"{where}.{'predicted_from' if wanted.predicted_from else 'tuned_from'}"
        source = self.experiments.get(wanted.source)
        if source is None:
            raise ValueError(f"{where}: no experiment {wanted.source!r} in this file")
        if source.selected or not any(source.l2):
            raise ValueError(f"{where}: {wanted.source} lists no l2 above 0")
        if source.auto_l2 is not None:
            raise ValueError(f"{where}: {wanted.source} changes its l2 by auto_l2")
        differing = experiment.trains_like(source)
        if differing:
            raise ValueError(f"{where}: {wanted.source} has another {differing}, so its l2 says nothing here")
        if wanted.at is not None and experiment.run_rates(1.0, wanted.at)[1] not in _runs(source, "l2"):
            raise ValueError(f"{where.rpartition(chr(46))[0]}.at: {wanted.source} lists no l2 {wanted.at:g}")
        if not _runs(experiment, "lr") <= _runs(source, "lr"):
            raise ValueError(f"{where}: {wanted.source} does not have every lr of this experiment")
        if wanted.predicted_from and source.lr_schedule is not None:
            raise ValueError(f"{where}: {wanted.source} has an lr_schedule; c is measured at a constant learning rate")
        if wanted.tuned_from:
            if source.lr_schedule != experiment.lr_schedule:
                raise ValueError(f"{where}: {wanted.source} has another lr_schedule, so its l2 says nothing here")
            served = source.horizon.reached
            for epochs in experiment.horizon.fixed:
                if epochs not in served if source.lr_schedule else epochs > max(served, default=0):
                    raise ValueError(f"{where}: {wanted.source} does not train for {epochs:g} epochs")


def _runs(experiment: ExperimentConfig, key: str) -> set[float]:
    """The listed learning rates or λ as the runs have them, whatever the experiment's units."""
    return {experiment.run_rates(**{"lr": 1.0, key: value})[key == "l2"] for value in getattr(experiment, key)}


class Overrides(Spec):
    """What `snakemake --config` (and the command line's options) may set."""

    scale: str = "quick"
    train: bool | None = None
    reuse: bool | None = None
    data_dir: str | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    threads: Count | None = None
