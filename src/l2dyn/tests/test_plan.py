"""From experiments to runs, owners, horizons and slices."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.errors import UserError
from l2dyn.runs import plan as plan_module
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import MAX_MEMBERS, stacks


def names(plan, experiment="first"):
    return [s.name for s in plan.slices(experiment)]


def test_the_grid_is_every_pair_with_every_seed(tiny, plan_of):
    tiny["experiments"]["budget"]["batch"] = 16
    plan = plan_of(tiny)
    budget = [(r.spec.lr, r.spec.l2, r.spec.init_seed, r.spec.order_seed) for r in plan.experiments["budget"]]
    assert budget == [(0.1, l2, s, s) for l2 in (0.01, 0.02, 0.04) for s in (0, 1)]
    assert {r.steps for r in plan.experiments["budget"]} == {200}
    first = {(r.spec.lr, r.spec.l2): r.steps for r in plan.experiments["first"]}
    assert first == {(0.1, 0): 1000, (0.1, 0.01): 2000, (0.1, 0.02): 1000} | {
        (0.5, 0): 200,
        (0.5, 0.01): 400,
        (0.5, 0.02): 200,
    }


def owners(plan, experiment):
    return plan.owners(experiment, [point.run_id for point in plan.experiments[experiment]])


def shared_ids(plan):
    return {r.run_id for r in plan.experiments["first"]} & {r.run_id for r in plan.experiments["budget"]}


@pytest.mark.parametrize("epochs", [50, 5000])
def test_the_first_experiment_owns_a_shared_run_at_the_longest_horizon(tiny, plan_of, epochs):
    tiny["experiments"]["budget"]["horizon"] = {"epochs": epochs}
    plan = plan_of(tiny)
    shared = shared_ids(plan)
    assert len(shared) == 2
    declared = {r.run_id: r.steps for r in plan.experiments["first"]}
    for experiment in ("first", "budget"):
        tasks = {t.run_id: t for t in plan.tasks(experiment)}
        for run_id in shared:
            assert owners(plan, "budget")[0] == "first"
            assert tasks[run_id].steps == max(declared[run_id], epochs)
            assert tasks[run_id].budgets == tuple(sorted({declared[run_id], epochs}))
            assert {declared[run_id], epochs} <= set(tasks[run_id].evaluations())
    assert shared.isdisjoint(t.run_id for t in plan.tasks("budget", owned_only=True))
    assert shared <= {t.run_id for t in plan.tasks("first", owned_only=True)}
    assert {r.steps for r in plan.experiments["budget"]} == {epochs}  # declared, not trained
    assert owners(plan, "budget") == ["first", "budget"]
    assert owners(plan, "first") == ["first"]


def test_an_experiment_that_owns_nothing_has_no_slices(tiny, plan_of):
    tiny["experiments"]["budget"] |= {"l2": [0.01, 0.02], "seeds": [0]}
    plan = plan_of(tiny)
    assert plan.slices("budget") == []
    assert owners(plan, "budget") == ["first"]
    assert len(plan.tasks("budget")) == 2


@settings(max_examples=25)
@given(count=st.integers(1, 60))
def test_slices_partition_the_runs(plan_of, count):
    plan = plan_of({**TINY_GRID, "experiments": {k: {**v, "slices": count} for k, v in EXPERIMENTS.items()}})
    for experiment in plan.experiments:
        owned = [t.run_id for t in plan.tasks(experiment, owned_only=True)]
        slices = plan.slices(experiment)
        assert sorted(t.run_id for s in slices for t in s.tasks) == sorted(owned)
        assert all(s.tasks for s in slices)
        assert len({s.name for s in slices}) == len(slices)
        assert all(s.count == count and 1 <= s.index <= count for s in slices)
        by_hand = [t.run_id for i in range(1, count + 1) for t in plan.slice(experiment, i, count).tasks]
        assert sorted(by_hand) == sorted(t.run_id for t in plan.tasks(experiment))


NET = {"kind": "fc", "hidden_layers": 1, "width": 4}
SAMPLES = {"name": "digits", "train_samples": 64, "test_samples": 100}
COMMON = {"shows": "x", "net": NET, "data": SAMPLES, "horizon": {"epochs": 10}}
EXPERIMENTS = {
    "a": {**COMMON, "lr": [0.1, 0.2, 0.3], "l2": [0, 0.01, 0.1], "seeds": [0, 1]},
    "b": {**COMMON, "lr": [0.3, 0.4], "l2": [0, 0.01, 0.2]},
}
TINY_GRID = {"about": "x", "figures": {}}


@settings(max_examples=25)
@given(
    count=st.integers(1, 12),
    l2=st.lists(st.integers(1, 100).map(lambda i: i / 100), min_size=1, max_size=6, unique=True),
    seeds=st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True),
)
def test_a_runs_slice_does_not_depend_on_the_others(plan_of, count, l2, seeds):
    def places(l2, seeds):
        plan = plan_of({**TINY_GRID, "experiments": {"a": {**EXPERIMENTS["a"], "l2": l2, "seeds": seeds}}})
        return {t.run_id: i for i in range(1, count + 1) for t in plan.slice("a", i, count).tasks}

    alone, grown = places(l2, seeds), places([0, *reversed(l2), 7.0], [99, *seeds])
    assert alone == {run_id: place for run_id, place in grown.items() if run_id in alone}


def test_slices_are_not_all_one(plan_of):
    plan = plan_of({**TINY_GRID, "experiments": {"a": {**EXPERIMENTS["a"], "seeds": list(range(20))}}})
    sizes = [len(plan.slice("a", i, 4).tasks) for i in range(1, 5)]
    assert sum(sizes) == 180
    assert min(sizes) > 20


@pytest.mark.parametrize(
    "change",
    [
        {"l2": [0, 0.01, 0.03]},
        {"seeds": [1]},
        {"optimizer": {"kind": "sgd", "momentum": 0.9}},
        {"precision": "float64"},
        {"horizon": {"t_lr_l2": 2.1, "t_lr": 110}},
        {"evaluation": {"ratio": 1.05}},
        {"evaluation": {"every_epoch_up_to": 3}},
        {"evaluation": {"every_epochs": 2}},
    ],
    ids=str,
)
def test_the_bundles_name_changes_with_what_is_trained(tiny, plan_of, change):
    tiny["experiments"] = {"first": tiny["experiments"]["first"] | {"slices": 1}}
    tiny |= {"figures": {}, "theory": {}}
    before = names(plan_of(tiny))
    tiny["experiments"]["first"] |= change
    assert set(before).isdisjoint(names(plan_of(tiny)))


def test_the_bundles_name_changes_with_the_numerics_version(tiny, plan_of, monkeypatch):
    before = names(plan_of(tiny))
    monkeypatch.setattr(plan_module, "NUMERICS_VERSION", plan_module.NUMERICS_VERSION + 1)
    assert set(before).isdisjoint(names(plan_of(tiny)))


def test_the_bundles_name_changes_with_a_longer_horizon_elsewhere(tiny, plan_of):
    tiny["experiments"]["first"]["slices"] = 1
    before = names(plan_of(tiny))
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 10_000}
    assert set(before).isdisjoint(names(plan_of(tiny)))


def test_the_bundles_name_changes_with_nothing_else(tiny, plan_of):
    before = names(plan_of(tiny))
    tiny |= {
        "about": "another text",
        "device": "cuda",
        "threads": 7,
        "runtime_minutes": 3,
        "train": False,
        "reuse": False,
        "data_dir": "/elsewhere",
        "figures": {},
        "theory": {},
    }
    tiny["experiments"]["first"] |= {"shows": "another caption", "batch": 0, "optimizer": {"kind": "sgd"}}
    tiny["experiments"]["first"]["horizon"] |= {"cap_epochs": 10_000}
    tiny["experiments"]["other"] = EXPERIMENTS["b"]
    assert names(plan_of(tiny)) == before
    assert all(re.fullmatch(r"[1-3]of3-[0-9a-f]{10}", name) for name in before)


def test_a_run_is_measured_on_the_grids_of_all_that_list_it(tiny, plan_of):
    """Else the maximum over evaluations would favour those that another experiment measures more often."""
    before = plan_of(tiny)
    shared = {point.run_id for point in before.experiments["budget"]} & {t.run_id for t in before.tasks("first")}
    tiny["experiments"]["budget"]["evaluation"] = {"every_epochs": 3}
    plan = plan_of(tiny)
    assert shared
    for task in plan.tasks("first"):
        own = tiny_grid(plan, "first").steps(task.steps, task.spec.steps_per_epoch, task.budgets)
        until = {p.steps for p in plan.experiments["budget"] if p.run_id == task.run_id}
        others = [tiny_grid(plan, "budget").steps(steps, task.spec.steps_per_epoch) for steps in until]
        assert task.evaluations() == sorted(set(own).union(*others))
        assert bool(others) == (task.run_id in shared)
    assert names(plan) != names(before)


def tiny_grid(plan, experiment):
    return plan.scale.experiments[experiment].evaluation


def test_growing_a_grid_leaves_the_slices_without_new_runs_alone(tiny, plan_of):
    tiny["experiments"]["first"]["slices"] = 16
    before = set(names(plan_of(tiny)))
    tiny["experiments"]["first"]["l2"].append(0.05)
    after = set(names(plan_of(tiny)))
    new = len(plan_of(tiny).tasks("first")) - 6
    assert new == 2
    assert 1 <= len(after - before) <= new


def test_capped_and_skipped_runs(tiny, plan_of):
    tiny["experiments"]["first"]["horizon"]["cap_epochs"] = 500
    runs = plan_of(tiny).experiments["first"]
    assert [(r.steps, r.capped) for r in runs] == [(500, True)] * 3 + [(200, False), (400, False), (200, False)]
    tiny["experiments"]["first"]["horizon"]["beyond_cap"] = "skip"
    assert [r.steps for r in plan_of(tiny).experiments["first"]] == [200, 400, 200]


def test_a_grid_that_is_skipped_whole(tiny, plan_of):
    tiny["experiments"]["first"]["horizon"] |= {"cap_epochs": 1, "beyond_cap": "skip"}
    with pytest.raises(UserError, match=r"config/tiny\.yaml: experiments\.first: .*cap_epochs"):
        plan_of(tiny)


@pytest.mark.parametrize("value", [1e-200, 1e-300])
def test_rates_too_small_for_a_number(tiny, plan_of, value):
    """Within the range of the configuration, yet η·λ underflows or t/(η·λ) overflows."""
    tiny["experiments"]["first"] |= {"lr": [value], "l2": [1e-20, value]}
    with pytest.raises(UserError, match=r"experiments\.first"):
        plan_of(tiny)


def test_an_unknown_experiment(tiny, plan_of):
    with pytest.raises(UserError, match=r"--experiment nope.*first, budget"):
        plan_of(tiny).slice("nope", 1, 1)


def test_the_summarys_key(tiny, plan_of):
    before = plan_of(tiny)
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 60}
    tiny["experiments"]["first"]["shows"] = "something else"
    after = plan_of(tiny)
    assert before.key("first") == after.key("first")
    assert before.key("budget") != after.key("budget")
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 70, "cap_epochs": 60}
    assert plan_of(tiny).key("budget") != after.key("budget")  # the same steps, now capped


def test_runs_that_can_share_a_stack(tiny, plan_of):
    tiny["experiments"]["first"]["horizon"] = {"epochs": 300}
    tiny["experiments"]["budget"] |= {"horizon": {"epochs": 300}, "l2": [0.04]}
    plan = plan_of(tiny)
    keys = {t.stack_key() for e in plan.experiments for t in plan.tasks(e)}
    assert len(keys) == 1
    momentum, wider = {"optimizer": {"kind": "sgd", "momentum": 0.9}}, {"net": NET | {"width": 5}}
    batch = {"batch": 16}
    for change in (momentum, batch, batch | {"order_shards": 4}, wider, {"horizon": {"epochs": 30_000}}):
        tiny["experiments"]["budget"] = {**EXPERIMENTS["b"], "lr": [0.7], "horizon": {"epochs": 300}, **change}
        key = plan_of(tiny).tasks("budget")[0].stack_key()
        assert key not in keys
        keys.add(key)


def test_stacks_are_cut_at_the_largest_size_and_sorted_by_horizon(plan_of):
    grid = {**EXPERIMENTS["a"], "seeds": list(range(MAX_MEMBERS // 9 + 2)), "horizon": {"t_lr_l2": 0.05, "t_lr": 10}}
    tasks = plan_of({**TINY_GRID, "experiments": {"a": grid}}).tasks("a")
    together = stacks(tasks)
    assert sorted(t.run_id for stack in together for t in stack) == sorted(t.run_id for t in tasks)
    assert all(len(stack) <= MAX_MEMBERS and len({t.stack_key() for t in stack}) == 1 for stack in together)
    assert all([t.steps for t in stack] == sorted(t.steps for t in stack) for stack in together)


SELECTED = {**COMMON, "lr": [0.1], "l2": {"tuned_from": "a"}, "seeds": [0, 1], "horizon": {"budgets": [5, 10]}}


def selected(plan_of, values=None, epochs=10, **more):
    """The plan of an experiment `a`, and one whose λ are tuned on it: 0.01, which is listed, or another."""
    experiments = {"a": {**EXPERIMENTS["a"], "horizon": {"epochs": epochs}}, "tuned": SELECTED, **more}
    plan = plan_of({**TINY_GRID, "experiments": experiments})
    if values is None:
        return plan
    made = L2Selection({(0.1, 5.0): values[0], (0.1, 10.0): values[1]})
    return plan_module.Plan("tiny", plan.scale, dict.fromkeys(plan.scale.selected, made))


def test_a_selection_that_is_not_made_is_pending_and_has_a_cost(plan_of):
    plan = selected(plan_of)
    assert (plan.pending, plan.experiments["tuned"], plan.slices("tuned")) == (["tuned"], [], [])
    assert len(plan.provisional("tuned")) == 4
    unresolved = plan_module.Plan("tiny", plan.scale, {"tuned": L2Selection({}, "no peak")})
    assert (unresolved.pending, unresolved.unresolved) == ([], {"tuned": "no peak"})


def test_a_selection_never_changes_the_slices_of_what_is_listed(plan_of):
    before = names(selected(plan_of), "a")
    for values in ((0.01, 0.1), (0.5, 0.7), (0.01, 0.01)):
        plan = selected(plan_of, values)
        assert names(plan, "a") == before
        ids = [point.run_id for point in plan.experiments["tuned"]]
        assert plan.owners("tuned", ids) == ["tuned"]
        assert {t.run_id for part in plan.slices("tuned") for t in part.tasks} == set(ids)


def test_a_selected_run_that_is_listed_is_known_as_such_and_measured_like_it(plan_of):
    plan = selected(plan_of, (0.01, 0.5), epochs=20)
    tasks = {(t.spec.l2, t.spec.init_seed): t for t in plan.tasks("tuned")}
    assert [plan.listed_owner(tasks[l2, 0].run_id) for l2 in (0.01, 0.5)] == ["a", None]
    assert (tasks[0.01, 1].steps, tasks[0.01, 1].budgets) == (20, (5, 20))  # the listed run's longer horizon
    assert (tasks[0.5, 1].steps, tasks[0.5, 1].budgets) == (10, (10,))
