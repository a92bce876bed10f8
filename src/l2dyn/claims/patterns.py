"""How accuracy depends on λ: claims C3 to C6, C10, and the patterns' part of C17 and C18."""

import math

import numpy as np
import pandas as pd
from scipy import stats

from l2dyn.claims.evidence import Evidence, best_on_all, best_on_others, by_seed
from l2dyn.claims.laws import law_in_l2
from l2dyn.claims.verdicts import (
    CONFIDENCE,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    Part,
    all_of,
    guarded,
    ids_of,
    pair_reach,
    range_interval,
    t_interval,
    with_sampling_error,
    within,
)

BEST = "max_test_accuracy"
NETS = (("fig2ab", "fig2c"), ("fig2de", "fig2f"))
SETUPS = ("fig2ab", "fig2de", "fig3-plain", "fig3-norm", "figS-momentum")


def c3(evidence: Evidence, criterion: dict) -> list[Part]:
    """With T ∝ 1/λ accuracy improves as λ falls, then plateaus."""
    return [part for name, _ in NETS for part in plateau(evidence, name, criterion)]


def c4(evidence: Evidence, criterion: dict) -> list[Part]:
    """Within a fixed budget one interior λ is best."""
    return [interior_best(evidence, name, criterion) for _, name in NETS]


def c10(evidence: Evidence, criterion: dict) -> list[Part]:
    """Both with a learning-rate schedule, in the final accuracy."""
    final = "final_test_accuracy"
    return [
        interior_best(evidence, "fig1a-fixed", criterion, final),
        *plateau(evidence, "fig1a-scaled", criterion, final),
    ]


def c17(evidence: Evidence, criterion: dict) -> list[Part]:
    """C1, C3 and C4 for CNNs without and with batch norm."""
    grids = (("fig3-plain", "fig3-plain-budget"), ("fig3-norm", "fig3-norm-budget"))
    return [part for pair in grids for part in law_and_patterns(evidence, *pair, criterion)]


def c18(evidence: Evidence, criterion: dict) -> list[Part]:
    """C1, C3 and C4 with momentum and augmentation."""
    return law_and_patterns(evidence, "figS-momentum", "figS-momentum-budget", criterion)


def law_and_patterns(evidence: Evidence, grid: str, budget: str, criterion: dict) -> list[Part]:
    """The parts of C1, C3 and C4 on one net."""
    parts = [law_in_l2(evidence, grid, criterion), *plateau(evidence, grid, criterion)]
    return [*parts, interior_best(evidence, budget, criterion)]


def plateau(evidence: Evidence, name: str, criterion: dict, column: str = BEST) -> list[Part]:
    """The smallest λ lie within a margin of the best, and above them accuracy falls with λ (claim C3).

    At the learning rate with the most λ that train to their horizon, which must be in proportion to 1/λ. Accuracy that
    still rises at the smallest λ does not speak against a plateau, which may lie below the grid; accuracy that falls
    there does, and so do smaller λ that do not train.
    """
    names = f"{evidence.net(name)}, level at small λ", f"{evidence.net(name)}, falling above"
    if not len(evidence.runs(name)):
        return [evidence.not_run(one, name) for one in names]
    if not evidence.scaled(name):
        why = "all λ are trained equally long here; the claim is about times in proportion to 1/λ"
        return [Part(one, INCONCLUSIVE, why=why) for one in names]
    return [evidence.complete(part, name) for part in _plateau(evidence, name, names, criterion, column)]


def _plateau(evidence: Evidence, name: str, names: tuple[str, str], criterion: dict, column: str) -> list[Part]:
    rows = evidence.trained(name, criterion)
    rows = rows[~rows["capped"].astype(bool)].dropna(subset=[column])
    count = rows.groupby("lr")["l2"].nunique()
    smallest = int(criterion["smallest_l2_count"])
    if not len(count) or count.max() < smallest + 1:
        why = f"{0 if not len(count) else count.max()} λ train to their horizon; {smallest + 1} are needed"
        return [Part(one, INCONCLUSIVE, why=why) for one in names]
    rows = rows[rows["lr"] == count.idxmax()]
    table = by_seed(_with_smaller(evidence, name, rows, column), column)
    basis = {"seeds": len(table), "run_ids": ids_of(rows)}
    if table.shape[1] < smallest + 1:
        why = f"all {len(table)} seeds have {table.shape[1]} λ; {smallest + 1} are needed"
        return [Part(one, INCONCLUSIVE, why=why, **basis) for one in names]
    above = table.loc[:, table.columns[smallest - 1 :]]
    return [_level(evidence, name, names[0], table, criterion, basis), _falling(names[1], above, criterion, basis)]


