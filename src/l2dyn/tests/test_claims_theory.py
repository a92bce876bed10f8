"""The verdicts on the theory, C14, C15 and C20; the estimates behind all verdicts; what the judges get wrong yet."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import INCONCLUSIVE as UNCLEAR
from l2dyn.claims.verdicts import NOT_REPRODUCED as NO
from l2dyn.claims.verdicts import NOT_RUN, Part
from l2dyn.claims.verdicts import REPRODUCED as YES
from l2dyn.files import shipped_folder
from l2dyn.tables.claims import verdict_of
from l2dyn.tests import test_claims as made
from l2dyn.tests.test_claims import IDS, L2, RATES, of, parts_of, runs


def infinite(law=-1.0, l2=None, late=(1.0, -1.0), half=0.3, bend=0.0, smallest=1e-6, **columns):
    """t = λ^(law + bend·log10 λ); late: the sign of the last slope of the loss for k = 2 and k = 1.

    half: λ at which the smallest loss is half that of f = 0.
    """
    l2, t = np.geomspace(1e-4, 1, 41) if l2 is None else l2, np.geomspace(1, 1000, 200)
    times, share = l2 ** (law + bend * np.log10(l2)), 0.5 * l2 / half
    slopes = np.gradient(np.log(times), np.log(l2))
    spectrum = {"l2": l2, "t": times, "slope": slopes, "smallest": smallest, "loss_share": share}
    spectrum = pd.DataFrame({"spectrum": "kernel", **spectrum}).drop(columns=list(columns))
    away = [0.5 - 0.05 * sign * np.log(t) for sign in late]  # f, below its target 1
    modes = pd.DataFrame(
        {"k": np.repeat([2.0, 1.0], 200), "eigenvalue": 1.0, "t": np.tile(t, 2), "f": np.concatenate(away)}
    )
    return of(curves={"spectrum": spectrum, "modes": modes})


def stays(t, seed):
    """0.2 below the theory in the end."""
    return (0.2 + 0.002 * seed) * (1 - np.exp(-t / 100))


def decays_slowly(t, seed):
    """Below the theory, which it follows at a third of its pace."""
    return (0.1 + 0.001 * seed) * t / 100 * np.exp(1 - t / 300)


def finite(deviation=0.01, away=stays, seeds=3, until=400, late=1000, own=True, both=True):
    """A wide net beside its theory, the loss smallest at t = 100, and a narrow one that is `away`(t) below its own.

    Between them one that does as the wide one until t = 110, and then as the narrow one; both=False: as the narrow one
    from the beginning. Seeds start at other functions, so that theories differ. own: the table has the theory of each
    run.
    """
    t = np.geomspace(1, 1000, 301)

    def theory(t, seed):
        return (0.5 - 0.3 * t / 100 * np.exp(1 - t / 100)) * (1 + 0.3 * seed * np.exp(-t / 20))

    def wide(row):
        step = np.arange(until)
        return {"step": step, "train_loss": theory(step, row.seed) * (1 + deviation + row.seed / 500)}

    def narrow(row):
        step = np.arange(late)
        return {"step": step, "train_loss": theory(step, row.seed) - away(step, row.seed)}

    def middle(row):
        early, later = (one(row)["train_loss"] for one in (wide, narrow))
        step, end = np.arange(late), min(111, until, late) if both else 0
        return {"step": step, "train_loss": np.concatenate([early[:end], later[end:]])}

    rows = {"fig5c": until, "fig5c-narrow": late, "figS-kernel-medium": late}
    rows = {name: runs((0.002,), lr=(1.0,), seeds=seeds, horizon_steps=steps) for name, steps in rows.items()}
    kernel = pd.DataFrame({"k": 2.0, "t": t, "loss": theory(t, 1)})
    records = {"fig5c": wide, "fig5c-narrow": narrow, "figS-kernel-medium": middle}
    evidence = of(rows, {"kernel": kernel}, records)
    for name in rows if own else ():
        for row in evidence.runs(name).itertuples():
            evidence.curves["kernel"][f"loss_{row.run_id}"] = theory(t, row.seed)
    return evidence


def kernels(wide, narrow=0.5, seeds=3):
    """Rates at which ‖Θ‖ falls, over those of theory."""

    def shrinking(rate):
        def columns(row):
            step = np.arange(301)
            return {"step": step, "kernel_norm": np.exp(-2 * row.l2 * (rate + 0.01 * row.seed) * step)}

        return columns

    rows = runs((0.002,), lr=(1.0,), seeds=seeds, horizon_steps=300)
    rates = {"fig5c-narrow": narrow, "figS-kernel-wide": wide}
    records = {name: shrinking(rate) for name, rate in rates.items() if rate}
    return of(dict.fromkeys(records, rows), records=records)


def straggler(l2):
    """One seed has run at all λ, another at one only."""
    return of({"fig2ab": pd.concat([runs(L2, made.LEVEL, seeds=1), runs((l2,), 0.8, seeds=1).assign(seed=1)])})


THEORY = [  # claim, its verdict, on what, the evidence
    ("C14", YES, "1/L2, rising for k = 2 only", infinite),
    ("C14", NO, "rising for k = 1, too", lambda: infinite(late=(1.0, 1.0))),
    ("C14", NO, "falling for k = 2", lambda: infinite(late=(-1.0, -1.0))),
    ("C14", UNCLEAR, "less than a decade", lambda: infinite(l2=np.geomspace(0.1, 0.9, 21))),
    ("C15", YES, "within a percent, and away from f = 0", finite),
    ("C15", NO, "a fifth off", lambda: finite(deviation=-0.2)),
    ("C15", NO, "goes to f = 0, though later", lambda: finite(away=decays_slowly)),
    ("C15", NO, "is closer to f = 0 than the theory", lambda: finite(away=lambda t, seed: -stays(t, seed))),
    ("C15", UNCLEAR, "on either side of the theory", lambda: finite(away=lambda t, seed: (seed - 1) * stays(t, seed))),
    ("C15", UNCLEAR, "ends before the theory is back at f = 0", lambda: finite(late=250)),
    ("C15", UNCLEAR, "one seed", lambda: finite(seeds=1)),
    ("C15", UNCLEAR, "no single net does both", lambda: finite(both=False)),
    ("C15", UNCLEAR, "a table without the runs' own theories", lambda: finite(own=False)),
    ("C15", UNCLEAR, "a deviation that scatters about the limit", lambda: finite(deviation=0.048)),
    ("C20", YES, "at the largest width alone", lambda: kernels(1.0)),
    ("C20", NO, "half as fast", lambda: kernels(0.5, narrow=1.0)),
    ("C20", UNCLEAR, "no run of the largest width", lambda: kernels(None, narrow=1.0)),
    ("C20", UNCLEAR, "one seed", lambda: kernels(1.0, seeds=1)),
]  # fmt: skip
# Where a judge could easily decide too much or too little.
EDGES = [
    ("C2", UNCLEAR, "of two learning rates one fits", lambda: made.fig2ab(
        lr=RATES[:2], min_train_error=lambda r: 0.5 * (r["lr"] == RATES[1]))),
    ("C3", UNCLEAR, "no L2 that both seeds have", lambda: straggler(0.2)),
    ("C7", UNCLEAR, "a coarse grid at one budget", lambda: made.prediction(left_out=(10.0, made.GRID[1]))),
    ("C1", UNCLEAR, "two decades only with a bound", lambda: made.fig2ab(
        l2=[1e-4, *L2[2:]], spread=0.1, censored=lambda r: r["l2"] == 1e-4)),
    ("C2", UNCLEAR, "less than two decades", lambda: made.fig2ab(l2=made.L2_SHORT, lr=RATES, spread=0.1)),
    ("C2", UNCLEAR, "learning rates over a factor of two", lambda: made.fig2ab(lr=(0.1, 0.2), spread=0.02)),
    ("C4", UNCLEAR, "two seeds with the same gain", lambda: made.fig2f((0.95, 0.953, 0.95))),
    ("C7", UNCLEAR, "the best L2 at the edge of the grid", lambda: made.prediction(
        at_l2=0.04, l2=(0.02, 0.04), accuracy=(0.9, 0.98))),
    ("C8", NO, "beyond ten times, at the edge of the grid", lambda: made.prediction(
        at_l2=0.002, accuracy=(0.9, 0.92, 0.95, 0.98))),
    ("C8", UNCLEAR, "one seed", lambda: made.prediction(at_l2=0.04, seeds=1)),
    ("C8", UNCLEAR, "the centre is near, not all that is near the best", lambda: made.prediction(
        at_l2=0.02, l2=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64), accuracy=(0.9, *(0.98,) * 5, 0.9), scatter=0.0)),
    ("C9", NOT_RUN, "another net and other units", lambda: made.measured_c(0.64, name="quick", l2=(0.02, 0.08))),
    ("C9", UNCLEAR, "one seed of three without a peak", lambda: made.measured_c(0.64, rises=lambda seed: seed < 2)),
    ("C9", UNCLEAR, "one seed", lambda: made.measured_c(0.64, seeds=1)),
    ("O1", YES, "C at a larger L2 than the one that predicts", lambda: made.measured_c(
        0.64, l2=(0.001, 0.002, 0.1), small=lambda r: np.where(r["l2"] < 0.1, 1.3, 39.0))),
    ("O1", NO, "another C at small L2, two epochs that do not fit", lambda: made.measured_c(
        0.64, small=3.9, error=0.5)),
    ("C11", YES, "both L2 and both accuracies", made.paper_accuracies),
    ("C11", NO, "three points less", lambda: made.paper_accuracies(predicted=0.93)),
    ("C11", NO, "twice the L2 of the paper", lambda: made.paper_accuracies(l2=2e-4)),
    ("C11", NO, "the tuned L2 is the predicted one", lambda: made.paper_accuracies(grid=(2e-5, 1e-4, 2e-4))),
    ("C11", UNCLEAR, "tuned at the edge of the grid", lambda: made.paper_accuracies(grid=(1e-4, 2e-4, 5e-4), best=2)),
    ("C11", UNCLEAR, "seeds of c that scatter", lambda: made.paper_accuracies(c_spread=2.0)),
    ("C11", UNCLEAR, "one seed", lambda: made.paper_accuracies(seeds=1)),
    ("C11", UNCLEAR, "seeds that scatter", lambda: made.paper_accuracies(scatter=0.01)),
    ("C16", UNCLEAR, "nothing trains", lambda: made.initialized(0.1, 0.1, 0.1)),
    ("C14", NO, "another power everywhere", lambda: infinite(law=-0.5)),
    ("C14", NO, "near −1 over a decade of the range only", lambda: infinite(law=-1.2, bend=-0.12)),
    ("C14", UNCLEAR, "where little is learned only", lambda: infinite(half=5e-4)),
    ("C14", UNCLEAR, "the smallest eigenvalue is large", lambda: infinite(smallest=0.01)),
    ("C14", UNCLEAR, "a table of an earlier version", lambda: infinite(loss_share=None)),
    ("C15", UNCLEAR, "ends before the smallest loss", lambda: finite(until=20)),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "verdict", "build"), made.cases(THEORY))
def test_verdicts(claim, verdict, build):
    assert verdict_of(parts_of(claim, build())) == verdict


@pytest.mark.parametrize(("claim", "verdict", "build"), made.cases(EDGES))
def test_verdicts_at_the_edges(claim, verdict, build):
    assert verdict_of(parts_of(claim, build())) == verdict


def test_c3_one_l2_that_both_seeds_have_is_no_plateau():
    assert {part.verdict for part in parts_of("C3", straggler(L2[6]))} == {UNCLEAR, NOT_RUN}


@pytest.mark.parametrize(
    ("claim", "build"),
    [
        ("C4", lambda: made.fig2c(0.97, scatter=0.0)),
        ("C5", lambda: made.setups(0.97, 0.97, 0.97, scatter=0.0)),
    ],
    ids=["C4", "C5"],
)
def test_no_gain_at_all_is_not_above_zero(claim, build):
    assert verdict_of(parts_of(claim, build())) != YES


@pytest.mark.parametrize("scale", sorted(path.name for path in (shipped_folder() / "theory").iterdir()))
def test_shipped_curves_of_an_earlier_version_decide_nothing(scale):
    """They have neither the smallest losses nor the runs' own theories, and are read all the same."""
    curves = {name: pd.read_csv(shipped_folder() / "theory" / scale / f"{name}.csv") for name in ("kernel", "spectrum")}
    evidence = Evidence(scale, made.scale(scale), finite().summaries, curves, finite().records)
    verdicts = [part.verdict for claim in ("C14", "C15") for part in parts_of(claim, evidence)]
    assert set(verdicts) <= {UNCLEAR, NOT_RUN} or "loss_share" in curves["spectrum"]


