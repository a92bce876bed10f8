"""Commands that measure and tabulate: predict, summarize, theory, claims, results, pages, homogeneity."""

import argparse
import itertools
import logging
from pathlib import Path

from l2dyn.cli.options import Commands, add_bundles, plan_of, print_table, records_of
from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.theory import CURVES
from l2dyn.errors import EXIT_DONE, UserError
from l2dyn.files import results_folder
from l2dyn.runs.l2_selection import selection_path, write_l2_selection
from l2dyn.runs.plan import Plan

log = logging.getLogger("l2dyn")


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    predict = commands.add("predict", _predict, "measure c = λ·t* or a tuned λ on finished runs, and λ for budgets")
    predict.add_argument("--experiment", required=True, help="one with l2: {predicted_from: …}, or one to measure c on")
    predict.add_argument(
        "--budget", type=float, action="append", metavar="EPOCHS", help="predict λ for it (repeatable)"
    )
    predict.add_argument("--l2", type=float, help="of the listed l2, the one to measure c at and to predict from")
    predict.add_argument("--first-decay", type=float, metavar="EPOCHS", help="when the learning rate first decays")
    predict.add_argument("--output", type=Path, help="l2.json (default: results/SCALE/EXPERIMENT/l2.json)")
    add_bundles(predict, "bundles to measure on (default: whatever is finished)")

    summarize = commands.add("summarize", _summarize, "write an experiment's summary.csv, one row a run")
    summarize.add_argument("--experiment", required=True)
    summarize.add_argument("--output", type=Path, help="default: results/SCALE/EXPERIMENT/summary.csv")
    summarize.add_argument("--page", type=Path, help="the same as a page to be searched (default: none)")
    add_bundles(summarize, "bundles to summarize (default: whatever is finished)")

    theory = commands.add("theory", _theory, "write a table of theory curves")
    theory.add_argument("curve", choices=CURVES)
    theory.add_argument("--output", type=Path, help="default: results/SCALE/theory/CURVE.csv")
    theory.add_argument("--recorded", action="store_true", help="take a curve that needs data from paper_results/")
    theory.add_argument("--arrays", type=Path, help="prepared data (default: below the results folder)")

    claims = commands.add("claims", _claims, "judge every claim of the paper by what a scale's runs show")
    claims.add_argument("--output", type=Path, help="one row a claim (default: results/SCALE/claims.csv)")
    claims.add_argument("--parts", type=Path, help="one row for each of its parts (default: claim_parts.csv beside it)")
    claims.add_argument("--page", type=Path, help="both as Markdown (default: claims.md beside it)")
    claims.add_argument("--searchable", type=Path, help="both as a page to be searched (default: none)")
    claims.add_argument(
        "--inputs", nargs="*", type=Path, metavar="FILE", help="bundles among them (default: whatever is finished)"
    )

    results = commands.add("results", _results, "write results.md: the figures' numbers as tables")
    results.add_argument("--output", type=Path, help="default: results/SCALE/results.md")

    commands.add("pages", _pages, "write docs/figures.md, docs/results.md and README's verdicts", scale=False)

    homogeneous = commands.add(
        "homogeneity", _homogeneity, "how nearly each kind of net is homogeneous (theorem 1), on digits", scale=False
    )
    homogeneous.add_argument("--output", type=Path, help="default: results/homogeneity.csv")
    homogeneous.add_argument("--steps", type=int, default=300, help="of training (default: 300)")


def _predict(arguments: argparse.Namespace) -> int:
    from l2dyn.tables.l2_selection import select_l2

    plan = plan_of(arguments)
    plan.tasks(arguments.experiment)
    config = plan.scale.experiments[arguments.experiment]
    if not config.selected:
        return _predict_from(plan, arguments)
    for option in ("budget", "l2", "first_decay"):
        if getattr(arguments, option) is not None:
            where = f"has its budgets, learning rates and l2 in config/{plan.name}.yaml"
            raise UserError(f"--{option.replace('_', '-')}: {arguments.experiment} {where}")
    selection = select_l2(plan, arguments.experiment, records_of(plan, arguments.bundles))
    path = arguments.output or selection_path(plan.name, arguments.experiment)
    write_l2_selection(path, selection)
    log.info("%s written", path)
    if selection.reason:
        log.warning("l2dyn: %s: no l2: %s", arguments.experiment, selection.reason)
    # under the workflow the table belongs into the log
    _print_l2(config, selection.values, show=log.info if arguments.log else print)
    return EXIT_DONE


