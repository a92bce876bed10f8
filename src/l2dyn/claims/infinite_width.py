"""What the theory of section 4 says, and what wide nets do: claims C14, C15 and C20."""

import math

import numpy as np

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import INCONCLUSIVE, NOT_RUN, Part, ids_of, t_interval, within
from l2dyn.theory import law_window

SQUARES = 0.5  # the loss of f = 0: half the mean square of labels of ±1


def c14(evidence: Evidence, criterion: dict) -> list[Part]:
    """The smallest loss of the infinitely wide net at t ∝ 1/λ, for λ well above the smallest eigenvalues of the kernel.

    Closed forms: no noise, so that estimates are their own intervals.
    """
    return [_slope_of_minimum(evidence, criterion), *_late_derivatives(evidence, criterion)]


def _slope_of_minimum(evidence: Evidence, criterion: dict) -> Part:
    name, what = "time of the smallest loss, k = 2", "exponent in λ, the kernel of the training set"
    table = evidence.curves.get("spectrum")
    if table is None:
        return Part(name, NOT_RUN)
    rows = table[table["spectrum"] == "kernel"].dropna(subset=["t"])
    above = rows[rows["l2"] >= 10 * rows["smallest"]]
    window = law_window(above["l2"], above["slope"]) if len(above) > 2 else None
    region = f"inside [{criterion['slope_low']:g}, {criterion['slope_high']:g}]"
    wanted = f"{region} over at least {criterion['min_decades']:g} decades"
    decades = math.log10(above["l2"].max() / above["l2"].min()) if len(above) > 2 else 0.0
    if window is None and decades >= criterion["min_decades"]:  # of another power over the whole range
        window = above["l2"].min(), above["l2"].max()
    if window is None:
        return Part(name, INCONCLUSIVE, what, wanted=wanted, why="no range of λ over which the slope is near −1")
    inside = above[(above["l2"] >= window[0]) & (above["l2"] <= window[1])]
    slope = float(np.polyfit(np.log(inside["l2"]), np.log(inside["t"]), 1)[0])
    decades = math.log10(window[1] / window[0])
    why = f"λ from {window[0]:.2g} to {window[1]:.2g}, {decades:.1f} decades"
    verdict = within(slope, slope, criterion["slope_low"], criterion["slope_high"])
    if decades < criterion["min_decades"]:
        verdict = INCONCLUSIVE
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
    """A wide net follows the k = 2 curve until after the smallest loss; a net of finite width stays away from f = 0."""
    return [_deviation(evidence, criterion), _plateau(evidence, criterion)]


def _deviation(evidence: Evidence, criterion: dict) -> Part:
    """Largest relative distance of the seeds' mean loss from the theory's mean, up to the smallest loss."""
    rows, table = evidence.runs("fig5c"), evidence.curves.get("kernel")
    name, what = f"follows the theory, {evidence.net('fig5c')}", "largest relative deviation of the loss"
    if not len(rows) or table is None:
        return Part(name, NOT_RUN)
    theory = table[table["k"] == 2.0]
    end = float(theory["t"].iloc[int(theory["loss"].argmin())])
    curves, times = [], None
    for row in rows.itertuples():
        if row.run_id in evidence.records:
            columns = evidence.records[row.run_id].prefix(row.horizon_steps)
            t = row.lr_torch * columns["step"]
            kept = (t >= max(theory["t"].iloc[0], 1.0)) & (t <= end * 1.1)  # until after it
            times = t[kept]
            curves.append(columns["train_loss"][kept])
    if not curves or times[-1] < end:
        return Part(name, INCONCLUSIVE, what, why="no run reaches the time of the smallest loss")
    expected = np.exp(np.interp(np.log(times), np.log(theory["t"]), np.log(theory["loss"])))
    deviations = np.array(curves) / expected - 1
    mean = deviations.mean(axis=0)
    at = int(np.abs(mean).argmax())
    low, high = t_interval(deviations[:, at])[1:]
    limit = criterion["max_relative_loss_deviation"]
    estimate = abs(float(mean[at]))
    half = (high - low) / 2
    verdict = within(estimate - half, estimate + half, at_most=limit)
    why = f"at t = {times[at]:.3g}; the smallest loss at {end:.3g}; theory averaged over initial functions"
    return Part(
        name,
        verdict,
        what,
        estimate,
        estimate - half,
        estimate + half,
        f"below {limit:g}",
        why,
        len(curves),
        ids_of(rows),
    )


