"""What claims are judged on: the summaries, theory curves and records of one scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.scale import ScaleConfig
from l2dyn.measures.peaks import ABOVE_CHANCE, FITTED_ERROR
from l2dyn.runs.records import Record

CURVES_NEEDED = ("modes", "kernel", "spectrum")


@dataclass
class Evidence:
    """Summaries by experiment, theory curves by name, records by run id; what was not made is not there."""

    scale: str
    config: ScaleConfig
    summaries: Mapping[str, pd.DataFrame]
    curves: Mapping[str, pd.DataFrame]
    records: Mapping[str, Record]

    @classmethod
    def read(cls, scale: str, config: ScaleConfig, folder: Path, records: Mapping[str, Record]) -> "Evidence":
        """From results/<scale>: whatever of it is there."""
        paths = {name: folder / name / "summary.csv" for name in config.experiments}
        summaries = {name: read_summary(path) for name, path in paths.items() if path.exists()}
        curves = {name: folder / "theory" / f"{name}.csv" for name in CURVES_NEEDED}
        return cls(scale, config, summaries, {n: pd.read_csv(p) for n, p in curves.items() if p.exists()}, records)

    def experiment(self, name: str) -> ExperimentConfig | None:
        """The configuration of an experiment, None where the scale has none of that name."""
        return self.config.experiments.get(name)

    def runs(self, name: str) -> pd.DataFrame:
        """The finished rows of an experiment's summary (short ones are not); empty where there are none."""
        table = self.summaries.get(name)
        if table is None:
            return pd.DataFrame(columns=["run_id", "status", "l2", "lr", "seed", "max_test_accuracy"])
        return table[table["status"] == "finished"]

    def trained(self, name: str) -> pd.DataFrame:
        """Those of them with λ > 0 that beat chance by 10 points: their λ trains."""
        rows = self.runs(name)
        experiment = self.experiment(name)
        if not len(rows) or experiment is None:
            return rows
        return rows[(rows["l2"] > 0) & (rows["max_test_accuracy"] >= experiment.data.chance + ABOVE_CHANCE)]

    def fitted(self, name: str) -> pd.DataFrame:
        """Those with λ > 0 that fit their training set and have a t*: what the law is about."""
        rows = self.trained(name)
        return rows[(rows["min_train_error"] <= FITTED_ERROR) & (rows["t_star"] > 0)] if len(rows) else rows

    def net(self, name: str) -> str:
        """The net of an experiment in a few words."""
        experiment = self.experiment(name)
        return experiment.net.describe() if experiment else name


def read_summary(path: Path) -> pd.DataFrame:
    """A summary.csv with its truth values as such."""
    table = pd.read_csv(path, dtype={"run_id": str, "censored": str, "capped": str, "source": str})
    for name in ("censored", "capped"):
        table[name] = table[name] == "true"
    return table


def by_seed(rows: pd.DataFrame, column: str = "max_test_accuracy") -> pd.DataFrame:
    """Seeds by λ: one value each, only λ and seeds that are complete."""
    table = rows.pivot_table(index="seed", columns="l2", values=column, aggfunc="mean")
    return table.dropna(axis="columns")