class Noted(dict):
    """A criterion that notes what is read of it."""

    def __init__(self, *of):
        super().__init__(*of)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)


def test_every_number_of_a_criterion_is_read():
    everything = (*made.MEASURED, *THEORY, *EDGES)
    for claim in made.claims_of_the_paper():
        noted = Noted({**claim.paper, **claim.criterion})
        for build in (b for name, verdict, _, b in everything if name == claim.id and verdict == YES):
            made.JUDGES[claim.id](build(), noted)
        assert set(claim.criterion) <= noted.read, claim.id


def test_every_claim_can_go_each_way():
    shown = {(claim, verdict) for claim, verdict, _, _ in (*made.MEASURED, *THEORY, *EDGES)}
    assert shown >= set(itertools.product(IDS, (YES, NO, UNCLEAR)))


def interval(part: Part):
    return part.estimate, part.low, part.high


def around(mean, stderr, free, beyond=0.05):
    half = stats.t.ppf(1 - beyond, free) * stderr
    return pytest.approx((mean, mean - half, mean + half), abs=1e-9)


def paired(a, b):
    found = stats.ttest_rel(a, b).confidence_interval(0.9)
    return pytest.approx((np.mean(a) - np.mean(b), found.low, found.high), abs=1e-9)


def accuracies(evidence, name, **where):
    rows = evidence.runs(name)
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.sort_values("seed")["max_test_accuracy"].to_numpy()


