"""Claims where runs lack, have diverged or show no effect at all, and what is refused."""

import numpy as np
import pytest

from l2dyn.claims.evidence import by_seed
from l2dyn.claims.verdicts import INCONCLUSIVE as UNCLEAR
from l2dyn.claims.verdicts import NOT_REPRODUCED as NO
from l2dyn.claims.verdicts import REPRODUCED as YES
from l2dyn.errors import UserError
from l2dyn.measures.peaks import peak
from l2dyn.tables.claims import verdict_of
from l2dyn.tests import test_claims as made
from l2dyn.tests import test_claims_theory as theory
from l2dyn.tests.test_claims import of, parts_of, runs

DECIDED = {  # a case of each claim that is decided
    claim: build for claim, verdict, _, build in (*made.MEASURED, *theory.THEORY, *theory.EDGES) if verdict == YES
}
WITHOUT_RUNS = ("C14",)
OTHERS_TOO = ("C9", "O1")  # also judged on runs beside the first experiment's


@pytest.mark.parametrize("status", ["missing", "short"])
@pytest.mark.parametrize("claim", [claim for claim in made.IDS if claim not in WITHOUT_RUNS])
def test_a_run_that_lacks_leaves_nothing_decided(claim, status):
    """One run of every experiment is cut off; every part that rests on one says how many."""
    evidence = DECIDED[claim]()
    for rows in evidence.summaries.values():
        rows.loc[rows.index[-1], "status"] = status
    parts = parts_of(claim, evidence)
    assert verdict_of(parts) == UNCLEAR
    assert any(" are missing or short" in part.why for part in parts)


@pytest.mark.parametrize("claim", ["C12", "C15", "C19", "C20"])
def test_a_curve_that_lacks_leaves_nothing_decided(claim):
    evidence = DECIDED[claim]()
    for ids in [list(rows["run_id"]) for rows in evidence.summaries.values()]:
        evidence.records.pop(ids[0], None)
    parts = parts_of(claim, evidence)
    assert verdict_of(parts) == UNCLEAR
    assert any("curves of 1 of" in part.why for part in parts)


def test_a_seed_of_the_configuration_that_no_summary_has_lacks():
    evidence = made.fig2c((0.95, 0.99, 0.95))
    table = evidence.summaries["fig2c"]
    evidence.summaries["fig2c"] = table[table["seed"] < 2]
    part = parts_of("C4", evidence)[0]
    assert (part.verdict, part.seeds) == (UNCLEAR, 2)
    assert "3 of 9 runs of fig2c are missing or short" in part.why


def diverged(evidence, experiment, which):
    """Some runs of an experiment end early, at an accuracy that was the best of all."""
    rows = evidence.summaries[experiment]
    chosen = which(rows)
    rows.loc[chosen, "status"] = "diverged"
    rows.loc[chosen, ["max_test_accuracy", "final_test_accuracy"]] = 0.999
    return evidence


def test_c7_every_predicted_run_of_a_budget_diverged():
    evidence = diverged(made.prediction(), "fig1b-predicted", lambda rows: rows["horizon_epochs"] == 100)
    short, long = parts_of("C7", evidence)[:2]
    assert (short.verdict, long.verdict) == (YES, NO)
    assert "3 runs of fig1b-predicted diverged" in long.why


def test_c12_auto_l2_diverged_at_a_seed():
    evidence = diverged(made.against_tuned(), "fig1c-auto", lambda rows: rows["seed"] == 2)
    faster, better = parts_of("C12", evidence)
    assert (better.verdict, better.seeds, faster.seeds) == (UNCLEAR, 3, 3)
    assert "1 of 3 seeds never reach it" in faster.why
    assert better.estimate == pytest.approx((2 * 0.01 + 0.1 - 0.95) / 3, abs=0.01)


