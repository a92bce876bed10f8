"""Floor 5: the command line.

Exit codes: 0 done, 75 stopped with a checkpoint (call again to go on), 2 bad input, 1 anything else.
"""

import argparse
import errno
import json
import logging
import os
import re
import sys
from pathlib import Path

from l2dyn import __version__
from l2dyn.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_OTHER, EXIT_STOPPED, UserError
from l2dyn.runs.config import TheoryConfig, load_scale
from l2dyn.runs.cost import NOMINAL_RATE, calibration_for, calibration_path, record_bytes, training_seconds
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.derived_l2 import derived_l2_path, write_derived_l2
from l2dyn.runs.files import results_folder, shipped_folder, write_atomically
from l2dyn.runs.plan import Plan, planned
from l2dyn.runs.records import DamagedRecord, read_records, write_records
from l2dyn.runs.store import RunStore, remove_stale_markers, write_manifest

log = logging.getLogger("l2dyn")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    _set_up_logging(arguments.log)
    try:
        return arguments.run(arguments)
    except DamagedRecord as error:
        log.error("l2dyn: %s", error)
        return EXIT_OTHER
    except UserError as error:
        log.error("l2dyn: %s", error)
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.error("l2dyn: %s: no disk space left; free some and call again", error.filename or results_folder())
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        log.error("l2dyn: interrupted; runs that were finished are stored")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="l2dyn", description="Training dynamics with L2 regularization.")
    parser.add_argument("--version", action="version", version=f"l2dyn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, about: str, scale: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        sub.add_argument("--log", type=Path, help="write a log file; only warnings and errors go to the terminal then")
        if scale:
            sub.add_argument("--scale", default="quick", help="config/SCALE.yaml (default: quick)")
            sub.add_argument("--no-reuse", action="store_true", help="ignore the runs that ship in paper_results/")
            sub.add_argument("--data-dir", help="folder with real data (default: data_dir of the scale, L2DYN_DATA)")
            sub.add_argument("--device", choices=["cpu", "cuda", "auto"], help="override the scale's device")
        return sub

    train = command("train", _train, "train a slice of an experiment's runs; runs on a shelf are not trained again")
    train.add_argument("--experiment", required=True, help="a key of experiments: in the scale's file")
    train.add_argument("--slice", type=_slice, default=(1, 1), metavar="I/N", help="slice I of N (default: 1/1)")
    train.add_argument("--owned", action="store_true", help="leave out runs that an earlier experiment lists")
    train.add_argument("--marker", type=Path, help="write this file when all runs of the slice are stored")
    train.add_argument("--threads", type=int, help="CPU threads (default: the scale's)")
    train.add_argument("--time-limit", type=_duration, metavar="9m", help="stop with a checkpoint before this; exit 75")

    prepare = command("data", _data, "write a data set's verified arrays", scale=False)
    prepare.add_argument("name", choices=sorted(DATASETS))
    prepare.add_argument("--data-dir", default=os.environ.get("L2DYN_DATA"), help="folder that holds the real data")
    prepare.add_argument("--output", type=Path, help="default: below the results folder")

    predict = command("predict", _predict, "measure c = λ·t* or a tuned λ on finished runs, and the λ of each budget")
    predict.add_argument("--experiment", required=True, help="one with l2: {predicted_from: …}, or one to measure c on")
    predict.add_argument(
        "--budget", type=float, action="append", metavar="EPOCHS", help="predict λ for it (repeatable)"
    )
    predict.add_argument("--first-decay", type=float, metavar="EPOCHS", help="when the learning rate first decays")
    predict.add_argument("--output", type=Path, help="l2.json (default: results/SCALE/EXPERIMENT/l2.json)")

    summarize = command("summarize", _summarize, "write an experiment's summary.csv, one row a run")
    summarize.add_argument("--experiment", required=True)
    summarize.add_argument("--output", type=Path, help="default: results/SCALE/EXPERIMENT/summary.csv")

    theory = command("theory", _theory, "write a table of theory curves")
    theory.add_argument("curve", choices=list(TheoryConfig.model_fields))
    theory.add_argument("--output", type=Path, help="default: results/SCALE/theory/CURVE.csv")
    theory.add_argument("--recorded", action="store_true", help="take a curve that needs data from paper_results/")
    theory.add_argument("--arrays", type=Path, help="prepared data (default: below the results folder)")

    plan = command("plan", _plan, "runs, steps, estimated time and disk of each experiment")
    plan.add_argument("--slices", action="store_true", help="the time of each training job, too")

    calibrate = command("calibrate", _calibrate, "time the scale's nets on this device, so that plan knows how long")
    calibrate.add_argument("--threads", type=int, help="CPU threads (default: the scale's)")
    command(
        "status", _status, "done, checkpointed, diverged and missing runs of each experiment; verifies every record"
    )

    homogeneous = command(
        "homogeneity", _homogeneity, "how nearly each kind of model is homogeneous (theorem 1), on digits", scale=False
    )
    homogeneous.add_argument("--output", type=Path, help="default: results/homogeneity.csv")
    homogeneous.add_argument("--steps", type=int, default=300, help="of training (default: 300)")

    export = command("export", _export, "write finished runs into one bundle")
    export.add_argument("output", type=Path, help="the bundle, a .parquet file")
    export.add_argument("--experiment", action="append", help="only this one's runs (may be repeated)")

    bring = command("import", _import, "put a bundle's runs on the shelf in results/", scale=False)
    bring.add_argument("bundle", type=Path)

    ship = command("ship", _ship, "put finished runs on the shipped shelf, paper_results/runs/, and index it")
    ship.add_argument("--experiment", required=True)
    return parser


def _train(arguments) -> int:
    from l2dyn.training.job import Deadline, train

    plan = _planned(arguments)
    scale = plan.scale
    threads = _threads(arguments, scale)
    plan.tasks(arguments.experiment)
    if arguments.experiment in plan.pending:
        source = scale.experiments[arguments.experiment].l2.source
        command = f"l2dyn predict --scale {plan.name} --experiment {arguments.experiment}"
        raise UserError(f"--experiment {arguments.experiment}: its l2 is measured on {source}; first run: {command}")
    if arguments.experiment in plan.unresolved:
        reason = _unresolved(plan, arguments.experiment)
        log.warning("l2dyn: %s; nothing to train until l2dyn predict measures it", reason)
    part = plan.slice(arguments.experiment, *arguments.slice, owned_only=arguments.owned)
    store = _store(scale)
    outcome = train(
        list(part.tasks),
        store,
        device=scale.device,
        threads=threads,
        deadline=Deadline(arguments.time_limit),
        data_dir=scale.data_dir,
        keep_final_state=scale.keep_final_state,
        bar=arguments.log is None and sys.stderr.isatty(),
    )
    done = f"{outcome.trained} trained ({outcome.diverged} diverged), {outcome.found} found"
    if outcome.stopped:
        log.info("%s %s: stopped before the end: %s; call again to go on", part.experiment, part.name, done)
        return EXIT_STOPPED
    if arguments.marker:
        listed = {"runs": [t.run_id for t in part.tasks], "steps": [t.steps for t in part.tasks]}
        write_atomically(arguments.marker, (json.dumps(listed) + "\n").encode())
    log.info("%s %s: %s", part.experiment, part.name, done)
    return EXIT_DONE


def _threads(arguments, scale) -> int:
    threads = scale.threads if arguments.threads is None else arguments.threads
    if threads < 1:
        raise UserError(f"--threads {threads}: at least 1")
    return threads


def _data(arguments) -> int:
    from l2dyn import data

    path = arguments.output or data.prepared_path(arguments.name)
    data.prepare(arguments.name, path, arguments.data_dir or None)
    log.info("%s: %s, checksum %s", path, arguments.name, DATASETS[arguments.name].checksum[:16])
    return EXIT_DONE


def _predict(arguments) -> int:
    from l2dyn.derivation import derive

    plan = _planned(arguments)
    plan.tasks(arguments.experiment)
    config = plan.scale.experiments[arguments.experiment]
    if not config.derived:
        return _predict_from(plan, arguments)
    for option, given in (("--budget", arguments.budget), ("--first-decay", arguments.first_decay)):
        if given is not None:
            where = f"config/{plan.name}.yaml"
            raise UserError(f"{option}: {arguments.experiment} has its budgets and learning rates in {where}")
    derived = derive(plan, arguments.experiment, _store(plan.scale))
    path = arguments.output or derived_l2_path(plan.name, arguments.experiment)
    write_derived_l2(path, derived)
    log.info("%s written", path)
    if derived.reason:
        log.warning("l2dyn: %s: no l2: %s", arguments.experiment, derived.reason)
    rows = [[f"{lr:g}", f"{epochs:g}", f"{l2:g}"] for (lr, epochs), l2 in derived.values.items()]
    # under the workflow the table belongs into the log
    _print_table(["learning rate", "budget (epochs)", "l2"], rows, show=log.info if arguments.log else print)
    return EXIT_DONE


def _predict_from(plan: Plan, arguments) -> int:
    """Measure c on an experiment that lists its λ, and show what it predicts for the budgets that are asked for."""
    from l2dyn.derivation import measured_coefficient
    from l2dyn.prediction import predict_l2, round_l2

    name, config = arguments.experiment, plan.scale.experiments[arguments.experiment]
    if arguments.output:
        raise UserError(f"--output: {name} lists its l2 in config/{plan.name}.yaml")
    if arguments.first_decay is not None and not arguments.budget:
        raise UserError("--first-decay: needs the --budget in which the learning rate decays")
    for key in ("auto_l2", "lr_schedule"):
        if getattr(config, key) is not None:
            raise UserError(f"--experiment {name}: it has {key}; c is measured at constant l2 and learning rate")
    rows = []
    for lr in config.lr:
        c, _, missing = measured_coefficient(plan, name, _store(plan.scale), lr)
        if missing:
            raise UserError(
                f"--experiment {name}: {len(missing)} of its runs are not trained; l2dyn status counts them"
            )
        if c is None:
            raise UserError(f"--experiment {name}: no run at lr {lr:g} has an uncensored peak of test accuracy")
        try:
            predicted = [round_l2(predict_l2(c.c_argmax, b, arguments.first_decay)) for b in arguments.budget or []]
        except ValueError as error:
            raise UserError(f"--budget, --first-decay: {error}") from None
        both = ((c.c_argmax, c.c_argmax_low, c.c_argmax_high), (c.c_within, c.c_within_low, c.c_within_high))
        spans = [f"{value:.3g} ({low:.2g}–{high:.2g})" for value, low, high in both]
        rows.append([f"{lr:g}", c.seeds, *spans, f"{c.C_argmax:.2g}", *(f"{l2:g}" for l2 in predicted)])
    budgets = [f"l2 for {b:g} epochs" for b in arguments.budget or []]
    _print_table(["learning rate", "runs", "c_argmax (epochs)", "c_0.5pp (epochs)", "C", *budgets], rows)
    return EXIT_DONE


def _summarize(arguments) -> int:
    from l2dyn.summary import summarize, write_summary

    plan = _planned(arguments)
    plan.tasks(arguments.experiment)
    rows = summarize(plan, arguments.experiment, _store(plan.scale))
    path = arguments.output or results_folder() / plan.name / arguments.experiment / "summary.csv"
    write_summary(path, rows)
    counts = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    log.info("%s: %s", path, ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    return EXIT_DONE


def _theory(arguments) -> int:
    from l2dyn.theory_curves import write_curve

    plan = _planned(arguments)
    if getattr(plan.scale.theory, arguments.curve) is None:
        raise UserError(f"config/{plan.name}.yaml: no theory.{arguments.curve}")
    path = arguments.output or results_folder() / plan.name / "theory" / f"{arguments.curve}.csv"
    write_curve(arguments.curve, plan, path, arguments.arrays, arguments.recorded)
    log.info("%s written", path)
    return EXIT_DONE


def _plan(arguments) -> int:
    plan = _planned(arguments)
    device, threads = plan.scale.device, plan.scale.threads
    calibration = calibration_for(device, threads)

    def seconds(tasks) -> float:
        return training_seconds(tasks, device, threads, calibration)

    rows, jobs, tasks, total = [], [], [], 0.0
    for name, runs in plan.experiments.items():
        pending = name in plan.pending
        own = plan.provisional(name) if pending else plan.tasks(name, owned_only=True)
        listed = len(own) if pending else len(plan.tasks(name))
        parts = [] if pending else plan.slices(name)
        times = [seconds(part.tasks) for part in parts] if parts else [seconds(own)]
        jobs += [[f"{name} {p.index}/{p.count}", *_job_costs(p.tasks, t)] for p, t in zip(parts, times, strict=False)]
        capped = 0 if pending else len({run.run_id for run in runs if run.capped})
        rows.append([f"{name} *" if pending else name, listed, len(own), capped, *_costs(own, sum(times))])
        tasks += own
        total += sum(times)
    rows.append(["all", *(sum(r[i] for r in rows) for i in (1, 2, 3)), *_costs(tasks, total)])
    _print_table(["experiment", "runs", "own", "capped", "longest run", "steps", "time", "disk MiB"], rows)
    if arguments.slices:
        print()
        _print_table(["job", "runs", "longest run", "steps", "time"], jobs)
    for name in plan.pending:
        source = plan.scale.experiments[name].l2.source
        print(f"* {name}: pending, its l2 is measured on {source}; counted as if none of its runs were another's.")
    for name in plan.unresolved:
        print(_unresolved(plan, name))
    print(f"own: runs not listed by an earlier experiment. time: {_basis(calibration, device, threads)}")
    return EXIT_DONE


def _basis(calibration, device: str, threads: int) -> str:
    """Where the times come from."""
    if calibration:
        return f"of one job after the other, as l2dyn calibrate found on {calibration.device}, {calibration.date}."
    unit = "GPU" if device == "cuda" else f"{threads} CPU core{'s' if threads > 1 else ''}"
    rate = NOMINAL_RATE["cuda"] if device == "cuda" else NOMINAL_RATE["cpu"] * threads
    return f"of one {unit} at a nominal {rate / 1e12:g} TFLOP/s; l2dyn calibrate measures yours."


def _costs(tasks, seconds: float) -> list:
    return [*_job_costs(tasks, seconds)[1:], f"{sum(record_bytes(t) for t in tasks) / 2**20:.1f}"]


def _job_costs(tasks, seconds: float) -> list:
    return [len(tasks), max((t.steps for t in tasks), default=0), sum(t.steps for t in tasks), _readable(seconds)]


def _readable(seconds: float) -> str:
    unit, size = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 0)) if seconds >= s)
    return f"{seconds / (size or 1):.1f} {unit}"