def _plateau(evidence: Evidence, criterion: dict) -> Part:
    """How far below the loss of f = 0 the last loss lies, in standard deviations over seeds."""
    name = "stays away from f = 0"
    rows = next((r for r in (evidence.runs(n) for n in ("fig5c-narrow", "fig5c")) if len(r)), None)
    if rows is None:
        return Part(name, NOT_RUN)
    below = np.array(
        [SQUARES - evidence.records[i].columns["train_loss"][-1] for i in rows["run_id"] if i in evidence.records]
    )
    what, least = "loss of f = 0 less the last loss, in seed standard deviations", criterion["min_plateau_seed_sds"]
    if len(below) < 2:
        return Part(name, INCONCLUSIVE, what, wanted=f"above {least:g}", why="two seeds are needed")
    mean, low, high = t_interval(below)
    spread = max(float(below.std(ddof=1)), 1e-12)
    numbers = (mean / spread, low / spread, high / spread)
    first = rows.iloc[0]
    until = first["l2"] * first["lr"] * first["horizon_epochs"]
    why = f"mean {mean:.3g} ± {spread:.2g}; {evidence.net(first['experiment'])}, until λt = {until:.2g}"
    verdict = within(mean - least * spread, math.inf, at_least=0.0)
    if verdict == INCONCLUSIVE and high < least * spread:
        verdict = within(-1.0, -1.0, at_least=0.0)
    return Part(name, verdict, what, *numbers, f"above {least:g}", why, len(below), ids_of(rows))


def c20(evidence: Evidence, criterion: dict) -> list[Part]:
    """The kernel's norm falls as e^(−2(k−1)λt): judged at the largest width, for λt up to ½."""
    names = [n for n in evidence.config.experiments if n in ("fig5c-narrow", "figS-kernel-medium", "figS-kernel-wide")]
    ratios: dict[int, list[float]] = {}
    ids: dict[int, tuple[str, ...]] = {}
    for name in names:
        width = evidence.experiment(name).net.width
        for row in evidence.runs(name).itertuples():
            if row.run_id not in evidence.records:
                continue
            columns = evidence.records[row.run_id].prefix(row.horizon_steps)
            if "kernel_norm" not in columns:
                continue
            t = row.lr_torch * columns["step"]
            inside = t * row.l2_torch <= 0.5
            if inside.sum() > 2:
                slope = np.polyfit(t[inside], np.log(columns["kernel_norm"][inside]), 1)[0]
                ratios.setdefault(width, []).append(float(slope / (-2 * row.l2_torch)))
                ids[width] = (*ids.get(width, ()), row.run_id)
    name, what = "the kernel's decay", "slope of log ‖Θ‖ over −2(k−1)λ, k = 2"
    if not ratios:
        return [Part(name, NOT_RUN)]
    widest = max(ratios)
    mean, low, high = t_interval(ratios[widest])
    region = criterion["rate_ratio_low"], criterion["rate_ratio_high"]
    others = "; ".join(f"width {w}: {np.mean(v):.3f}" for w, v in sorted(ratios.items()))
    wanted = f"inside [{region[0]:g}, {region[1]:g}]"
    seeds = len(ratios[widest])
    return [
        Part(
            f"{name}, width {widest}",
            within(low, high, *region),
            what,
            mean,
            low,
            high,
            wanted,
            others,
            seeds,
            ids[widest],
        )
    ]