def test_c13_an_l2_that_diverged_at_one_seed_is_not_the_tuned_one():
    """At its two other seeds it is the best of the grid."""
    evidence = made.with_schedule(-0.005)
    grid = evidence.summaries["fig1a-fixed"]
    grid.loc[grid["l2"] == 0.08, "final_test_accuracy"] = 0.96
    diverged(evidence, "fig1a-fixed", lambda rows: (rows["l2"] == 0.08) & (rows["seed"] == 2))
    part = parts_of("C13", evidence)[0]
    chosen = [run_id for run_id in part.run_ids if run_id.startswith("fig1a-fixed")]
    assert chosen == ["fig1a-fixed/0.1/0.04/0", "fig1a-fixed/0.1/0.04/1", "fig1a-fixed/0.1/0.08/2"]


def test_c4_the_best_l2_diverged_at_a_seed():
    evidence = diverged(made.fig2c((0.95, 0.99, 0.95)), "fig2c", lambda r: (r["l2"] == 0.02) & (r["seed"] == 0))
    assert parts_of("C4", evidence)[0].verdict == UNCLEAR


def test_c13_one_seed_of_the_grid_tunes_nothing():
    evidence = made.with_schedule(-0.005)
    grid = evidence.summaries["fig1a-fixed"]
    evidence = of({"figS-autol2-lr": evidence.summaries["figS-autol2-lr"], "fig1a-fixed": grid[grid["seed"] == 0]})
    part = parts_of("C13", evidence)[0]
    assert part.verdict == UNCLEAR
    assert "fig1a-fixed has 1 seeds" in part.why


def test_c12_a_fixed_l2_is_no_tuned_one():
    """The paper scale has the authors' λ instead of a grid."""
    pair = {"fig1c-auto": runs((0.1,), 0.96), "fig1c-tuned": runs((1e-4,), 0.95)}
    parts = parts_of("C12", of(pair, name="paper"))
    assert {part.verdict for part in parts} == {UNCLEAR}
    assert "1 λ" in parts[0].why


def test_several_learning_rates_or_horizons_are_not_averaged():
    rows = made.fig2c((0.95, 0.99, 0.95), lr=(0.1, 0.3)).runs("fig2c")
    with pytest.raises(UserError, match=r"experiments.fig2c: .* single learning rate, not at lr \[0.1, 0.3\]"):
        by_seed(rows)
    with pytest.raises(UserError, match=r"experiments.fig2c: .* single horizon, not at epochs \[100.0\]"):
        by_seed(rows.assign(lr=0.1))


def peaks_anywhere(seed):
    """Runs whose peaks have nothing to do with λ: at any time, and cut at 2/(ηλ)."""
    draw, t = np.random.default_rng(seed), np.geomspace(0.01, 1, 40)
    rows, peaks = runs(made.L2, lr=made.RATES[:2], seeds=1), []
    for horizon in 2 / rows["lr"] / rows["l2"]:
        top = np.exp(draw.uniform(np.log(30), np.log(3e4)))
        peaks.append(peak(t * horizon, 0.9 - 0.02 * np.abs(np.log(t * horizon / top)), horizon))
    times = {"t_star": [one.t_star for one in peaks], "censored": [one.censored for one in peaks]}
    return of({"fig2ab": rows.assign(**times)})


def test_c1_without_any_law_is_hardly_ever_reproduced():
    verdicts = [parts_of("C1", peaks_anywhere(seed))[0].verdict for seed in range(20)]
    assert verdicts.count(YES) <= 1


def test_c13_without_any_difference_is_hardly_ever_reproduced():
    """All λ and AutoL2 alike, seeds that scatter by half a point: tuning must not flatter the constant λ."""
    draw, found = np.random.default_rng(1), []
    evidence = of({"figS-autol2-lr": runs((0.8,)), "fig1a-fixed": runs(made.GRID)})
    for _ in range(40):
        for rows in evidence.summaries.values():
            rows["final_test_accuracy"] = draw.normal(0.95, 0.005, len(rows))
        found += parts_of("C13", evidence)
    assert [part.verdict for part in found].count(YES) <= 3
    assert abs(np.mean([part.estimate for part in found])) < 0.0015
