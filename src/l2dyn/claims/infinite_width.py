"""What the theory of section 4 says, and what wide nets do: claims C14, C15 and C20."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import (
    INCONCLUSIVE,
    NOT_RUN,
    REPORTED,
    REPRODUCED,
    Part,
    all_of,
    ids_of,
    t_interval,
    unless,
    within,
)

SQUARES = 0.5  # the loss of f = 0: half the mean square of labels of ±1


def c14(evidence: Evidence, criterion: dict) -> list[Part]:
    """The smallest loss of the infinitely wide net at t ∝ 1/λ, for λ well above the smallest eigenvalues of the kernel.

    Closed forms: no noise, so that estimates are their own intervals.
    """
    return [*_slope_of_minimum(evidence, criterion), *_late_derivatives(evidence, criterion)]


def _slope_of_minimum(evidence: Evidence, criterion: dict) -> list[Part]:
    """Of the kernel, judged; of power laws, reported beside it."""
    name, table = "time of the smallest loss, k = 2", evidence.curves.get("spectrum")
    if table is None:
        return [Part(name, NOT_RUN)]
    if "loss_share" not in table:
        why = "spectrum.csv is of an earlier version, without the smallest losses; rule theory makes it anew"
        return [Part(name, INCONCLUSIVE, why=why)]
    parts = []
    for spectrum, rows in table.groupby("spectrum", sort=False):
        if spectrum == "kernel":
            parts.insert(0, _slope(name, rows, criterion, "exponent in λ, the kernel of the training set"))
        elif spectrum.startswith("power"):
            part = _slope(f"spectrum γ^p, p = {spectrum.split()[-1]}", rows, criterion, "exponent in λ")
            parts.append(replace(part, verdict=REPORTED))
    return parts


def _slope(name: str, rows: pd.DataFrame, criterion: dict, what: str) -> Part:
    """The exponent over a range of λ that does not depend on it.

    From a multiple of the smallest eigenvalue up to where the smallest loss is a share of the loss of f = 0: above, the
    net hardly learns, and t ∝ 1/λ is trivial.
    """
    l2, share = rows["l2"].to_numpy(), rows["loss_share"].to_numpy()
    low, most = criterion["min_over_smallest"] * rows["smallest"].iloc[0], criterion["max_loss_share"]
    learns = np.flatnonzero(share <= most)
    if not len(learns):
        return Part(name, INCONCLUSIVE, what, why=f"at no λ is the smallest loss below {most:g} of that of f = 0")
    last = learns[-1]
    high = l2[last]
    if last + 1 < len(l2) and share[last + 1] > most:  # between two λ of the table
        high = np.exp(np.interp(most, share[last : last + 2], np.log(l2[last : last + 2])))
    low = max(low, l2[0])
    decades = math.log10(high / low)
    region = f"inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    wanted = f"{region} over at least {criterion['min_decades']:g} decades"
    inside = rows[(l2 >= low) & (l2 <= high)].dropna(subset=["t"])
    if decades < criterion["min_decades"] or len(inside) < 3:
        why = f"λ from {low:.2g} ({criterion['min_over_smallest']:g} times the smallest eigenvalue) to {high:.2g} (loss"
        why += (
            f" of {most:g} of that of f = 0): {max(decades, 0):.1f} decades; {criterion['min_decades']:g} are asked for"
        )
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why=why)
    slope = float(np.polyfit(np.log(inside["l2"]), np.log(inside["t"]), 1)[0])
    local = inside["slope"]
    why = f"λ from {low:.2g} to {high:.2g}, {decades:.1f} decades; local slopes {local.min():.2f} to {local.max():.2f}"
    verdict = within(slope, slope, criterion["slope_low"], criterion["slope_high"])
    return Part(name, verdict, what, slope, slope, slope, wanted, why)


def _late_derivatives(evidence: Evidence, criterion: dict) -> list[Part]:
    """The slope of the loss in log t at the end of figure 5a and b: rising for k = 2, not for the linear model."""
    table, parts = evidence.curves.get("modes"), []
    for k, name, bounds in (
        (2.0, "afterwards the loss rises, k = 2", {"at_least": criterion["min_late_loss_derivative_k2"]}),
        (1.0, "linear models show no such rise, k = 1", {"at_most": criterion["max_late_loss_derivative_k1"]}),
    ):
        if table is None:
            parts.append(Part(name, NOT_RUN))
            continue
        late = []
        for _, curve in table[table["k"] == k].groupby("eigenvalue"):
            loss = 0.5 * (curve["f"].to_numpy() - 1.0) ** 2
            t = curve["t"].to_numpy()
            last = t >= 0.5 * t[-1]
            slope = np.polyfit(np.log(t[last]), loss[last], 1)[0]
            late.append(0.0 if abs(slope) < 1e-9 else float(slope))  # a curve at rest
        value = min(late) if k == 2.0 else max(late)
        wanted = "positive" if k == 2.0 else "not positive"
        verdict = within(value, value, **bounds) if k != 2.0 or value != 0.0 else INCONCLUSIVE
        parts.append(
            Part(name, verdict, "d loss/d log t at late times, the least favourable mode", value, value, value, wanted)
        )
    return parts


def c15(evidence: Evidence, criterion: dict) -> list[Part]:
    """A wide net follows the k = 2 curve until after the smallest loss; one of finite width stays away from f = 0.

    And one net does both, which is what the paper shows; a net may be too wide to stay away, or too narrow to follow.
    """
    late = next((name for name in ("fig5c-narrow", "fig5c") if len(evidence.runs(name))), "fig5c-narrow")
    follows, stays = _follows(evidence, "fig5c", criterion), _stays(evidence, late, criterion)
    return [follows, *stays, _one_net(evidence, criterion)]


def _follows(evidence: Evidence, experiment: str, criterion: dict) -> Part:
    name = f"follows the theory, {evidence.net(experiment)}"
    return evidence.complete(_deviation(evidence, experiment, name, criterion), experiment)


def _stays(evidence: Evidence, experiment: str, criterion: dict) -> list[Part]:
    name = f"stays away from f = 0, {evidence.net(experiment)}"
    parts = _plateau(evidence, experiment, (name, f"{name}, no longer falling"), criterion)
    return [evidence.complete(part, experiment) for part in parts]


def _one_net(evidence: Evidence, criterion: dict) -> Part:
    """Whether one of the widths at hand does both; that none of them does says nothing of others."""
    name, found = "one net does both", {}
    for experiment in ("fig5c-narrow", "figS-kernel-medium", "fig5c"):
        parts = [_follows(evidence, experiment, criterion), *_stays(evidence, experiment, criterion)]
        if any(part.verdict != NOT_RUN for part in parts):
            found[experiment] = all_of(part.verdict for part in parts), parts
    if not found:
        return Part(name, NOT_RUN)
    experiment, (verdict, parts) = min(found.items(), key=lambda one: one[1][0] != REPRODUCED)
    if verdict != REPRODUCED:
        said = (f"{evidence.net(e)}: {', '.join(p.verdict for p in of)}" for e, (_, of) in found.items())
        why = f"to follow, to stay away, to fall no longer: {'; '.join(said)}"
        parts = [part for _, of in found.values() for part in of]
    else:
        why = evidence.net(experiment)
    ids = tuple(dict.fromkeys(i for part in parts for i in part.run_ids))
    verdict, seeds = verdict if verdict == REPRODUCED else INCONCLUSIVE, min(part.seeds for part in parts)
    return Part(name, verdict, "nets that do both", wanted="one at least", why=why, seeds=seeds, run_ids=ids)


def _beside_theory(evidence: Evidence, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t [T], losses [runs, T], theory's [runs, T]) of runs of one experiment, at its evaluations.

    The theory is that of k = 2 from the function at which the very run starts; runs without one, or without a curve,
    are left out.
    """
    theory = evidence.curves["kernel"]
    theory = theory[theory["k"] == 2.0]
    t, losses, expected = np.zeros(0), [], []
    for row in rows.itertuples():
        column = f"loss_{row.run_id}"
        if row.run_id in evidence.records and column in theory:
            curve = evidence.records[row.run_id].prefix(row.horizon_steps)
            times = row.lr_torch * curve["step"]
            kept = (times >= theory["t"].iloc[0]) & (times <= theory["t"].iloc[-1] * (1 + 1e-9))
            t = times[kept]
            losses.append(curve["train_loss"][kept])
            expected.append(np.exp(np.interp(np.log(t), np.log(theory["t"]), np.log(theory[column]))))
    return t, np.array(losses), np.array(expected)