def test_c1_is_scipys_regression():
    evidence = made.fig2ab(spread=0.3, seeds=2)
    rows, part = evidence.runs("fig2ab"), parts_of("C1", evidence)[0]
    known = stats.linregress(np.log(rows["l2"]), np.log(rows["t_star"]))
    assert interval(part) == around(known.slope, known.stderr, len(rows) - 2)
    assert (part.seeds, part.run_ids) == (2, tuple(rows["run_id"]))


def test_c1_has_a_constant_for_each_learning_rate():
    """The slope within learning rates, each centred."""
    evidence = made.fig2ab(lr=RATES, spread=0.3, t_star=lambda r: r["t_star"] * r["lr"] ** 3)
    logs = np.log(evidence.runs("fig2ab")[["lr", "l2", "t_star"]])
    x, y = (logs[c] - logs.groupby("lr")[c].transform("mean") for c in ("l2", "t_star"))
    slope, free = (x @ y) / (x @ x), len(x) - len(RATES) - 1
    stderr = math.sqrt(((y - slope * x) ** 2).sum() / free / (x @ x))
    assert interval(parts_of("C1", evidence)[0]) == around(slope, stderr, free)


def test_c1_takes_a_run_that_is_cut_as_a_bound():
    """Runs at the smallest λ end long before their peak: bounds say nothing there, peaks would bend the law."""
    cut = {"t_star": lambda r: r["t_star"].where(r["l2"] > L2[0], 10.0), "spread": 0.1}
    bound, peak = (
        parts_of("C1", made.fig2ab(censored=lambda r, c=c: (r["l2"] == L2[0]) & c, **cut))[0] for c in (True, False)
    )
    others = parts_of("C1", made.fig2ab(l2=L2[1:], spread=0.1))[0]
    assert bound.estimate == pytest.approx(others.estimate, abs=0.05)
    assert peak.estimate > -0.6
    assert "3 of them lower bounds" in bound.why


