"""Predicting λ: claims C7 to C9, and our O1."""

import math

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence, at_budget, best_on_all, best_on_others, by_seed
from l2dyn.claims.verdicts import (
    CONFIDENCE,
    INCONCLUSIVE,
    NOT_RUN,
    REPORTED,
    REPRODUCED,
    Part,
    guarded,
    ids_of,
    t_interval,
    unless,
    within,
)
from l2dyn.measures.best_l2 import may_be_best, tuned_l2
from l2dyn.measures.coefficient import coefficient
from l2dyn.measures.regression import regress

BEST = "max_test_accuracy"
TUNED, PREDICTED = "fig1b-tuned", "fig1b-predicted"


def c7(evidence: Evidence, criterion: dict) -> list[Part]:
    """λ = c/T gives nearly the accuracy of the tuned λ at every budget; the tuned one is chosen on other seeds."""
    if not len(evidence.runs(TUNED)) or not len(evidence.outcomes(PREDICTED)):
        return [Part("tuned minus predicted", NOT_RUN)]
    budgets = evidence.budgets(PREDICTED)
    parts = [
        evidence.complete(_gap(evidence, budget, criterion), TUNED, PREDICTED, budget=budget) for budget in budgets
    ]
    return [*parts, _spanned(evidence, budgets, criterion), _cost(evidence)]


def _spanned(evidence: Evidence, budgets: list[float], criterion: dict) -> Part:
    """Whether the budgets span as many decades as are asked for."""
    span, least = math.log10(budgets[-1] / budgets[0]), criterion["min_budget_decades"]
    verdict = REPRODUCED if span >= least - 1e-9 else INCONCLUSIVE
    why = f"{span:.1f} decades of budget, {least:g} asked for"
    what, seeds = "decades of budget", int(evidence.outcomes(PREDICTED)["seed"].nunique())
    return Part("range of budgets", verdict, what, span, span, span, f"at least {least:g}", why, seeds)


def _gap(evidence: Evidence, budget: float, criterion: dict) -> Part:
    """Tuned minus predicted accuracy at one budget, paired by seed."""
    grid, predicted = (at_budget(evidence.outcomes(name), budget) for name in (TUNED, PREDICTED))
    grid = grid[grid["l2"] > 0]
    tuned, guessed = by_seed(grid), by_seed(predicted).squeeze(axis="columns")
    seeds, l2 = tuned.index.intersection(guessed.index), tuned.columns.to_numpy(dtype=float)
    name, wanted = f"{budget:g} epochs", f"95 % bound below {criterion['max_gap']:g}"
    what, ids = "tuned minus predicted accuracy (fraction)", ids_of(grid) + ids_of(predicted)
    basis = {"seeds": len(seeds), "run_ids": ids}
    ratio = criterion["max_l2_grid_ratio"]
    if len(l2) < 2 or (l2[1:] / l2[:-1]).max() > ratio * (1 + 1e-9):
        why = f"neighbouring λ of the grid differ by more than a factor {ratio:g}"
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=why, **basis)
    if len(seeds) < 2:
        why = f"{len(seeds)} seeds have both; two are needed"
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=why, **basis)
    found = []
    for chosen in (best_on_all(tuned), best_on_others(tuned)):
        gaps = [tuned.loc[seed, chosen[seed]] - guessed[seed] for seed in seeds]
        mean, low, high = t_interval(gaps, evidence.image(TUNED))
        found.append(within(low, high, at_most=criterion["max_gap"]))
    verdict, why = guarded(found[1], found[0], REPRODUCED), f"these seeds could see {high - mean:.4f}"
    edges = sorted({l2[0], l2[-1]} & set(chosen.values()))
    if edges:
        verdict, why = INCONCLUSIVE, f"{why}; tuned λ = {edges[0]:g} at the edge of the grid"
    return Part(name, verdict, what, mean, low, high, wanted, why, **basis)


