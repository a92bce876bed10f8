"""What figures 1b and 4b plot against the budget, from the rows of summaries."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l2dyn.config.scale import ScaleConfig
from l2dyn.measures.best_l2 import tuned_l2
from l2dyn.plotting.budgets import by_budget, predicted_at_budgets, tuned_at_budgets
from l2dyn.runs.bundles import Bundles
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import write_records
from l2dyn.tables.l2_selection import select_l2
from l2dyn.tables.summary import summarize, write_summary

SPREAD = ["l2_low", "l2_high", "l2_centre", "at_edge", "l2_maybe_low", "l2_maybe_high"]


def rows(*listed, status="finished") -> pd.DataFrame:
    """Rows of a summary from (budget, λ, seed, accuracy[, status])."""
    table = [
        dict(zip(("horizon_epochs", "l2", "seed", "max_test_accuracy", "status"), one, strict=False)) for one in listed
    ]
    for one in table:
        one.setdefault("status", status)
        one["l2_torch"] = one["l2"]
        one["run_id"] = f"{one['l2']:g}/{one['seed']}"  # a longer run serves the shorter budget
    columns = ["run_id", "status", "l2", "l2_torch", "seed", "horizon_epochs", "max_test_accuracy"]
    return pd.DataFrame(table, columns=columns).astype({"horizon_epochs": float})


GRID = rows(
    (8, 0.01, 0, 0.50),
    (8, 0.01, 1, 0.54),
    (8, 0.02, 0, 0.60),
    (8, 0.02, 1, 0.50),
    (8, 0.04, 0, 0.70),
    (8, 0.04, 1, 0.38),
    (2, 0.01, 0, 0.20),
    (2, 0.01, 1, 0.20),
    (2, 0.02, 0, 0.30),
    (2, 0.02, 1, 0.30),
    (2, 0.04, 0, 0.32),
    (2, 0.04, 1, 0.34),
)


def test_by_hand():
    """Seeds are averaged before anything is compared: the best single run is not of the best λ."""
    table = tuned_at_budgets(GRID)
    assert table.index.name == "budget"
    assert table.index.tolist() == [2, 8]
    assert table["l2"].tolist() == [0.04, 0.02]
    assert table["accuracy"].tolist() == pytest.approx([0.33, 0.55])
    assert table["low"].tolist() == [0.32, 0.50]
    assert table["high"].tolist() == [0.34, 0.60]
    assert table["run_ids"].tolist() == ["0.04/0 0.04/1", "0.02/0 0.02/1"]
    assert table["at_edge"].tolist() == [True, False]
    assert table[["l2_low", "l2_high"]].to_numpy().tolist() == [[0.04, 0.04], [0.02, 0.02]]


def test_the_spread_of_nearly_equal_l2():
    grid = rows((5, 0.001, 0, 0.8), (5, 0.01, 0, 0.8995), (5, 0.1, 0, 0.9), (5, 1.0, 0, 0.5))
    (row,) = tuned_at_budgets(grid).itertuples()
    assert (row.l2, row.accuracy, row.at_edge) == (0.1, 0.9, False)
    assert (row.l2_low, row.l2_high) == (0.01, 0.1)
    assert row.l2_centre == pytest.approx(0.1**1.5)
    assert row.run_ids == "0.1/0"
    (row,) = tuned_at_budgets(grid[grid["l2"] < 0.5]).itertuples()
    assert row.at_edge
    (row,) = tuned_at_budgets(rows((5, 0.02, 0, 0.9), (5, 0.01, 0, 0.9), (5, 0.04, 0, 0.9))).itertuples()
    assert row.l2 == 0.01  # the smallest of equals


UNUSABLE = [
    (8, 0.0, 0, 0.99),
    (8, 0.16, 0, 0.99, "diverged"),
    (8, 0.16, 1, 0.99, "short"),
    (8, 0.02, 2, 0.99, "diverged"),
    (8, 0.01, 2, 0.99, "missing"),
    (8, 0.08, 0, np.nan, "missing"),
    (8, 0.08, 1, np.nan),
    (64, 0.02, 0, 0.99, "short"),
    (128, 0.0, 0, 0.99),
    (np.nan, np.nan, 0, np.nan, "missing"),
]


@pytest.mark.parametrize("function", [tuned_at_budgets, predicted_at_budgets])
def test_what_is_left_out(function):
    """λ = 0, what diverged, is too short or missing; a budget with nothing else has no row."""
    for good in (GRID, rows((8, 0.04, 0, 0.5))):
        for parts in ([rows(*UNUSABLE), good], [good, rows(*UNUSABLE)]):
            pd.testing.assert_frame_equal(function(pd.concat(parts, ignore_index=True)), function(good))


@given(
    table=st.dictionaries(
        st.tuples(st.sampled_from([2.0, 8.0, 32.0]), st.sampled_from([0.0, 0.01, 0.03, 0.1]), st.integers(0, 2)),
        st.tuples(st.integers(0, 16), st.sampled_from(["finished", "finished", "diverged", "short"])),
        min_size=1,
        max_size=25,
    ),
    data=st.data(),
)
@settings(max_examples=20)
@example(table={(2.0, 0.01, 0): (3, "diverged")}, data=None)
def test_tuned_against_brute_force(table, data):
    listed = [(*key, value / 32, status) for key, (value, status) in table.items()]
    grid = rows(*(data.draw(st.permutations(listed)) if data else listed))
    untouched = grid.copy()
    found = tuned_at_budgets(grid)
    pd.testing.assert_frame_equal(grid, untouched)
    kept = [one for one in listed if one[4] == "finished" and one[1] > 0]
    assert found.index.tolist() == sorted({one[0] for one in kept})
    for budget, row in found.iterrows():
        of_l2 = {}
        for _, l2, seed, accuracy, _ in (one for one in kept if one[0] == budget):
            of_l2.setdefault(l2, {})[f"{l2:g}/{seed}"] = Fraction(accuracy)
        means = {l2: sum(runs.values()) / len(runs) for l2, runs in of_l2.items()}
        best = min(l2 for l2, mean in means.items() if mean == max(means.values()))
        near = [l2 for l2, mean in means.items() if mean >= max(means.values()) - Fraction(1, 1000)]
        assert (row["l2"], row["l2_low"], row["l2_high"]) == (best, min(near), max(near))
        assert row["accuracy"] == pytest.approx(float(means[best]))
        assert (row["low"], row["high"]) == (min(of_l2[best].values()), max(of_l2[best].values()))
        assert set(row["run_ids"].split()) == set(of_l2[best])
        assert row["at_edge"] == (min(means) in near or max(means) in near)


@pytest.mark.parametrize("function", [tuned_at_budgets, predicted_at_budgets])
def test_one_learning_rate_at_a_time(function):
    """Which λ is best depends on it, so no mean over several means anything."""
    mixed = pd.concat([GRID.assign(lr=0.1), GRID.assign(lr=0.2)], ignore_index=True)
    with pytest.raises(ValueError, match="learning rate"):
        function(mixed)
    pd.testing.assert_frame_equal(function(mixed[mixed["lr"] == 0.2]), function(GRID))


def test_predicted_by_hand():
    table = predicted_at_budgets(rows((16, 0.004, 0, 0.7), (4, 0.016, 1, 0.4), (4, 0.016, 0, 0.6), (16, 0.004, 1, 0.8)))
    assert table.index.name == "budget"
    assert table.index.tolist() == [4, 16]
    assert table["l2"].tolist() == [0.016, 0.004]
    assert table["accuracy"].tolist() == pytest.approx([0.5, 0.75])
    assert table["low"].tolist() == [0.4, 0.7]
    assert table["high"].tolist() == [0.6, 0.8]
    assert table["run_ids"].tolist() == ["0.016/1 0.016/0", "0.004/0 0.004/1"]


def test_between_which_l2_the_best_may_lie():
    """At 2 epochs seeds agree that the smallest is worse; at 8 they differ; one seed tells nothing. Ends are open."""
    table = tuned_at_budgets(GRID)
    assert table[["l2_maybe_low", "l2_maybe_high"]].to_numpy().tolist() == [[0.02, math.inf], [0.0, math.inf]]
    one = tuned_at_budgets(GRID[GRID["seed"] == 0])
    assert one[["l2_maybe_low", "l2_maybe_high"]].to_numpy().tolist() == [[0.0, math.inf]] * 2
    assert tuned_at_budgets(GRID, image=0.2).loc[2, "l2_maybe_low"] == 0.0  # of five test images


def test_each_budget_says_how_many_seeds_it_has():
    assert tuned_at_budgets(GRID)["seeds"].tolist() == [2, 2]
    assert predicted_at_budgets(rows((4, 0.02, 0, 0.4), (8, 0.01, 0, 0.5), (8, 0.01, 1, 0.6)))["seeds"].tolist() == [
        1,
        2,
    ]


def test_both_for_the_budgets_that_have_both():
    tuned = tuned_at_budgets(GRID)
    predicted = predicted_at_budgets(rows((2, 0.035, 0, 0.3), (4, 0.02, 0, 0.4), (8, 0.01, 0, 0.52)))
    both = by_budget(tuned, predicted)
    assert both.index.tolist() == [2, 8]
    shared = [
        f"{name}_{kind}"
        for kind in ("tuned", "predicted")
        for name in ("l2", "l2_torch", "accuracy", "low", "high", "seeds", "run_ids")
    ]
    assert set(both.columns) == {*shared, *SPREAD}
    assert both["l2_tuned"].tolist() == [0.04, 0.02]
    assert both["l2_predicted"].tolist() == [0.035, 0.01]
    assert (both["accuracy_tuned"] - both["accuracy_predicted"]).tolist() == pytest.approx([0.03, 0.03])
    assert both["run_ids_predicted"].tolist() == ["0.035/0", "0.01/0"]
    assert by_budget(tuned.loc[[2]], predicted.loc[[4, 8]]).empty


PENDING = pd.DataFrame([{"run_id": np.nan, "status": "missing", "l2": np.nan, "horizon_epochs": np.nan}]).assign(
    max_test_accuracy=np.nan
)


@pytest.mark.parametrize("grid", [GRID, PENDING, GRID[GRID["l2"] > 1]], ids=["whole", "one missing row", "no row"])
@pytest.mark.parametrize("predicted", [rows((8, 0.01, 0, 0.5)), PENDING], ids=["whole", "one missing row"])
def test_nothing_to_plot_is_an_empty_table(grid, predicted):
    """With the columns that the figures ask for, so that they draw what there is."""
    tuned, guessed = tuned_at_budgets(grid), predicted_at_budgets(predicted)
    assert len(tuned) == (2 if grid is GRID else 0)
    assert len(guessed) == (0 if predicted is PENDING else 1)
    both = by_budget(tuned, guessed)
    assert len(both) == (1 if grid is GRID and predicted is not PENDING else 0)
    assert list(tuned.columns) == [*guessed.columns, *SPREAD]
    assert len(both["accuracy_tuned"] - both["accuracy_predicted"]) == len(both)
    assert {"l2_centre", "l2_predicted", "l2_tuned", "at_edge"} <= set(both.columns)


# --- from records to the tables -------------------------------------------------------------------

SETUP = {
    "shows": "x",
    "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
    "lr": [0.1],
    "horizon": {"budgets": [8, 32, 16]},
}
SCALE = {
    "about": "x",
    "figures": {},
    "experiments": {
        "peaked": SETUP | {"l2": [0.04], "horizon": {"epochs": 40}},
        "grid": SETUP | {"l2": [0, 0.01, 0.02, 0.04], "seeds": [0, 1]},
        "predicted": SETUP | {"l2": {"predicted_from": "peaked"}},
        "tuned": SETUP | {"l2": {"tuned_from": "grid"}},
    },
}


@pytest.fixture
def read(tmp_path):
    """An experiment's summary as a figure reads it: from a bundle to the written file."""

    def read(plan, experiment, records=()):
        bundle, path = tmp_path / "runs.parquet", tmp_path / f"{experiment}.csv"
        write_records(bundle, records)
        write_summary(path, summarize(plan, experiment, Bundles([bundle])))
        return pd.read_csv(path, dtype={"run_id": str, "censored": str, "capped": str})

    return read