def test_c2_is_least_squares():
    evidence = made.fig2ab(lr=RATES, spread=0.3)
    rows, parts = evidence.runs("fig2ab"), parts_of("C2", evidence)
    design, y = np.column_stack([np.ones(len(rows)), np.log(rows["l2"]), np.log(rows["lr"])]), np.log(rows["t_star"])
    found, (squares,) = np.linalg.lstsq(design, y, rcond=None)[:2]
    error = np.sqrt(squares / (len(rows) - 3) * np.diag(np.linalg.inv(design.T @ design)))
    for part, i in zip(parts[:2], (1, 2), strict=True):
        assert interval(part) == around(found[i], error[i], len(rows) - 3)
    pairs = len(RATES) * (len(RATES) - 1) / 2
    constants = (y + np.log(rows["l2"] * rows["lr"])).groupby(rows["lr"]).agg(["mean", "var", "size"])
    free = len(rows) - len(RATES)
    pooled = (constants["var"] * (constants["size"] - 1)).sum() / free * 2 / constants["size"].iloc[0]
    gap = constants["mean"].max() - constants["mean"].min()
    assert np.log(interval(parts[2])) == around(gap, math.sqrt(pooled), free, 0.05 / pairs)


def test_c3_has_the_interval_of_one_of_all_differences():
    evidence = made.fig2ab(accuracy=(0.95, 0.98, 0.97, 0.96, 0.94, 0.9, 0.8), scatter=0.004)
    small = [accuracies(evidence, "fig2ab", l2=l2) for l2 in L2[:3]]  # among which the best is
    gap, spread = np.mean(small[1]) - np.mean(small[0]), math.sqrt(np.mean([np.var(one, ddof=1) for one in small]))
    half = stats.studentized_range.ppf(0.9, len(L2), 6) * spread / math.sqrt(3)  # Tukey's, of all λ
    assert interval(parts_of("C3", evidence)[0]) == pytest.approx((gap, gap - half, gap + half), abs=1e-6)


