"""Against a λ that is tuned on other seeds than those that judge: claims C11 to C13."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence, at_budget, best_on_all, best_on_others, by_seed
from l2dyn.claims.verdicts import (
    CONFIDENCE,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPORTED,
    REPRODUCED,
    Part,
    guarded,
    ids_of,
    remarked,
    t_interval,
    unless,
    with_sampling_error,
    within,
)
from l2dyn.measures.regression import regress

BEST, FINAL = "max_test_accuracy", "final_test_accuracy"


def c11(evidence: Evidence, criterion: dict) -> list[Part]:
    """With a schedule: c/T1 and the tuned λ, the final accuracies at both, and the gap (reported)."""
    names = grid, starred = "fig1a-fixed", "fig1a-predicted"
    predicted = evidence.outcomes(starred)
    if not len(evidence.runs(grid)) or not len(predicted):
        return [Part("accuracies with a schedule", NOT_RUN)]
    l2, near = float(predicted["l2"].iloc[0]), criterion["max_l2_ratio"]
    guessed = by_seed(predicted, FINAL).squeeze(axis="columns")
    ends = _predicted_ends(evidence, starred, l2)
    at = within(*ends, criterion["predicted_l2"] / near, criterion["predicted_l2"] * near)
    wanted, ids = f"{criterion['predicted_l2']:g} up to a factor {near:g}", ids_of(predicted)
    parts = [
        Part("the predicted λ", at, "λ = c/T1", l2, *ends, wanted, "", len(guessed), ids),
        _accuracy(evidence, "at the predicted λ", guessed, criterion["accuracy_predicted"], criterion, ids),
    ]
    tuned, why, at_edge = tuned_on_others(evidence, grid, evidence.budgets(grid)[-1], FINAL)
    if not len(tuned):
        names_left = "at the tuned λ", "tuned over predicted λ", "the gap"
        parts += [Part(name, INCONCLUSIVE if name != "the gap" else REPORTED, why=why) for name in names_left]
        return [evidence.complete(part, *names) for part in parts]
    ids = ids_of(tuned)
    target, reached = criterion["tuned_l2"] / criterion["predicted_l2"], tuned["l2"] / l2
    limits = target / criterion["max_ratio_factor"], target * criterion["max_ratio_factor"]
    numbers = float(np.exp(np.log(reached).mean())), float(reached.min()), float(reached.max())
    verdict = INCONCLUSIVE if at_edge else within(*numbers[1:], *limits)
    what, wanted = "tuned over predicted λ", f"{target:g} up to a factor {limits[1] / target:g}"
    both = ids + ids_of(predicted)
    parts += [
        _accuracy(evidence, "at the tuned λ", tuned[FINAL], criterion["accuracy_tuned"], criterion, ids),
        Part("tuned over predicted λ", verdict, what, *numbers, wanted, why, len(tuned), both, "range over seeds"),
    ]
    gaps = (tuned[FINAL] - guessed).dropna()
    interval = t_interval(gaps, evidence.image(grid)) if len(gaps) else (math.nan,) * 3
    what = "tuned minus predicted accuracy, last (fraction)"
    parts.append(Part("the gap", REPORTED, what, *interval, seeds=len(gaps), run_ids=both))
    return [evidence.complete(part, *names) for part in parts]


def _predicted_ends(evidence: Evidence, name: str, l2: float) -> tuple[float, float]:
    """The interval of a predicted λ: that of c over the seeds on which it is measured, of two at least."""
    wanted = evidence.experiment(name).l2
    measured = evidence.runs(wanted.predicted_from)
    measured = measured[np.isclose(measured["l2"], wanted.at)] if wanted.at else measured
    times = measured["t_argmax" if wanted.reading == "argmax" else "t_star"]
    logs = np.log((times * measured["l2"])[times > 0])
    mean, low, high = t_interval(logs) if len(logs) else (math.nan,) * 3
    return (l2, l2) if math.isnan(low) else (l2 * math.exp(low - mean), l2 * math.exp(high - mean))


def _accuracy(evidence: Evidence, name: str, values: pd.Series, target: float, criterion: dict, ids) -> Part:
    """A mean accuracy, held against the paper's; with one seed its error is that of the test set."""
    samples, reach = evidence.experiment("fig1a-fixed").data.test_samples, criterion["accuracy_tolerance"]
    mean, low, high = t_interval(values, 1 / samples)
    if math.isnan(low):
        low, high = with_sampling_error(mean, (mean,), samples)
    verdict, wanted = within(low, high, target - reach, target + reach), f"{target:g} ± {reach:g}"
    return Part(name, verdict, "last test accuracy", mean, low, high, wanted, "", len(values), ids)


