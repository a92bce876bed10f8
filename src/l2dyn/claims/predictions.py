"""Predicting λ and AutoL2: claims C7 to C9 and C11 to C13."""

import math

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence, by_seed
from l2dyn.claims.verdicts import INCONCLUSIVE, NOT_RUN, REPORTED, REPRODUCED, Part, ids_of, t_interval, within
from l2dyn.measures.best_l2 import tuned_l2
from l2dyn.measures.coefficient import coefficient
from l2dyn.measures.regression import regress

BEST = "max_test_accuracy"


def c7(evidence: Evidence, criterion: dict) -> list[Part]:
    """λ = c/T gives nearly the accuracy of the tuned λ at every budget; the tuned one is chosen on other seeds."""
    grid, predicted = evidence.trained("fig1b-tuned"), evidence.runs("fig1b-predicted")
    if not len(evidence.runs("fig1b-tuned")) or not len(predicted):
        return [Part("tuned minus predicted", NOT_RUN)]
    parts = [_gap(budget, grid, predicted, criterion) for budget in sorted(set(predicted["horizon_epochs"]))]
    budgets = sorted(set(predicted["horizon_epochs"]))
    span = math.log10(budgets[-1] / budgets[0])
    enough = span >= criterion["min_budget_decades"]
    why = f"{span:.1f} decades of budget, {criterion['min_budget_decades']:g} asked for"
    cost = _cost(evidence)
    ids = ids_of(predicted)
    spanned = Part(
        "range of budgets",
        REPRODUCED if enough else INCONCLUSIVE,
        "decades of budget",
        span,
        span,
        span,
        f"at least {criterion['min_budget_decades']:g}",
        why,
        int(predicted["seed"].nunique()),
        ids,
    )
    return [*parts, spanned, cost]


def _gap(budget: float, grid: pd.DataFrame, predicted: pd.DataFrame, criterion: dict) -> Part:
    """Tuned minus predicted accuracy at one budget, paired by seed."""
    tuned = by_seed(grid[np.isclose(grid["horizon_epochs"], budget)])
    guessed = predicted[np.isclose(predicted["horizon_epochs"], budget)].groupby("seed")[BEST].mean()
    seeds = tuned.index.intersection(guessed.index)
    name, wanted = f"{budget:g} epochs", f"95 % bound below {criterion['max_gap']:g}"
    what = "tuned minus predicted accuracy (fraction)"
    basis = {"seeds": len(seeds), "run_ids": ids_of(predicted)}
    l2 = tuned.columns.to_numpy(dtype=float)
    ratio = criterion["max_l2_grid_ratio"]
    if len(l2) < 2 or (l2[1:] / l2[:-1]).max() > ratio * (1 + 1e-9):
        why = f"neighbouring λ of those that train differ by more than a factor {ratio:g}"
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=why, **basis)
    if len(seeds) < 2 or not tuned.shape[1]:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=f"{len(seeds)} seeds have both", **basis)
    chosen = {seed: tuned.drop(index=seed).mean().idxmax() for seed in seeds}
    mean, low, high = t_interval([tuned.loc[seed, chosen[seed]] - guessed[seed] for seed in seeds])
    verdict = within(low, high, at_most=criterion["max_gap"])
    return Part(name, verdict, what, mean, low, high, wanted, f"these seeds could see {high - mean:.4f}", **basis)


def _cost(evidence: Evidence) -> Part:
    """Steps of the measurement of c over those of the longest budget: reported, not judged apart from "marginally"."""
    measured, predicted = evidence.runs("fig4a"), evidence.runs("fig1b-predicted")
    at = evidence.experiment("fig1b-predicted").l2.at
    used = measured[measured["l2"] == at] if at else measured
    if not len(used):
        return Part("cost of measuring c", NOT_RUN)
    ratio = float(used["t_star"].mean() / predicted["horizon_epochs"].max())
    what = "epochs until the peak that gives c, over the longest budget"
    return Part(
        "cost of measuring c",
        REPORTED,
        what,
        ratio,
        ratio,
        ratio,
        "below 1",
        seeds=int(used["seed"].nunique()),
        run_ids=ids_of(used),
    )


