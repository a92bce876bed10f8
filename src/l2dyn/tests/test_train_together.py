"""Experiments whose runs train in another one's slices: what a scale may say, what is planned, what the rules ask."""

import pytest

from l2dyn.errors import UserError
from l2dyn.runs.plan import Plan
from l2dyn.specs.data_sets import DATA_SETS
from l2dyn.workflow import Workflow

TINY = {"scale": "tiny"}
TUNED = {"l2": {"tuned_from": "third"}, "horizon": {"epochs": 5}}


def together(tiny, first="first", others=("third",)):
    """The tiny scale with a third experiment, another net's, whose runs train with the first one's."""
    third = {**tiny["experiments"]["budget"], "net": {"kind": "fc", "hidden_layers": 2, "width": 4}}
    tiny["experiments"] |= {"third": third, "tuned": {**third, **TUNED}}
    return {**tiny, "train_together": {first: list(others)}}


def ids_of(tasks) -> set[str]:
    return {task.run_id for task in tasks}


def planned(plan: Plan, experiment: str) -> set[str]:
    """What the workflow trains in an experiment's slices; no run twice."""
    tasks = [task for slice_ in plan.slices(experiment) for task in slice_.tasks]
    assert len(ids_of(tasks)) == len(tasks)
    return ids_of(tasks)


def test_the_first_trains_the_others_runs_and_its_own(tiny, plan_of):
    apart = plan_of({**together(tiny), "train_together": {}})
    plan = plan_of(together(tiny))
    assert apart.slices("third")
    assert plan.slices("third") == []
    assert planned(plan, "first") == planned(apart, "first") | planned(apart, "third")
    assert planned(plan, "budget") == planned(apart, "budget")
    assert plan.experiments == apart.experiments  # what is measured and shown stays each one's own
    assert ids_of(plan.tasks("third")) == planned(apart, "third")
    assert plan.owners("third", planned(apart, "third")) == ["first"]


def test_runs_that_two_list_are_trained_once_at_the_longer_horizon(tiny, plan_of):
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 5000}
    shared = {t.run_id for t in plan_of(tiny).tasks("first")} & {t.run_id for t in plan_of(tiny).tasks("budget")}
    assert shared
    plan = plan_of({**tiny, "train_together": {"budget": ["first"]}})
    assert plan.slices("first") == []
    assert planned(plan, "budget") == ids_of(plan.tasks("first")) | ids_of(plan.tasks("budget"))
    assert {task.steps for task in plan.tasks("budget") if task.run_id in shared} == {5000}


def test_a_selections_source_is_trained_early_and_read_where_it_is_trained(tiny, write_scale, workplace):
    write_scale(together(tiny))
    flow = Workflow(TINY)
    assert [flow.priority(name) for name in ("first", "budget", "third")] == [1, 0, 0]
    third = flow.bundles("third")
    assert third
    assert all(path.startswith(f"{flow.out}/first/runs/") for path in third)
    assert {path.rpartition("/")[2] for path in third} <= {f"{one.name}.parquet" for one in flow.plan.slices("first")}


def test_a_job_waits_for_every_data_set_that_it_trains_on(tiny, write_scale, workplace):
    values = together(tiny)
    values["experiments"]["third"]["data"] = {"name": "mnist", "train_samples": 64, "test_samples": 100}
    del values["experiments"]["tuned"]
    write_scale(values)
    flow = Workflow(TINY)
    both = [f"{flow.data}/{name}-{DATA_SETS[name].checksum[:10]}.npz" for name in ("digits", "mnist")]
    assert flow.arrays_of_experiment("first") == both
    assert flow.arrays_of_experiment("budget") == both[:1]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"first": ["nope"]}, "train_together.first: no experiment 'nope' in this file"),
        ({"nope": ["first"]}, "train_together.nope: no experiment 'nope' in this file"),
        ({"first": ["tuned"]}, "train_together.first: tuned has an l2 selection"),
        ({"tuned": ["first"]}, "train_together.tuned: tuned has an l2 selection"),
        ({"first": ["budget", "budget"]}, "train_together.first: budget stands in train_together twice"),
        ({"first": ["first"]}, "train_together.first: first stands in train_together twice"),
        ({"first": ["third"], "third": ["budget"]}, "train_together.third: third stands in train_together twice"),
    ],
)
def test_what_cannot_train_together_is_named(tiny, write_scale, workplace, given, reason):
    write_scale({**together(tiny), "train_together": given})
    with pytest.raises(UserError, match=reason) as error:
        Workflow(TINY)
    assert "\n" not in str(error.value)