def _print_l2(config: ExperimentConfig, values: dict[tuple[float, float], float], show=print) -> None:
    """λ by (learning rate, budget), beside the time scale on which it acts."""
    rows = []
    for (lr, epochs), l2 in values.items():
        spec = config.run(lr, l2, config.seeds[0], epochs)
        scale = (1 - spec.momentum) / (spec.lr * spec.l2 * spec.steps_per_epoch)
        rows.append([f"{lr:g}", f"{epochs:g}", f"{l2:g}", spec.steps_per_epoch, f"{scale:.3g}"])
    print_table(["learning rate", "budget (epochs)", "l2", "steps an epoch", "(1−μ)/(ηλS) (epochs)"], rows, show=show)


def _predict_from(plan: Plan, arguments: argparse.Namespace) -> int:
    """Measure c at every λ that an experiment lists, and show what one of them predicts for the budgets asked for."""
    from l2dyn.measures.best_l2 import predict_l2, round_l2
    from l2dyn.specs.units import LABELS
    from l2dyn.tables.l2_selection import in_units_of, measured_coefficient

    name, config = arguments.experiment, plan.scale.experiments[arguments.experiment]
    if arguments.output:
        raise UserError(f"--output: {name} lists its l2 in config/{plan.name}.yaml")
    if arguments.first_decay is not None and not arguments.budget:
        raise UserError("--first-decay: needs the --budget in which the learning rate decays")
    for key in ("auto_l2", "lr_schedule"):
        if getattr(config, key) is not None:
            raise UserError(f"--experiment {name}: it has {key}; c is measured at constant l2 and learning rate")
    listed = [l2 for l2 in config.l2 if l2 > 0]
    if arguments.l2 is not None and arguments.l2 not in listed:
        raise UserError(
            f"--l2 {arguments.l2:g}: {name} lists {', '.join(f'{l2:g}' for l2 in listed) or 'none above 0'}"
        )
    listed = listed if arguments.l2 is None else [arguments.l2]
    at, reading = _predicts(plan, name, listed) if arguments.budget else (None, "argmax")
    records, rows, values, missing = records_of(plan, arguments.bundles), [], {}, 0
    for lr, l2 in itertools.product(config.lr, listed):
        c, _, untrained = measured_coefficient(plan, name, records, *config.run_rates(lr, l2))
        missing += len(untrained)
        if c is None:
            rows.append([f"{lr:g}", f"{l2:g}", 0, "no uncensored peak", "", ""])
            continue
        c = in_units_of(config, c)
        both = ((c.c_argmax, c.c_argmax_low, c.c_argmax_high), (c.c_within, c.c_within_low, c.c_within_high))
        spans = [f"{value:.3g} ({low:.2g}–{high:.2g})" for value, low, high in both]
        rows.append([f"{lr:g}", f"{l2:g}", c.seeds, *spans, f"{c.C_argmax:.2g}"])
        if l2 == at:
            values[lr] = c.c_argmax if reading == "argmax" else c.c_within
    if missing:
        raise UserError(f"--experiment {name}: {missing} of its runs are not trained; l2dyn status counts them")
    for lr in config.lr if at is not None else ():
        if not values.get(lr):  # no c, or 0: best before the first step
            raise UserError(f"--experiment {name}: no run at lr {lr:g}, l2 {at:g} has an uncensored peak after t = 0")
    if not any(runs for _, _, runs, *_ in rows):
        raise UserError(f"--experiment {name}: no run has an uncensored peak of test accuracy")
    try:
        predicted = {
            (lr, budget): round_l2(predict_l2(c, budget, arguments.first_decay))
            for lr, c in values.items()
            for budget in arguments.budget
        }
    except ValueError as error:
        raise UserError(f"--budget, --first-decay: {error}") from None
    if config.units != "torch":
        log.info("%s is written in %s", name, LABELS[config.units])
    print_table(["learning rate", "l2", "runs", "c_argmax (epochs)", "c_0.5pp (epochs)", "C"], rows)
    if predicted:
        print(f"\npredicted from {'c_argmax' if reading == 'argmax' else 'c_0.5pp'} at l2 {at:g}:")
        _print_l2(config, predicted)
    return EXIT_DONE


def _predicts(plan: Plan, source: str, listed: list[float]) -> tuple[float, str]:
    """The listed λ to predict from and the reading of c: those that the scale's own predictions take from the source.

    Raises:
        UserError: where there are several λ and the scale does not name one of them.
    """
    config = plan.scale.experiments[source]
    own = [other for other in plan.scale.experiments.values() if other.selected and other.l2.predicted_from == source]
    named = {other.run_rates(1.0, other.l2.at)[1] for other in own if other.l2.at is not None}
    candidates = [l2 for l2 in listed if len(listed) == 1 or config.run_rates(1.0, l2)[1] in named]
    if len(candidates) != 1:
        choices = ", ".join(f"{l2:g}" for l2 in listed)
        raise UserError(f"--l2: choose the l2 of {source} to predict from ({choices}); c may depend on it")
    readings = {other.l2.reading for other in own}
    return candidates[0], readings.pop() if len(readings) == 1 else "argmax"


