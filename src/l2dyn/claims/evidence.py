"""What claims are judged on: the summaries, theory curves and records of one scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from l2dyn.claims.verdicts import NOT_RUN, Part, remarked, unless
from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.runs.records import Record
from l2dyn.runs.summaries import read_summary

CURVES_NEEDED = ("modes", "kernel", "spectrum")
ACCURACIES = ["max_test_accuracy", "final_test_accuracy"]
TIMES = ["t_star", "t_argmax", "C"]
PLANNED = ["run_id", "experiment", "status", "lr", "l2", "seed", "horizon_steps", "horizon_epochs", "capped"]
COLUMNS = [*PLANNED, *ACCURACIES, *TIMES, "censored", "min_train_error"]


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

    def planned(self, name: str) -> pd.DataFrame:
        """Every row of an experiment's summary, whatever became of the run; empty where there is no summary."""
        return self.summaries[name] if name in self.summaries else pd.DataFrame(columns=COLUMNS)

    def runs(self, name: str) -> pd.DataFrame:
        """The finished rows of an experiment's summary (short ones are not)."""
        rows = self.planned(name)
        return rows[rows["status"] == "finished"]

    def outcomes(self, name: str) -> pd.DataFrame:
        """The finished rows, and the diverged ones with the worst outcome: accuracies of chance, nothing fitted."""
        rows = self.planned(name)
        rows = rows[rows["status"].isin(["finished", "diverged"])].copy()
        diverged = rows["status"] == "diverged"
        if diverged.any():
            rows.loc[diverged, ACCURACIES] = self.experiment(name).data.chance
            rows.loc[diverged, "min_train_error"] = 1.0
            rows.loc[diverged, TIMES] = np.nan
        return rows

    def trained(self, name: str, criterion: dict) -> pd.DataFrame:
        """The outcomes of those λ > 0 (at a learning rate, to a horizon) whose seeds' mean beats chance."""
        rows = self.outcomes(name)
        rows = rows[rows["l2"] > 0]
        if not len(rows):
            return rows
        means = rows.groupby(["lr", "l2", "horizon_steps"])["max_test_accuracy"].transform("mean")
        return rows[means >= self.experiment(name).data.chance + criterion["above_chance"]]

    def fitted(self, name: str, criterion: dict) -> pd.DataFrame:
        """Those of them that fit their training set and have a t*: what the law is about."""
        rows = self.trained(name, criterion)
        return rows[(rows["min_train_error"] <= criterion["max_train_error"]) & (rows["t_star"] > 0)]

    def budgets(self, name: str) -> list[float]:
        """The fixed training times of an experiment in epochs, the shortest first, as its runs have them."""
        experiment = self.experiment(name)
        samples = experiment.data.train_samples
        per_epoch = samples // (experiment.batch or samples)
        declared = [one.steps(experiment.lr[0], 1.0, per_epoch) for one in experiment.horizon.each()]
        return sorted({steps[0] / per_epoch for steps in declared if steps})

    def scaled(self, name: str) -> bool:
        """Whether an experiment trains each λ for a time in proportion to 1/λ."""
        return self.experiment(name).horizon.scaled

    def image(self, name: str) -> float:
        """The step in which an experiment measures test accuracy: one image."""
        return 1 / self.experiment(name).data.test_samples

    def complete(self, part: Part, *names: str, budget: float | None = None) -> Part:
        """The part, inconclusive where runs of these experiments are missing or short; it tells of diverged ones.

        Every seed of the configuration is expected at every λ, learning rate and horizon of the summary. budget: only
        the runs of so many epochs.
        """
        if part.verdict == NOT_RUN:
            return part
        for name in dict.fromkeys(names):
            rows = self.planned(name)
            rows = rows[rows["l2"].notna()]
            rows = rows if budget is None else at_budget(rows, budget)
            points = rows[["lr", "l2", "horizon_steps"]].drop_duplicates()
            expected = max(len(points), 1) * len(self.experiment(name).seeds)
            ended = rows["status"].isin(["finished", "diverged"])
            lacking, diverged = max(expected - int(ended.sum()), 0), int((rows["status"] == "diverged").sum())
            part = remarked(part, f"{diverged} runs of {name} diverged" if diverged else "")
            part = unless(part, f"{lacking} of {expected} runs of {name} are missing or short" if lacking else "")
        return part

    def not_run(self, label: str, name: str) -> Part:
        """A part on an experiment without finished runs, which are awaited where the scale has the experiment."""
        awaited = name in self.config.experiments
        return Part(label, NOT_RUN, why=f"no run of {name} is there yet" if awaited else "", awaited=awaited)

    def curves_of(self, part: Part, rows: pd.DataFrame) -> Part:
        """The part, inconclusive where the curves of some of these runs are not at hand."""
        lacking = sum(run_id not in self.records for run_id in rows["run_id"])
        return unless(part, f"curves of {lacking} of {len(rows)} runs are missing" if lacking else "")

    def net(self, name: str) -> str:
        """The net of an experiment in a few words."""
        experiment = self.experiment(name)
        return experiment.net.describe() if experiment else name


def at_budget(rows: pd.DataFrame, epochs: float) -> pd.DataFrame:
    """The rows of one training time."""
    return rows[np.isclose(rows["horizon_epochs"].astype(float), epochs)]


def by_seed(rows: pd.DataFrame, column: str = "max_test_accuracy") -> pd.DataFrame:
    """Seeds by λ: one value each, only λ that every seed has.

    Raises:
        UserError: for rows of several learning rates, or of several horizons at one λ: a mean over them has no meaning.
    """
    if len(rows):
        where = f"experiments.{rows['experiment'].iloc[0]}: a claim is judged at a single"
        if rows["lr"].nunique() > 1:
            raise UserError(f"{where} learning rate, not at lr {sorted(set(rows['lr']))}")
        if rows.duplicated(["seed", "l2"]).any():
            raise UserError(f"{where} horizon, not at epochs {sorted(set(rows['horizon_epochs']))}")
    table = rows.pivot(index="seed", columns="l2", values=column)
    return table.dropna(axis="columns")


def best_on_others(table: pd.DataFrame) -> dict:
    """For each seed the λ that is best on the other seeds, [seeds, λ] as of by_seed; needs two seeds and a λ."""
    return {seed: table.drop(index=seed).mean().idxmax() for seed in table.index}


def best_on_all(table: pd.DataFrame) -> dict:
    """The same for every seed: the λ that is best on all of them."""
    return dict.fromkeys(table.index, table.mean().idxmax())