def _without_theory(evidence: Evidence, rows: pd.DataFrame) -> str:
    """What lacks for these runs, in words."""
    lacking = sum(f"loss_{run_id}" not in evidence.curves["kernel"] for run_id in rows["run_id"])
    return f"kernel.csv has no theory from the initial function of {lacking} of {len(rows)} runs" if lacking else ""


def _deviation(evidence: Evidence, experiment: str, name: str, criterion: dict) -> Part:
    """Largest distance of the seeds' losses from their theories, in the mean, up to after the smallest loss."""
    rows, what = evidence.runs(experiment), "largest relative deviation of the loss"
    if not len(rows) or "kernel" not in evidence.curves:
        return Part(name, NOT_RUN)
    t, losses, expected = _beside_theory(evidence, rows)
    limit, beyond = criterion["max_relative_loss_deviation"], criterion["until_over_minimum"]
    wanted = f"below {limit:g}"
    if not len(losses):
        part = Part(name, INCONCLUSIVE, what, wanted=wanted, why="no run has both a curve and a theory")
        return evidence.curves_of(unless(part, _without_theory(evidence, rows)), rows)
    mean = expected.mean(axis=0)
    end = float(t[mean.argmin()]) if len(t) else math.inf
    until = (t >= 1.0) & (t <= end * beyond)  # before t = 1 nothing has moved
    if not until.any() or mean.argmin() == len(t) - 1:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why="no run reaches the time of the smallest loss")
    deviations = (losses / expected - 1)[:, until]
    means = np.abs(deviations.mean(axis=0))
    halves = np.array([(high - low) / 2 for _, low, high in map(t_interval, deviations.T)])
    numbers = float(means.max()), float((means - halves).max()), float((means + halves).max())  # bounds at any time
    verdict = within(*numbers[1:], at_most=limit)
    why = f"at t = {t[until][means.argmax()]:.3g}; the smallest loss at {end:.3g}"
    part = Part(name, verdict, what, *numbers, wanted, why, len(losses), ids_of(rows))
    return evidence.curves_of(unless(part, _without_theory(evidence, rows)), rows)