def _calibrate(arguments) -> int:
    from l2dyn.training.calibration import calibrate

    plan = _planned(arguments)
    slices = [part.tasks for name in plan.experiments for part in plan.slices(name)]
    slices += [plan.provisional(name) for name in plan.pending]
    found = calibrate(slices, plan.scale.device, _threads(arguments, plan.scale))
    log.info("%s: %d kinds of training on %s", calibration_path(), len(found.kinds), found.device)
    return EXIT_DONE


def _status(arguments) -> int:
    plan = _planned(arguments)
    store = _store(plan.scale)
    begun = _checkpointed(store)
    rows, damage = [], []
    for name in plan.experiments:
        counts = dict.fromkeys(("done", "shipped", "diverged", "checkpointed", "missing"), 0)
        for task in plan.tasks(name):
            try:
                record = store.load(task.run_id)
            except DamagedRecord as error:
                damage.append(error)
                record = None
            if record is not None and record.serves(task.steps):
                counts["done"] += 1
                counts["diverged"] += record.status == "diverged"
                counts["shipped"] += store.on_shipped_shelf(store.entry(task.run_id))
            else:
                counts["checkpointed" if task.run_id in begun else "missing"] += 1
        rows.append([name, len(plan.tasks(name)), *counts.values()])
    _print_table(["experiment", "runs", "done", "of these shipped", "diverged", "checkpointed", "missing"], rows)
    for name in plan.pending:
        print(f"{name}: pending, its l2 is measured on {plan.scale.experiments[name].l2.source}")
    for name in plan.unresolved:
        print(_unresolved(plan, name))
    for error in damage:
        log.error("l2dyn: %s", error)
    return EXIT_OTHER if damage else EXIT_DONE