def c8(evidence: Evidence, criterion: dict) -> list[Part]:
    """Tuned and predicted λ lie within one order of magnitude: the tuned one as the centre of all near the best."""
    grid, predicted = evidence.trained("fig1b-tuned"), evidence.runs("fig1b-predicted")
    if not len(evidence.runs("fig1b-tuned")) or not len(predicted):
        return [Part("tuned over predicted λ", NOT_RUN)]
    return [_ratio(budget, grid, predicted, criterion) for budget in sorted(set(predicted["horizon_epochs"]))]


def _ratio(budget: float, grid: pd.DataFrame, predicted: pd.DataFrame, criterion: dict) -> Part:
    rows = grid[np.isclose(grid["horizon_epochs"], budget)]
    guess = predicted[np.isclose(predicted["horizon_epochs"], budget)]["l2"].iloc[0]
    limit, name = criterion["max_ratio"], f"{budget:g} epochs"
    basis = {
        "what": "tuned over predicted λ",
        "wanted": f"between 1/{limit:g} and {limit:g}",
        "seeds": rows["seed"].nunique(),
        "run_ids": ids_of(rows),
    }
    tuned = tuned_l2(rows["l2"], rows[BEST], criterion["near_best_margin"]) if len(rows) else None
    if tuned is None:
        return Part(name, INCONCLUSIVE, **basis, why="no λ trains")
    spread = rows.groupby("l2")[BEST].agg(["std", "size"])
    error = float((spread["std"] / np.sqrt(spread["size"])).mean())
    near = f"λ within {criterion['near_best_margin']:g} of the best: {tuned.low:g} to {tuned.high:g}"
    why = f"{near}; standard error of an accuracy {error:.4f}"
    numbers = (tuned.centre / guess, tuned.low / guess, tuned.high / guess)
    verdict = within(numbers[0], numbers[0], 1 / limit, limit)
    if tuned.at_edge:
        verdict, why = INCONCLUSIVE, f"{why}; at the edge of the λ that train"
    return Part(name, verdict, estimate=numbers[0], low=numbers[1], high=numbers[2], why=why, **basis)


def c9(evidence: Evidence, criterion: dict) -> list[Part]:
    """The paper's c ≈ 0.0066 epochs, as the dimensionless C."""
    experiment = evidence.experiment("fig4a")
    rows = evidence.runs("fig4a")
    if experiment is None or not len(rows):
        return [Part("C at the paper's λ", NOT_RUN)]
    return [_paper_c(evidence, rows, criterion)]


def o1(evidence: Evidence, criterion: dict) -> list[Part]:
    """Ours: C where c is measured is C at the smaller λ that are tuned; prediction rests on it."""
    if not len(evidence.runs("fig4a")):
        return [Part("C at two λ", NOT_RUN)]
    return [_same_on_the_plateau(evidence, criterion)]


def _paper_c(evidence: Evidence, rows: pd.DataFrame, criterion: dict) -> Part:
    experiment, name = evidence.experiment("fig4a"), "C at the paper's λ"
    if experiment.units != "authors" or not experiment.data.name.startswith("cifar10"):
        return Part(name, NOT_RUN, why="judged on CIFAR-10 in the authors' units only")
    rows = rows[np.isclose(rows["l2"], criterion["l2"])]
    logs, steps = [], []
    for row in rows.itertuples():
        if row.run_id not in evidence.records:
            continue
        columns, factor = (
            evidence.records[row.run_id].prefix(row.horizon_steps),
            row.C / (row.l2 * row.t_star) if row.t_star > 0 else math.nan,
        )
        per_epoch = row.horizon_steps / row.horizon_epochs
        found = coefficient(
            columns["epoch"],
            columns["test_accuracy"],
            row.l2_torch,
            row.lr_torch,
            per_epoch,
            row.momentum,
            chance=experiment.data.chance,
        )
        if found is not None and not found.censored and not math.isnan(factor):
            logs.append(math.log(found.C_argmax))
            steps.append(
                max(
                    math.log(found.c_argmax_high / found.c_argmax),
                    math.log(found.c_argmax / max(found.c_argmax_low, 1e-12)),
                )
            )
    target, ratio = criterion["C"], criterion["max_ratio"]
    what, wanted = "C = η·S·λ·t/(1−μ), t at the smoothed maximum", f"{target:g} up to a factor {ratio:g}"
    if not logs:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why="no run at that λ has an uncensored peak")
    if len(logs) < 2:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why="two seeds are needed")
    mean, _, high = t_interval(logs)
    half = np.nanmax([high - mean, max(steps)])
    numbers = [math.exp(v) for v in (mean, mean - half, mean + half)]
    verdict = within(*numbers[1:], target / ratio, target * ratio)
    why = "the interval reaches at least to the neighbouring evaluations"
    return Part(name, verdict, what, *numbers, wanted, why, len(logs), ids_of(rows))


