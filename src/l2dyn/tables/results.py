"""results.md: what a scale's figures show by number, from their CSV files and the summaries."""

from pathlib import Path

import pandas as pd

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.files import write_atomically
from l2dyn.runs.plan import Plan

SHOWN = 4  # significant digits


def write_results(plan: Plan, folder: Path, path: Path) -> None:
    """Write the page of a scale whose figures' CSV files and summaries lie in `folder`, results/<scale>."""
    figures = plan.scale.figures
    sections = [_figure(plan, name, pd.read_csv(folder / f"{name}.csv", dtype={"series": str})) for name in figures]
    shown = dict.fromkeys(name for figure in figures.values() for name in figure.experiments)
    runs = [_runs(name, plan.scale.experiments[name], folder / name / "summary.csv") for name in shown]
    head = ("experiment", "shows", "net", "runs", "seeds", "finished", "diverged", "missing or short", "device")
    text = [
        f"# Results of the scale {plan.name}",
        f"{plan.scale.about[:1].upper()}{plan.scale.about[1:]}. Written by `rule results` from the figures' CSV files;"
        " every plotted number, with run ids, stands there.",
        *(section for section in sections if section),
        "## Runs",
        _table(head, runs),
    ]
    write_atomically(path, ("\n\n".join(text) + "\n").encode())


def _figure(plan: Plan, name: str, table: pd.DataFrame) -> str:
    """The numbers of one figure, "" where it has none."""
    numbers = table[table["kind"] == "number"]
    if not len(numbers):
        return ""
    rows = [
        (row.panel, row.series, _shown(row.y), f"{_shown(row.low)} to {_shown(row.high)}" if row.low == row.low else "")
        for row in numbers.itertuples()
    ]
    return f"## {name}\n\n" + _table(("panel", "number", "value", "interval"), rows)


def _runs(name: str, config: ExperimentConfig, path: Path) -> tuple:
    summary = pd.read_csv(path, dtype={"device": str, "run_id": str})
    # a run has a row for each of its horizons: what any of them lacks counts
    said = summary.groupby("run_id", dropna=False)["status"].agg(set)
    lacking = sum(bool({"missing", "short"} & statuses) for statuses in said)
    diverged = sum("diverged" in statuses for statuses in said)
    finished = sum(statuses == {"finished"} for statuses in said)
    devices = ", ".join(sorted(set(summary["device"].dropna())))
    counted = (int(summary["run_id"].nunique()), len(config.seeds), finished, diverged, lacking)
    return name, config.shows, config.net.describe(), *counted, devices


def _shown(value: float) -> str:
    """A number in a few significant digits.

    >>> _shown(0.123456), _shown(1234567.0), _shown(float("nan"))
    ('0.1235', '1.235e+06', '')
    """
    return "" if value != value else f"{value:.{SHOWN}g}"


def _table(head: tuple, rows: list[tuple]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)
