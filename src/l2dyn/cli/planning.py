"""Commands that say what there is to do and what is done: plan, status, made."""

import argparse
import logging

from l2dyn.cli.options import Commands, finished_of, plan_of, print_table
from l2dyn.errors import EXIT_DONE, EXIT_OTHER, UserError
from l2dyn.files import results_folder
from l2dyn.runs.cache import Cache
from l2dyn.runs.calibrations import NOMINAL_RATE, Calibration, calibration_for
from l2dyn.runs.checkpoint_header import SUFFIX, read_header, resumable
from l2dyn.runs.cost import readable, record_bytes, training_seconds
from l2dyn.runs.plan import Plan, Task
from l2dyn.runs.records import DamagedRecord

log = logging.getLogger("l2dyn")


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    plan = commands.add("plan", _plan, "what each experiment shows, its runs, steps, estimated time and disk")
    plan.add_argument("--slices", action="store_true", help="the time of each training job, too")
    commands.add("made", _made, "the results of a scale that are there, as targets of Snakemake (make report)")
    commands.add("status", _status, "done, checkpointed, diverged and missing runs; verifies every record")


def _plan(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    device, threads = plan.scale.device, plan.scale.threads
    calibration = calibration_for(device, threads)

    def seconds(tasks) -> float:
        return training_seconds(tasks, device, threads, calibration)

    rows, jobs, tasks, total = [], [], [], 0.0
    for name, points in plan.experiments.items():
        pending = name in plan.pending
        own = plan.provisional(name) if pending else plan.tasks(name, owned_only=True)
        listed = len(own) if pending else len(plan.tasks(name))
        slices = [] if pending else plan.slices(name)
        times = [seconds(one.tasks) for one in slices] if slices else [seconds(own)]
        jobs += [[f"{name} {p.index}/{p.count}", *_job_costs(p.tasks, t)] for p, t in zip(slices, times, strict=False)]
        capped = 0 if pending else len({point.run_id for point in points if point.capped})
        rows.append([f"{name} *" if pending else name, listed, len(own), capped, *_costs(own, sum(times))])
        tasks += own
        total += sum(times)
    rows.append(["all", *(sum(r[i] for r in rows) for i in (1, 2, 3)), *_costs(tasks, total)])
    print(f"{plan.name}: {plan.scale.about}\n")
    print_table(["experiment", "runs", "own", "capped", "longest run", "steps", "time", "disk MiB"], rows)
    print()
    widest = max(map(len, plan.scale.experiments))
    for name, experiment in {"experiment": None, **plan.scale.experiments}.items():
        print(f"{name:{widest}}  {experiment.shows if experiment else 'shows'}")
    if arguments.slices:
        print()
        print_table(["job", "runs", "longest run", "steps", "time"], jobs)
    print()
    for line in _not_known(plan, "; counted as if none of its runs were another's"):
        print(f"* {line}")
    print(f"own: runs in its slices, no earlier experiment's. time: {_basis(calibration, device, threads)}")
    return EXIT_DONE


def _made(arguments: argparse.Namespace) -> int:
    """Print paths; UserError where nothing has been made."""
    plan = plan_of(arguments)
    folder = results_folder() / plan.name
    wanted = [f"{name}.png" for name in plan.scale.figures] + ["claims.csv", "claims.html", "results.md"]
    wanted += [f"{name}/summary.{kind}" for name in plan.experiments for kind in ("csv", "html")]
    found = [str(folder / name) for name in wanted if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: nothing has been made yet; run: make figures SCALE={plan.name}")
    print("\n".join(found))
    return EXIT_DONE


def _status(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    held = _checkpointed(plan)
    finished, rows, damage = finished_of(plan), [], []
    for name in plan.experiments:
        counts = dict.fromkeys(("done", "shipped", "diverged", "checkpointed", "missing"), 0)
        for task in plan.tasks(name):
            try:
                record = finished.load(task.run_id, task.steps, task.evaluations())
            except DamagedRecord as error:
                damage.append(error)
                record = None
            if record is not None:
                counts["done"] += 1
                counts["diverged"] += record.status == "diverged"
                counts["shipped"] += finished.recorded(task.run_id)
            else:
                counts["checkpointed" if task.run_id in held else "missing"] += 1
        rows.append([name, len(plan.tasks(name)), *counts.values()])
    print_table(["experiment", "runs", "done", "of these shipped", "diverged", "checkpointed", "missing"], rows)
    for line in _not_known(plan):
        print(line)
    for error in damage:
        log.error("l2dyn: %s", error)
    return EXIT_OTHER if damage else EXIT_DONE


def _not_known(plan: Plan, how: str = "") -> list[str]:
    """A line for each experiment whose λ are not there."""
    pending = [f"{n}: pending, its l2 is measured on {plan.scale.experiments[n].l2.source}{how}" for n in plan.pending]
    return pending + [f"{n}: its l2 could not be measured: {reason}" for n, reason in plan.unresolved.items()]


def _checkpointed(plan: Plan) -> set[str]:
    """Ids of the runs that training goes on with from a checkpoint; reads the headers only, so torch stays out."""
    held = []
    for path in Cache().checkpoints.glob(f"*{SUFFIX}"):
        try:
            held.append(read_header(path))
        except ValueError:
            log.warning("l2dyn: %s: damaged checkpoint; training sets it aside", path)
        except UserError as error:
            log.warning("l2dyn: %s", error)
    wanted = {(task.run_id, task.steps) for name in plan.experiments for task in plan.tasks(name)}
    return {run_id for header in resumable(filter(None, held), wanted) for run_id in header.run_ids}


def _basis(calibration: Calibration | None, device: str, threads: int) -> str:
    """Where the times come from."""
    if calibration:
        return f"of one job after the other, as l2dyn calibrate found on {calibration.device}, {calibration.date}."
    unit = "GPU" if device == "cuda" else "CPU core" if threads == 1 else f"job on {threads} CPU cores"
    rate = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    return f"of one {unit} at a nominal {rate / 1e12:g} TFLOP/s; l2dyn calibrate measures yours."


def _costs(tasks: list[Task], seconds: float) -> list:
    return [*_job_costs(tasks, seconds)[1:], f"{sum(record_bytes(t) for t in tasks) / 2**20:.1f}"]


def _job_costs(tasks, seconds: float) -> list:
    return [len(tasks), max((t.steps for t in tasks), default=0), sum(t.steps for t in tasks), readable(seconds)]