def _cost(evidence: Evidence) -> Part:
    """Epochs until the peak that gives c over the longest budget: reported, not judged."""
    measured, name = evidence.runs("fig4a"), "cost of measuring c"
    at = evidence.experiment(PREDICTED).l2.at
    used = measured[measured["l2"] == at] if at else measured
    if not len(used):
        return Part(name, NOT_RUN)
    time = "t_argmax" if evidence.experiment(PREDICTED).l2.reading == "argmax" else "t_star"
    ratio = float(used[time].mean() / evidence.budgets(PREDICTED)[-1])
    what = "epochs until the peak that gives c, over the longest budget"
    basis = {"seeds": int(used["seed"].nunique()), "run_ids": ids_of(used)}
    return Part(name, REPORTED, what, ratio, ratio, ratio, "below 1", **basis)


def c8(evidence: Evidence, criterion: dict) -> list[Part]:
    """Tuned and predicted λ lie within one order of magnitude: the tuned one as the centre of all near the best."""
    if not len(evidence.runs(TUNED)) or not len(evidence.outcomes(PREDICTED)):
        return [Part("tuned over predicted λ", NOT_RUN)]
    budgets = evidence.budgets(PREDICTED)
    ratios = [evidence.complete(_ratio(evidence, one, criterion), TUNED, PREDICTED, budget=one) for one in budgets]
    return [*ratios, _spanned(evidence, budgets, criterion)]


def _ratio(evidence: Evidence, budget: float, criterion: dict) -> Part:
    """Of the tuned to the predicted λ at one budget; its interval is that of every λ that may be near the best.

    That is where the difference to the best one, paired by seed, has an interval that reaches down to the margin.
    """
    rows, predicted = (at_budget(evidence.outcomes(name), budget) for name in (TUNED, PREDICTED))
    rows, limit = rows[rows["l2"] > 0], criterion["max_ratio"]
    basis = {
        "what": "tuned over predicted λ",
        "wanted": f"between 1/{limit:g} and {limit:g}",
        "seeds": rows["seed"].nunique(),
        "run_ids": ids_of(rows) + ids_of(predicted),
        "interval": "all λ that may be near the best",
    }
    name, margin = f"{budget:g} epochs", criterion["near_best_margin"]
    table = by_seed(rows)
    if len(table) < 2 or not table.shape[1] or not len(predicted):
        why = f"{len(table)} seeds, {table.shape[1]} λ of the grid, {len(predicted)} runs at the predicted λ"
        return Part(name, INCONCLUSIVE, **basis, why=f"{why}; two seeds are needed")
    guess, grid = float(predicted["l2"].iloc[0]), table.columns
    tuned = tuned_l2(grid, table.mean(), margin)
    ends = may_be_best(grid, table, margin, evidence.image(TUNED), CONFIDENCE)
    error = float((table.std() / np.sqrt(len(table))).mean())
    near = f"λ within {margin:g} of the best: {tuned.low:g} to {tuned.high:g}; maybe {ends[0]:g} to {ends[1]:g}"
    why = f"{near}; standard error of an accuracy {error:.4f}"
    low, high = (end / guess for end in ends)
    if low == 0.0 or math.isinf(high):  # the best λ may lie beyond
        why = f"{why}; the {'best' if tuned.at_edge else 'interval'} is at the edge of the grid: a bound"
    verdict = within(low, high, 1 / limit, limit)
    return Part(name, verdict, estimate=tuned.centre / guess, low=low, high=high, why=why, **basis)


def c9(evidence: Evidence, criterion: dict) -> list[Part]:
    """The paper's c ≈ 0.0066 epochs, as the dimensionless C."""
    experiment = evidence.experiment("fig4a")
    rows = evidence.runs("fig4a")
    if experiment is None or not len(rows):
        return [Part("C at the paper's λ", NOT_RUN)]
    return [evidence.complete(_paper_c(evidence, rows, criterion), "fig4a")]


def o1(evidence: Evidence, criterion: dict) -> list[Part]:
    """Ours: C where c is measured is C at the smaller λ that are tuned; prediction rests on it."""
    if not len(evidence.runs("fig4a")):
        return [Part("C at two λ", NOT_RUN)]
    return [evidence.complete(_same_on_the_plateau(evidence, criterion), "fig4a", TUNED)]