def _plateau(evidence: Evidence, late: str, names: tuple[str, str], criterion: dict) -> list[Part]:
    """Theory's loss less the net's at the end, and whether that difference still falls over the last e-fold of t."""
    rows = evidence.runs(late)
    if not len(rows) or "kernel" not in evidence.curves:
        return [Part(name, NOT_RUN) for name in names]
    t, losses, expected = _beside_theory(evidence, rows)
    if len(losses) < 2:
        part = Part("", INCONCLUSIVE, why=f"{len(losses)} runs have both a curve and a theory; two are needed")
        part = evidence.curves_of(unless(part, _without_theory(evidence, rows)), rows)
        return [replace(part, name=name) for name in names]
    differences = expected - losses
    left, most = float(SQUARES - expected[:, -1].mean()), criterion["max_theory_share"]
    first = rows.iloc[0]
    why = f"at λt = {first['l2_torch'] * t[-1]:.3g}, where theory is {left:.2g} below the loss of f = 0"
    early = f"more than {most:g} of that loss" if left > most * SQUARES else ""
    basis = {"seeds": len(losses), "run_ids": ids_of(rows)}
    last = t_interval(differences[:, -1])
    away = within(*last[1:], at_least=0.0, strict=True)
    what = "loss of theory less that of the net"
    parts = [Part(names[0], away, what, *last, wanted="above 0", why=why, **basis)]
    during = differences[:, t >= t[-1] / math.e * (1 - 1e-9)]
    if during.shape[1] < 2:
        parts.append(Part(names[1], INCONCLUSIVE, why="one evaluation in the last e-fold of time", **basis))
        return [evidence.curves_of(part, rows) for part in parts]
    before = int(during[:, :-1].mean(axis=0).argmax())
    change = t_interval(during[:, -1] - during[:, before])
    least = -criterion["max_late_fall"] * abs(last[0])
    falls = within(*change[1:], at_least=least)
    what = "its change from where it was largest before, over the last e-fold of t"
    wanted = f"at least −{criterion['max_late_fall']:g} of it"
    parts.append(Part(names[1], falls, what, *change, wanted, f"{-least:.2g} is allowed", **basis))
    lacking = _without_theory(evidence, rows)
    return [evidence.curves_of(unless(unless(part, early), lacking), rows) for part in parts]


def c20(evidence: Evidence, criterion: dict) -> list[Part]:
    """The kernel's norm falls as e^(−2(k−1)λt): judged at the largest width, for λt up to ½."""
    names = [n for n in evidence.config.experiments if n in ("fig5c-narrow", "figS-kernel-medium", "figS-kernel-wide")]
    ratios: dict[int, list[float]] = {}
    ids: dict[int, tuple[str, ...]] = {}
    experiments: dict[int, str] = {}
    for name in names:
        width = evidence.experiment(name).net.width
        for row in evidence.runs(name).itertuples():
            experiments[width] = name
            if row.run_id not in evidence.records:
                continue
            columns = evidence.records[row.run_id].prefix(row.horizon_steps)
            if "kernel_norm" not in columns:
                continue
            t = row.lr_torch * columns["step"]
            inside = t * row.l2_torch <= criterion["max_l2_time"]
            if inside.sum() > 2:
                slope = np.polyfit(t[inside], np.log(columns["kernel_norm"][inside]), 1)[0]
                ratios.setdefault(width, []).append(float(slope / (-2 * row.l2_torch)))
                ids[width] = (*ids.get(width, ()), row.run_id)
    name, what = "the kernel's decay", "slope of log ‖Θ‖ over −2(k−1)λ, k = 2"
    if not experiments:
        return [Part(name, NOT_RUN)]
    widest = max(evidence.experiment(name).net.width for name in names)  # of those planned
    name = f"{name}, width {widest}"
    if widest not in experiments:
        return [Part(name, INCONCLUSIVE, what, why=f"no run of it is there yet; the widest has {max(experiments)}")]
    rows = evidence.runs(experiments[widest])
    region = criterion["rate_ratio_low"], criterion["rate_ratio_high"]
    wanted = f"inside [{region[0]:g}, {region[1]:g}]"
    if widest not in ratios:
        part = Part(name, INCONCLUSIVE, what, wanted=wanted, why="no run has three measurements of the kernel in time")
    else:
        mean, low, high = t_interval(ratios[widest])
        others = "; ".join(f"width {w}: {np.mean(v):.3f}" for w, v in sorted(ratios.items()))
        numbers = within(low, high, *region), what, mean, low, high, wanted, others
        part = Part(name, *numbers, len(ratios[widest]), ids[widest])
    return [evidence.complete(evidence.curves_of(part, rows), experiments[widest])]
