"""l2.json: λ of an experiment measured on the runs of another one.

Predicted: c of every run of the source at one learning rate, combined over seeds, divided by the budget (section 3 of
the paper). Tuned: the best λ of the source's grid within the budget (figures 1c and 4b). Never a constant of the paper.
"""

import dataclasses
import functools
from collections.abc import Mapping

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.measures.best_l2 import predict_l2, round_l2, tuned_l2
from l2dyn.measures.coefficient import Coefficient, coefficient, combine
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import Plan, Point
from l2dyn.runs.records import Record
from l2dyn.specs.horizons import Horizon

Records = Mapping[str, Record]  # by run id; a run that is not there is missing


def select_l2(plan: Plan, experiment: str, records: Records) -> L2Selection:
    """λ of an experiment that names a source, for each of its learning rates and budgets, in its own units.

    Where one of them cannot be measured (a run of the source is missing, none has an uncensored peak) there is no value
    at all, and the reason in words.

    Raises:
        DamagedRecord: for a record that is not what was written.
    """
    config = plan.scale.experiments[experiment]
    if config.l2.predicted_from:
        return _predicted(plan, config, records)
    return _tuned(plan, config, records)


def measured_coefficient(
    plan: Plan, source: str, records: Records, lr: float, l2: float | None = None
) -> tuple[Coefficient | None, list[str], list[str]]:
    """(c, run ids, ids of missing runs) of an experiment at one learning rate, combined over its λ > 0 and seeds.

    lr and c are in PyTorch's units. Every run counts once, up to its longest horizon; one that diverged by then has no
    c. None where fewer than half of the runs have an uncensored peak. l2: only the runs at this λ.
    """
    chance = plan.scale.experiments[source].data.chance
    longest = {run.run_id: run for run in sorted(plan.experiments[source], key=lambda run: run.steps)}
    runs = [run for run in longest.values() if run.spec.lr == lr and run.spec.l2 > 0]
    if l2 is not None:
        runs = [run for run in runs if run.spec.l2 == l2]
    measured, missing, _ = _read(plan, source, runs, records)
    found = []
    for run, columns in measured:
        curve, spec = (columns["epoch"], columns["test_accuracy"]), run.spec
        found.append(coefficient(*curve, spec.l2, lr, spec.steps_per_epoch, spec.momentum, chance=chance))
    peaked = [one for one in found if one is not None and not one.censored]
    # the few seeds that happen to peak early would make c too small
    return (
        combine(found) if 2 * len(peaked) >= len(runs) else None,
        [run.run_id for run in runs if run.run_id not in missing],
        missing,
    )


def _predicted(plan: Plan, config: ExperimentConfig, records: Records) -> L2Selection:
    source, values, evidence = config.l2.predicted_from, {}, []
    unmeasured = functools.partial(L2Selection, {}, units=config.units)
    for lr in config.lr:
        of_torch, at = config.run_rates(lr, config.l2.at or 0.0)
        c, ids, missing = measured_coefficient(plan, source, records, of_torch, at or None)
        if missing:
            return unmeasured(f"{len(missing)} of {len(ids) + len(missing)} runs of {source} are missing")
        if c is None:
            return unmeasured(f"fewer than half of the runs of {source} at lr {lr:g} have an uncensored peak")
        c = in_units_of(config, c)
        reading = c.c_argmax if config.l2.reading == "argmax" else c.c_within
        if reading <= 0:
            return unmeasured(f"test accuracy of {source} peaks before its first step")
        for epochs in config.horizon.fixed:
            first_decay = epochs * min(config.lr_schedule.at) if config.lr_schedule else None
            values[lr, epochs] = round_l2(predict_l2(reading, epochs, first_decay))
        evidence.append({"lr": lr, "reading": config.l2.reading, **vars(c), "run_ids": ids})
    return L2Selection(values, evidence={"predicted_from": source, "coefficients": evidence}, units=config.units)


def in_units_of(config: ExperimentConfig, c: Coefficient) -> Coefficient:
    """A coefficient, measured in PyTorch's units, in the experiment's; the dimensionless C is the same in all."""
    names = [name for name in vars(c) if name.startswith("c_")]
    return dataclasses.replace(c, **{name: config.shown_l2(getattr(c, name)) for name in names})


def _tuned(plan: Plan, config: ExperimentConfig, records: Records) -> L2Selection:
    source, values, evidence = config.l2.tuned_from, {}, []
    unmeasured = functools.partial(L2Selection, {}, units=config.units)
    for lr in config.lr:
        of_torch, _ = config.run_rates(lr)
        for epochs in config.horizon.fixed:
            runs = _runs_within(plan, source, of_torch, epochs)
            measured, missing, diverged = _read(plan, source, runs, records)
            if missing:
                return unmeasured(f"{len(missing)} of {len(runs)} runs of {source} are missing")
            measured = [held for held in measured if held[0].spec.l2 not in diverged]
            accuracies = [float(columns["test_accuracy"].max()) for _, columns in measured]
            tuned = tuned_l2([config.shown_l2(run.spec.l2) for run, _ in measured], accuracies)
            if tuned is None:
                return unmeasured(f"at every λ of {source} at lr {lr:g} a run diverged within {epochs:g} epochs")
            values[lr, epochs] = tuned.l2
            evidence.append({"lr": lr, "epochs": epochs, **vars(tuned)})
    return L2Selection(values, evidence={"tuned_from": source, "tuned": evidence}, units=config.units)


def _runs_within(plan: Plan, source: str, lr: float, epochs: float) -> list[Point]:
    """The source's runs at one learning rate and λ > 0, up to a budget; with a schedule only those made for it."""
    runs = {}
    for run in plan.experiments[source]:
        spec = run.spec
        steps, _ = Horizon(epochs=epochs).steps(spec.lr, spec.l2, spec.steps_per_epoch)
        serves = run.steps == steps if spec.lr_decay_epochs else run.steps >= steps
        if spec.lr == lr and spec.l2 > 0 and serves:
            runs[run.run_id] = dataclasses.replace(run, steps=steps)
    return list(runs.values())


def _read(
    plan: Plan, source: str, runs: list[Point], records: Records
) -> tuple[list[tuple[Point, dict]], list[str], set[float]]:
    """([(run, columns up to its horizon)], ids of missing runs, λ at which a run diverged by then).

    All runs are read where the source measures, also those that another experiment measures more often.
    """
    grid = plan.scale.experiments[source].evaluation
    measured, missing, diverged = [], [], set()
    for run in runs:
        record = records.get(run.run_id)
        status = "missing" if record is None else record.status_at(run.steps)
        if status == "finished":
            measured.append((run, record.prefix(run.steps, grid.steps(run.steps, run.spec.steps_per_epoch))))
        elif status == "diverged":
            diverged.add(run.spec.l2)
        else:
            missing.append(run.run_id)
    return measured, missing, diverged