def _level(evidence: Evidence, name: str, label: str, table: pd.DataFrame, criterion: dict, basis: dict) -> Part:
    """How far below the best the smallest λ are; the best one is found by looking, so that the interval is Tukey's."""
    means, margin = table.mean(), criterion["margin"]
    deficits = means.max() - means[table.columns[: int(criterion["smallest_l2_count"])]]
    worst, best = deficits.idxmax(), means.idxmax()
    what, wanted = "largest deficit of the three smallest λ (fraction)", f"at most {margin:g}"
    why = f"at λ = {worst:g}, of {len(table.columns)} λ"
    if len(table) == 1:
        samples = evidence.experiment(name).data.test_samples
        ends = with_sampling_error(deficits[worst], (means[best], means[worst]), samples)
        why = f"{why}; one seed, whose interval is that of two test sets; two are needed"
        return Part(label, INCONCLUSIVE, what, deficits[worst], *ends, wanted, why, **basis)
    used = [table[l2] for l2 in {*deficits.index, best}]
    half = pair_reach([used], evidence.image(name), among=table.shape[1]) * np.sqrt(2 / len(table))
    verdict = within(deficits[worst] - half, deficits[worst] + half, at_most=margin)
    fallen = deficits[deficits.index < best].max()
    if verdict == NOT_REPRODUCED and not fallen - half > margin:
        verdict, why = INCONCLUSIVE, f"{why}; accuracy still rises there: a plateau may lie below the grid"
    numbers = deficits[worst], deficits[worst] - half, deficits[worst] + half
    return Part(label, verdict, what, *numbers, wanted, why, **basis)


