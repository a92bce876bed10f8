"""summary.csv: one row a run and horizon, from the bundles that hold the runs."""

from pathlib import Path

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.measures.peaks import peak
from l2dyn.runs.bundles import Bundles
from l2dyn.runs.plan import Plan, Point
from l2dyn.runs.records import Record
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.tables.csv_files import cells, write_csv
from l2dyn.tables.searchable import write_searchable

FIELDS = (
    "run_id",
    "experiment",
    "dataset",
    "units",  # of lr and l2: torch, or those of the authors
    "lr",
    "l2",
    "lr_torch",
    "l2_torch",
    "momentum",
    "seed",
    "status",  # finished, diverged, short (its record is shorter than declared), missing
    "horizon_steps",
    "horizon_epochs",
    "capped",  # the declared horizon was cut by a cap
    "steps",  # trained, up to the horizon
    "t_star",  # epochs; empty where the run never beats chance by 10 points, or diverged
    "t_star_after",  # epochs; t* lies in (t_star_after, t_star]
    "t_argmax",
    "C",  # η·S·λ·t*/(1−μ), without a dimension
    "censored",  # concerns t* and fits only
    "max_test_accuracy",
    "final_test_accuracy",
    "min_train_loss",
    "t_min_train_loss",
    "min_train_error",
    "final_train_error",
    "source",  # recorded (it ships) or trained
    "numerics_version",
    "device",
    "revision",
)


def summarize(plan: Plan, experiment: str, records: Bundles) -> list[dict]:
    """A row of FIELDS for every run of an experiment, each from the prefix up to its declared horizon.

    With several budgets that is a row for every run and budget; λ that is pending, or could not be measured, is one row
    of status missing.

    Raises:
        DamagedRecord: for a record that is not what was written.
    """
    config = plan.scale.experiments[experiment]
    points = plan.experiments[experiment]
    if config.selected and not points:
        known = {"experiment": experiment, "dataset": config.data.name, "units": config.units, "lr": config.lr[0]}
        return [known | {"status": "missing"}]
    return [_row(experiment, config, point, records) for point in points]


def write_summary(path: Path, rows: list[dict], page: Path | None = None) -> None:
    """Write rows as CSV, and as a page to be searched."""
    values = [[row.get(field) for field in FIELDS] for row in rows]
    write_csv(path, FIELDS, values)
    if page is not None:
        name = rows[0]["experiment"] if rows else path.parent.name
        write_searchable(page, f"The runs of {name}", [("", FIELDS, [cells(row) for row in values])])


def _row(experiment: str, config: ExperimentConfig, point: Point, records: Bundles) -> dict:
    spec = point.spec
    lr, l2 = config.shown(spec)
    row = {
        "run_id": point.run_id,
        "experiment": experiment,
        "dataset": spec.data.name,
        "units": config.units,
        "lr": lr,
        "l2": l2,
        "lr_torch": spec.lr,
        "l2_torch": spec.l2,
        "momentum": spec.momentum,
        "seed": spec.init_seed,
        "status": "missing",
        "horizon_steps": point.steps,
        "horizon_epochs": point.steps / spec.steps_per_epoch,
        "capped": point.capped,
    }
    record = records.get(point.run_id)
    if record is None:
        return row
    source = "recorded" if records.recorded(point.run_id) else "trained"
    return row | {"source": source} | _measured(record, point, spec.data, config.evaluation)


def _measured(record: Record, point: Point, data: DataSpec, grid: EvaluationGrid) -> dict:
    row = {
        "status": record.status_at(point.steps),
        "steps": min(record.steps, point.steps),
        "numerics_version": record.numerics_version,
        "device": record.provenance.get("device"),
        "revision": record.provenance.get("revision"),
    }
    columns = record.prefix(point.steps, grid.steps(point.steps, point.spec.steps_per_epoch))
    if len(columns["step"]) == 0:
        return row
    accuracy, epochs = columns["test_accuracy"], columns["epoch"]
    lowest = int(columns["train_loss"].argmin())
    row |= {
        "max_test_accuracy": float(accuracy.max()),
        "final_test_accuracy": float(accuracy[-1]),
        "min_train_loss": float(columns["train_loss"][lowest]),
        "t_min_train_loss": float(epochs[lowest]),
        "min_train_error": float(columns["train_error"].min()),
        "final_train_error": float(columns["train_error"][-1]),
    }
    if row["status"] != "diverged":
        found = peak(epochs, accuracy, point.steps / point.spec.steps_per_epoch, data.chance)
        if found is not None:
            row |= {
                "t_star": found.t_star,
                "t_star_after": found.t_before,
                "t_argmax": found.t_argmax,
                "C": point.spec.steps_per_epoch
                * point.spec.lr
                * point.spec.l2
                * found.t_star
                / (1 - point.spec.momentum),
                "censored": found.censored or row["status"] == "short",
            }
    return row