def _unresolved(plan: Plan, name: str) -> str:
    return f"{name}: its l2 could not be measured: {plan.unresolved[name]}"


def _checkpointed(store: RunStore) -> set[str]:
    """Run ids that a checkpoint holds; reads its headers only, so torch stays out."""
    begun = set()
    for path in (store.results / "checkpoints").glob("*.ckpt"):
        try:
            with open(path, "rb") as stream:
                begun |= set(json.loads(stream.readline())["run_ids"])
        except (OSError, ValueError, KeyError):
            log.warning("l2dyn: %s: damaged checkpoint; training sets it aside", path)
    return begun


def _homogeneity(arguments) -> int:
    import csv
    import io

    import torch

    from l2dyn import data
    from l2dyn.runs.spec import DataSpec
    from l2dyn.training.homogeneity import homogeneity_table

    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: at least 1")
    torch.set_num_threads(1)  # small nets, for which more threads only wait for each other
    spec = DataSpec(name="digits", checksum=DATASETS["digits"].checksum, train=256, test=64, pool=2)
    table = homogeneity_table(data.samples(spec, data.load("digits")), arguments.steps)
    rows = list(zip(*table.values(), strict=True))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([list(table), *rows])
    path = arguments.output or results_folder() / "homogeneity.csv"
    write_atomically(path, stream.getvalue().encode())
    shown = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    _print_table(list(table), shown)
    log.info("%s written", path)
    return EXIT_DONE