def _same_on_the_plateau(evidence: Evidence, criterion: dict) -> Part:
    """C at the λ where c is measured, over C at the smaller λ of the same experiment or of the tuning grid."""
    wanted = evidence.experiment("fig1b-predicted")
    name, what = "C at the λ that predicts over C at smaller λ", "ratio of C"
    rows = pd.concat([evidence.trained("fig4a"), evidence.fitted("fig1b-tuned")])
    if wanted is None or not len(rows):
        return Part(name, NOT_RUN)
    rows = rows.sort_values("horizon_epochs").drop_duplicates("run_id", keep="last")
    at = wanted.l2.at or evidence.runs("fig4a")["l2"].max()
    limit = criterion["max_ratio"]
    bound = f"between 1/{limit:g} and {limit:g}"
    large, small = rows["l2"] == at, rows["l2"] < at
    basis = {"wanted": bound, "seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    kept = rows[large | small]
    design = np.column_stack([(kept["l2"] == at).to_numpy(), np.ones(len(kept))]).astype(float)
    found = (
        regress(design, np.log(kept["C"].to_numpy()), kept["censored"].to_numpy(), wanted=[0])
        if small.any() and large.any()
        else None
    )
    if found is None:
        return Part(name, INCONCLUSIVE, what, **basis, why="too few uncensored peaks at both")
    numbers = [math.exp(v[0]) for v in (found.coefficients, found.low, found.high)]
    return Part(
        name,
        within(*numbers[1:], 1 / limit, limit),
        what,
        *numbers,
        why=f"λ = {at:g} against {sorted(set(rows.loc[small, 'l2']))}",
        **basis,
    )


def c11(evidence: Evidence, criterion: dict) -> list[Part]:
    """With a schedule: the accuracies at c/T1 and at the tuned λ, and the gap (reported)."""
    grid, starred = evidence.runs("fig1a-fixed"), evidence.runs("fig1a-predicted")
    if not len(grid) or not len(starred):
        return [Part("accuracies with a schedule", NOT_RUN)]
    table = by_seed(evidence.trained("fig1a-fixed"))
    if not table.shape[1]:
        return [Part("accuracies with a schedule", INCONCLUSIVE, why="no λ of the grid trains at every seed")]
    parts = []
    for name, values, target in (
        ("at the predicted λ", starred.groupby("seed")[BEST].mean(), criterion["accuracy_predicted"]),
        ("at the tuned λ", table[table.mean().idxmax()], criterion["accuracy_tuned"]),
    ):
        mean, low, high = t_interval(values)
        if math.isnan(low):  # one seed: the error of the test set
            half = 1.6449 * math.sqrt(mean * (1 - mean) / evidence.experiment("fig1a-fixed").data.test_samples)
            low, high = mean - half, mean + half
        reach = criterion["accuracy_tolerance"]
        verdict = within(low, high, target - reach, target + reach)
        parts.append(
            Part(
                name,
                verdict,
                "best test accuracy",
                mean,
                low,
                high,
                f"{target:g} ± {reach:g}",
                seeds=len(values),
                run_ids=ids_of(starred),
            )
        )
    gaps = (table[table.mean().idxmax()] - starred.groupby("seed")[BEST].mean()).dropna()
    if len(gaps):
        what = "tuned minus predicted accuracy (fraction)"
        parts.append(Part("the gap", REPORTED, what, *t_interval(gaps), seeds=len(gaps), run_ids=ids_of(starred)))
    return parts


def c12(evidence: Evidence, criterion: dict) -> list[Part]:
    """AutoL2 against the tuned constant λ without a schedule: time and accuracy, paired by seed, judged apart."""
    pairs = _pairs(evidence, "fig1c-auto", "fig1c-tuned")
    if pairs is None:
        return [Part("AutoL2 is faster", NOT_RUN), Part("AutoL2 is better", NOT_RUN)]
    return [
        _time_ratio(evidence, pairs, criterion),
        _difference(pairs, "AutoL2 is better", at_least=criterion["min_gain"]),
    ]


def c13(evidence: Evidence, criterion: dict) -> list[Part]:
    """With a schedule AutoL2 is not better: the final accuracies, as figure 1a reports them."""
    pairs = _pairs(evidence, "figS-autol2-lr", "figS-autol2-lr-tuned")
    if pairs is None:
        return [Part("AutoL2 with a schedule", NOT_RUN)]
    part = _difference(pairs, "AutoL2 with a schedule", at_most=criterion["max_gain"], column="final_test_accuracy")
    return [part]


def _pairs(evidence: Evidence, auto: str, constant: str) -> pd.DataFrame | None:
    """Rows of both experiments side by side, by seed; None where one has none."""
    first, second = evidence.runs(auto), evidence.runs(constant)
    if not len(first) or not len(second):
        return None
    return first.merge(second, on="seed", suffixes=("_auto", "_tuned"))


def _difference(pairs: pd.DataFrame, name: str, at_least=-math.inf, at_most=math.inf, column: str = BEST) -> Part:
    gains = (pairs[f"{column}_auto"] - pairs[f"{column}_tuned"]).dropna()
    mean, low, high = t_interval(gains) if len(gains) else (math.nan,) * 3
    wanted = f"above {at_least:g}" if at_least > -math.inf else f"at most {at_most:g}"
    what = f"accuracy of AutoL2 minus that of the constant λ, {'last' if 'final' in column else 'best'} (fraction)"
    ids = ids_of(pairs.rename(columns={"run_id_auto": "run_id"}))
    ids += ids_of(pairs.rename(columns={"run_id_tuned": "run_id"}))
    why = f"these seeds could see {high - mean:.4f}" if len(gains) > 1 else "two seeds are needed"
    verdict = within(low, high, at_least, at_most, strict=at_least > -math.inf)
    return Part(name, verdict, what, mean, low, high, wanted, why, len(gains), ids)


def _time_ratio(evidence: Evidence, pairs: pd.DataFrame, criterion: dict) -> Part:
    """Time until AutoL2 has the tuned run's best accuracy, over that run's own; never reached counts as a bound."""
    logs, bounds = [], []
    for pair in pairs.itertuples():
        if pair.run_id_auto not in evidence.records or not pair.t_argmax_tuned > 0:
            continue
        columns = evidence.records[pair.run_id_auto].prefix(pair.horizon_steps_auto)
        reached = columns["epoch"][columns["test_accuracy"] >= pair.max_test_accuracy_tuned]
        time = reached[0] if len(reached) else columns["epoch"][-1]
        logs.append(math.log(max(time, 1e-9) / pair.t_argmax_tuned))
        bounds.append(not len(reached))
    ids = ids_of(pairs.rename(columns={"run_id_auto": "run_id"}))
    name, what = "AutoL2 is faster", "time to the tuned run's best accuracy, over that run's own"
    wanted = f"below {criterion['max_time_ratio']:g}"
    found = regress(np.ones((len(logs), 1)), logs, bounds) if logs else None
    why = f"{sum(bounds)} of {len(logs)} seeds never reach it" if logs else "no pair of runs"
    if found is None:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=f"{why}; too few do", seeds=len(logs), run_ids=ids)
    numbers = [math.exp(v[0]) for v in (found.coefficients, found.low, found.high)]
    verdict = within(*numbers[1:], at_most=criterion["max_time_ratio"], strict=True)
    return Part(name, verdict, what, *numbers, wanted, why, len(logs), ids)
