"""From a scale's configuration to runs, their owners, required steps and slices.

Everything here is a pure function of the configuration (and, for the slices of the DAG, of the shipped shelf), never
of what is done: that is what keeps the DAG's shape and params stable.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from l2dyn.errors import UserError
from l2dyn.runs.config import ExperimentConfig, ScaleConfig
from l2dyn.runs.derived_l2 import DerivedL2, derived_l2_path, read_derived_l2
from l2dyn.runs.horizons import EvaluationGrid, Horizon
from l2dyn.runs.spec import NUMERICS_VERSION, FullyConnectedSpec, RunSpec, canonical_json

MAX_MEMBERS = 64  # of one stacked batch


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
        measured = (horizon_class, spec.kernel_samples)
        return repr((spec.model, spec.data, spec.loss, spec.batch, spec.precision, spec.momentum > 0, *measured))


def batches(tasks: Iterable[Task], begun: Callable[[Task], int] = lambda task: 0) -> list[list[Task]]:
    """Runs as a job trains them together, the shortest horizons first; `begun` says where a run starts from."""
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.batch_key(), begun(task)), []).append(task)
    for group in groups.values():
        group.sort(key=lambda task: (task.steps, task.run_id))
    ordered = sorted(groups.values(), key=lambda group: group[0].steps)
    return [group[i : i + MAX_MEMBERS] for group in ordered for i in range(0, len(group), MAX_MEMBERS)]


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

    derived: the λ of those experiments that have them measured, for each of their budgets and learning rates; those
    that are not there are pending and have no runs.
    Raises UserError where an experiment's grid is empty (all its pairs beyond a cap that skips).
    """

    def __init__(self, name: str, scale: ScaleConfig, derived: Mapping[str, DerivedL2] | None = None):
        self.name = name
        self.scale = scale
        self.derived = dict(derived or {})
        self.experiments = {key: self._expand(key, config) for key, config in scale.experiments.items()}
        listed = {key: runs for key, runs in self.experiments.items() if not scale.experiments[key].derived}
        self._listed = _share_out(listed, scale)
        served = {run_id: share.task.steps for run_id, share in self._listed.items()}
        # what is measured must not change the slices of what is listed, so it trains any longer horizon itself
        self._beyond = {
            key: {run.run_id for run in runs if run.steps > served.get(run.run_id, 0)}
            for key, runs in self.experiments.items()
            if key not in listed
        }
        longer = {key: [run for run in self.experiments[key] if run.run_id in ids] for key, ids in self._beyond.items()}
        self._longer = {
            run_id: _in_place_of(self._listed.get(run_id), share) for run_id, share in _share_out(longer, scale).items()
        }

    @property
    def pending(self) -> list[str]:
        """The experiments whose λ has not been measured yet."""
        return [key for key, config in self.scale.experiments.items() if config.derived and key not in self.derived]

    @property
    def unresolved(self) -> dict[str, str]:
        """The experiments whose λ could not be measured, and why."""
        return {key: found.reason for key, found in self.derived.items() if not found.values}

    def tasks(self, experiment: str, owned_only: bool = False) -> list[Task]:
        """The experiment's runs as they are trained, in the order of its grid.

        owned_only: leave out those that an earlier experiment trains. Raises UserError for an unknown experiment.
        """
        if experiment not in self.experiments:
            known = ", ".join(self.experiments)
            raise UserError(f"--experiment {experiment}: not in config/{self.name}.yaml; known there: {known}")
        shares = {run.run_id: self._share(experiment, run.run_id) for run in self.experiments[experiment]}
        return [share.task for share in shares.values() if not owned_only or share.owner == experiment]

    def provisional(self, experiment: str) -> list[Task]:
        """What a pending experiment will train, at a λ that stands for the ones to come: good for its cost only."""
        config = self.scale.experiments[experiment]
        runs = self._runs(experiment, config, lambda lr, epochs: [epochs])  # any λ, another one for each budget
        return [share.task for share in _share_out({experiment: runs}, self.scale).values()]

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
        runs = self.experiments[experiment]
        return list(dict.fromkeys(self._share(experiment, run.run_id).owner for run in runs))

    def key(self, experiment: str) -> str:
        """Hash of what a summary depends on besides the records: ids, horizons, caps, in order."""
        rows = [[r.run_id, r.steps, r.capped] for r in self.experiments[experiment]]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()[:10]

    def _share(self, experiment: str, run_id: str) -> "_Share":
        goes_on = run_id in self._beyond.get(experiment, ())
        return self._longer[run_id] if goes_on else self._listed[run_id]

    def _expand(self, name: str, config: ExperimentConfig) -> list[PlannedRun]:
        """The runs of an experiment in the order of its grid; none where its λ are pending or could not be measured."""
        if not config.derived:
            runs = self._runs(name, config, lambda lr, epochs: config.l2)
            if not runs:
                where = f"config/{self.name}.yaml: experiments.{name}"
                raise UserError(f"{where}: every (lr, l2) pair lies beyond horizon.cap_epochs")
            return runs
        values = self.derived[name].values if name in self.derived else {}
        return self._runs(name, config, lambda lr, epochs: [values[lr, epochs]] if (lr, epochs) in values else [])

    def _runs(self, name: str, config: ExperimentConfig, l2_of: Callable) -> list[PlannedRun]:
        """Each run and horizon once. l2_of(lr, epochs): the λ of a learning rate and, with fixed budgets, a budget."""
        runs = {}
        for horizon in config.horizon.horizons():
            for lr in config.lr:
                for l2 in l2_of(lr, horizon.epochs):
                    for seed in config.seeds:
                        run = self._run(name, config, horizon, lr, l2, seed)
                        if run is not None:  # budgets may coincide: beyond a cap, rounded to steps, or at λ = 0
                            runs.setdefault((run.run_id, run.steps), run)
        return list(runs.values())

    def _run(self, name, config, horizon: Horizon, lr: float, l2: float, seed: int) -> PlannedRun | None:
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
            kernel_samples=config.kernel_samples,
            auto_l2=config.auto_l2.spec() if config.auto_l2 else None,
            augmentation=config.augmentation.spec(),
            augmentation_seed=seed,
        )
        try:
            declared = horizon.steps(lr, l2, spec.steps_per_epoch)
        except ArithmeticError:
            where = f"config/{self.name}.yaml: experiments.{name}"
            raise UserError(f"{where}: lr {lr:g} with l2 {l2:g} asks for more steps than can be counted") from None
        if declared is None:
            return None
        if config.lr_schedule:
            spec = dataclasses.replace(spec, **config.lr_schedule.fields(declared[0] / spec.steps_per_epoch))
        return PlannedRun(spec, *declared)


