"""Where measured λ become runs: which, up to which budgets, trained and measured by whom."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.config.loading import load_scale
from l2dyn.config.scale import ScaleConfig
from l2dyn.runs.l2_selection import L2Selection, selection_path, write_l2_selection
from l2dyn.runs.plan import Plan, planned

SETUP = {
    "shows": "x",
    "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
    "lr": [0.1],
}
SOURCE = SETUP | {"l2": [0.01], "horizon": {"epochs": 100}}
GUESS = SETUP | {"l2": {"predicted_from": "source"}, "horizon": {"budgets": [10, 40]}}
GRID = SETUP | {"l2": [0.01, 0.02, 0.04], "seeds": [0, 1], "horizon": {"epochs": 50}, "slices": 3}


def scale(source=None, guess=None, **others) -> dict:
    """Two experiments, `source` and `guess`, and further ones."""
    both = {"source": SOURCE | (source or {}), "guess": GUESS | (guess or {})}
    return {"about": "x", "device": "cpu", "figures": {}, "experiments": both | others}


def plan(values: dict, **selections: dict) -> Plan:
    """selections: {(learning rate, budget): λ} of an experiment."""
    made = {name: L2Selection(found) for name, found in selections.items()}
    return Plan("tiny", ScaleConfig.model_validate(values), made)


def make(found: dict, reason="", experiment="guess"):
    write_l2_selection(selection_path("tiny", experiment), L2Selection(found, reason))


def test_pending_made_and_unresolved(write_scale):
    write_scale(scale(second=GUESS))

    def now() -> Plan:
        return planned("tiny", load_scale("tiny"))

    assert now().pending == ["guess", "second"]
    for name in now().pending:
        assert now().experiments[name] == now().tasks(name) == now().slices(name) == []
    make({(0.1, 10.0): 0.02, (0.1, 40.0): 0.03}, experiment="second")
    assert now().pending == ["guess"]
    assert [(run.spec.l2, run.steps) for run in now().experiments["second"]] == [(0.02, 10), (0.03, 40)]
    make({}, "no peak")
    assert now().pending == []
    assert now().experiments["guess"] == now().tasks("guess") == now().slices("guess") == []
    assert now().unresolved == {"guess": "no peak"}
    make({})  # without a reason it says nothing
    assert now().pending == ["guess"]


def test_a_file_of_a_listed_experiment_says_nothing(write_scale):
    write_scale(scale())
    make({(0.1, 100.0): 0.5}, experiment="source")
    selection_path("tiny", "source").write_text("damaged")
    assert [run.spec.l2 for run in planned("tiny", load_scale("tiny")).experiments["source"]] == [0.01]
    assert [run.spec.l2 for run in plan(scale(), source={(0.1, 100): 0.5}).experiments["source"]] == [0.01]


def test_budgets_that_were_changed_after_the_measurement(write_scale):
    """One that is gone says nothing; for one that came the λ is as unknown as before."""
    make_at = {(0.1, 10.0): 0.04, (0.1, 20.0): 0.02, (0.1, 40.0): 0.01}
    write_scale(scale(guess={"horizon": {"budgets": [20, 40]}}))
    make(make_at)
    values = planned("tiny", load_scale("tiny"))
    assert values.pending == []
    assert [(run.spec.l2, run.steps) for run in values.experiments["guess"]] == [(0.02, 20), (0.01, 40)]
    for changed in ({"horizon": {"budgets": [20, 80]}}, {"horizon": {"epochs": 30}}, {"lr": [0.1, 0.2]}):
        write_scale(scale(source={"lr": [0.1, 0.2]}, guess=changed))
        assert planned("tiny", load_scale("tiny")).pending == ["guess"]


def test_the_grid_of_an_l2_selection():
    guess = {"lr": [0.1, 0.2], "seeds": [0, 3], "horizon": {"budgets": [40, 10]}, "batch": 16}
    found = {(lr, T): round(lr / T, 6) for lr in (0.1, 0.2) for T in (10, 40)}
    runs = plan(scale({"lr": [0.2, 0.1], "batch": 16}, guess), guess=found).experiments["guess"]
    assert [(r.steps, r.spec.lr, r.spec.l2, r.spec.init_seed, r.spec.order_seed, r.capped) for r in runs] == [
        (4 * T, lr, found[lr, T], seed, seed, False) for T in (10, 40) for lr in (0.1, 0.2) for seed in (0, 3)
    ]


def test_budgets_of_a_listed_grid_are_trained_once():
    values = plan(scale(source=GRID | {"horizon": {"budgets": [20, 5, 10]}}))
    runs, tasks = values.experiments["source"], values.tasks("source")
    assert [run.steps for run in runs] == [T for T in (5, 10, 20) for _ in range(6)]
    assert len(tasks) == len({run.run_id for run in runs}) == 6
    assert {(task.steps, task.budgets) for task in tasks} == {(20, (5, 10, 20))}
    assert all({5, 10, 20} <= set(task.evaluations()) for task in tasks)
    alone = plan(scale(source=GRID | {"horizon": {"epochs": 20}}))
    assert {t.run_id for t in alone.tasks("source")} == {t.run_id for t in tasks}


def test_a_schedule_makes_another_run_of_each_budget():
    schedule = {"batch": 16, "lr_schedule": {"at": [0.25, 0.5]}, "horizon": {"budgets": [8, 16]}}
    tasks = plan(scale(source=schedule, guess=schedule | {"l2": {"tuned_from": "source"}})).tasks("source")
    assert [(task.steps, task.spec.lr_decay_epochs, task.budgets) for task in tasks] == [
        (32, (2, 4), (32,)),
        (64, (4, 8), (64,)),
    ]


@pytest.mark.parametrize(
    "horizon",
    [
        {"budgets": [8, 16, 32], "cap_epochs": 16},
        {"budgets": [8, 16, 32], "t_lr": 1},
        {"budgets": [8, 16, 32], "epochs_without_l2": 64},
        {"budgets": [8, 8.2]},
    ],
    ids=str,
)
def test_no_run_counts_twice_at_one_budget(horizon):
    """Two equal rows would count as two seeds."""
    runs = plan(scale({"l2": [0, 0.01], "horizon": horizon}, {"horizon": {"epochs": 5}})).experiments["source"]
    rows = [(run.run_id, run.steps) for run in runs]
    assert sorted(set(rows)) == sorted(rows)


def test_a_run_that_is_listed_too_is_measured_wherever_either_one_is():
    """A longer record takes the listed one's place in the cache, and answers for it: same grid, every budget."""
    grid = GRID | {"horizon": {"budgets": [37, 47]}, "evaluation": {"every_epochs": 7}}
    values = scale(grid=grid, guess={"horizon": {"budgets": [41, 80]}, "seeds": [0, 2]})
    full = plan(values, guess={(0.1, 41): 0.02, (0.1, 80): 0.02})
    longer, new = full.tasks("guess")
    (listed,) = (task for task in full.tasks("grid") if task.run_id == longer.run_id)
    assert (listed.steps, listed.budgets) == (47, (37, 47))
    assert (longer.steps, longer.budgets, new.budgets) == (80, (37, 41, 47, 80), (41, 80))
    assert longer.grid == listed.grid != new.grid
    assert set(listed.evaluations()) < set(longer.evaluations())
    assert [run.steps for run in full.experiments["guess"]] == [41, 41, 80, 80]  # declared
    assert full.owners("guess", [longer.run_id]) == ["guess"]
    assert full.owners("grid", [longer.run_id]) == [full.listed_owner(longer.run_id)] == ["grid"]
    assert full.listed_owner(new.run_id) is None


