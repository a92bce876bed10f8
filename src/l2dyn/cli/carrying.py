"""Commands that carry finished runs: export, import, ship."""

import argparse
from pathlib import Path

from l2dyn.cli.options import Commands, finished_of, plan_of
from l2dyn.errors import EXIT_DONE, UserError
from l2dyn.files import shipped_folder
from l2dyn.runs.bundles import Finished
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import NoBundle, Record, read_records, write_records
from l2dyn.runs.shelf import put_on_shelf


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    export = commands.add("export", _export, "write finished runs into one bundle")
    export.add_argument("output", type=Path, help="the bundle, a .parquet file")
    export.add_argument("--experiment", action="append", help="only this one's runs (may be repeated)")

    bring = commands.add("import", _import, "put a bundle's runs into the cache", scale=False)
    bring.add_argument("bundle", type=Path)

    ship = commands.add("ship", _ship, "put an experiment's finished runs on the shelf, paper_results/runs/")
    ship.add_argument("--experiment", required=True)


def _export(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    names = arguments.experiment or list(plan.experiments)
    records = _finished(plan, finished_of(plan), names)
    write_records(arguments.output, records)
    print(f"{arguments.output}: {len(records)} runs, {arguments.output.stat().st_size / 2**20:.2f} MiB")
    return EXIT_DONE


def _import(arguments: argparse.Namespace) -> int:
    cache, brought = Cache(), 0
    try:
        records = read_records(arguments.bundle)
    except NoBundle as damage:
        raise UserError(f"{arguments.bundle}: not a bundle of l2dyn, or damaged ({damage.reason})") from None
    for record in records:
        brought += cache.save(record)
    print(f"{arguments.bundle}: {brought} runs brought to {cache.folder / 'runs'}, the others were there")
    return EXIT_DONE


def _ship(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    name = arguments.experiment
    records = _finished(plan, finished_of(plan, shelf=False), [name])
    folder, planned = shipped_folder() / "runs", [task.run_id for task in plan.tasks(name)]
    shipped, dropped = put_on_shelf(folder, f"{plan.name}-{name}", records, planned)
    said = f", {dropped} dropped that {plan.name}.yaml has no longer" if dropped else ""
    print(f"{folder / f'{plan.name}-{name}.parquet'}: {shipped} of {len(planned)} runs{said}")
    return EXIT_DONE


def _finished(plan: Plan, finished: Finished, experiments: list[str]) -> list[Record]:
    ids = dict.fromkeys(task.run_id for name in experiments for task in plan.tasks(name))
    records = [record for record in map(finished.load, ids) if record is not None]
    if not records:
        raise UserError(f"no finished runs of {', '.join(experiments)} at scale {plan.name}")
    return records
