"""Reading a summary.csv, which l2dyn.tables.summary writes."""

from pathlib import Path

import pandas as pd

TEXTS = ("run_id", "censored", "capped", "source")
TRUTH_VALUES = ("censored", "capped")


def read_summary(path: Path) -> pd.DataFrame:
    """One row a run and horizon, truth values as such."""
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
    for name in TRUTH_VALUES:
        table[name] = table[name] == "true"
    return table