def test_c16_has_the_interval_of_the_largest_of_all_differences():
    """Tukey's over three scales, Bonferroni's over two λ."""
    evidence = made.initialized(small=0.97, usual=0.965, large=0.96, scatter=0.004)
    names = ("figS-init", "figS-init-small", "figS-init-large")
    samples = {l2: [accuracies(evidence, name, l2=l2) for name in names] for l2 in (0.01, 0.02)}
    for part, groups in zip(parts_of("C16", evidence), samples.values(), strict=True):
        spread = math.sqrt(np.mean([np.var(one, ddof=1) for one in groups]))
        half = stats.studentized_range.ppf(0.95, 3, 6) * spread / math.sqrt(3)
        gap = max(one.mean() for one in groups) - min(one.mean() for one in groups)
        assert interval(part) == pytest.approx((gap, gap - half, gap + half), abs=1e-6)


def test_c4_and_c5_judge_a_seed_by_the_l2_that_is_best_on_the_others():
    evidence = made.setups((0.95, 0.97, 0.9701), scatter=0.003)
    small, large = (accuracies(evidence, "fig2ab", l2=l2) for l2 in (0.01, 0.02))
    chosen = [(large if np.delete(large, i).mean() > np.delete(small, i).mean() else small)[i] for i in range(3)]
    assert len({v in large for v in chosen}) == 2, "the seeds choose differently"
    mean, low, high = paired(chosen, accuracies(evidence, "fig2ab", l2=0)).expected
    assert f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" in parts_of("C5", evidence)[0].why
    evidence = made.fig2c((0.95, 0.99, 0.96), scatter=0.003)
    best, nearer = (accuracies(evidence, "fig2c", l2=l2) for l2 in (0.02, 0.04))
    assert interval(parts_of("C4", evidence)[0]) == paired(best, nearer)