def _paper_c(evidence: Evidence, rows: pd.DataFrame, criterion: dict) -> Part:
    experiment, name = evidence.experiment("fig4a"), "C at the paper's λ"
    if experiment.units != "authors" or not experiment.data.name.startswith("cifar10"):
        return Part(name, NOT_RUN, why="judged on CIFAR-10 in the authors' units only")
    rows = rows[np.isclose(rows["l2"], criterion["l2"])]
    logs, steps, bounds = [], [], []
    for row in rows[rows["run_id"].isin(list(evidence.records))].itertuples():
        columns, per_epoch = (
            evidence.records[row.run_id].prefix(row.horizon_steps),
            row.horizon_steps / row.horizon_epochs,
        )
        curve, setting = (columns["epoch"], columns["test_accuracy"]), (row.l2_torch, row.lr_torch, per_epoch)
        found = coefficient(*curve, *setting, row.momentum, chance=experiment.data.chance)
        if found is not None and found.c_argmax > 0:
            logs.append(math.log(found.C_argmax))
            bounds.append(found.censored)
            neighbours = found.c_argmax_high / found.c_argmax, found.c_argmax / max(found.c_argmax_low, 1e-12)
            steps.append(math.log(max(neighbours)))
    target, ratio = criterion["C"], criterion["max_ratio"]
    what, wanted = "C = η·S·λ·t/(1−μ), t at the smoothed maximum", f"{target:g} up to a factor {ratio:g}"
    law = regress(np.ones((len(logs), 1)), logs, bounds, CONFIDENCE) if logs else None
    if law is None:
        why = f"{len(rows)} seeds, {len(logs) - sum(bounds)} uncensored peaks at that λ; two are needed"
        return evidence.curves_of(Part(name, INCONCLUSIVE, what, wanted=wanted, why=why), rows)
    low, high = min(law.low[0], law.coefficients[0] - max(steps)), max(law.high[0], law.coefficients[0] + max(steps))
    numbers = [math.exp(v) for v in (law.coefficients[0], low, high)]
    verdict = within(*numbers[1:], target / ratio, target * ratio)
    why = "the interval reaches at least to the neighbouring evaluations"
    why += f"; {sum(bounds)} of {len(logs)} seeds are lower bounds" if any(bounds) else ""
    part = Part(name, verdict, what, *numbers, wanted, why, len(logs), ids_of(rows), "90 %, at least one evaluation")
    peakless = int(np.isclose(evidence.outcomes("fig4a")["l2"], criterion["l2"]).sum()) - len(logs)
    return unless(evidence.curves_of(part, rows), f"{peakless} seeds have no peak" if peakless > 0 else "")


def _same_on_the_plateau(evidence: Evidence, criterion: dict) -> Part:
    """C at the λ where c is measured, over C at the smaller λ of the same experiment or of the tuning grid."""
    wanted = evidence.experiment(PREDICTED)
    name, what = "C at the λ that predicts over C at smaller λ", "ratio of C"
    measured = evidence.trained("fig4a", criterion)
    if wanted is None or not len(measured):
        return Part(name, NOT_RUN)
    at = wanted.l2.at or evidence.runs("fig4a")["l2"].max()
    fitted = pd.concat([evidence.fitted("fig4a", criterion), evidence.fitted(TUNED, criterion)])
    rows = pd.concat([measured[measured["l2"] == at], fitted[fitted["l2"] < at]])
    rows = rows[rows["C"] > 0]  # of a run that is best before its first step there is no C
    rows = rows.sort_values("horizon_epochs").drop_duplicates("run_id", keep="last")
    limit = criterion["max_ratio"]
    bound = f"between 1/{limit:g} and {limit:g}"
    large = rows["l2"] == at
    basis = {"wanted": bound, "seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    design = np.column_stack([large.to_numpy(), np.ones(len(rows))]).astype(float)
    found = (
        regress(design, np.log(rows["C"].to_numpy()), rows["censored"].to_numpy(dtype=bool), CONFIDENCE, wanted=[0])
        if large.any() and not large.all()
        else None
    )
    if found is None:
        why = f"at λ = {at:g} {large.sum()} runs, at smaller λ {(~large).sum()} that fit their training set"
        return Part(name, INCONCLUSIVE, what, **basis, why=f"too few uncensored peaks: {why}")
    numbers = [math.exp(v[0]) for v in (found.coefficients, found.low, found.high)]
    return Part(
        name,
        within(*numbers[1:], 1 / limit, limit),
        what,
        *numbers,
        why=f"λ = {at:g} against {sorted(set(rows.loc[~large, 'l2']))}",
        **basis,
    )