def c12(evidence: Evidence, criterion: dict) -> list[Part]:
    """AutoL2 against the tuned constant λ without a schedule: time and accuracy, paired by seed, judged apart."""
    names = "AutoL2 is faster", "AutoL2 is better"
    return _against_auto_l2(
        evidence,
        ("fig1c-auto", "fig1c-tuned"),
        BEST,
        {
            names[0]: lambda pairs: _time_ratio(evidence, pairs, names[0], criterion),
            names[1]: lambda pairs: _difference(
                evidence, pairs, names[1], BEST, at_least=criterion["min_gain"], strict=True
            ),
        },
        wins=REPRODUCED,
    )


def c13(evidence: Evidence, criterion: dict) -> list[Part]:
    """With a schedule AutoL2 is not better: the final accuracies, as figure 1a reports them."""
    name, limit = "AutoL2 with a schedule", criterion["max_gain"]
    judges = {name: lambda pairs: _difference(evidence, pairs, name, FINAL, at_most=limit)}
    return _against_auto_l2(evidence, ("figS-autol2-lr", "figS-autol2-lr-tuned"), FINAL, judges, wins=NOT_REPRODUCED)


def tuned_on_others(
    evidence: Evidence, grid: str, epochs: float, column: str, best=best_on_others
) -> tuple[pd.DataFrame, str, bool]:
    """(the grid's row of each seed at the λ that is best on the other seeds, index seed; remarks; at the grid's edge?).

    column: the accuracy that counts. best: another choice of λ. No rows where λ cannot be tuned so, and the remark
    says why.
    """
    rows = at_budget(evidence.outcomes(grid), epochs)
    rows = rows[rows["l2"] > 0].dropna(subset=[column])
    table = by_seed(rows, column)
    if len(table) < 2 or table.shape[1] < 2:
        why = f"{grid} has {len(table)} seeds and {table.shape[1]} λ of {epochs:g} epochs"
        return rows.iloc[:0].set_index("seed"), f"{why}; tuning on other seeds needs two of each", False
    chosen = best(table)
    found = rows[rows["seed"].map(chosen) == rows["l2"]].set_index("seed").sort_index()
    why = "λ = " + ", ".join(f"{l2:g}" for l2 in sorted(set(chosen.values()))) + " tuned on the other seeds"
    edges = {table.columns[0], table.columns[-1]} & set(chosen.values())
    return found, f"{why}, at the edge of the grid" if edges else why, bool(edges)


def _against_auto_l2(evidence: Evidence, names: tuple[str, str], column: str, judges: dict, wins: str) -> list[Part]:
    """A part of every judge, called with the rows of AutoL2 (…_auto) and of the tuned λ (…_tuned) side by side.

    names: of AutoL2's experiment, and of the one that says on which grid λ is tuned. wins: the verdict that says AutoL2
    is better: it has to hold against the λ that is best on all seeds, too, and a tuned λ at the edge of its grid, where
    another may be better still, cannot support it.
    """
    auto, constant = names
    tuning = evidence.experiment(constant)
    grid = tuning.l2.tuned_from if tuning is not None and tuning.selected else constant
    first = evidence.outcomes(auto)
    if not len(first) or not len(evidence.runs(grid)):
        return [Part(name, NOT_RUN) for name in judges]
    epochs = evidence.budgets(auto)[-1]
    tuned, why, at_edge = tuned_on_others(evidence, grid, epochs, column)
    best = tuned_on_others(evidence, grid, epochs, column, best_on_all)[0]
    pairs, with_best = (
        first.merge(rows.reset_index(), on="seed", suffixes=("_auto", "_tuned")) for rows in (tuned, best)
    )
    if not len(pairs):
        parts = [Part(name, INCONCLUSIVE, why=why or "no seed has both") for name in judges]
    else:
        parts = [remarked(judge(pairs), why) for judge in judges.values()]
        others = [judge(with_best).verdict for judge in judges.values()]
        parts = [
            replace(part, verdict=guarded(part.verdict, other, wins)) for part, other in zip(parts, others, strict=True)
        ]
        beyond = "a constant λ beyond it may be better" if at_edge else ""
        parts = [unless(part, beyond) if part.verdict == wins else part for part in parts]
    return [evidence.complete(evidence.complete(part, auto), grid, budget=epochs) for part in parts]


