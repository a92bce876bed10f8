"""The time to the peak against λ and η: claims C1, C2, the law's part of C17 and C18, and C19."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import INCONCLUSIVE, NOT_RUN, Part, ids_of, within
from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.measures.power_laws import fit_power_law
from l2dyn.measures.regression import regress
from l2dyn.measures.troughs import time_to_trough
from l2dyn.runs.records import Record

LAW = "exponent of t* in λ"


def law_in_l2(evidence: Evidence, name: str, criterion: dict, rows: pd.DataFrame | None = None, what=LAW) -> Part:
    """t* ∝ λ^−1 at fixed η: one exponent for all learning rates of an experiment, a constant for each.

    Runs that are censored count as lower bounds; seeds are separate values.
    """
    rows = evidence.fitted(name) if rows is None else rows
    label = evidence.net(name)
    if not len(evidence.runs(name)):
        return Part(label, NOT_RUN)
    law = fit_power_law(rows["t_star"], rows["l2"], censored=rows["censored"], lines=rows["lr"]) if len(rows) else None
    wanted = f"90 % interval inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    basis = {"what": what, "wanted": wanted, "seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    if law is None:
        return Part(label, INCONCLUSIVE, **basis, why="too few runs fit their training set and show a peak")
    span = max(float(np.log10(group.max() / group.min())) for _, group in rows.groupby("lr")["l2"])
    verdict = within(law.low[0], law.high[0], criterion["slope_low"], criterion["slope_high"])
    why = f"{law.points} runs, {law.bounds} of them lower bounds, λ over {span:.1f} decades"
    if span < criterion["min_decades"] - 1e-9:
        verdict, why = INCONCLUSIVE, f"{why}; {criterion['min_decades']:g} are asked for"
    return Part(label, verdict, estimate=law.slopes[0], low=law.low[0], high=law.high[0], **basis, why=why)


def c1(evidence: Evidence, criterion: dict) -> list[Part]:
    """t* ∝ 1/λ at fixed η."""
    return [law_in_l2(evidence, name, criterion) for name in ("fig2ab", "fig2de")]


def c2(evidence: Evidence, criterion: dict) -> list[Part]:
    """t* ∝ 1/(ηλ) with one constant for all η."""
    return [part for name in ("fig2ab", "fig2de") for part in _law_in_both(evidence, name, criterion)]


def o2(evidence: Evidence, criterion: dict) -> list[Part]:
    """The law for AdamW, whose decay is decoupled."""
    names = ("figS-adamw-fc", "figS-adamw-cnn")
    in_l2 = [law_in_l2(evidence, name, criterion) for name in names]
    return in_l2 + [part for name in names for part in _law_in_both(evidence, name, criterion)]


def c19(evidence: Evidence, criterion: dict) -> list[Part]:
    """The smoothed empirical loss is smallest at t ∝ 1/λ."""
    parts = []
    for name in ("fig2ab", "fig2de"):
        rows = evidence.trained(name)
        rows = loss_minima(evidence.records, rows[rows["min_train_error"] <= FITTED_ERROR]) if len(rows) else rows
        parts.append(law_in_l2(evidence, name, criterion, rows, "exponent in λ of the time of the smallest loss"))
    return parts


def loss_minima(records: Mapping[str, Record], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose records are there, with t_star and censored replaced by those of the smoothed training loss."""
    found = []
    for row in rows.to_dict("records"):
        if row["run_id"] in records:
            columns = records[row["run_id"]].prefix(int(row["horizon_steps"]))
            time, censored = time_to_trough(columns["epoch"], columns["train_loss"], row["horizon_epochs"])
            if time > 0:
                found.append(row | {"t_star": time, "censored": censored})
    return pd.DataFrame(found, columns=rows.columns)


def _law_in_both(evidence: Evidence, name: str, criterion: dict) -> list[Part]:
    rows, label = evidence.fitted(name), evidence.net(name)
    if evidence.runs(name)["lr"].nunique() < 2:
        return [Part(label, NOT_RUN)]
    wanted = f"90 % interval inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    basis = {"seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    law = fit_power_law(rows["t_star"], rows["l2"], rows["lr"], censored=rows["censored"]) if len(rows) else None
    if law is None:
        return [Part(label, INCONCLUSIVE, **basis, why="too few runs fit their training set and show a peak")]
    parts = []
    for i, variable in enumerate(("λ", "η")):
        verdict = within(law.low[i], law.high[i], criterion["slope_low"], criterion["slope_high"])
        numbers = {"estimate": law.slopes[i], "low": law.low[i], "high": law.high[i]}
        why = f"{law.points} runs, {law.bounds} of them lower bounds, {variable} over {law.decades[i]:.1f} decades"
        parts.append(
            Part(
                f"{label}, exponent of {variable}",
                verdict,
                LAW[:-1] + variable,
                **numbers,
                wanted=wanted,
                why=why,
                **basis,
            )
        )
    return [*parts, _one_constant(rows, label, criterion, basis)]


def _one_constant(rows: pd.DataFrame, label: str, criterion: dict, basis: dict) -> Part:
    """The largest over the smallest of the learning rates' constants t*·η·λ."""
    rates = sorted(set(rows["lr"]))
    values = np.log(rows["t_star"] * rows["lr"] * rows["l2"]).to_numpy()
    censored = rows["censored"].to_numpy()
    at = [(rows["lr"] == lr).to_numpy() for lr in rates]
    means = regress(np.column_stack(at).astype(float), values, censored)
    limit = criterion["max_constant_ratio"]
    wanted = {"what": "largest over smallest constant t*·η·λ", "wanted": f"at most {limit:g}"}
    if means is None:
        return Part(f"{label}, one constant", INCONCLUSIVE, **wanted, **basis, why="a learning rate has too few runs")
    top, bottom = int(np.argmax(means.coefficients)), int(np.argmin(means.coefficients))
    # the difference as a coefficient of its own: the columns are the two extremes' contrast and every other mean
    design = np.column_stack(
        [at[top], *(at[i] | (at[top] if i == bottom else False) for i in range(len(at)) if i != top)]
    )
    ratio = regress(design.astype(float), values, censored, wanted=[0])
    numbers = dict(
        zip(("estimate", "low", "high"), np.exp([ratio.coefficients[0], ratio.low[0], ratio.high[0]]), strict=True)
    )
    verdict = within(numbers["low"], numbers["high"], at_most=limit)
    why = f"of η = {rates[top]:g} over that of η = {rates[bottom]:g}"
    return Part(
        f"{label}, one constant", verdict, **wanted, **{k: float(v) for k, v in numbers.items()}, why=why, **basis
    )
