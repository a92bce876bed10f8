"""What figures 1b and 4b show against the training budget: the tuned and the predicted λ, and the accuracy of each."""

import math

import pandas as pd

from l2dyn.measures.best_l2 import may_be_best, tuned_l2

COLUMNS = ["l2", "l2_torch", "accuracy", "low", "high", "seeds", "run_ids"]
MAYBE = ("l2_maybe_low", "l2_maybe_high")


def tuned_at_budgets(grid: pd.DataFrame, image: float = 0.0) -> pd.DataFrame:
    """One row a budget (index, epochs): the best λ of the grid and its accuracy, seeds averaged, with their range.

    grid: summary rows, one for every run and budget; λ = 0 and runs that diverged or are too short are left out.
    l2_low, l2_high, l2_centre and at_edge describe the λ within 0.1 % of the best, see measures.best_l2.tuned_l2;
    l2_maybe_low and l2_maybe_high between which λ these may lie, see may_be_best. image: the share of a test image.

    Raises:
        ValueError: for several learning rates: which λ is best depends on it.
    """
    rows = {}
    for budget, runs in _usable(grid).groupby("horizon_epochs"):
        tuned = tuned_l2(runs["l2"], runs["max_test_accuracy"])
        spread = {"l2_low": tuned.low, "l2_high": tuned.high, "l2_centre": tuned.centre, "at_edge": tuned.at_edge}
        table = runs.pivot_table(index="seed", columns="l2", values="max_test_accuracy").dropna(axis="columns")
        ends = may_be_best(table.columns, table, resolution=image) if table.size else (0.0, math.inf)
        spread |= dict(zip(MAYBE, ends, strict=True))
        rows[budget] = _row(runs[runs["l2"] == tuned.l2]) | spread
    return _table(rows, [*COLUMNS, "l2_low", "l2_high", "l2_centre", "at_edge", *MAYBE])


def predicted_at_budgets(predicted: pd.DataFrame) -> pd.DataFrame:
    """One row a budget (index, epochs): the predicted λ and its accuracy, seeds averaged, with their range.

    predicted: as the grid of tuned_at_budgets, also of a single learning rate.
    """
    return _table({budget: _row(runs) for budget, runs in _usable(predicted).groupby("horizon_epochs")}, COLUMNS)


def by_budget(tuned: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Both, for the budgets that have both: columns that both have end in _tuned and _predicted."""
    return tuned.merge(predicted, left_index=True, right_index=True, suffixes=("_tuned", "_predicted"))


def _usable(summary: pd.DataFrame) -> pd.DataFrame:
    if "lr" in summary and summary["lr"].nunique() > 1:
        raise ValueError("rows of several learning rates; give those of one at a time")
    kept = summary[(summary["l2"] > 0) & summary["status"].isin(["finished"])]
    return kept.dropna(subset=["max_test_accuracy"])


def _row(runs: pd.DataFrame) -> dict:
    accuracy = runs["max_test_accuracy"]
    return {
        "l2": runs["l2"].iloc[0],
        "l2_torch": runs["l2_torch"].iloc[0],
        "accuracy": accuracy.mean(),
        "low": accuracy.min(),
        "high": accuracy.max(),
        "seeds": len(runs),
        "run_ids": " ".join(runs["run_id"]),
    }


def _table(rows: dict, columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table.index.name = "budget"
    return table.sort_index()