def _export(arguments) -> int:
    plan = _planned(arguments)
    records = _finished(plan, _store(plan.scale), arguments.experiment or list(plan.experiments))
    write_records(arguments.output, records)
    print(f"{arguments.output}: {len(records)} runs, {arguments.output.stat().st_size / 2**20:.2f} MiB")
    return EXIT_DONE


def _import(arguments) -> int:
    store = RunStore(reuse=False)
    brought = 0
    for record in read_records(arguments.bundle):
        entry = store.entry(record.run_id)
        if entry is None or not entry.serves(record.steps):
            brought += store.save(record)
    remove_stale_markers(store.results, RunStore().shipped_entries())
    print(f"{arguments.bundle}: {brought} runs brought to {store.results / 'runs'}, the others were there")
    return EXIT_DONE


def _ship(arguments) -> int:
    plan = _planned(arguments)
    records = _finished(plan, RunStore(reuse=False), [arguments.experiment])
    folder = shipped_folder() / "runs"
    path = folder / f"{plan.name}-{arguments.experiment}.parquet"
    write_records(path, records)
    listed = write_manifest(folder)
    print(f"{path}: {len(records)} runs; the shipped shelf lists {listed}")
    return EXIT_DONE


def _finished(plan: Plan, store: RunStore, experiments: list[str]) -> list:
    ids = dict.fromkeys(task.run_id for name in experiments for task in plan.tasks(name))
    records = [record for record in map(store.load, ids) if record is not None]
    if not records:
        raise UserError(
            f"no finished runs of {', '.join(experiments)} at scale {plan.name} in {store.results / 'runs'}"
        )
    return records


def _scale(arguments):
    given = {"reuse": False if arguments.no_reuse else None, "data_dir": arguments.data_dir, "device": arguments.device}
    return load_scale(arguments.scale, **given)


def _planned(arguments) -> Plan:
    return planned(arguments.scale, _scale(arguments))


def _store(scale) -> RunStore:
    return RunStore(reuse=scale.reuse)


def _slice(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(match[1]), int(match[2])


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 9m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _print_table(head: list[str], rows: list[list], show=print) -> None:
    cells = [head, *([f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        show("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def _set_up_logging(path: Path | None) -> None:
    root = logging.getLogger("l2dyn")
    root.handlers.clear()
    root.setLevel(logging.INFO)
    root.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING if path else logging.INFO)
    root.addHandler(terminal)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(to_file)