def _summarize(arguments: argparse.Namespace) -> int:
    from l2dyn.tables.summary import summarize, write_summary

    plan = plan_of(arguments)
    plan.tasks(arguments.experiment)
    rows = summarize(plan, arguments.experiment, records_of(plan, arguments.bundles))
    path = arguments.output or results_folder() / plan.name / arguments.experiment / "summary.csv"
    write_summary(path, rows, arguments.page)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    log.info("%s: %s", path, ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    return EXIT_DONE


def _theory(arguments: argparse.Namespace) -> int:
    from l2dyn.tables.theory_curves import write_curve

    plan = plan_of(arguments)
    if plan.scale.theory.curve(arguments.curve) is None:
        raise UserError(f"config/{plan.name}.yaml: no theory.{arguments.curve}")
    path = arguments.output or results_folder() / plan.name / "theory" / f"{arguments.curve}.csv"
    write_curve(arguments.curve, plan, path, arguments.arrays, arguments.recorded)
    log.info("%s written", path)
    return EXIT_DONE


def _claims(arguments: argparse.Namespace) -> int:
    from l2dyn.claims.evidence import Evidence
    from l2dyn.files import write_atomically
    from l2dyn.runs.bundles import Bundles
    from l2dyn.tables.claims import (
        claims_page,
        judge,
        read_claims,
        verdict_of,
        write_claims,
        write_searchable_claims,
    )

    plan, claims = plan_of(arguments), read_claims()
    folder = results_folder() / plan.name
    if arguments.inputs is None:
        finished, ids = records_of(plan, None), {p.run_id for points in plan.experiments.values() for p in points}
        records = {run_id: record for run_id in ids if (record := finished.get(run_id)) is not None}
    else:
        records = Bundles(path for path in arguments.inputs if path.suffix == ".parquet")
    judged = judge(claims, Evidence.read(plan.name, plan.scale, folder, records))
    path = arguments.output or folder / "claims.csv"
    parts = arguments.parts or path.with_name("claim_parts.csv")
    write_claims(claims, judged, path, parts)
    if arguments.searchable:
        write_searchable_claims(plan.name, path, parts, arguments.searchable)
    page = arguments.page or path.with_name("claims.md")
    write_atomically(page, claims_page(claims, judged, plan.name, plan.scale).encode())
    log.info("%s written", path)
    rows = [[claim.id, verdict_of(judged[claim.id])] for claim in claims]
    print_table(["claim", "verdict"], rows, show=log.info if arguments.log else print)
    return EXIT_DONE


def _results(arguments: argparse.Namespace) -> int:
    from l2dyn.tables.results import write_results

    plan = plan_of(arguments)
    path = arguments.output or results_folder() / plan.name / "results.md"
    write_results(plan, results_folder() / plan.name, path)
    log.info("%s written", path)
    return EXIT_DONE


def _pages(arguments: argparse.Namespace) -> int:
    from l2dyn.files import ROOT, shipped_folder, write_atomically
    from l2dyn.tables.pages import figures_page, shelf_scales, write_pages
    from l2dyn.tables.remarks import findings_of_figures

    findings = findings_of_figures()
    text = figures_page(ROOT / "figures", ROOT / "docs" / "gallery", findings)
    write_atomically(ROOT / "docs" / "figures.md", text.encode())
    scales = shelf_scales(shipped_folder() / "runs")
    if not scales:
        raise UserError(f"{shipped_folder() / 'runs'}: no recorded runs, so there is nothing to write pages of")
    write_pages(scales, results_folder(), ROOT / "docs" / "results.md", ROOT / "README.md")
    log.info("docs/figures.md; docs/results.md, README.md: %s", ", ".join(scales))
    return EXIT_DONE


def _homogeneity(arguments: argparse.Namespace) -> int:
    import torch

    from l2dyn.data.arrays import load
    from l2dyn.data.samples import samples
    from l2dyn.specs.data_sets import DataSpec
    from l2dyn.tables.csv_files import write_csv
    from l2dyn.tables.homogeneity import homogeneity_table

    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: at least 1")
    torch.set_num_threads(1)  # small nets, for which more threads only wait for each other
    spec = DataSpec(name="digits", train_samples=256, test_samples=64, downscale=2)
    table = homogeneity_table(samples(spec, load("digits")), arguments.steps)
    rows = list(zip(*table.values(), strict=True))
    path = arguments.output or results_folder() / "homogeneity.csv"
    write_csv(path, list(table), rows)
    print_table(list(table), [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows])
    log.info("%s written", path)
    return EXIT_DONE
