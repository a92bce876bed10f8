"""The time to the peak against λ and η: claims C1, C2, the law's part of C17 and C18, C19, and our O2."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import CONFIDENCE, INCONCLUSIVE, NOT_RUN, Part, ids_of, remarked, unless, within
from l2dyn.measures.power_laws import PowerLaw, fit_power_law
from l2dyn.measures.regression import regress
from l2dyn.measures.troughs import RISEN, time_to_trough
from l2dyn.runs.records import Record

LAW = "exponent of t* in λ"


def law_in_l2(evidence: Evidence, name: str, criterion: dict) -> Part:
    """t* ∝ λ^−1 at fixed η: one exponent for all learning rates of an experiment, a constant for each.

    Runs that are censored count as lower bounds; seeds are separate values.
    """
    if not len(evidence.runs(name)):
        return evidence.not_run(evidence.net(name), name)
    rows, every = evidence.fitted(name, criterion), evidence.trained(name, criterion)
    part = _exponent(evidence.net(name), rows, criterion, LAW)
    every = every[every["t_star"] > 0]
    law = _fit(every["l2"], rows=every, lines=every["lr"]) if len(every) > len(rows) else None
    beside = f"{law.slopes[0]:.2f} over the {law.points} runs with a peak, fitted or not" if law else ""
    return evidence.complete(remarked(part, beside), name)


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
        if not len(evidence.runs(name)):
            parts.append(evidence.not_run(evidence.net(name), name))
            continue
        rows = evidence.trained(name, criterion)
        rows = rows[rows["min_train_error"] <= criterion["max_train_error"]]
        minima = loss_minima(evidence.records, rows, criterion["risen"])
        part = _exponent(evidence.net(name), minima, criterion, "exponent in λ of the time of the smallest loss")
        parts.append(evidence.complete(evidence.curves_of(part, rows), name))
    return parts


def loss_minima(records: Mapping[str, Record], rows: pd.DataFrame, risen: float = RISEN) -> pd.DataFrame:
    """The rows whose records are there, with t_star and censored replaced by those of the smoothed training loss.

    risen: see time_to_trough.
    """
    found = []
    for row in rows.to_dict("records"):
        if row["run_id"] in records:
            columns = records[row["run_id"]].prefix(int(row["horizon_steps"]))
            time, censored = time_to_trough(columns["epoch"], columns["train_loss"], row["horizon_epochs"], risen)
            if time > 0:
                found.append(row | {"t_star": time, "censored": censored})
    return pd.DataFrame(found, columns=rows.columns)


def _fit(*xs: pd.Series, rows: pd.DataFrame, lines: pd.Series | None = None) -> PowerLaw | None:
    if not len(rows):
        return None
    return fit_power_law(rows["t_star"], *xs, censored=rows["censored"], lines=lines, confidence=CONFIDENCE)


def _decades(values: pd.Series) -> float:
    """The range of positive values, 0 where there are none."""
    return float(np.log10(values.max() / values.min())) if len(values) else 0.0


def _exponent(name: str, rows: pd.DataFrame, criterion: dict, what: str) -> Part:
    """The exponent of λ over these rows; its range is that of the peaks, not of the bounds."""
    law = _fit(rows["l2"], rows=rows, lines=rows["lr"])
    wanted = f"90 % interval inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    basis = {"what": what, "wanted": wanted, "seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    if law is None:
        return Part(name, INCONCLUSIVE, **basis, why="too few runs fit their training set and show a peak")
    peaks = rows[~rows["censored"].astype(bool)]
    span = max(_decades(group) for _, group in peaks.groupby("lr")["l2"])
    verdict = within(law.low[0], law.high[0], criterion["slope_low"], criterion["slope_high"])
    why = f"{law.points} runs, {law.bounds} of them lower bounds, the others' λ over {span:.1f} decades"
    bare = sorted(set(rows["lr"]) - set(peaks["lr"]))
    why += f"; {len(rows) - law.points} more at η = {', '.join(f'{lr:g}' for lr in bare)}, all bounds" if bare else ""
    if span < criterion["min_decades"] - 1e-9:
        verdict, why = INCONCLUSIVE, f"{why}; {criterion['min_decades']:g} are asked for"
    return Part(name, verdict, estimate=law.slopes[0], low=law.low[0], high=law.high[0], **basis, why=why)


def _law_in_both(evidence: Evidence, name: str, criterion: dict) -> list[Part]:
    """The exponents of λ and of η, and whether one constant serves all η."""
    rows, label = evidence.fitted(name, criterion), evidence.net(name)
    if not len(evidence.runs(name)):
        return [evidence.not_run(label, name)]
    if evidence.runs(name)["lr"].nunique() < 2:
        return [Part(label, NOT_RUN)]
    wanted = f"90 % interval inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    basis = {"seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    law = _fit(rows["l2"], rows["lr"], rows=rows)
    if law is None:
        part = Part(label, INCONCLUSIVE, **basis, why="too few runs fit their training set and show a peak")
        return [evidence.complete(part, name)]
    peaks, parts = rows[~rows["censored"].astype(bool)], []
    for i, (variable, column, least) in enumerate((("λ", "l2", "min_decades"), ("η", "lr", "min_lr_decades"))):
        verdict = within(law.low[i], law.high[i], criterion["slope_low"], criterion["slope_high"])
        span = _decades(peaks[column])
        why = f"{law.points} runs, {law.bounds} of them lower bounds, the others' {variable} over {span:.1f} decades"
        if span < criterion[least] - 1e-9:
            verdict, why = INCONCLUSIVE, f"{why}; {criterion[least]:g} are asked for"
        what, numbers = LAW[:-1] + variable, (law.slopes[i], law.low[i], law.high[i])
        parts.append(Part(f"{label}, exponent of {variable}", verdict, what, *numbers, wanted, why, **basis))
    constant = _one_constant(rows, label, criterion, basis)
    span, least = _decades(peaks["lr"]), criterion["min_lr_decades"]
    short = f"η over {span:.1f} decades; {least:g} are asked for" if span < least - 1e-9 else ""
    return [evidence.complete(part, name) for part in (*parts, unless(constant, short))]


def _one_constant(rows: pd.DataFrame, label: str, criterion: dict, basis: dict) -> Part:
    """The largest over the smallest of the learning rates' constants t*·η·λ."""
    rates = sorted(set(rows["lr"]))
    values = np.log(rows["t_star"] * rows["lr"] * rows["l2"]).to_numpy()
    censored = rows["censored"].to_numpy(dtype=bool)
    at = [(rows["lr"] == lr).to_numpy() for lr in rates]
    means = regress(np.column_stack(at).astype(float), values, censored, CONFIDENCE)
    limit = criterion["max_constant_ratio"]
    wanted = {"what": "largest over smallest constant t*·η·λ", "wanted": f"at most {limit:g}"}
    if means is None:
        return Part(f"{label}, one constant", INCONCLUSIVE, **wanted, **basis, why="a learning rate has too few runs")
    top, bottom = int(np.argmax(means.coefficients)), int(np.argmin(means.coefficients))
    # the difference as a coefficient of its own: the columns are the two extremes' contrast and every other mean
    design = np.column_stack(
        [at[top], *(at[i] | (at[top] if i == bottom else False) for i in range(len(at)) if i != top)]
    )
    pairs = len(at) * (len(at) - 1) / 2  # of which this one was found by looking: Bonferroni
    ratio = regress(design.astype(float), values, censored, 1 - (1 - CONFIDENCE) / pairs, wanted=[0])
    numbers = dict(
        zip(("estimate", "low", "high"), np.exp([ratio.coefficients[0], ratio.low[0], ratio.high[0]]), strict=True)
    )
    verdict = within(numbers["low"], numbers["high"], at_most=limit)
    why = f"of η = {rates[top]:g} over that of η = {rates[bottom]:g}" + (
        f", for all {pairs:g} pairs of η at once" if pairs > 1 else ""
    )
    return Part(
        f"{label}, one constant", verdict, **wanted, **{k: float(v) for k, v in numbers.items()}, why=why, **basis
    )
