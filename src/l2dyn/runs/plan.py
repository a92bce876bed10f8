"""From a scale's configuration to runs, their owners, required steps and slices.

Everything here is a pure function of the configuration (and, for the slices of the DAG, of the shipped shelf), never
of what is done: that is what keeps the DAG's shape and params stable.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass

from l2dyn.errors import UserError
from l2dyn.runs.config import ExperimentConfig, ScaleConfig
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.spec import NUMERICS_VERSION, FullyConnectedSpec, RunSpec, canonical_json


@dataclass(frozen=True)
class PlannedRun:
    """A run as one experiment asks for it."""

    spec: RunSpec
    steps: int  # the experiment's declared horizon
    capped: bool

    @property
    def run_id(self) -> str:
        """The spec's id."""
        return self.spec.run_id


@dataclass(frozen=True)
class Task:
    """A run as it is trained: the longest horizon that any experiment asks for, measured at every shorter one too."""

    spec: RunSpec
    steps: int
    budgets: tuple[int, ...]
    grid: EvaluationGrid

    @property
    def run_id(self) -> str:
        """The spec's id."""
        return self.spec.run_id

    def evaluations(self) -> list[int]:
        """The steps at which this run is measured."""
        return self.grid.steps(self.steps, self.spec.steps_per_epoch, self.budgets)

    def batch_key(self) -> str:
        """Equal for runs that can train as one stacked batch: same net, samples, loss, batch and horizon class.

        A convolutional net trains alone.
        """
        spec = self.spec
        if not isinstance(spec.model, FullyConnectedSpec):
            return spec.run_id
        horizon_class = int(math.log(self.steps, 16))
        return repr((spec.model, spec.data, spec.loss, spec.batch, spec.precision, spec.momentum > 0, horizon_class))


@dataclass(frozen=True)
class Slice:
    """The runs of one training job: slice `index` (from 1) of `count` of an experiment."""

    experiment: str
    index: int
    count: int
    tasks: tuple[Task, ...]

    @property
    def key(self) -> str:
        """Hash of run ids, required steps, evaluation grids and numerics version: part of the marker's name."""
        listed = [[t.run_id, t.steps, list(t.budgets), t.grid.describe()] for t in self.tasks]
        return hashlib.sha256(canonical_json([listed, NUMERICS_VERSION]).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """`<index>of<count>-<key>`."""
        return f"{self.index}of{self.count}-{self.key}"


class Plan:
    """All runs of a scale.

    Raises UserError where an experiment's grid is empty (all its pairs beyond a cap that skips).
    """

    def __init__(self, name: str, scale: ScaleConfig):
        self.name = name
        self.scale = scale
        self.experiments = {key: _expand(name, key, config) for key, config in scale.experiments.items()}
        self.owner: dict[str, str] = {}
        horizons: dict[str, set[int]] = {}
        for experiment, runs in self.experiments.items():
            for run in runs:
                self.owner.setdefault(run.run_id, experiment)
                horizons.setdefault(run.run_id, set()).add(run.steps)
        self._tasks = {
            run.run_id: Task(
                run.spec,
                max(horizons[run.run_id]),
                tuple(sorted(horizons[run.run_id])),
                scale.experiments[self.owner[run.run_id]].evaluation.grid(),
            )
            for runs in self.experiments.values()
            for run in runs
        }

    def tasks(self, experiment: str, owned_only: bool = False) -> list[Task]:
        """The experiment's runs as they are trained, in the order of its grid.

        owned_only: leave out those that an earlier experiment trains. Raises UserError for an unknown experiment.
        """
        if experiment not in self.experiments:
            known = ", ".join(self.experiments)
            raise UserError(f"--experiment {experiment}: not in config/{self.name}.yaml; known there: {known}")
        return [
            self._tasks[run.run_id]
            for run in self.experiments[experiment]
            if not owned_only or self.owner[run.run_id] == experiment
        ]

    def slice(self, experiment: str, index: int, count: int, owned_only: bool = False) -> Slice:
        """Slice `index` of `count`: a run belongs to the one that its id hashes to, whoever else is in the grid."""
        chosen = [t for t in self.tasks(experiment, owned_only) if _bucket(t.run_id, count) == index]
        return Slice(experiment, index, count, tuple(chosen))

    def slices(self, experiment: str) -> list[Slice]:
        """The non-empty slices of the runs that the experiment owns, as the DAG trains them."""
        count = self.scale.experiments[experiment].slices
        every = (self.slice(experiment, i, count, owned_only=True) for i in range(1, count + 1))
        return [s for s in every if s.tasks]

    def owners(self, experiment: str) -> list[str]:
        """The experiments whose slices train this one's runs."""
        return list(dict.fromkeys(self.owner[run.run_id] for run in self.experiments[experiment]))

    def key(self, experiment: str) -> str:
        """Hash of what a summary depends on besides the records: ids, horizons, caps, in order."""
        rows = [[r.run_id, r.steps, r.capped] for r in self.experiments[experiment]]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()[:10]


def _bucket(run_id: str, count: int) -> int:
    return int(run_id, 16) % count + 1


def _expand(scale: str, name: str, config: ExperimentConfig) -> list[PlannedRun]:
    horizon = config.horizon.horizon()
    runs = []
    for lr in config.lr:
        for l2 in config.l2:
            for seed in config.seeds:
                spec = RunSpec(
                    model=config.model.spec(),
                    data=config.data.spec(),
                    lr=lr,
                    l2=l2,
                    momentum=config.momentum,
                    batch=config.batch,
                    loss=config.loss,
                    init_seed=seed,
                    order_seed=seed,
                    precision=config.precision,
                    auto_l2=config.auto_l2.spec() if config.auto_l2 else None,
                    augmentation=config.augmentation.spec(),
                    augmentation_seed=seed,
                )
                try:
                    declared = horizon.steps(lr, l2, spec.steps_per_epoch)
                except ArithmeticError:
                    where = f"config/{scale}.yaml: experiments.{name}"
                    raise UserError(
                        f"{where}: lr {lr:g} with l2 {l2:g} asks for more steps than can be counted"
                    ) from None
                if declared is not None:
                    if config.lr_schedule:
                        epochs = declared[0] / spec.steps_per_epoch
                        spec = dataclasses.replace(spec, **config.lr_schedule.fields(epochs))
                    runs.append(PlannedRun(spec, *declared))
    if not runs:
        raise UserError(f"config/{scale}.yaml: experiments.{name}: every (lr, l2) pair lies beyond horizon.cap_epochs")
    return runs