BUDGETS = st.lists(st.sampled_from([10, 30, 50, 80, 200]), min_size=1, max_size=3, unique=True)


@given(data=st.data(), slices=st.integers(1, 4), first=st.booleans())
@settings(max_examples=25)
def test_what_is_listed_never_depends_on_what_was_measured(data, slices, first):
    """And what is measured is trained for long enough in slices of its own, each run once, wherever it stands."""
    listed = {name: value | {"slices": slices} for name, value in {"source": SOURCE, "grid": GRID}.items()}
    selected, found = {}, {}
    for name in ("guess", "second"):
        budgets, seeds = data.draw(BUDGETS), data.draw(st.sampled_from([[0], [1], [0, 1, 2]]))
        selected[name] = GUESS | {"horizon": {"budgets": budgets}, "seeds": seeds, "slices": slices}
        if data.draw(st.integers(0, 4)):
            found[name] = {(0.1, float(T)): data.draw(st.sampled_from([0.01, 0.02, 0.04, 0.05])) for T in budgets}
    without = plan(scale() | {"experiments": listed})
    full = plan(scale() | {"experiments": selected | listed if first else listed | selected}, **found)
    for name in listed:
        assert [s.name for s in full.slices(name)] == [s.name for s in without.slices(name)]
        assert (full.key(name), full.tasks(name)) == (without.key(name), without.tasks(name))
    for name in selected:
        runs, tasks = full.experiments[name], {task.run_id: task for task in full.tasks(name)}
        in_slices = [task for part in full.slices(name) for task in part.tasks]
        assert sorted(task.run_id for task in in_slices) == sorted(tasks) == sorted({run.run_id for run in runs})
        assert all(run.steps in tasks[run.run_id].budgets for run in runs)
        assert all(task.steps == max(task.budgets) for task in in_slices)


def test_what_a_pending_experiment_will_cost():
    guess = {"lr": [0.1, 0.2], "seeds": [0, 1, 2], "horizon": {"budgets": [10, 40]}, "batch": 16}
    tasks = plan(scale({"lr": [0.1, 0.2], "batch": 16}, guess)).provisional("guess")
    assert sorted(task.steps for task in tasks) == [40] * 6 + [160] * 6
    assert len({task.run_id for task in tasks}) == 12
    tasks = plan(scale({"batch": 16}, {"batch": 16, "lr_schedule": {"at": [0.5]}})).provisional("guess")
    assert [(task.steps, task.spec.lr_decay_epochs) for task in tasks] == [(40, (5,)), (160, (20,))]
