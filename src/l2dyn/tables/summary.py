"""Floor 1: one row a run, from records to `summary.csv`."""

import csv
import io
import math
from pathlib import Path

import numpy as np

from l2dyn.metrics import peak
from l2dyn.runs.config import ExperimentConfig
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.files import write_atomically
from l2dyn.runs.plan import Plan, PlannedRun
from l2dyn.runs.records import Record
from l2dyn.runs.spec import NUMERICS_VERSION
from l2dyn.runs.store import RunStore

FIELDS = (
    "run_id",
    "experiment",
    "dataset",
    "lr",
    "l2",
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
    "censored",  # concerns t* and fits only
    "max_test_accuracy",
    "final_test_accuracy",
    "min_train_loss",
    "t_min_train_loss",
    "min_train_error",
    "final_train_error",
    "shelf",  # results or shipped
    "numerics_version",
    "device",
    "revision",
)


def summarize(plan: Plan, experiment: str, store: RunStore) -> list[dict]:
    """A row of FIELDS for every run of an experiment, each from the prefix up to its declared horizon.

    With several budgets that is a row for every run and budget; λ that is pending, or could not be measured, is one
    row of status missing. Raises DamagedRecord for a record that is not what was written.
    """
    config = plan.scale.experiments[experiment]
    runs = plan.experiments[experiment]
    if config.derived and not runs:
        return [{"experiment": experiment, "dataset": config.data.name, "lr": config.lr[0], "status": "missing"}]
    return [_row(experiment, run, store, chance_of(config)) for run in runs]


def chance_of(config: ExperimentConfig) -> float:
    """The test accuracy of guessing."""
    return 0.5 if config.data.labels == "parity" else 1 / DATASETS[config.data.name].classes


def status_at(record: Record, steps: int) -> str:
    """A record's status at a horizon: finished (also where it diverged only later), diverged or short."""
    if not record.serves(steps):
        return "short"
    return "diverged" if record.status == "diverged" and record.steps <= steps else "finished"


def write_summary(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV; floats in their shortest exact form, truth values as true and false."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    write_atomically(path, stream.getvalue().encode())


def _row(experiment: str, run: PlannedRun, store: RunStore, chance: float) -> dict:
    spec = run.spec
    row = {
        "run_id": run.run_id,
        "experiment": experiment,
        "dataset": spec.data.name,
        "lr": spec.lr,
        "l2": spec.l2,
        "momentum": spec.momentum,
        "seed": spec.init_seed,
        "status": "missing",
        "horizon_steps": run.steps,
        "horizon_epochs": run.steps / spec.steps_per_epoch,
        "capped": run.capped,
    }
    record = store.load(run.run_id)
    return row if record is None else row | _measured(record, run, store, chance)


def _measured(record: Record, run: PlannedRun, store: RunStore, chance: float) -> dict:
    entry = store.entry(run.run_id)
    row = {
        "status": status_at(record, run.steps),
        "steps": min(record.steps, run.steps),
        "shelf": "shipped" if store.on_shipped_shelf(entry) else "results",
        "numerics_version": record.numerics_version,
        "device": record.provenance.get("device"),
        "revision": record.provenance.get("revision"),
    }
    columns = record.prefix(run.steps)
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
        found = peak(epochs, accuracy, run.steps / run.spec.steps_per_epoch, chance)
        if found is not None:
            row |= {
                "t_star": found.t_star,
                "t_star_after": found.t_before,
                "t_argmax": found.t_argmax,
                "censored": found.censored or row["status"] == "short",
            }
    return row


def outdated(rows: list[dict]) -> int:
    """How many rows were trained under an older numerics version."""
    return sum(1 for row in rows if row.get("numerics_version", NUMERICS_VERSION) < NUMERICS_VERSION)


def _cell(value) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return "" if value is None else str(value)