@dataclass(frozen=True)
class _Share:
    """Who trains a run, and how."""

    owner: str
    task: Task


def _share_out(experiments: dict[str, list[PlannedRun]], scale: ScaleConfig) -> dict[str, _Share]:
    """By run id: the first experiment that lists a run owns it, at the longest horizon that any of them asks for."""
    owners: dict[str, str] = {}
    specs: dict[str, RunSpec] = {}
    horizons: dict[str, set[int]] = {}
    for experiment, runs in experiments.items():
        for run in runs:
            owners.setdefault(run.run_id, experiment)
            specs[run.run_id] = run.spec
            horizons.setdefault(run.run_id, set()).add(run.steps)
    grids = {name: scale.experiments[name].evaluation.grid() for name in experiments}
    return {
        run_id: _Share(owner, Task(specs[run_id], max(steps), tuple(sorted(steps)), grids[owner]))
        for (run_id, owner), steps in zip(owners.items(), horizons.values(), strict=True)
    }


def _in_place_of(listed: _Share | None, share: _Share) -> _Share:
    """A share whose record takes the place of a shorter, listed one: it is measured wherever that one is, too."""
    if listed is None:
        return share
    budgets = tuple(sorted({*share.task.budgets, *listed.task.budgets}))
    return dataclasses.replace(share, task=dataclasses.replace(share.task, budgets=budgets, grid=listed.task.grid))


def _bucket(run_id: str, count: int) -> int:
    return int(run_id, 16) % count + 1


def planned(name: str, scale: ScaleConfig) -> Plan:
    """The plan with every λ that has been measured so far.

    An experiment is pending while one of its λ is not, as after a change of its budgets. Raises UserError for a damaged
    l2.json.
    """
    measured = {}
    for key, config in scale.experiments.items():
        found = read_derived_l2(derived_l2_path(name, key)) if config.derived else None
        if found is not None and found.answers(config.lr, config.horizon.fixed):
            measured[key] = found
    return Plan(name, scale, measured)