def accuracies(task) -> np.ndarray:
    """The larger λ, the earlier and the lower the peak, at 0.4/λ epochs; then it falls."""
    t = np.arange(task.steps + 1)
    height = 0.9 - task.spec.l2 * 5 - 0.01 * task.spec.init_seed
    return np.clip(height - 0.02 * np.abs(t - 0.4 / max(task.spec.l2, 1e-3)), 0.0, 1.0)


def test_from_records(make_record, read):
    """Rows per budget, through the CSV; and the tuned λ of figure 1c is that of figure 1b."""
    config = ScaleConfig.model_validate(SCALE)
    plan, records = Plan("tiny", config), {}

    def train(plan, *names):
        for task in (task for name in names for task in plan.tasks(name)):
            records[task.run_id] = make_record(task.spec, steps=task.steps, test_accuracy=accuracies(task))

    train(plan, "peaked", "grid")
    selections = {name: select_l2(plan, name, records) for name in ("predicted", "tuned")}
    assert selections["predicted"].values == {(0.1, 8): 0.05, (0.1, 16): 0.025, (0.1, 32): 0.013}  # c = 0.04·10
    plan = Plan("tiny", config, selections)
    train(plan, "predicted")
    tuned = tuned_at_budgets(read(plan, "grid", records.values()))
    assert tuned.index.tolist() == [8, 16, 32]
    assert {(0.1, budget): l2 for budget, l2 in tuned["l2"].items()} == selections["tuned"].values
    for budget, row in tuned.iterrows():
        runs = [t for t in plan.tasks("grid") if t.spec.l2 > 0]
        best = {t.run_id: max(accuracies(t)[: int(budget) + 1]) for t in runs}
        assert row["l2"] == tuned_l2([t.spec.l2 for t in runs], list(best.values())).l2
        kept = [best[t.run_id] for t in runs if t.spec.l2 == row["l2"]]
        assert (row["low"], row["high"]) == (min(kept), max(kept))
        assert row["run_ids"].split() == [t.run_id for t in runs if t.spec.l2 == row["l2"]]
    predicted = predicted_at_budgets(read(plan, "predicted", records.values()))
    assert predicted["l2"].to_dict() == {8: 0.05, 16: 0.025, 32: 0.013}
    assert len(by_budget(tuned, predicted)) == 3


@pytest.mark.parametrize("selections", [{}, {"predicted": L2Selection({}, "no peak")}], ids=["pending", "unresolved"])
def test_an_l2_that_is_not_known(read, selections):
    """One missing row in the file, and nothing to plot."""
    plan = Plan("tiny", ScaleConfig.model_validate(SCALE), selections)
    table = read(plan, "predicted")
    assert len(table) == 1
    assert predicted_at_budgets(table).empty


def test_a_run_that_is_too_short_counts_at_the_budgets_it_reaches(make_record, read):
    plan, records = Plan("tiny", ScaleConfig.model_validate(SCALE)), []
    for task in plan.tasks("grid"):
        steps = 20 if task.spec.init_seed else task.steps
        records.append(make_record(task.spec, steps=steps, test_accuracy=accuracies(task)[: steps + 1]))
    tuned = tuned_at_budgets(read(plan, "grid", records))
    assert [len(ids.split()) for ids in tuned["run_ids"]] == [2, 2, 1]
