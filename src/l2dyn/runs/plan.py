"""From a scale's configuration to runs, tasks and slices.

Everything here is a pure function of the configuration and of the l2 selections, never of what is done: that is what
keeps the DAG's shape and params stable.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.runs.l2_selection import L2Selection, read_l2_selection, selection_path
from l2dyn.specs.base import canonical_json, to_dict
from l2dyn.specs.horizons import EvaluationGrid, Horizon
from l2dyn.specs.run import NUMERICS_VERSION, RunSpec

MAX_MEMBERS = 64  # of one stack


@dataclass(frozen=True)
class Point:
    """A run at one horizon, as an experiment lists it: one row of its summary."""

    spec: RunSpec
    steps: int
    capped: bool

    @property
    def run_id(self) -> str:
        """The spec's id."""
        return self.spec.run_id


@dataclass(frozen=True)
class Task:
    """A run to be trained: to the longest horizon that is asked for, measured at every shorter one too.

    grid: of the experiment that lists it first. others: (grid, up to which step) of those that list it beside.
    """

    spec: RunSpec
    steps: int
    budgets: tuple[int, ...]
    grid: EvaluationGrid
    others: tuple[tuple[EvaluationGrid, int], ...] = ()

    @property
    def run_id(self) -> str:
        """The spec's id."""
        return self.spec.run_id

    def evaluations(self) -> list[int]:
        """The steps at which this run is measured."""
        steps_per_epoch = self.spec.steps_per_epoch
        wanted = set(self.grid.steps(self.steps, steps_per_epoch, self.budgets))
        return sorted(wanted.union(*(grid.steps(until, steps_per_epoch) for grid, until in self.others)))

    def stack_key(self) -> str:
        """Equal for runs that can train as one stack: same net, samples, shards, loss, batch and class of horizon.

        A run that does not stack trains alone.
        """
        spec = self.spec
        if not spec.stacks:
            return spec.run_id
        horizon_class = int(math.log(self.steps, 16))
        samples = (spec.data, spec.batch, spec.order_shards)
        measured = (horizon_class, spec.kernel_samples)
        return repr((spec.net, *samples, spec.loss, spec.precision, spec.momentum > 0, *measured))