def _with_smaller(evidence: Evidence, name: str, rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows, and those of smaller λ that ran to their horizon and did not train: they fell as far as can be."""
    every = evidence.outcomes(name)
    smaller = every[(every["l2"] > 0) & (every["l2"] < rows["l2"].min()) & every["lr"].isin(rows["lr"])]
    return pd.concat([smaller[~smaller["capped"].astype(bool)].dropna(subset=[column]), rows])


def _falling(name: str, table: pd.DataFrame, criterion: dict, basis: dict) -> Part:
    """The slope of accuracy against log10 λ over the larger λ, seeds as separate values."""
    x = np.repeat(np.log10(table.columns.to_numpy(dtype=float)), len(table))
    y = table.to_numpy().T.ravel()
    what, wanted = "slope of accuracy in log10 λ", f"below {criterion['max_trend_slope']:g}"
    if table.shape[1] < 2 or len(x) < 3:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, **basis, why="fewer than three values above the plateau")
    if len(table) == 1:
        return Part(
            name, INCONCLUSIVE, what, float(stats.linregress(x, y).slope), wanted=wanted, **basis, why="one seed"
        )
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(x) - 2)) * fit.stderr
    verdict = within(fit.slope - half, fit.slope + half, at_most=criterion["max_trend_slope"], strict=True)
    return Part(name, verdict, what, float(fit.slope), fit.slope - half, fit.slope + half, wanted, **basis)


def interior_best(evidence: Evidence, name: str, criterion: dict, column: str = BEST) -> Part:
    """An interior λ, chosen on the other seeds, beats both ends of the λ that train (claim C4).

    Each seed in turn is judged by the λ that is best on the others; the differences are paired by seed. Where one end
    is better, the best λ may lie beyond it, and nothing is decided, unless it is the smallest λ and λ = 0 even better.
    """
    label = f"{evidence.net(name)}, one interior λ is best"
    if not len(evidence.runs(name)):
        return evidence.not_run(label, name)
    return evidence.complete(_interior_best(evidence, name, label, criterion, column), name)


def _interior_best(evidence: Evidence, name: str, label: str, criterion: dict, column: str) -> Part:
    rows = evidence.trained(name, criterion).dropna(subset=[column])
    table = by_seed(rows, column)
    what, wanted = "gain over the nearer end (fraction)", f"both gains above {criterion['min_gain']:g}"
    basis = {"seeds": len(table), "run_ids": ids_of(rows)}
    if table.shape[1] < 3 or len(table) < 2:
        why = f"{table.shape[1]} λ train, {len(table)} seeds; three λ and two seeds are needed"
        return Part(label, INCONCLUSIVE, what, wanted=wanted, why=why, **basis)
    inner, ends, image = table.iloc[:, 1:-1], table.iloc[:, [0, -1]], evidence.image(name)

    def against_ends(best: dict) -> tuple[list, list]:
        chosen = pd.Series({seed: table.loc[seed, l2] for seed, l2 in best.items()})
        found = [t_interval(chosen - ends[end], image) for end in ends]
        return found, [within(low, high, at_least=criterion["min_gain"], strict=True) for _, low, high in found]

    best = best_on_others(inner)
    intervals, verdicts = against_ends(best)
    on_all = against_ends(best_on_all(inner))[1]
    verdicts = [guarded(one, other, NOT_REPRODUCED) for one, other in zip(verdicts, on_all, strict=True)]
    verdict = all_of(verdicts)
    lesser = min(intervals, key=lambda interval: interval[1])  # the end that is beaten with less certainty
    chosen = ", ".join(f"{l2:g}" for l2 in sorted(set(best.values())))
    why = f"ends λ = {table.columns[0]:g} and {table.columns[-1]:g}, best {chosen}; chosen on the other seeds"
    if verdicts.count(NOT_REPRODUCED) == 1:
        without = _without_l2(evidence, name, rows, column)
        small = verdicts[0] == NOT_REPRODUCED
        further = (without - table.iloc[:, 0]).dropna()
        if small and len(further) == len(table) and t_interval(further, image)[1] > 0:
            why = f"{why}; λ = 0 is better still than the smallest"
        else:
            end = "smallest" if small else "largest"
            verdict, why = INCONCLUSIVE, f"{why}; the {end} that trains is better: the best λ may lie beyond it"
    return Part(label, verdict, what, *lesser, wanted, why, **basis)


def _without_l2(evidence: Evidence, name: str, rows: pd.DataFrame, column: str) -> pd.Series:
    """Accuracies at λ = 0 of the seeds, learning rate and horizon of these rows."""
    zero = evidence.outcomes(name)
    zero = zero[zero["l2"] == 0]
    for setting in ("lr", "seed", "horizon_steps"):
        zero = zero[zero[setting].isin(rows[setting])]
    return zero.set_index("seed")[column].dropna()


def c5(evidence: Evidence, criterion: dict) -> list[Part]:
    """A small λ > 0 often beats a λ = 0 that trained longer: λ chosen on other seeds than those that judge it."""
    name = "more than half of the setups"
    setups = [setup for setup in SETUPS if setup in evidence.config.experiments and evidence.scaled(setup)]
    if not any(len(evidence.runs(setup)) for setup in setups):
        return [Part(name, NOT_RUN)]
    parts = [_judged_setup(evidence, setup, criterion) for setup in setups]
    judged = [part for part in parts if part.estimate == part.estimate]
    yes, no = (sum(part.verdict == v for part in judged) for v in (REPRODUCED, NOT_REPRODUCED))
    # a setup that cannot be judged may be either
    needed, least = criterion["min_setup_fraction"] * len(setups), int(criterion["min_setups"])
    verdict = REPRODUCED if yes > needed else NOT_REPRODUCED if no >= len(setups) - needed else INCONCLUSIVE
    said = [f"{part.name}: {part.estimate:+.3f} [{part.low:+.3f}, {part.high:+.3f}]" for part in judged]
    said = [f"{text}, {part.why}" if part.why else text for text, part in zip(said, judged, strict=True)]
    said += [f"{part.name}: not judged, {part.why}" for part in parts if part.estimate != part.estimate]
    if len(judged) < least:
        verdict, said = INCONCLUSIVE, [f"{len(judged)} setups can be judged, {least} are needed", *said]
    basis = {"seeds": min((p.seeds for p in judged), default=0), "run_ids": sum((p.run_ids for p in judged), ())}
    basis["interval"] = "those with a gain, to those without a loss"
    wanted = f"more than {needed:g} of {len(setups)}"
    numbers = (yes, yes, len(setups) - no) if judged else (math.nan,) * 3
    return [Part(name, verdict, "setups with a gain", *numbers, wanted, "; ".join(said), **basis)]


def _judged_setup(evidence: Evidence, name: str, criterion: dict) -> Part:
    """Whether a setup gains from L2; without an estimate where that cannot be said."""
    if not len(evidence.runs(name)):
        return Part(evidence.net(name), INCONCLUSIVE, why="no run is there yet")
    return evidence.complete(_gain_over_nothing(evidence, name, criterion), name)


def _gain_over_nothing(evidence: Evidence, name: str, criterion: dict) -> Part:
    """The gain of the best λ over λ = 0 at its best learning rate, of those where λ = 0 is trained longer."""
    planned, zero = evidence.planned(name), evidence.outcomes(name)
    longer = [lr for lr, rows in planned.groupby("lr") if _longer_without(rows)]
    zero = zero[(zero["l2"] == 0) & zero["lr"].isin(longer)]
    if not len(zero):
        return Part(evidence.net(name), INCONCLUSIVE, why="λ = 0 is not trained longer than the smallest λ")
    best = zero.groupby("lr")[BEST].mean().idxmax()
    rows, zero = evidence.trained(name, criterion), zero[zero["lr"] == best]
    rows = rows[rows["lr"] == best]
    table, without = by_seed(rows), zero.set_index("seed")[BEST]
    table = table.loc[table.index.intersection(without.index)]
    if len(table) < 2 or not table.shape[1]:
        return Part(evidence.net(name), INCONCLUSIVE, why=f"{len(table)} seeds have both; two are needed")
    found = []
    for chosen in (best_on_others(table), best_on_all(table)):
        gains = [table.loc[seed, chosen[seed]] - without[seed] for seed in table.index]
        mean, low, high = t_interval(gains, evidence.image(name))
        found.append(((mean, low, high), within(low, high, at_least=criterion["min_gain"], strict=True)))
    (mean, low, high), verdict = found[0]
    verdict, ids = guarded(verdict, found[1][1], NOT_REPRODUCED), ids_of(rows) + ids_of(zero)
    return Part(evidence.net(name), verdict, "", mean, low, high, seeds=len(table), run_ids=ids)


def _longer_without(rows: pd.DataFrame) -> bool:
    """Whether λ = 0 is trained longer than the smallest λ, in rows of one learning rate."""
    horizons = rows.dropna(subset=["l2"]).groupby("l2")["horizon_steps"].max()  # in the order of λ
    return len(horizons) > 1 and horizons.index[0] == 0 and horizons.iloc[0] > horizons.iloc[1]


def c6(evidence: Evidence, criterion: dict) -> list[Part]:
    """At a given λ the best accuracy varies little with η, over the λ at which the same number of η train."""
    return [_range_over_rates(evidence, name, criterion) for name, _ in NETS]


def _range_over_rates(evidence: Evidence, name: str, criterion: dict) -> Part:
    label, limit = evidence.net(name), criterion["max_range"]
    if not len(evidence.runs(name)):
        return evidence.not_run(label, name)
    part = _widest_range(evidence, name, label, limit, criterion)
    return evidence.complete(part, name)


def _widest_range(evidence: Evidence, name: str, label: str, limit: float, criterion: dict) -> Part:
    rows = evidence.fitted(name, criterion)
    rows = rows[~rows["capped"].astype(bool)]
    table = rows.pivot_table(index="lr", columns="l2", values=BEST, aggfunc="mean") if len(rows) else pd.DataFrame()
    counts = table.notna().sum() if table.size else pd.Series(dtype=int)
    if not len(counts) or counts.max() < 2:
        return Part(label, INCONCLUSIVE, wanted=f"at most {limit:g}", why="no λ at which two learning rates train")
    table = table.loc[:, counts == counts.max()]
    ranges = table.max() - table.min()
    widest = ranges.idxmax()
    why = f"largest of {len(ranges)} λ with {counts.max()} η each, at λ = {widest:g}"
    values = [[rows[(rows["l2"] == l2) & (rows["lr"] == lr)][BEST] for lr in table[l2].dropna().index] for l2 in table]
    numbers = range_interval(values, evidence.image(name))
    verdict = within(*numbers[1:], at_most=limit)
    if np.isnan(numbers[1]):
        samples = evidence.experiment(name).data.test_samples
        numbers = numbers[0], *with_sampling_error(numbers[0], (table[widest].max(), table[widest].min()), samples)
        why = f"{why}; one seed, whose interval is that of two test sets; two are needed"
    what = "range of the best accuracy over η (fraction)"
    basis = {"seeds": rows["seed"].nunique(), "run_ids": ids_of(rows)}
    return Part(label, verdict, what, *numbers, f"at most {limit:g}", why, **basis)