def test_c6_has_an_interval_over_seeds_or_that_of_two_test_sets():
    part = parts_of("C6", made.by_rate(0.99, 0.98, scatter=0.004))[0]
    grid = len(made.L2)  # two means of three seeds at each λ, one variance, Bonferroni over the λ
    known = stats.t.ppf(1 - 0.1 / grid / 2, 4 * grid) * 0.004 / math.sqrt(3) * math.sqrt(2)
    assert interval(part) == pytest.approx((0.01, 0.01 - known, 0.01 + known), abs=1e-5)
    part = parts_of("C6", made.by_rate(0.99, 0.98, seeds=1))[0]
    images = made.scale("quick").experiments["fig2ab"].data.test_samples
    half = stats.norm.ppf(0.95) * math.sqrt((0.99 * 0.01 + 0.98 * 0.02) / images)
    assert interval(part) == pytest.approx((0.01, 0.01 - half, 0.01 + half), abs=1e-5)


def test_c7_pairs_seeds():
    evidence = made.prediction(scatter=0.003)
    tuned = accuracies(evidence, "fig1b-tuned", l2=0.08, horizon_epochs=10.0)
    predicted = accuracies(evidence, "fig1b-predicted", horizon_epochs=10.0)
    *gaps, budgets, cost = parts_of("C7", evidence)
    assert [part.name for part in gaps] == ["10 epochs", "100 epochs"]
    assert interval(gaps[0]) == paired(tuned, predicted)
    assert (budgets.estimate, cost.estimate) == pytest.approx((1.0, 0.2))


def test_c8_takes_the_geometric_centre():
    part = parts_of("C8", made.prediction(at_l2=0.02, accuracy=(0.9, 0.98, 0.98, 0.9), scatter=0.0))[0]
    assert interval(part) == pytest.approx((math.sqrt(2 * 4), 2, 4))


@pytest.mark.parametrize("behind", [0.0, 0.02, 0.05])
def test_c8_reaches_as_far_as_the_best_may_lie(behind):
    """The λ on either side of the best belong to the interval where they may be within the margin of it."""
    grid, levels = (0.01, 0.02, 0.04, 0.08, 0.16), (0.9, 0.98 - behind, 0.985, 0.984 - behind, 0.9)
    evidence = made.prediction(at_l2=0.04, l2=grid, accuracy=levels, scatter=0.008)
    table = {l2: accuracies(evidence, "fig1b-tuned", l2=l2, horizon_epochs=10.0) for l2 in grid}
    best = max(grid, key=lambda l2: table[l2].mean())
    lost = {l2: table[best] - table[l2] for l2 in grid if l2 != best}
    spread = math.sqrt(sum(np.var(d, ddof=1) for d in lost.values()) / len(lost))  # one variance for all differences
    half = stats.t.ppf(1 - 0.05 / len(lost), 2 * len(lost)) * spread / math.sqrt(3)
    possible = sorted([best, *(l2 for l2 in lost if lost[l2].mean() - half <= 0.001)])
    part = parts_of("C8", evidence)[0]
    assert (part.low, part.high) == pytest.approx((possible[0] / 0.04, possible[-1] / 0.04))