def stacks(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks as a job trains them together, the shortest horizons first."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.stack_key(), []).append(task)
    for group in groups.values():
        group.sort(key=lambda task: (task.steps, task.run_id))
    ordered = sorted(groups.values(), key=lambda group: group[0].steps)
    return [group[i : i + MAX_MEMBERS] for group in ordered for i in range(0, len(group), MAX_MEMBERS)]


@dataclass(frozen=True)
class Slice:
    """The tasks of one training job: slice `index` (from 1) of `count` of an experiment."""

    experiment: str
    index: int
    count: int
    tasks: tuple[Task, ...]

    @property
    def key(self) -> str:
        """Hash of run ids, steps, evaluation grids and numerics version: part of the bundle's name."""
        listed = [[t.run_id, t.steps, list(t.budgets), to_dict(t.grid), *_plain(t.others)] for t in self.tasks]
        return hashlib.sha256(canonical_json([listed, NUMERICS_VERSION]).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """`<index>of<count>-<key>`."""
        return f"{self.index}of{self.count}-{self.key}"


class Plan:
    """All runs of a scale.

    selections: the λ of those experiments whose l2 selection has been made; those that are not there are pending and
    have no runs.

    Raises:
        UserError: where an experiment's grid is empty (all its pairs beyond a cap that skips).

    A run that several experiments list belongs to the first one, or to whom the scale's train_together names for it, at
    the longest horizon that any of them asks for. An
    experiment with an l2 selection trains all its runs in slices of its own, so that no measurement changes the slices
    of what is listed; what another one has trained, its jobs find.
    """

    def __init__(self, name: str, scale: ScaleConfig, selections: Mapping[str, L2Selection] | None = None):
        self.name = name
        self.scale = scale
        self.selections = dict(selections or {})
        self.experiments = {key: self._expand(key, config) for key, config in scale.experiments.items()}
        listed = {key: points for key, points in self.experiments.items() if not scale.experiments[key].selected}
        self._owners: dict[str, str] = {}
        for experiment, points in listed.items():
            for point in points:
                self._owners.setdefault(point.run_id, scale.trainer(experiment))
        self._listed = _tasks(
            [(point, scale.experiments[e].evaluation) for e, points in listed.items() for point in points]
        )

    @property
    def pending(self) -> list[str]:
        """The experiments whose l2 selection has not been made yet."""
        return [key for key in self.scale.selected if key not in self.selections]

    @property
    def unresolved(self) -> dict[str, str]:
        """The experiments whose λ could not be measured, and why."""
        return {key: found.reason for key, found in self.selections.items() if not found.values}

    def tasks(self, experiment: str, owned_only: bool = False) -> list[Task]:
        """The experiment's runs as they are trained, in the order of its grid.

        owned_only: those in its slices: without what an earlier experiment trains, with what it trains for others.

        Raises:
            UserError: for an unknown experiment.
        """
        if experiment not in self.experiments:
            known = ", ".join(self.experiments)
            raise UserError(f"--experiment {experiment}: not in config/{self.name}.yaml; known there: {known}")
        config, points = self.scale.experiments[experiment], self.experiments[experiment]
        if not config.selected:
            if owned_only:
                return [task for run_id, task in self._listed.items() if self._owners[run_id] == experiment]
            return [self._listed[i] for i in dict.fromkeys(point.run_id for point in points)]
        # its record will replace the listed run's in the cache, so it is measured at the listed run's budgets as well
        own = _tasks([(point, config.evaluation) for point in points])
        return [_merged(self._listed.get(run_id), task) for run_id, task in own.items()]

    def provisional(self, experiment: str) -> list[Task]:
        """What a pending experiment will train, at a λ that stands for the ones to come: good for its cost only."""
        config = self.scale.experiments[experiment]
        points = self._points(experiment, config, lambda lr, epochs: [epochs])  # any λ, another one for each budget
        return list(_tasks([(point, config.evaluation) for point in points]).values())

    def slice(self, experiment: str, index: int, count: int, owned_only: bool = False) -> Slice:
        """Slice `index` of `count`: a run belongs to the one that its id hashes to, whoever else is in the grid."""
        chosen = [t for t in self.tasks(experiment, owned_only) if int(t.run_id, 16) % count + 1 == index]
        return Slice(experiment, index, count, tuple(chosen))

    def slices(self, experiment: str) -> list[Slice]:
        """The non-empty slices of the runs that the experiment owns, as the workflow trains them."""
        count = self.scale.experiments[experiment].slices
        every = (self.slice(experiment, i, count, owned_only=True) for i in range(1, count + 1))
        return [s for s in every if s.tasks]

    def owners(self, experiment: str, run_ids: Iterable[str]) -> list[str]:
        """The experiments whose slices train these of its runs; itself where its λ are an l2 selection."""
        if self.scale.experiments[experiment].selected:
            return [experiment]
        return list(dict.fromkeys(self._owners[run_id] for run_id in run_ids))

    def listed_owner(self, run_id: str) -> str | None:
        """The experiment that trains a run because it is listed, None where none lists it."""
        return self._owners.get(run_id)

    def key(self, experiment: str) -> str:
        """Hash of what a summary depends on besides the records: ids, horizons, caps, in order."""
        rows = [[r.run_id, r.steps, r.capped] for r in self.experiments[experiment]]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()[:10]

    def _expand(self, name: str, config: ExperimentConfig) -> list[Point]:
        """The points of an experiment in the order of its grid; none where its selection is pending or unresolved."""
        if not config.selected:
            points = self._points(name, config, lambda lr, epochs: config.l2)
            if not points:
                where = f"config/{self.name}.yaml: experiments.{name}"
                raise UserError(f"{where}: every (lr, l2) pair lies beyond horizon.cap_epochs")
            return points
        values = self.selections[name].values if name in self.selections else {}
        return self._points(name, config, lambda lr, epochs: [values[lr, epochs]] if (lr, epochs) in values else [])

    def _points(self, name: str, config: ExperimentConfig, l2_of: Callable) -> list[Point]:
        """Each run and horizon once. l2_of(lr, epochs): the λ of a learning rate and, with fixed budgets, a budget."""
        points = {}
        for horizon, lr in config.horizons():
            for l2 in l2_of(lr, horizon.epochs):
                for seed in config.seeds:
                    point = self._point(name, config, horizon, lr, l2, seed)
                    if point is not None:  # budgets may coincide: beyond a cap, rounded to steps, or at λ = 0
                        points.setdefault((point.run_id, point.steps), point)
        return list(points.values())

    def _point(self, name, config, horizon: Horizon, lr: float, l2: float, seed: int) -> Point | None:
        steps_per_epoch = config.data.train_samples // (config.batch or config.data.train_samples)
        try:
            declared = horizon.steps(lr, l2, steps_per_epoch)
        except ArithmeticError:
            where = f"config/{self.name}.yaml: experiments.{name}"
            raise UserError(f"{where}: lr {lr:g} with l2 {l2:g} asks for more steps than can be counted") from None
        if declared is None:
            return None
        return Point(config.run(lr, l2, seed, declared[0] / steps_per_epoch), *declared)


def _tasks(points: Iterable[tuple[Point, EvaluationGrid]]) -> dict[str, Task]:
    """By run id: the run at the longest of its horizons, measured on every grid that it comes with."""
    tasks: dict[str, Task] = {}
    for point, grid in points:
        task = Task(point.spec, point.steps, (point.steps,), grid)
        tasks[point.run_id] = _merged(tasks.get(point.run_id), task)
    return tasks


def _merged(first: Task | None, other: Task) -> Task:
    """A task that answers for both, as the first one's."""
    if first is None:
        return other
    budgets = tuple(sorted({*first.budgets, *other.budgets}))
    until = dict(first.others)
    for grid, steps in ((other.grid, other.steps), *other.others):
        if grid != first.grid:
            until[grid] = max(steps, until.get(grid, 0))
    return dataclasses.replace(first, steps=budgets[-1], budgets=budgets, others=tuple(until.items()))


def _plain(others: tuple[tuple[EvaluationGrid, int], ...]) -> list:
    """Grids and steps as JSON has them."""
    return [[to_dict(grid), until] for grid, until in others]


def planned(name: str, scale: ScaleConfig) -> Plan:
    """The plan with every l2 selection that has been made so far.

    Raises:
        UserError: for a damaged l2.json.
    """
    return Plan(name, scale, selections_made(name, scale))


def selections_made(name: str, scale: ScaleConfig) -> dict[str, L2Selection]:
    """The l2 selections of a scale, by experiment, as the l2.json files have them.

    An experiment is pending while one of its λ is not there, as after a change of its budgets.

    Raises:
        UserError: for a damaged file.
    """
    made = {}
    for key in scale.selected:
        config, found = scale.experiments[key], read_l2_selection(selection_path(name, key))
        if found is not None and found.answers(config.lr, config.horizon.fixed, config.units):
            made[key] = found
    return made
