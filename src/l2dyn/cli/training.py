"""Commands that prepare data and train: data, train, recorded, calibrate."""

import argparse
import logging
import os
import sys
from pathlib import Path

from l2dyn.cli.options import (
    Commands,
    add_bundles,
    duration,
    finished_of,
    plan_of,
    slice_of,
    threads_of,
)
from l2dyn.errors import EXIT_DONE, EXIT_STOPPED, UserError
from l2dyn.runs.calibrations import calibration_path
from l2dyn.runs.records import write_records
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.data_sets import DATA_SETS

log = logging.getLogger("l2dyn")


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    train = commands.add(
        "train", _train, "train a slice of an experiment's runs; what is finished is not trained again"
    )
    train.add_argument("--experiment", required=True, help="a key of experiments: in the scale's file")
    train.add_argument("--slice", type=slice_of, default=(1, 1), metavar="I/N", help="slice I of N (default: 1/1)")
    train.add_argument(
        "--owned", action="store_true", help="the runs that the workflow trains in its slices, no others"
    )
    train.add_argument("--output", type=Path, help="the bundle to write when all runs of the slice are there")
    train.add_argument("--threads", type=int, help="CPU threads (default: the scale's)")
    train.add_argument("--time-limit", type=duration, metavar="9m", help="stop with a checkpoint before this; exit 75")
    add_bundles(train, "further bundles that may hold finished runs")

    prepare = commands.add("data", _data, "write a data set's verified arrays", scale=False)
    prepare.add_argument("name", choices=sorted(DATA_SETS))
    prepare.add_argument("--data-dir", default=os.environ.get("L2DYN_DATA"), help="folder that holds the real data")
    prepare.add_argument("--output", type=Path, help="default: below the results folder")
    prepare.add_argument("--facts", action="store_true", help="print what its entry in specs/data_sets.py says of it")

    recorded = commands.add("recorded", _recorded, "write a bundle of what ships of an experiment")
    recorded.add_argument("--experiment", required=True)
    recorded.add_argument("--output", type=Path, required=True)
    recorded.add_argument("--everywhere", action="store_true", help="also what the cache and earlier bundles hold")

    calibrate = commands.add("calibrate", _calibrate, "time the scale's nets here, so that plan knows how long")
    calibrate.add_argument("--threads", type=int, help="CPU threads (default: the scale's)")


def _train(arguments: argparse.Namespace) -> int:
    from l2dyn.training.attempts import forget_attempts, limit_under_slurm, refuse_a_fault
    from l2dyn.training.job import Deadline, train

    plan = plan_of(arguments)
    plan.tasks(arguments.experiment)
    if arguments.experiment in plan.pending:
        source = plan.scale.experiments[arguments.experiment].l2.source
        command = f"l2dyn predict --scale {plan.name} --experiment {arguments.experiment}"
        raise UserError(f"--experiment {arguments.experiment}: its l2 is measured on {source}; first run: {command}")
    if arguments.experiment in plan.unresolved:
        reason = plan.unresolved[arguments.experiment]
        log.warning(
            "l2dyn: %s: its l2 could not be measured: %s; nothing to train until l2dyn predict measures it",
            arguments.experiment,
            reason,
        )
    slice_ = plan.slice(arguments.experiment, *arguments.slice, owned_only=arguments.owned)
    finished = finished_of(plan, arguments.experiment, arguments.bundles or ())
    refuse_a_fault(finished.cache, slice_)
    limits = [limit for limit in (arguments.time_limit, limit_under_slurm()) if limit is not None]
    outcome = train(
        list(slice_.tasks),
        finished,
        device=plan.scale.device,
        threads=threads_of(arguments, plan),
        deadline=Deadline(min(limits, default=None)),
        data_dir=plan.scale.data_dir,
        bar=arguments.log is None and sys.stderr.isatty(),
        micro_batch=plan.scale.micro_batch,
    )
    done = f"{outcome.trained} trained ({outcome.diverged} diverged), {outcome.found} found"
    if outcome.stopped:
        log.info("%s %s: stopped before the end: %s; call again to go on", slice_.experiment, slice_.name, done)
        return EXIT_STOPPED
    if arguments.output:
        records = [finished.load(task.run_id, task.steps, task.evaluations()) for task in slice_.tasks]
        if None in records:
            lost = slice_.tasks[records.index(None)].run_id
            raise UserError(f"run {lost}: another job has replaced its record by one for other budgets; call again")
        write_records(arguments.output, records)
    forget_attempts(finished.cache, slice_)
    log.info("%s %s: %s", slice_.experiment, slice_.name, done)
    return EXIT_DONE


def _data(arguments: argparse.Namespace) -> int:
    from l2dyn.data.arrays import facts, prepare, prepared_path

    if arguments.facts:
        for key, value in facts(arguments.name, arguments.data_dir or None).items():
            # lines of an entry; four digits of mean and std are as much as scaling needs
            print(f"{key}={tuple(round(v, 4) for v in value) if key in ('mean', 'std') else value!r},")
        return EXIT_DONE
    path = arguments.output or prepared_path(arguments.name)
    prepare(arguments.name, path, arguments.data_dir or None)
    log.info("%s: %s, checksum %s", path, arguments.name, DATA_SETS[arguments.name].checksum[:16])
    return EXIT_DONE


def _recorded(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    plan.tasks(arguments.experiment)
    ids = dict.fromkeys(point.run_id for point in plan.experiments[arguments.experiment])
    held = finished_of(plan) if arguments.everywhere else Shelf(reuse=plan.scale.reuse)
    records = [record for record in map(held.load, ids) if record is not None]
    write_records(arguments.output, records, recorded=[run_id for run_id in ids if held.recorded(run_id)])
    log.info("%s: %d of %d runs", arguments.output, len(records), len(ids))
    return EXIT_DONE


def _calibrate(arguments: argparse.Namespace) -> int:
    from l2dyn.training.calibration import calibrate

    plan = plan_of(arguments)
    slices = [slice_.tasks for name in plan.experiments for slice_ in plan.slices(name)]
    slices += [plan.provisional(name) for name in plan.pending]
    found = calibrate(slices, plan.scale.device, threads_of(arguments, plan))
    log.info("%s: %d kinds of training on %s", calibration_path(), len(found.kinds), found.device)
    return EXIT_DONE