def test_c9_is_no_more_certain_than_an_evaluation_step():
    """C = η·S·λ·t/(1−μ) at the same evaluation in all seeds."""
    part = parts_of("C9", made.measured_c(0.64, jitter=0.0))[0]
    t = part.estimate / (0.02 * 48 * 0.2 / (1 - 0.9))
    assert t == pytest.approx(round(t / 0.04) * 0.04)
    assert 0.64 <= t <= 0.72
    assert (part.low, part.high) == pytest.approx((part.estimate * (t - 0.04) / t, part.estimate * t / (t - 0.04)))


def test_c12_and_c13_pair_seeds():
    faster, better = parts_of("C12", evidence := made.against_tuned())
    ratio = stats.ttest_1samp(np.log(np.divide((40, 42, 44), 80)), 0).confidence_interval(0.9)
    assert (faster.low, faster.high) == pytest.approx((math.exp(ratio.low), math.exp(ratio.high)))
    tuned = accuracies(evidence, "fig1b-tuned", l2=0.04)
    assert interval(better) == paired(accuracies(evidence, "fig1c-auto"), tuned)
    evidence = made.with_schedule(-0.005, scatter=0.01)
    tuned = accuracies(evidence, "fig1a-fixed", l2=0.04)
    assert interval(parts_of("C13", evidence)[0]) == paired(accuracies(evidence, "figS-autol2-lr"), tuned)


def test_c13_tunes_on_the_other_seeds_by_the_last_accuracy():
    """Each seed likes another λ, and by best accuracy the largest is best."""
    evidence = made.with_schedule(-0.005)
    grid = evidence.summaries["fig1a-fixed"]
    likes = grid["seed"].map({0: 0.02, 1: 0.04, 2: 0.08}) == grid["l2"]
    grid["final_test_accuracy"] = np.where(likes, 0.97, 0.94) - 0.01 * grid["l2"] + 0.001 * grid["seed"] ** 2
    grid["max_test_accuracy"] = 0.97 + 0.1 * grid["l2"]
    by_others = grid[grid["seed"].map({0: 0.04, 1: 0.02, 2: 0.02}) == grid["l2"]]
    part, auto = parts_of("C13", evidence)[0], evidence.runs("figS-autol2-lr")
    assert interval(part) == paired(auto["final_test_accuracy"].to_numpy(), by_others["final_test_accuracy"].to_numpy())
    assert set(part.run_ids) == {*auto["run_id"], *by_others["run_id"]}


def test_c12_a_run_that_never_gets_there_is_a_bound():
    """It moves the ratio up; leaving it out would not."""
    counted, dropped = (
        parts_of("C12", made.against_tuned(reached))[0] for reached in ((20, 40, 80, None), (20, 40, 80))
    )
    assert counted.why.startswith("1 of 4 seeds never reach it")
    assert counted.estimate > 1.2 * dropped.estimate
    assert counted.low > dropped.low
    assert counted.high > dropped.high


def test_c11_reports_the_gap():
    """Tuned less predicted accuracy, with its interval."""
    parts = parts_of("C11", made.paper_accuracies(scatter=0.0))
    assert any(abs(part.estimate) == pytest.approx(0.007) and part.low <= part.high for part in parts)


def test_c15_and_c20_are_means_over_seeds():
    deviation = parts_of("C15", finite())[0]
    known = stats.ttest_1samp([0.01, 0.012, 0.014], 0).confidence_interval(0.9)
    assert interval(deviation) == pytest.approx((0.012, known.low, known.high), abs=1e-4)
    known = stats.ttest_1samp([1.0, 1.01, 1.02], 0).confidence_interval(0.9)
    assert interval(parts_of("C20", kernels(1.0))[0]) == pytest.approx((1.01, known.low, known.high))