def _ids(pairs: pd.DataFrame) -> tuple[str, ...]:
    return ids_of({"run_id": pd.concat([pairs["run_id_auto"], pairs["run_id_tuned"]])})


def _difference(
    evidence: Evidence, pairs: pd.DataFrame, name: str, column: str, at_least=-math.inf, at_most=math.inf, strict=False
) -> Part:
    """Accuracy of AutoL2 minus that of the tuned λ, paired by seed."""
    gains = (pairs[f"{column}_auto"] - pairs[f"{column}_tuned"]).dropna()
    image = evidence.image(pairs["experiment_auto"].iloc[0])
    mean, low, high = t_interval(gains, image) if len(gains) else (math.nan,) * 3
    wanted = f"above {at_least:g}" if at_least > -math.inf else f"at most {at_most:g}"
    what = f"accuracy of AutoL2 minus that of the constant λ, {'last' if column == FINAL else 'best'} (fraction)"
    why = f"these seeds could see {high - mean:.4f}" if len(gains) > 1 else "two seeds are needed"
    verdict = within(low, high, at_least, at_most, strict=strict)
    return Part(name, verdict, what, mean, low, high, wanted, why, len(gains), _ids(pairs))


def _time_ratio(evidence: Evidence, pairs: pd.DataFrame, name: str, criterion: dict) -> Part:
    """Time until AutoL2 has the tuned run's best accuracy, over that run's own; never reached counts as a bound.

    So does a run that diverged: by the end of its horizon it has not reached it.
    """
    logs, bounds = [], []
    for pair in pairs[pairs["t_argmax_tuned"] > 0].itertuples():
        time, reached = pair.horizon_epochs_auto, np.zeros(0)
        if pair.status_auto == "finished":
            if pair.run_id_auto not in evidence.records:
                continue
            columns = evidence.records[pair.run_id_auto].prefix(pair.horizon_steps_auto)
            reached = columns["epoch"][columns["test_accuracy"] >= pair.max_test_accuracy_tuned]
            time = reached[0] if len(reached) else columns["epoch"][-1]
        logs.append(math.log(max(time, 1e-9) / pair.t_argmax_tuned))
        bounds.append(not len(reached))
    what, wanted = (
        "time to the tuned run's best accuracy, over that run's own",
        f"below {criterion['max_time_ratio']:g}",
    )
    found = regress(np.ones((len(logs), 1)), logs, bounds, CONFIDENCE) if logs else None
    why = f"{sum(bounds)} of {len(logs)} seeds never reach it" if logs else "no pair of runs"
    basis = {"seeds": len(logs), "run_ids": _ids(pairs)}
    if found is None:
        part = Part(name, INCONCLUSIVE, what, wanted=wanted, why=f"{why}; too few do", **basis)
    else:
        numbers = [math.exp(v[0]) for v in (found.coefficients, found.low, found.high)]
        verdict = within(*numbers[1:], at_most=criterion["max_time_ratio"], strict=True)
        part = Part(name, verdict, what, *numbers, wanted, why, **basis)
    finished = pairs[pairs["status_auto"] == "finished"].rename(columns={"run_id_auto": "run_id"})
    part = evidence.curves_of(part, finished)
    timeless = len(pairs) - int((pairs["t_argmax_tuned"] > 0).sum())
    return unless(part, f"{timeless} tuned runs have no time of their best accuracy" if timeless else "")
