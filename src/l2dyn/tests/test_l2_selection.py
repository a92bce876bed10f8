"""L2 coefficients that are measured on another experiment's runs: configuration, measurement, plan, DAG, commands."""

import json
import logging
import math
import os
import re
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from l2dyn.derivation import derive, measured_coefficient
from l2dyn.runs.config import ScaleConfig, load_scale
from l2dyn.runs.dag import LONG_AGO, Dag
from l2dyn.runs.derived_l2 import DerivedL2, derived_l2_path, read_derived_l2, write_derived_l2
from l2dyn.runs.files import ROOT
from l2dyn.summary import FIELDS, summarize, write_summary

from l2dyn import cli
from l2dyn.errors import UserError
from l2dyn.runs.plan import Plan, planned
from l2dyn.runs.records import DamagedRecord

SETUP = {
    "shows": "x",
    "model": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train": 64, "test": 100},
    "lr": [0.1],
}
# a net that may have a learning-rate schedule; 4 steps an epoch
CONVOLUTIONAL = {
    "model": {"kind": "convnet", "channels": [2, 2, 2, 2], "dense": 4, "pool": 2, "pool_stride": 2},
    "batch": 16,
}
SOURCE = SETUP | {"l2": [0.01], "horizon": {"epochs": 100}}
GUESS = SETUP | {"l2": {"predicted_from": "source"}, "horizon": {"budgets": [10, 40]}}
TUNED = {"l2": {"tuned_from": "source"}}


def scale(source=None, guess=None, setup=None, **others) -> dict:
    """Two experiments, `source` and `guess`, and further ones; `setup` changes both."""
    setup = setup or {}
    both = {"source": SOURCE | setup | (source or {}), "guess": GUESS | setup | (guess or {})}
    return {"about": "x", "device": "cpu", "figures": {}, "experiments": both | others}


def plan(values: dict, **derived: DerivedL2) -> Plan:
    return Plan("tiny", ScaleConfig.model_validate(values), derived)


def rising_and_falling(epochs, peak, top=0.9, slope=0.01):
    """Test accuracy with one sharp peak; its running mean peaks there too."""
    return top - slope * np.abs(np.asarray(epochs) - peak)


def trained(make_record, task, peak=None, steps=None, **options):
    """A record of a run, measured after every step, whose test accuracy peaks at an epoch."""
    steps = task.steps if steps is None else steps
    if peak is not None:
        epochs = np.arange(steps + 1) / task.spec.steps_per_epoch
        options["test_accuracy"] = rising_and_falling(epochs, peak)
    return make_record(task.spec, steps=steps, **options)


class Shelf:
    """What derive asks of a store, in memory."""

    def __init__(self, records):
        self.records = {record.run_id: record for record in records}

    def load(self, run_id):
        return self.records.get(run_id)


def two_digits(value) -> float:
    """Rounded in decimal arithmetic."""
    exact = Decimal(float(value))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1)))


def smoothed_argmax(accuracy) -> int:
    """The first maximum of the running mean over five, its window shrinking symmetrically at the ends; exact."""
    accuracy = [Fraction(float(a)) for a in accuracy]
    means = []
    for i in range(len(accuracy)):
        reach = min(2, i, len(accuracy) - 1 - i)
        means.append(sum(accuracy[i - reach : i + reach + 1]) / (2 * reach + 1))
    return means.index(max(means))


def first_within(accuracy) -> int:
    """The first index within half a point of the maximum."""
    return next(i for i, a in enumerate(accuracy) if a >= max(accuracy) - 0.005 - 1e-12)


# --- the configuration ----------------------------------------------------------------------------


def refused(name="tiny") -> str:
    with pytest.raises(UserError) as caught:
        load_scale(name)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("config/tiny.yaml: ")
    return line


def test_what_is_accepted(write_scale):
    others = {
        "other": GUESS | {"l2": {"predicted_from": "source", "reading": "within"}, "horizon": {"epochs": 300}},
        "tuned": GUESS | TUNED | {"seeds": [3, 4]},
    }
    write_scale(scale(guess={"horizon": {"budgets": [40, 10]}}, **others))
    source, guess, other, tuned = load_scale("tiny").experiments.values()
    assert [e.derived for e in (source, guess, other, tuned)] == [False, True, True, True]
    assert [e.l2.source for e in (guess, other, tuned)] == ["source"] * 3
    assert [e.l2.reading for e in (guess, other, tuned)] == ["argmax", "within", "argmax"]
    assert (guess.horizon.fixed, other.horizon.fixed) == ([10, 40], [300])
    assert [h.epochs for h in guess.horizon.horizons()] == [10, 40]
    assert [h.epochs for h in other.horizon.horizons()] == [300]


def test_a_source_may_stand_below(write_scale):
    values = scale()
    values["experiments"] = dict(reversed(values["experiments"].items()))
    write_scale(values)
    assert load_scale("tiny").experiments["guess"].derived


def test_every_shipped_scale_takes_up_measured_l2(monkeypatch):
    """Whatever is measured, the plans hold together; at least one scale has such experiments."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("L2DYN_DEVICE", raising=False)
    seen = 0
    for path in sorted((ROOT / "config").glob("*.yaml")):
        config = load_scale(path.stem)
        pending = Plan(path.stem, config)
        values = {
            name: DerivedL2({(lr, b): two_digits(0.1 / b) for lr in experiment.lr for b in experiment.horizon.fixed})
            for name, experiment in config.experiments.items()
            if experiment.derived
        }
        assert set(pending.pending) == set(values)
        full = Plan(path.stem, config, values)
        assert full.pending == []
        for name in values:
            seen += 1
            assert summed(pending.provisional(name)) >= summed(full.tasks(name, owned_only=True))
            assert full.tasks(name)
    assert seen


def summed(tasks) -> int:
    return sum(task.steps for task in tasks)


@pytest.mark.parametrize(
    ("l2", "key", "parts"),
    [
        ({"predicted_form": "source"}, "l2.predicted_form", ["unknown key", "known here", "predicted_from", "reading"]),
        ({"predicted_from": "source", "derived": 1}, "l2.derived", ["unknown key"]),
        ({"predicted_from": "source", "grid": 1}, "l2.grid", ["unknown key"]),
        ({"predicted_from": "source", "slices": 1}, "l2.slices", ["unknown key"]),
        ({"predicted_from": "source", "tuned_from": "source"}, "l2", ["predicted_from", "tuned_from"]),
        ({}, "l2", ["predicted_from", "tuned_from"]),
        ({"predicted_from": None}, "l2", ["predicted_from", "tuned_from"]),
        ({"reading": "within"}, "l2", ["predicted_from", "tuned_from"]),
        ({"predicted_from": "nobody"}, "l2.predicted_from", ["'nobody'"]),
        ({"tuned_from": "nobody"}, "l2.tuned_from", ["'nobody'"]),
        ({"predicted_from": "no body"}, "l2.predicted_from", ["'no body'"]),
        ({"predicted_from": 5}, "l2.predicted_from", ["5"]),
        ({"predicted_from": ["source"]}, "l2.predicted_from", ["['source']"]),
        ({"predicted_from": "guess"}, "l2.predicted_from", ["guess"]),
        ({"tuned_from": "guess"}, "l2.tuned_from", ["guess"]),
        ({"predicted_from": "source", "reading": "smoothed"}, "l2.reading", ["'smoothed'", "argmax", "within"]),
        ({"tuned_from": "source", "reading": "within"}, "l2", ["reading", "predicted_from"]),
        ({0.01: 1}, "l2.0.01", []),
        ("0.01", "l2", ["'0.01'"]),
        ("predicted_from: source", "l2", ["'predicted_from: source'"]),
        (0.01, "l2", ["0.01"]),
        (True, "l2", ["True"]),
        (None, "l2", []),
        ([], "l2", ["[]"]),
        ([-1], "l2.0", ["-1"]),
        ([0.01, "big"], "l2.1", ["'big'"]),
        ([0.01, math.nan], "l2.1", ["nan"]),
        ([0.01, True], "l2.1", ["True"]),
        ([{"predicted_from": "source"}], "l2.0", []),
        ([0.02, 0.02], "", ["l2", "twice"]),
    ],
    ids=str,
)
def test_a_bad_l2_is_named_as_in_the_file(write_scale, l2, key, parts):
    write_scale(scale(guess={"l2": l2}))
    line = refused()
    assert f"experiments.guess.{key}".rstrip(".") + " " in line.replace(":", " ").replace(";", " ")
    assert [part for part in parts if part not in line] == []
    assert re.findall(r"\.(grid|derived|fc)\b", line) == re.findall(r"\.(grid|derived|fc)\b", key and f".{key}")


@pytest.mark.parametrize("named", ["grid", "derived", "fc", "l2", "model"])
def test_a_name_like_pydantics_tags_stays(write_scale, named):
    """An experiment may be called so; what stands in the file is never cut out of a key."""
    write_scale(scale(**{named: GUESS | {"l2": {"predicted_from": "source", "foo": 1}}}))
    assert f"unknown key experiments.{named}.l2.foo;" in refused()
    write_scale(scale(**{named: SOURCE | {"l2": [0.1, -1]}}))
    assert f"experiments.{named}.l2.1: " in refused()


@pytest.mark.parametrize(("named", "key"), [("l2", "grid"), ("model", "fc")])
def test_a_key_like_pydantics_tags_stays(write_scale, named, key):
    write_scale(scale(**{named: SOURCE | {key: 1}}))
    assert f"unknown key experiments.{named}.{key};" in refused()


NORMED = CONVOLUTIONAL["model"] | {"batch_norm": True}


@pytest.mark.parametrize(
    ("differing", "named"),
    [
        ({"model": SETUP["model"] | {"width": 5}}, "model"),
        ({"model": NORMED}, "model"),
        ({"data": SETUP["data"] | {"train": 65}}, "data"),
        ({"data": SETUP["data"] | {"pool": 2}}, "data"),
        ({"momentum": 0.9}, "momentum"),
        ({"batch": 16}, "batch"),
        ({"loss": "mse"}, "loss"),
        ({"precision": "float64"}, "precision"),
        ({"lr": [0.2]}, "lr"),
        ({"l2": [0]}, "l2"),
        ({"l2": {"tuned_from": "third"}}, "source"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["predicted_from", "tuned_from"])
def test_a_source_that_says_nothing_here(write_scale, kind, differing, named):
    write_scale(scale(source=differing, guess={"l2": {kind: "source"}}, third=SOURCE))
    line = refused()
    assert f"experiments.guess.l2.{kind}: " in line
    assert named in line.split(f"{kind}: ")[1]


def test_an_lr_that_the_source_lacks(write_scale):
    """The source may have more of them."""
    write_scale(scale(source={"lr": [0.1, 0.2]}, guess={"lr": [0.2, 0.3]}))
    assert "experiments.guess.l2.predicted_from: " in refused()
    write_scale(scale(source={"lr": [0.1, 0.2]}, guess={"lr": [0.2]}))
    assert load_scale("tiny").experiments["guess"].lr == [0.2]


def test_augmentation_is_part_of_the_setup(write_scale):
    write_scale(scale(setup=CONVOLUTIONAL, source={"augmentation": {"flip": True}}))
    line = refused()
    assert "experiments.guess.l2.predicted_from: " in line
    assert "augmentation" in line


def test_auto_l2_and_measured_l2(write_scale):
    write_scale(scale(setup=CONVOLUTIONAL, source={"auto_l2": {}}))
    line = refused()
    assert "experiments.guess.l2.predicted_from: " in line
    assert "auto_l2" in line
    write_scale(scale(setup=CONVOLUTIONAL, guess={"auto_l2": {}}))
    assert "experiments.guess: auto_l2: " in refused()


SCHEDULE = {"factor": 0.2, "at": [0.5]}


def test_c_is_measured_at_a_constant_learning_rate(write_scale):
    write_scale(scale(setup=CONVOLUTIONAL, source={"lr_schedule": SCHEDULE}))
    line = refused()
    assert "experiments.guess.l2.predicted_from: " in line
    assert "lr_schedule" in line
    write_scale(scale(setup=CONVOLUTIONAL, guess={"lr_schedule": SCHEDULE}))
    assert load_scale("tiny").experiments["guess"].lr_schedule is not None


@pytest.mark.parametrize(
    ("source", "budgets", "good"),
    [
        ({"horizon": {"epochs": 40}}, [10, 40], True),
        ({"horizon": {"epochs": 39}}, [10, 40], False),
        ({"horizon": {"budgets": [5, 40]}}, [10, 40], True),
        ({"horizon": {"budgets": [5, 39]}}, [10, 40], False),
        ({"horizon": {"t_lr_l2": 1000}}, [10], False),
        ({"horizon": {"t_l2": 1000}}, [10], False),
        ({"horizon": {"epochs": 100, "cap_epochs": 60}}, [50], True),
        ({"horizon": {"epochs": 100, "cap_epochs": 20}}, [50], False),
        ({"horizon": {"epochs": 100, "cap_epochs": 20}}, [20], True),
        ({"horizon": {"budgets": [10, 40], "cap_epochs": 20, "beyond_cap": "skip"}}, [10], True),
        ({"horizon": {"budgets": [10, 40], "cap_epochs": 20, "beyond_cap": "skip"}}, [15], False),
        ({"horizon": {"budgets": [10, 40]}, "lr_schedule": SCHEDULE}, [10, 40], True),
        ({"horizon": {"budgets": [10, 40]}, "lr_schedule": SCHEDULE}, [20], False),
        ({"horizon": {"epochs": 40}, "lr_schedule": SCHEDULE}, [10], False),
    ],
    ids=str,
)
def test_a_tuning_source_trains_long_enough(write_scale, source, budgets, good):
    """With a schedule, which depends on the budget, for this budget; else at least as long."""
    guess = TUNED | {"horizon": {"budgets": budgets}} | {k: v for k, v in source.items() if k == "lr_schedule"}
    write_scale(scale(setup=CONVOLUTIONAL, source=source, guess=guess))
    if good:
        assert load_scale("tiny").experiments["guess"].derived
    else:
        assert "experiments.guess.l2.tuned_from: " in refused()


@pytest.mark.parametrize("source", [None, {"factor": 0.3, "at": [0.5]}, {"factor": 0.2, "at": [0.6]}], ids=str)
def test_a_tuning_source_with_another_schedule(write_scale, source):
    guess = TUNED | {"lr_schedule": SCHEDULE, "horizon": {"epochs": 100}}
    write_scale(scale(setup=CONVOLUTIONAL, source={"lr_schedule": source} if source else {}, guess=guess))
    line = refused()
    assert "experiments.guess.l2.tuned_from: " in line
    assert "lr_schedule" in line


@pytest.mark.parametrize(
    ("horizon", "key"),
    [
        ({"budgets": [10], "epochs": 10}, "horizon"),
        ({"budgets": [10], "t_l2": 1}, "horizon"),
        ({"budgets": [10], "t_lr_l2": 1}, "horizon"),
        ({"budgets": []}, "horizon.budgets"),
        ({"budgets": 10}, "horizon.budgets"),
        ({"budgets": "10, 20"}, "horizon.budgets"),
        ({"budgets": [10, 0]}, "horizon.budgets.1"),
        ({"budgets": [-1]}, "horizon.budgets.0"),
        ({"budgets": ["long"]}, "horizon.budgets.0"),
        ({"budgets": [math.inf]}, "horizon.budgets.0"),
        ({"budgets": [math.nan]}, "horizon.budgets.0"),
        ({"budgets": [True]}, "horizon.budgets.0"),
        ({"budgets": [10, 10.0]}, "horizon"),
        ({"budget": [10]}, "horizon.budget"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["source", "guess"])
def test_bad_budgets(write_scale, name, horizon, key):
    write_scale(scale(**{name: {"horizon": horizon}}))
    line = refused()
    assert re.search(rf"\bexperiments\.{name}\.{re.escape(key)}[:;]", line)
    if set(horizon) > {"budgets"}:
        assert all(k in line for k in horizon)
    elif key == "horizon":
        assert "budgets" in line


@pytest.mark.parametrize(
    "horizon", [{"t_lr_l2": 2.0}, {"t_l2": 2.0}, {"t_lr": 2.0}, {"epochs": 10, "cap_epochs": 20}], ids=str
)
def test_a_measured_l2_needs_fixed_budgets(write_scale, horizon):
    write_scale(scale(guess={"horizon": horizon}))
    assert "experiments.guess: l2: " in refused()


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
def test_no_run_counts_twice_at_one_budget(write_scale, horizon):
    """Refused, or one row for a run and a horizon: two equal ones would count as two seeds."""
    write_scale(scale(source={"l2": [0, 0.01], "horizon": horizon}, guess={"horizon": {"epochs": 5}}))
    try:
        runs = Plan("tiny", load_scale("tiny")).experiments["source"]
    except UserError:
        assert "experiments.source" in refused()
        return
    rows = [(run.run_id, run.steps) for run in runs]
    assert sorted(set(rows)) == sorted(rows)


def test_theory_needs_a_listed_l2(write_scale):
    """The kernel's curves are drawn at the experiment's first l2."""
    theory = {"kernel": {"experiment": "guess"}}
    write_scale(scale() | {"theory": theory, "figures": {"fig5": {"theory": ["kernel"]}}})
    assert "theory.kernel.experiment" in refused()


# --- l2.json --------------------------------------------------------------------------------------

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(
    values=st.dictionaries(st.tuples(POSITIVE, POSITIVE), POSITIVE, max_size=5),
    reason=st.text(),
    evidence=st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False))),
)
@settings(max_examples=15)
def test_the_file_gives_back_what_was_written(tmp_path_factory, values, reason, evidence):
    path = tmp_path_factory.getbasetemp() / "round-trip" / "l2.json"
    derived = DerivedL2(values, reason, evidence)
    write_derived_l2(path, derived)
    assert read_derived_l2(path) == derived
    assert [p.name for p in path.parent.iterdir()] == ["l2.json"]


def test_a_file_with_numpy_free_evidence(make_record, tmp_path):
    """What is measured can be written, and a reader finds how it was measured."""
    for guess in ({}, TUNED):
        values = plan(scale(source={"l2": [0.01, 0.02]}, guess=guess))
        records = [trained(make_record, task, peak=20 + i) for i, task in enumerate(values.tasks("source"))]
        derived = derive(values, "guess", Shelf(records))
        write_derived_l2(tmp_path / "l2.json", derived)
        again = read_derived_l2(tmp_path / "l2.json")
        assert again.values == derived.values
        (kind,) = values.scale.experiments["guess"].l2.model_dump(exclude_none=True, exclude={"reading"})
        assert again.evidence[kind] == "source"
        listed = again.evidence["tuned" if guess else "coefficients"]
        assert [one["lr"] for one in listed] == [0.1] * (2 if guess else 1)
        if not guess:
            assert listed[0]["run_ids"] == [record.run_id for record in records]
            assert listed[0]["seeds"] == 2
            assert listed[0]["c_argmax_low"] < listed[0]["c_argmax"] < listed[0]["c_argmax_high"]


def test_no_file_is_no_value(tmp_path):
    assert read_derived_l2(tmp_path / "l2.json") is None
    assert read_derived_l2(tmp_path / "nowhere" / "l2.json") is None


ROW = {"lr": 0.1, "epochs": 10.0, "l2": 0.02}
WHOLE = {"l2": [ROW], "reason": "", "evidence": {}}
DAMAGED = {
    "empty": "",
    "cut": json.dumps(WHOLE)[:-20],
    "not JSON": "l2: 0.01\n",
    "not UTF-8": b'{"l2": "\xff"}',
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "no l2": json.dumps({"reason": "", "evidence": {}}),
    "no reason": json.dumps({"l2": [], "evidence": {}}),
    "no evidence": json.dumps({"l2": [], "reason": ""}),
    "l2 is a number": json.dumps(WHOLE | {"l2": 5}),
    "l2 is null": json.dumps(WHOLE | {"l2": None}),
    "a row is a list": json.dumps(WHOLE | {"l2": [[0.1, 10, 0.02]]}),
    "a row lacks epochs": json.dumps(WHOLE | {"l2": [{"lr": 0.1, "l2": 0.02}]}),
    "a value is a word": json.dumps(WHOLE | {"l2": [ROW | {"l2": "big"}]}),
    "a value is null": json.dumps(WHOLE | {"l2": [ROW | {"l2": None}]}),
    "zero": json.dumps(WHOLE | {"l2": [ROW | {"l2": 0}]}),
    "negative": json.dumps(WHOLE | {"l2": [ROW | {"l2": -0.01}]}),
    "not a number": json.dumps(WHOLE | {"l2": [ROW | {"l2": math.nan}]}),
    "infinite": json.dumps(WHOLE | {"l2": [ROW | {"l2": math.inf}]}),
    "too large": json.dumps(WHOLE).replace("0.02", "1e999"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_one_line(write_scale, quiet, capsys, damage):
    """Also where it makes no difference until a run is made of it."""
    write_scale(scale())
    path = derived_l2_path("tiny", "guess")
    path.parent.mkdir(parents=True)
    text = DAMAGED[damage]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for use in (lambda: read_derived_l2(path), lambda: planned("tiny", load_scale("tiny")), lambda: Dag(TINY)):
        with pytest.raises(UserError) as caught:
            use()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "delete" in str(caught.value)
    assert cli.main(["plan", "--scale", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


TINY = {"scale": "tiny"}


@pytest.fixture
def quiet():
    """The command line sets the package's logger up; leave it as it was."""
    log = logging.getLogger("l2dyn")
    before = (list(log.handlers), log.level, log.propagate)
    yield
    for handler in log.handlers:
        if handler not in before[0]:
            handler.close()
    log.handlers[:], log.level, log.propagate = before


# --- predicted ------------------------------------------------------------------------------------


@given(
    peak=st.integers(3, 45),  # before, the window shrinks over the hill
    l2=st.integers(1, 9999).map(lambda i: i / 1e4),
    budget=st.integers(1, 400).map(lambda i: i / 4),
    batch=st.sampled_from([0, 16]),
)
@settings(max_examples=40)
@example(peak=30, l2=0.005, budget=20, batch=0)
def test_l2_is_c_over_the_budget_to_two_digits(make_record, peak, l2, budget, batch):
    """λ·t*/T with t* of a single sharp peak, in decimal arithmetic."""
    values = plan(scale(source={"l2": [l2]}, guess={"horizon": {"epochs": budget}}, setup={"batch": batch}))
    (task,) = values.tasks("source")
    derived = derive(values, "guess", Shelf([trained(make_record, task, peak)]))
    ((key, found),) = derived.values.items()
    assert key == (0.1, budget)
    assert derived.reason == ""
    assert found == float(f"{found:.1e}")
    exact = Fraction(str(l2)) * peak / Fraction(budget)
    unit = Fraction(Decimal(1).scaleb(Decimal(float(exact)).adjusted() - 1))
    assert abs(Fraction(repr(found)) - exact) <= unit / 2 * (1 + Fraction(1, 10**9))


@given(heights=st.lists(st.integers(150, 950), min_size=8, max_size=30), reading=st.sampled_from(["argmax", "within"]))
@settings(max_examples=60)
def test_both_readings_against_brute_force(make_record, heights, reading):
    """Of any curve that has come down: the first maximum of the running mean, and the first within half a point."""
    accuracy = [0.0, *(h / 1000 for h in heights), 0.0]
    epochs = len(accuracy) - 1
    values = scale(source={"horizon": {"epochs": epochs}})
    values["experiments"]["guess"] |= {"l2": {"predicted_from": "source", "reading": reading}}
    values = plan(values)
    (task,) = values.tasks("source")
    record = make_record(task.spec, steps=epochs, test_accuracy=accuracy)
    derived = derive(values, "guess", Shelf([record]))
    if max(accuracy) < 0.2:  # chance and ten points
        assert derived.values == {}
        assert derived.reason
        return
    at = {"argmax": smoothed_argmax, "within": first_within}[reading](accuracy)
    assert derived.values == {(0.1, T): pytest.approx(0.01 * at / T, rel=0.05) for T in (10, 40)}
    c, *_ = measured_coefficient(values, "source", Shelf([record]), 0.1)
    assert (c.c_argmax, c.c_within) == (
        pytest.approx(0.01 * smoothed_argmax(accuracy)),
        pytest.approx(0.01 * first_within(accuracy)),
    )


def test_the_readings_differ(make_record):
    """A spike that the running mean passes over, and a hill."""
    accuracy = [0.1] * 101
    accuracy[7] = 0.95
    accuracy[50:61] = [0.9] * 11
    found = {}
    for reading in ("argmax", "within"):
        values = plan(scale(guess={"l2": {"predicted_from": "source", "reading": reading}}))
        (task,) = values.tasks("source")
        record = make_record(task.spec, steps=100, test_accuracy=accuracy)
        found[reading] = derive(values, "guess", Shelf([record])).values
    assert found == {
        "argmax": {(0.1, 10): 0.052, (0.1, 40): 0.013},
        "within": {(0.1, 10): 0.007, (0.1, 40): 0.0018},
    }


def test_with_a_schedule_the_first_decay_counts(make_record):
    """λ = c/T1 where T1 is when the learning rate of the very run that is planned first falls."""
    schedule = {"factor": 0.2, "at": [0.75, 0.25, 0.5]}
    values = scale(setup=CONVOLUTIONAL, guess={"lr_schedule": schedule, "horizon": {"budgets": [8, 20]}})
    (task,) = plan(values).tasks("source")
    derived = derive(plan(values), "guess", Shelf([trained(make_record, task, peak=30)]))
    assert derived.values == {(0.1, 8): 0.15, (0.1, 20): 0.06}  # 0.01·30 / 2 and / 5
    for run in plan(values, guess=derived).experiments["guess"]:
        first = next(step for step in range(run.steps) if run.spec.lr_at(step) < run.spec.lr) / 4
        assert run.spec.l2 == two_digits(0.3 / first)


def test_seeds_and_l2s_are_combined_geometrically(make_record):
    values = plan(scale(source={"l2": [0.01, 0.02], "seeds": [0, 1]}))
    peaks = [20, 45, 10, 24]
    tasks = values.tasks("source")
    shelf = Shelf([trained(make_record, task, peak) for task, peak in zip(tasks, peaks, strict=True)])
    products = [task.spec.l2 * peak for task, peak in zip(tasks, peaks, strict=True)]
    mean = math.exp(sum(map(math.log, products)) / 4)
    assert abs(mean - sum(products) / 4) > 0.03 * mean  # the arithmetic mean is another one
    assert derive(values, "guess", shelf).values == {(0.1, T): two_digits(mean / T) for T in (10, 40)}
    c, ids, missing = measured_coefficient(values, "source", shelf, 0.1)
    assert (c.seeds, ids, missing) == (4, [task.run_id for task in tasks], [])
    assert c.c_argmax == pytest.approx(mean)


def test_every_learning_rate_has_its_own_c(make_record):
    values = plan(scale(source={"lr": [0.1, 0.2, 0.4]}, guess={"lr": [0.4, 0.1]}))
    peaks = {0.1: 40, 0.2: 20, 0.4: 10}
    shelf = Shelf([trained(make_record, task, peaks[task.spec.lr]) for task in values.tasks("source")])
    found = derive(values, "guess", shelf).values
    assert found == {(0.1, 10): 0.04, (0.1, 40): 0.01, (0.4, 10): 0.01, (0.4, 40): 0.0025}
    del shelf.records[values.tasks("source")[1].run_id]  # of the learning rate that nobody asks for
    assert derive(values, "guess", shelf).values == found
    del shelf.records[values.tasks("source")[0].run_id]
    left = derive(values, "guess", shelf)
    assert left.values == {}  # all or none
    assert left.reason


def test_c_is_in_epochs_and_knows_no_momentum(make_record):
    found = []
    for setup in ({}, {"batch": 16}, {"batch": 16, "momentum": 0.9}):
        values = plan(scale(setup=setup))
        (task,) = values.tasks("source")
        found.append(derive(values, "guess", Shelf([trained(make_record, task, peak=30)])).values)
    assert found == [{(0.1, 10): 0.03, (0.1, 40): 0.0075}] * 3


def test_without_l2_there_is_no_c(make_record):
    """Runs at λ = 0 of the source play no part, and need not be there."""
    values = plan(scale(source={"l2": [0, 0.01]}))
    without, with_l2 = values.tasks("source")
    shelf = Shelf([trained(make_record, with_l2, peak=30)])
    assert derive(values, "guess", shelf).values == {(0.1, 10): 0.03, (0.1, 40): 0.0075}
    shelf.records[without.run_id] = trained(make_record, without, peak=80)
    assert derive(values, "guess", shelf).values == {(0.1, 10): 0.03, (0.1, 40): 0.0075}


def test_a_run_counts_once_whatever_the_sources_budgets(make_record):
    """A source with several budgets: c of its whole runs, each of them once."""
    values = plan(scale(source={"horizon": {"budgets": [30, 60, 100]}, "seeds": [0, 1]}))
    tasks = values.tasks("source")
    curves = []
    for late in (60, 66):
        epochs = np.arange(101)
        curves.append(np.maximum(rising_and_falling(epochs, 8, 0.5, 0.02), rising_and_falling(epochs, late)))
    records = [make_record(t.spec, steps=100, test_accuracy=a) for t, a in zip(tasks, curves, strict=True)]
    c, ids, missing = measured_coefficient(values, "source", Shelf(records), 0.1)
    assert sorted(ids) == sorted(task.run_id for task in tasks)
    assert (c.seeds, missing) == (2, [])
    assert c.c_argmax == pytest.approx(0.01 * math.sqrt(60 * 66))
    *_, missing = measured_coefficient(values, "source", Shelf([]), 0.1)
    assert sorted(missing) == sorted(task.run_id for task in tasks)


# --- where it cannot be measured --------------------------------------------------------------------


def unresolved(values, shelf, *parts) -> DerivedL2:
    derived = derive(values, "guess", shelf)
    assert derived.values == {}
    assert "\n" not in derived.reason
    assert [part for part in parts if part not in derived.reason] == [], derived.reason
    return derived


@pytest.mark.parametrize("guess", [{}, TUNED], ids=["predicted", "tuned"])
def test_missing_and_short_source_runs(make_record, guess):
    values = plan(scale(source={"seeds": [0, 1, 2], "horizon": {"epochs": 40}}, guess=guess))
    tasks = values.tasks("source")
    shelf = Shelf([])
    unresolved(values, shelf, "3 of 3", "source")
    shelf = Shelf(trained(make_record, task, peak=10) for task in tasks[:2])
    unresolved(values, shelf, "1 of 3", "source")
    shelf.records[tasks[2].run_id] = trained(make_record, tasks[2], peak=10, steps=39)
    unresolved(values, shelf, "1 of 3", "source")
    shelf.records[tasks[2].run_id] = trained(make_record, tasks[2], peak=10, steps=40)
    assert set(derive(values, "guess", shelf).values) == {(0.1, 10), (0.1, 40)}


def test_a_censored_source(make_record):
    """Accuracy that still rises at the end says only that c is larger."""
    values = plan(scale(source={"seeds": [0, 1]}))
    first, second = values.tasks("source")
    still_rising = trained(make_record, second, peak=100)
    unresolved(values, Shelf([trained(make_record, first, peak=100), still_rising]), "source", "uncensored", "0.1")
    found = derive(values, "guess", Shelf([trained(make_record, first, peak=30), still_rising]))
    assert found.values == {(0.1, 10): 0.03, (0.1, 40): 0.0075}
    assert found.evidence["coefficients"][0]["seeds"] == 1


def test_a_source_that_never_beats_chance(make_record):
    values = plan(scale())
    (task,) = values.tasks("source")
    accuracy = rising_and_falling(np.arange(101), 30)
    unresolved(values, Shelf([make_record(task.spec, steps=100, test_accuracy=accuracy - 0.701)]), "source")
    above = make_record(task.spec, steps=100, test_accuracy=accuracy - 0.699)
    assert derive(values, "guess", Shelf([above])).values
    parity = {"data": SETUP["data"] | {"labels": "parity"}, "loss": "mse"}  # where guessing gives one half
    values = plan(scale(setup=parity))
    (task,) = values.tasks("source")
    unresolved(values, Shelf([make_record(task.spec, steps=100, test_accuracy=accuracy - 0.301)]), "source")
    above = make_record(task.spec, steps=100, test_accuracy=accuracy - 0.299)
    assert derive(values, "guess", Shelf([above])).values


@pytest.mark.parametrize("reading", ["argmax", "within"])
def test_a_source_that_peaks_at_its_start(make_record, reading):
    values = plan(scale(guess={"l2": {"predicted_from": "source", "reading": reading}}))
    (task,) = values.tasks("source")
    unresolved(values, Shelf([trained(make_record, task, peak=0)]), "source")


@pytest.mark.parametrize("guess", [{}, TUNED], ids=["predicted", "tuned"])
def test_a_source_that_diverged_at_once(make_record, guess):
    """Its record serves every horizon and holds no measurement."""
    values = plan(scale(guess=guess))
    (task,) = values.tasks("source")
    record = make_record(task.spec, steps=1, at=[], status="diverged")
    unresolved(values, Shelf([record]), "source")


def test_no_c_of_a_run_that_diverged(make_record):
    """As in the summary, where it has no t*; one that diverged after the declared horizon is whole."""
    values = plan(scale(source={"seeds": [0, 1]}))
    first, second = values.tasks("source")
    diverged = trained(make_record, second, peak=10, steps=50, status="diverged")
    found = derive(values, "guess", Shelf([trained(make_record, first, peak=40), diverged]))
    assert found.values == {(0.1, 10): 0.04, (0.1, 40): 0.01}
    later = trained(make_record, second, peak=10, steps=150, status="diverged")
    found = derive(values, "guess", Shelf([trained(make_record, first, peak=40), later]))
    assert found.values == {(0.1, 10): 0.02, (0.1, 40): 0.005}


def test_a_run_that_diverged_is_never_the_best(make_record):
    """Nor in figure 1b's tuned λ, see l2dyn.plotting.budgets."""
    values = plan(scale(source={"l2": [0.01, 0.02]}, guess=TUNED | {"horizon": {"budgets": [10, 40]}}))
    good, wild = values.tasks("source")
    diverged = trained(make_record, wild, peak=20, steps=25, status="diverged")
    plain = make_record(good.spec, steps=100, test_accuracy=np.full(101, 0.3))
    assert derive(values, "guess", Shelf([plain, diverged])).values == {(0.1, 10): 0.02, (0.1, 40): 0.01}


def test_a_damaged_source_record_is_not_passed_over(make_record, store):
    values = plan(scale(source={"seeds": [0, 1]}))
    for task in values.tasks("source"):
        store.save(trained(make_record, task, peak=30))
    path = store.path(values.tasks("source")[1].run_id)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedRecord):
        derive(values, "guess", store)
    unresolved(values, store, "1 of 2", "source")  # it was set aside


# --- tuned ----------------------------------------------------------------------------------------


@st.composite
def grids(draw):
    """{(λ, seed): [test accuracy]}, all equally long."""
    l2 = draw(st.lists(st.sampled_from([0.0, 0.001, 0.004, 0.01, 0.03]), min_size=1, max_size=4, unique=True))
    seeds = draw(st.integers(1, 3))
    length = draw(st.integers(2, 12))
    heights = st.lists(st.integers(0, 20), min_size=length, max_size=length)
    return {(one, seed): [h / 32 for h in draw(heights)] for one in l2 for seed in range(seeds)}


@given(grid=grids(), data=st.data())
@settings(max_examples=60)
def test_tuned_against_brute_force(make_record, grid, data):
    """The largest mean over seeds of the best accuracy up to the budget; of equal ones the smallest λ."""
    l2s, seeds = (sorted({key[i] for key in grid}) for i in (0, 1))
    if l2s == [0]:
        return
    length = len(next(iter(grid.values())))
    budgets = data.draw(st.lists(st.integers(1, length - 1), min_size=1, max_size=3, unique=True))
    source = {"l2": l2s, "seeds": seeds, "horizon": {"epochs": length - 1}}
    values = plan(scale(source=source, guess=TUNED | {"horizon": {"budgets": budgets}}))
    records = [
        make_record(t.spec, steps=length - 1, test_accuracy=grid[t.spec.l2, t.spec.init_seed])
        for t in values.tasks("source")
    ]

    def best(budget):
        def mean(l2):
            return sum(Fraction(max(grid[l2, seed][: budget + 1])) for seed in seeds) / len(seeds)

        return max((l2 for l2 in l2s if l2 > 0), key=lambda l2: (mean(l2), -l2))

    derived = derive(values, "guess", Shelf(records))
    assert derived.values == {(0.1, budget): best(budget) for budget in budgets}


@pytest.mark.parametrize("horizon", [{"epochs": 100}, {"budgets": [5, 100]}, {"budgets": [10, 40]}], ids=str)
def test_tuning_looks_no_further_than_the_budget(make_record, horizon):
    source = {"l2": [0.01, 0.02, 0.04], "horizon": horizon}
    values = plan(scale(source=source, guess=TUNED))
    peaks = {0.01: 70, 0.02: 35, 0.04: 8}
    records = []
    for task in values.tasks("source"):  # the later, the better
        accuracy = rising_and_falling(np.arange(101), peaks[task.spec.l2], top=0.9 - task.spec.l2)
        records.append(make_record(task.spec, steps=100, test_accuracy=accuracy))
    assert derive(values, "guess", Shelf(records)).values == {(0.1, 10): 0.04, (0.1, 40): 0.02}


def test_a_record_as_long_as_the_budget_is_enough(make_record):
    values = plan(scale(guess=TUNED))
    (task,) = values.tasks("source")
    assert derive(values, "guess", Shelf([trained(make_record, task, peak=30, steps=40)])).values
    unresolved(values, Shelf([trained(make_record, task, peak=30, steps=39)]), "1 of 1")


def test_tuning_with_a_schedule_takes_the_runs_made_for_the_budget(make_record):
    """A run for a longer budget decays later, so its prefix is no run of the shorter one."""
    schedule = {"lr_schedule": SCHEDULE, "horizon": {"budgets": [8, 16]}}
    values = plan(scale(setup=CONVOLUTIONAL | schedule, source={"l2": [0.01, 0.02]}, guess=TUNED))
    tops = {(8, 0.01): 0.8, (8, 0.02): 0.7, (16, 0.01): 0.85, (16, 0.02): 0.9}
    records = []
    for task in values.tasks("source"):
        accuracy = np.full(task.steps + 1, tops[task.steps / 4, task.spec.l2])
        records.append(make_record(task.spec, steps=task.steps, test_accuracy=accuracy))
    assert len({record.run_id for record in records}) == 4
    derived = derive(values, "guess", Shelf(records))
    assert derived.values == {(0.1, 8): 0.01, (0.1, 16): 0.02}
    # and its runs are those of the source
    full = plan(
        scale(setup=CONVOLUTIONAL | schedule, source={"l2": [0.01, 0.02]}, guess=TUNED),
        guess=derived,
    )
    assert full.owners("guess") == ["source"]


@pytest.mark.parametrize("schedule", [{}, {"lr_schedule": SCHEDULE}], ids=["constant", "schedule"])
@pytest.mark.parametrize("budget", [10.1, 0.3, 7.3])
def test_budgets_that_are_no_whole_steps(make_record, budget, schedule):
    """Both experiments ask for the same budget, which makes the same number of steps of either."""
    setup = CONVOLUTIONAL | schedule | {"horizon": {"epochs": budget}}
    values = plan(scale(setup=setup, source={"l2": [0.01, 0.02]}, guess=TUNED))
    records = [trained(make_record, task, peak=budget / (1 + i)) for i, task in enumerate(values.tasks("source"))]
    derived = derive(values, "guess", Shelf(records))
    assert derived.reason == ""
    assert set(derived.values) == {(0.1, budget)}


def test_tuning_needs_no_run_without_l2(make_record):
    """λ = 0 is never the outcome, so its run need not be there."""
    values = plan(scale(source={"l2": [0, 0.01]}, guess=TUNED))
    without, with_l2 = values.tasks("source")
    shelf = Shelf([trained(make_record, with_l2, peak=30), trained(make_record, without, peak=5)])
    assert derive(values, "guess", shelf).values == {(0.1, 10): 0.01, (0.1, 40): 0.01}
    del shelf.records[without.run_id]
    assert derive(values, "guess", shelf).values == {(0.1, 10): 0.01, (0.1, 40): 0.01}


# --- the plan -------------------------------------------------------------------------------------


def names(values: Plan, experiments=("source", "grid")):
    return {e: [s.name for s in values.slices(e)] for e in experiments if e in values.experiments}


GRID = SETUP | {"l2": [0.01, 0.02, 0.04], "seeds": [0, 1], "horizon": {"epochs": 50}, "slices": 3}


def test_pending(write_scale):
    write_scale(scale(second=GUESS | TUNED))
    values = planned("tiny", load_scale("tiny"))
    assert values.pending == ["guess", "second"]
    for name in values.pending:
        assert values.experiments[name] == values.tasks(name) == values.slices(name) == values.owners(name) == []
    write_derived_l2(derived_l2_path("tiny", "second"), DerivedL2({(0.1, 10.0): 0.02, (0.1, 40.0): 0.03}))
    values = planned("tiny", load_scale("tiny"))
    assert values.pending == ["guess"]
    assert [(run.spec.l2, run.steps) for run in values.experiments["second"]] == [(0.02, 10), (0.03, 40)]
    write_derived_l2(derived_l2_path("tiny", "guess"), DerivedL2({}, "no peak"))
    values = planned("tiny", load_scale("tiny"))
    assert values.pending == []
    assert values.experiments["guess"] == values.tasks("guess") == values.slices("guess") == []
    assert values.unresolved == {"guess": "no peak"}
    write_derived_l2(derived_l2_path("tiny", "guess"), DerivedL2({}))  # without a reason it says nothing
    assert planned("tiny", load_scale("tiny")).pending == ["guess"]


def test_a_file_of_a_listed_experiment_says_nothing(write_scale):
    write_scale(scale())
    write_derived_l2(derived_l2_path("tiny", "source"), DerivedL2({(0.1, 100.0): 0.5}))
    derived_l2_path("tiny", "source").write_text("damaged")
    assert [run.spec.l2 for run in planned("tiny", load_scale("tiny")).experiments["source"]] == [0.01]
    given = plan(scale(), source=DerivedL2({(0.1, 100.0): 0.5}))
    assert [run.spec.l2 for run in given.experiments["source"]] == [0.01]


def test_the_grid_of_a_measured_l2():
    guess = {"lr": [0.1, 0.2], "seeds": [0, 3], "horizon": {"budgets": [40, 10]}, "batch": 16}
    source = {"lr": [0.2, 0.1], "batch": 16}
    found = {(lr, T): round(lr / T, 6) for lr in (0.1, 0.2) for T in (10, 40)}
    runs = plan(scale(source=source, guess=guess), guess=DerivedL2(found)).experiments["guess"]
    assert [(r.steps, r.spec.lr, r.spec.l2, r.spec.init_seed, r.spec.order_seed, r.capped) for r in runs] == [
        (4 * T, lr, found[lr, T], seed, seed, False) for T in (10, 40) for lr in (0.1, 0.2) for seed in (0, 3)
    ]


def test_budgets_of_a_listed_grid_are_trained_once():
    values = plan(scale(source=GRID | {"horizon": {"budgets": [20, 5, 10]}}))
    runs = values.experiments["source"]
    assert [run.steps for run in runs] == [T for T in (5, 10, 20) for _ in range(6)]
    tasks = values.tasks("source")
    assert len(tasks) == len({run.run_id for run in runs}) == 6
    assert {(task.steps, task.budgets) for task in tasks} == {(20, (5, 10, 20))}
    assert all({5, 10, 20} <= set(task.evaluations()) for task in tasks)
    slices = values.slices("source")
    assert sorted(t.run_id for s in slices for t in s.tasks) == sorted(t.run_id for t in tasks)
    alone = plan(scale(source=GRID | {"horizon": {"epochs": 20}}))
    assert {t.run_id for t in alone.tasks("source")} == {t.run_id for t in tasks}


def test_a_schedule_makes_another_run_of_each_budget():
    schedule = {"lr_schedule": {"at": [0.25, 0.5]}, "horizon": {"budgets": [8, 16]}}
    tasks = plan(scale(source=CONVOLUTIONAL | schedule, guess=CONVOLUTIONAL | TUNED | schedule)).tasks("source")
    assert [(task.steps, task.spec.lr_decay_epochs, task.budgets) for task in tasks] == [
        (32, (2, 4), (32,)),
        (64, (4, 8), (64,)),
    ]


def share(values: Plan, experiment: str, l2: float, seed: int = 0):
    """The task of one run and the experiments whose slices hold it."""
    (task,) = [t for t in values.tasks(experiment) if (t.spec.l2, t.spec.init_seed) == (l2, seed)]
    held = {
        name: held_task.steps
        for name in values.experiments
        for part in values.slices(name)
        for held_task in part.tasks
        if held_task.run_id == task.run_id
    }
    return task, held


def test_a_run_that_is_listed_for_long_enough_is_not_trained_again():
    """Neither where the budgets fall together nor where the listed one is longer."""
    values = scale(grid=GRID, guess={"horizon": {"budgets": [10, 50]}, "seeds": [0, 1, 2]})
    derived = DerivedL2({(0.1, 10): 0.04, (0.1, 50): 0.02})
    full = plan(values, guess=derived)
    for l2 in (0.04, 0.02):
        for seed in (0, 1):
            task, held = share(full, "guess", l2, seed)
            assert held == {"grid": 50}
            assert (task.steps, task.budgets) == (50, (50,))
    assert full.owners("guess") == ["grid", "guess"]
    own = full.tasks("guess", owned_only=True)
    assert [(t.spec.l2, t.spec.init_seed, t.steps) for t in own] == [(0.04, 2, 10), (0.02, 2, 50)]
    assert [run.steps for run in full.experiments["guess"]] == [10] * 3 + [50] * 3  # declared


def test_a_measured_experiment_that_comes_first_still_owns_nothing_that_is_listed():
    values = scale(grid=GRID, guess={"horizon": {"epochs": 50}})
    values["experiments"] = {"guess": values["experiments"].pop("guess")} | values["experiments"]
    full = plan(values, guess=DerivedL2({(0.1, 50): 0.02}))
    assert full.owners("guess") == ["grid"]
    assert full.slices("guess") == []
    assert names(full) == names(plan(values))


def test_a_run_that_is_listed_for_a_shorter_time_is_trained_by_who_measured_it():
    values = scale(grid=GRID, guess={"horizon": {"budgets": [80]}})
    full = plan(values, guess=DerivedL2({(0.1, 80): 0.02}))
    task, held = share(full, "guess", 0.02)
    assert held == {"grid": 50, "guess": 80}
    assert task.steps == 80
    assert full.owners("guess") == ["guess"]
    listed, _ = share(full, "grid", 0.02)
    assert (listed.steps, listed.budgets) == (50, (50,))


def test_a_longer_run_is_measured_where_the_listed_one_is():
    """Its record takes the place of the shorter one, so the rows of the listed experiment are read off it, too."""
    values = scale(
        grid=GRID | {"horizon": {"budgets": [37, 47]}}, guess={"horizon": {"budgets": [41, 80]}, "seeds": [0]}
    )
    full = plan(values, guess=DerivedL2({(0.1, 41): 0.02, (0.1, 80): 0.02}))
    task, held = share(full, "guess", 0.02)
    assert (task.steps, held) == (80, {"grid": 47, "guess": 80})
    assert {37, 41, 47, 80} <= set(task.evaluations())


def test_a_longer_run_is_measured_as_the_listed_one():
    """With the evaluation of the experiment that lists it, as where two list one."""
    evaluation = {"every_epochs": 7}
    values = scale(grid=GRID | {"evaluation": evaluation}, guess={"horizon": {"epochs": 80}, "seeds": [0, 2]})
    full = plan(values, guess=DerivedL2({(0.1, 80): 0.02}))
    listed, _ = share(full, "grid", 0.02)
    longer, new = full.tasks("guess")
    assert set(listed.evaluations()) < set(longer.evaluations())
    assert longer.grid == listed.grid != new.grid


def test_a_budget_that_is_served_is_measured_by_whoever_goes_on():
    """One budget within the listed horizon, another one of the same λ beyond it."""
    values = scale(grid=GRID, guess={"horizon": {"budgets": [41, 80]}})
    full = plan(values, guess=DerivedL2({(0.1, 41): 0.02, (0.1, 80): 0.02}))
    task, _ = share(full, "guess", 0.02)
    assert task.steps == 80
    assert 41 in task.evaluations()


def test_two_measured_experiments_share_a_run():
    second = GUESS | {"horizon": {"budgets": [10, 20]}, "seeds": [0, 1]}
    values = scale(second=second)
    found = {"guess": {(0.1, 10): 0.5, (0.1, 40): 0.3}, "second": {(0.1, 10): 0.7, (0.1, 20): 0.5}}
    full = plan(values, **{name: DerivedL2(one) for name, one in found.items()})
    task, held = share(full, "second", 0.5)
    assert held == {"guess": 20}  # the first one, for the longest time that either asks for
    assert share(full, "guess", 0.5)[0] == task
    assert task.budgets == (10, 20)
    assert full.owners("guess") == ["guess"]
    assert full.owners("second") == ["second", "guess"]
    assert len(full.tasks("second", owned_only=True)) == 3
    everything = [t.run_id for name in full.experiments for t in full.tasks(name, owned_only=True)]
    assert len(set(everything)) == len(everything)


def test_a_served_run_stays_with_its_owner_when_another_goes_on():
    """What the second one measures does not concern the first, whose budget the listed run serves."""
    values = scale(
        grid=GRID, guess={"horizon": {"epochs": 40}}, second=GUESS | {"horizon": {"epochs": 80}, "seeds": [0]}
    )
    alone = plan(values, guess=DerivedL2({(0.1, 40): 0.02}))
    both = plan(values, guess=DerivedL2({(0.1, 40): 0.02}), second=DerivedL2({(0.1, 80): 0.02}))
    assert alone.owners("guess") == ["grid"]
    assert both.owners("second") == ["second"]
    assert both.owners("guess") == ["grid"]
    assert both.tasks("guess") == alone.tasks("guess")


L2 = st.sampled_from([0.01, 0.02, 0.04, 0.05])
BUDGETS = st.lists(st.sampled_from([10, 30, 50, 80, 200]), min_size=1, max_size=3, unique=True)


@given(data=st.data(), slices=st.integers(1, 4), first=st.booleans())
@settings(max_examples=60)
def test_what_is_listed_never_depends_on_what_was_measured(data, slices, first):
    """And every run that is measured is trained for long enough, by one of its owners, and once only."""
    values = scale(grid=GRID)
    listed = {name: experiment | {"slices": slices} for name, experiment in values["experiments"].items()}
    del listed["guess"]
    measured, found = {}, {}
    for name in ("guess", "second"):
        budgets = data.draw(BUDGETS)
        seeds = data.draw(st.sampled_from([[0], [1], [0, 1, 2]]))
        measured[name] = GUESS | {"horizon": {"budgets": budgets}, "seeds": seeds, "slices": slices}
        if data.draw(st.integers(0, 4)):
            found[name] = DerivedL2({(0.1, float(T)): data.draw(L2) for T in budgets})
    without = plan(values | {"experiments": listed})
    full = plan(values | {"experiments": measured | listed if first else listed | measured}, **found)
    assert names(full) == names(without)
    assert {e: full.key(e) for e in listed} == {e: without.key(e) for e in listed}
    assert {e: full.tasks(e) for e in listed} == {e: without.tasks(e) for e in listed}
    assert {e: full.owners(e) for e in listed} == {e: without.owners(e) for e in listed}
    served = {task.run_id: task.steps for e in listed for task in full.tasks(e)}
    own = {}
    for name in measured:
        for task in full.tasks(name, owned_only=True):
            assert task.steps > served.get(task.run_id, 0)
            assert task.run_id not in own
            own[task.run_id] = task
        assert sorted(t.run_id for s in full.slices(name) for t in s.tasks) == sorted(
            t.run_id for t in full.tasks(name, owned_only=True)
        )
        assert len(full.tasks(name)) == len({run.run_id for run in full.experiments[name]})
        for run in full.experiments[name]:
            held = [
                task
                for owner in full.owners(name)
                for part in full.slices(owner)
                for task in part.tasks
                if task.run_id == run.run_id
            ]
            assert max(task.steps for task in held) >= run.steps


def test_what_a_pending_experiment_will_cost():
    guess = {"lr": [0.1, 0.2], "seeds": [0, 1, 2], "horizon": {"budgets": [10, 40]}, "batch": 16}
    tasks = plan(scale(source={"lr": [0.1, 0.2], "batch": 16}, guess=guess)).provisional("guess")
    assert sorted(task.steps for task in tasks) == [40] * 6 + [160] * 6
    assert len({task.run_id for task in tasks}) == 12
    tasks = plan(scale(guess=TUNED | {"horizon": {"epochs": 40}, "seeds": [5]})).provisional("guess")
    assert [(task.steps, task.spec.init_seed) for task in tasks] == [(40, 5)]
    tasks = plan(scale(setup=CONVOLUTIONAL, guess={"lr_schedule": SCHEDULE})).provisional("guess")
    assert [(task.steps, task.spec.lr_decay_epochs) for task in tasks] == [(40, (5,)), (160, (20,))]


def test_budgets_that_were_changed_after_the_measurement(write_scale):
    """One that is gone says nothing; for one that came the λ is as unknown as before."""
    write_scale(scale(guess={"horizon": {"budgets": [10, 20, 40]}}))
    path = derived_l2_path("tiny", "guess")
    write_derived_l2(path, DerivedL2({(0.1, 10.0): 0.04, (0.1, 20.0): 0.02, (0.1, 40.0): 0.01}))
    write_scale(scale(guess={"horizon": {"budgets": [20, 40]}}))
    values = planned("tiny", load_scale("tiny"))
    assert values.pending == []
    assert [(run.spec.l2, run.steps) for run in values.experiments["guess"]] == [(0.02, 20), (0.01, 40)]
    for changed in ({"horizon": {"budgets": [20, 80]}}, {"horizon": {"epochs": 30}}):
        write_scale(scale(guess=changed))
        assert planned("tiny", load_scale("tiny")).pending == ["guess"]
    write_scale(scale(source={"lr": [0.1, 0.2]}, guess={"lr": [0.1, 0.2]}))
    assert planned("tiny", load_scale("tiny")).pending == ["guess"]


# --- the summary ----------------------------------------------------------------------------------


@pytest.mark.parametrize("derived", [{}, {"guess": DerivedL2({}, "no peak")}], ids=["pending", "unresolved"])
def test_an_l2_that_is_not_known_is_one_missing_row(store, tmp_path, derived):
    rows = summarize(plan(scale(guess={"seeds": [0, 1]}), **derived), "guess", store)
    assert [row["status"] for row in rows] == ["missing"]
    assert {key for row in rows for key in row} <= set(FIELDS)
    assert rows[0]["experiment"] == "guess"
    assert rows[0]["dataset"] == "digits"
    assert not {"run_id", "l2", "horizon_epochs", "max_test_accuracy"} & set(rows[0])
    write_summary(tmp_path / "summary.csv", rows)
    head, line = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(head.split(",")) == len(line.split(",")) == len(FIELDS)


def test_a_row_for_every_run_and_budget(store, make_record):
    values = plan(scale(source={"horizon": {"budgets": [10, 40, 25]}, "seeds": [0, 1]}))
    first, second = values.tasks("source")
    store.save(trained(make_record, first, peak=20))
    store.save(trained(make_record, second, peak=20, steps=25))
    rows = summarize(values, "source", store)
    assert [(row["horizon_steps"], row["seed"], row["status"], row.get("steps")) for row in rows] == [
        (10, 0, "finished", 10),
        (10, 1, "finished", 10),
        (25, 0, "finished", 25),
        (25, 1, "finished", 25),
        (40, 0, "finished", 40),
        (40, 1, "short", 25),
    ]
    best = [row["max_test_accuracy"] for row in rows]
    assert best == pytest.approx([0.8, 0.8, 0.9, 0.9, 0.9, 0.9])
    assert [row["final_test_accuracy"] for row in rows[::2]] == pytest.approx([0.8, 0.85, 0.7])
    assert [row["censored"] for row in rows] == [True, True, False, False, False, True]
    assert len({row["run_id"] for row in rows}) == 2


def test_a_run_that_diverges_between_its_budgets(store, make_record):
    values = plan(scale(source={"horizon": {"budgets": [10, 40]}}))
    (task,) = values.tasks("source")
    store.save(trained(make_record, task, peak=5, steps=20, status="diverged"))
    rows = summarize(values, "source", store)
    assert [(row["status"], row["steps"]) for row in rows] == [("finished", 10), ("diverged", 20)]
    assert "t_star" in rows[0]
    assert "t_star" not in rows[1]


def test_the_rows_of_a_measured_experiment(store, make_record):
    """Runs of another experiment, too, each up to the budget that its λ is made for."""
    values = plan(scale(grid=GRID), guess=DerivedL2({(0.1, 10): 0.04, (0.1, 40): 0.013}))
    for task in values.tasks("guess"):
        store.save(trained(make_record, task, peak=30))
    rows = summarize(values, "guess", store)
    assert [(row["l2"], row["horizon_epochs"], row["status"], row["steps"]) for row in rows] == [
        (0.04, 10, "finished", 10),
        (0.013, 40, "finished", 40),
    ]
    assert [row["max_test_accuracy"] for row in rows] == pytest.approx([0.7, 0.9])


# --- the DAG --------------------------------------------------------------------------------------


class NotYet(Exception):
    """What Snakemake raises where a checkpoint has not run."""


class Checkpoints:
    """Snakemake's `checkpoints` with the one that is there: it has run once `done` is set."""

    def __init__(self, done=False):
        self.derive, self.done, self.asked = self, done, []

    def get(self, **wildcards):
        self.asked.append(wildcards)
        if not self.done:
            raise NotYet


@pytest.fixture
def workflow(write_scale):
    """A scale with two figures, of which one needs measured λ."""
    figures = {"fig1": {"experiments": ["grid", "guess"]}, "fig2": {"experiments": ["source"]}}
    values = scale(grid=GRID, guess={"slices": 2}) | {"figures": figures}
    write_scale(values)
    return values


FOUND = DerivedL2({(0.1, 10.0): 0.04, (0.1, 40.0): 0.013})


def state(dag, experiments=("source", "grid")):
    return (
        {name: dag.markers(name) for name in experiments},
        {name: dag.summary_key(name) for name in experiments},
        dag.targets(),
        dag.patterns(),
        dag.derivation_key("guess"),
    )


@pytest.mark.parametrize("main_process", [False, True])
def test_inputs_wait_for_the_checkpoint(workflow, main_process):
    dag, checkpoints = Dag(TINY, main_process=main_process), Checkpoints()
    before = state(dag)
    assert dag.summary_inputs("grid", checkpoints) == dag.markers("grid")
    assert checkpoints.asked == []  # a listed experiment asks for no checkpoint
    with pytest.raises(NotYet):
        dag.summary_inputs("guess", checkpoints)
    assert checkpoints.asked == [{"experiment": "guess"}]
    assert dag.markers("guess") == []
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    checkpoints.done = True
    path, *markers = dag.summary_inputs("guess", checkpoints)
    assert path == str(derived_l2_path("tiny", "guess")) == f"{dag.out}/guess/l2.json"
    assert set(markers) == set(dag.markers("guess")) == set(Dag(TINY).markers("guess"))
    expected = {f"{dag.out}/guess/slices/{s.name}.done" for s in dag.plan.slices("guess")}
    shared = [s for s in dag.plan.slices("grid") if any((t.spec.l2, t.spec.init_seed) == (0.04, 0) for t in s.tasks)]
    assert len(shared) == 1
    assert set(markers) == expected | {f"{dag.out}/grid/slices/{shared[0].name}.done"}
    assert state(dag) == before
    assert state(Dag(TINY)) == before


def test_a_plan_is_made_anew_only_when_l2_changed(workflow, monkeypatch):
    dag, checkpoints = Dag(TINY), Checkpoints(done=True)
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    dag.summary_inputs("guess", checkpoints)
    taken = dag.plan
    assert dag.summary_inputs("guess", checkpoints) == dag.summary_inputs("guess", checkpoints)
    assert dag.plan is taken
    changed = DerivedL2({**FOUND.values, (0.1, 40.0): 0.014})
    write_derived_l2(derived_l2_path("tiny", "guess"), changed)
    assert dag.summary_inputs("guess", checkpoints)
    assert [run.spec.l2 for run in dag.plan.experiments["guess"]] == [0.04, 0.014]


def test_unresolved_inputs_are_the_file_alone(workflow):
    dag = Dag(TINY)
    write_derived_l2(derived_l2_path("tiny", "guess"), DerivedL2({}, "no peak"))
    assert dag.summary_inputs("guess", Checkpoints(done=True)) == [f"{dag.out}/guess/l2.json"]


def test_without_training_the_checkpoint_is_all_there_is(workflow):
    dag = Dag(TINY | {"train": False})
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    assert dag.summary_inputs("guess", Checkpoints(done=True)) == [f"{dag.out}/guess/l2.json"]
    assert dag.summary_inputs("grid", Checkpoints(done=True)) == []
    with pytest.raises(NotYet):
        Dag(TINY | {"train": False}).summary_inputs("guess", Checkpoints())


def test_a_damaged_file_after_the_checkpoint(workflow):
    dag = Dag(TINY)
    path = derived_l2_path("tiny", "guess")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(UserError, match=re.escape(str(path))):
        dag.summary_inputs("guess", Checkpoints(done=True))


def test_the_summary_key_of_measured_runs(workflow):
    keys = [Dag(TINY).summary_key("guess")]
    for derived in (FOUND, DerivedL2({**FOUND.values, (0.1, 40.0): 0.014}), DerivedL2({}, "no peak")):
        write_derived_l2(derived_l2_path("tiny", "guess"), derived)
        keys.append(Dag(TINY).summary_key("guess"))
    assert len(set(keys[:3])) == 3
    assert keys[3] == keys[0]  # no runs


def test_what_a_measurement_depends_on(write_scale, make_record):
    def key(**changes):
        write_scale(scale(**{"grid": GRID, **changes}))
        return Dag(TINY).derivation_key("guess")

    base = key()
    others = [
        key(guess={"horizon": {"budgets": [10, 50]}}),
        key(guess={"l2": {"predicted_from": "source", "reading": "within"}}),
        key(guess=TUNED),
        key(guess={"l2": {"predicted_from": "grid"}}),
        key(source={"l2": [0.01, 0.02]}),
        key(source={"seeds": [1]}),
        key(source={"horizon": {"epochs": 101}}),
        key(setup={"momentum": 0.5}),
    ]
    assert base not in others
    assert len(set(others)) == len(others)
    assert key(grid=GRID | {"l2": [0.5]}) == base
    same = [{"shows": "y"}, {"slices": 3}, {"seeds": [0, 1]}, {"evaluation": {"ratio": 1.05}}]
    same.append({"horizon": {"budgets": [40, 10]}})
    assert {key(guess=one) for one in same} == {base}
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=30))
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    assert key() == base


def test_names_targets_and_sources(workflow, write_scale):
    dag = Dag(TINY)
    assert dag.derived == ["guess"]
    assert dag.summary_of_source("guess") == f"{dag.out}/source/summary.csv"
    assert re.fullmatch(dag.derived_pattern(), "guess")
    assert not re.fullmatch(dag.derived_pattern(), "source")
    assert dag.priority("source") > dag.priority("grid") == dag.priority("guess")
    targets = dag.targets()
    assert targets.index(f"{dag.out}/guess/l2.json") < targets.index(f"{dag.out}/guess/summary.csv")
    assert not any(target.endswith(("source/l2.json", "grid/l2.json")) for target in targets)
    del workflow["experiments"]["guess"]
    write_scale(workflow | {"figures": {}})
    assert Dag(TINY).derived == []
    assert not any(re.search(Dag(TINY).derived_pattern(), text) for text in ("", "source", "guess"))


def test_the_main_process_ages_new_markers_and_leaves_those_that_are_there(workflow):
    """A lost marker of a measured experiment is made anew; one that was written stays."""
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    markers = Dag(TINY).markers("guess")
    written = [m for m in markers if "/guess/slices/" in m]
    assert written
    derived_l2_path("tiny", "guess").unlink()
    dag = Dag(TINY, main_process=True)
    assert not any(os.path.exists(marker) for marker in written)
    os.makedirs(os.path.dirname(written[0]), exist_ok=True)
    with open(written[0], "w") as stream:
        stream.write('{"runs": ["0"]}')
    listed = dag.markers("grid")
    assert all(os.path.getmtime(marker) == LONG_AGO for marker in listed)
    os.unlink(listed[0])  # as for a job that is running now
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    dag.summary_inputs("guess", Checkpoints(done=True))
    assert not os.path.exists(listed[0])
    assert os.path.getmtime(written[0]) > LONG_AGO
    assert all(os.path.getmtime(marker) == LONG_AGO for marker in written[1:])
    assert all(os.path.exists(marker) for marker in written)


def test_resources_of_measured_runs(workflow, make_record):
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    dag = Dag(TINY | {"device": "cuda"})
    (marker,) = [m for m in dag.markers("guess") if "/guess/slices/" in m]
    part, parts, key = re.search(r"slices/(\d+)of(\d+)-(\w+)\.done", marker).groups()
    assert dag.gpus("guess", part, parts, key) == 1
    for task in dag.plan.tasks("guess"):
        dag.store.save(trained(make_record, task, peak=5))
    assert dag.gpus("guess", part, parts, key) == 0


PROBE = """
import sys
from l2dyn.runs.dag import Dag
class Done:
    def get(self, **wildcards): pass
class Checkpoints:
    derive = Done()
dag = Dag({"scale": "tiny"}, main_process=True)
for name in dag.plan.experiments:
    assert dag.summary_inputs(name, Checkpoints())
dag.derivation_key("guess"), dag.targets(), dag.patterns()
heavy = ("torch", "pandas", "matplotlib", "seaborn", "torchvision", "snakemake", "sklearn", "l2dyn.derivation")
print([name for name in heavy if name in sys.modules])
"""


def test_the_snakefile_loads_little(workflow):
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def l2dyn(quiet, capsys):
    """l2dyn(*arguments) runs a command at scale tiny: exit code, standard output, lines of standard error."""

    def run(command, *arguments):
        capsys.readouterr()
        code = cli.main([command, "--scale", "tiny", *map(str, arguments)])
        seen = capsys.readouterr()
        return code, seen.out, seen.err.splitlines()

    return run


def cells(out, name) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
    return line.removeprefix(name).split()


def test_training_what_is_pending(workflow, l2dyn):
    code, out, (line,) = l2dyn("train", "--experiment", "guess")
    assert (code, out) == (2, "")
    assert "l2dyn predict --scale tiny --experiment guess" in line
    assert "source" in line
    assert not derived_l2_path("tiny", "guess").exists()
    code, _, (line,) = l2dyn("train", "--experiment", "nobody")
    assert code == 2
    assert "nobody" in line


def test_training_what_was_measured_for_other_budgets(workflow, write_scale, l2dyn, make_record):
    """Half of its λ are known: no exit with "done" for the other half."""
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    dag = Dag(TINY)
    for task in dag.plan.tasks("guess"):
        dag.store.save(trained(make_record, task, peak=5))
    assert l2dyn("train", "--experiment", "guess")[0] == 0
    workflow["experiments"]["guess"]["horizon"] = {"budgets": [10, 80]}
    write_scale(workflow)
    code, _, (line,) = l2dyn("train", "--experiment", "guess")
    assert code == 2
    assert "l2dyn predict" in line


def test_from_source_to_summary(workflow, l2dyn, make_record):
    """predict, train (all of it is there already) and summarize, each by hand."""
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=40))
    code, out, err = l2dyn("predict", "--experiment", "guess")
    assert code == 0
    path = derived_l2_path("tiny", "guess")
    assert str(path) in "".join(err)
    assert [line.split() for line in out.splitlines()[1:]] == [["0.1", "10", "0.04"], ["0.1", "40", "0.01"]]
    assert read_derived_l2(path).values == {(0.1, 10.0): 0.04, (0.1, 40.0): 0.01}
    before = path.read_bytes()
    assert l2dyn("predict", "--experiment", "guess")[0] == 0  # it may be called again
    assert path.read_bytes() == before
    values = planned("tiny", load_scale("tiny"))
    (own,) = [t for t in values.tasks("guess") if t.spec.l2 == 0.04]
    assert values.owners("guess") == ["grid", "source"]
    dag.store.save(trained(make_record, own, peak=5))
    marker = path.parent / "done"
    assert l2dyn("train", "--experiment", "guess", "--marker", marker)[0] == 0
    assert len(json.loads(marker.read_text())["runs"]) == 2
    code, _, err = l2dyn("summarize", "--experiment", "guess")
    assert code == 0
    assert "2 finished" in err[-1]


def test_prediction_elsewhere_and_under_the_workflow(workflow, l2dyn, make_record, tmp_path):
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=40))
    log, path = tmp_path / "logs" / "derive.log", tmp_path / "elsewhere" / "l2.json"
    code, out, err = l2dyn("predict", "--experiment", "guess", "--output", path, "--log", log)
    assert (code, out, err) == (0, "", [])
    assert read_derived_l2(path).values == {(0.1, 10.0): 0.04, (0.1, 40.0): 0.01}
    assert not derived_l2_path("tiny", "guess").exists()
    assert "0.04" in log.read_text()


@pytest.mark.parametrize("logged", [False, True])
def test_an_unresolved_prediction(workflow, l2dyn, tmp_path, logged):
    options = ["--log", tmp_path / "log"] if logged else []
    code, _, err = l2dyn("predict", "--experiment", "guess", *options)
    assert code == 0
    (line,) = [line for line in err if "missing" in line]
    assert "guess" in line
    assert "1 of 1 runs of source" in line
    derived = read_derived_l2(derived_l2_path("tiny", "guess"))
    assert derived.values == {}
    assert derived.reason in line
    assert planned("tiny", load_scale("tiny")).pending == []
    code, _, err = l2dyn("summarize", "--experiment", "guess")
    assert code == 0
    assert "1 missing" in err[-1]


def test_what_could_not_be_measured_is_said(workflow, l2dyn, tmp_path):
    """Wherever there is nothing to do for it; the workflow goes on."""
    l2dyn("predict", "--experiment", "guess")
    reason = "guess: its l2 could not be measured: 1 of 1 runs of source are missing"
    for command in ("plan", "status"):
        code, out, _ = l2dyn(command)
        assert code == 0
        assert out.splitlines().count(reason) == 1
        assert "pending" not in out
    code, _, (line,) = l2dyn("train", "--experiment", "guess", "--log", tmp_path / "log")  # so that only warnings show
    assert code == 0
    assert reason in line
    assert "l2dyn predict" in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--experiment", "guess", "--budget", "5"], ["--budget", "guess", "config/tiny.yaml"]),
        (["--experiment", "guess", "--first-decay", "5"], ["--first-decay", "guess", "config/tiny.yaml"]),
        (["--experiment", "guess", "--first-decay", "0"], ["--first-decay", "guess", "config/tiny.yaml"]),
        (["--experiment", "source", "--first-decay", "5"], ["--first-decay", "--budget"]),
        (["--experiment", "source", "--output", "x.json"], ["--output", "source", "config/tiny.yaml"]),
        (["--experiment", "nobody"], ["--experiment nobody", "source"]),
        (["--experiment", "grid"], ["grid", "5"]),  # all but the one that the source lists, too
        (["--experiment", "source", "--budget", "0"], ["--budget", "0"]),
        (["--experiment", "source", "--budget", "-3"], ["--budget", "-3"]),
        (["--experiment", "source", "--budget", "nan"], ["--budget", "nan"]),
        (["--experiment", "source", "--budget", "5", "--first-decay", "6"], ["--first-decay", "6"]),
        (["--experiment", "source", "--budget", "5", "--first-decay", "0"], ["--first-decay", "0"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_predictions(workflow, l2dyn, make_record, arguments, parts):
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=40))
    code, out, (line,) = l2dyn("predict", *arguments)
    assert (code, out) == (2, "")
    assert [part for part in parts if part not in line] == []
    assert not os.path.exists("x.json")
    assert not derived_l2_path("tiny", "guess").exists()


def test_c_of_a_listed_experiment(workflow, l2dyn, make_record):
    """c of either reading with its resolution, the dimensionless C, and λ of every budget that is asked for."""
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=30))
    code, out, err = l2dyn("predict", "--experiment", "source", "--budget", "7", "--budget", "300")
    assert (code, err) == (0, [])
    head, row = out.splitlines()
    assert "7 epochs" in head
    assert "300 epochs" in head
    # c = 0.01·30 both ways, half a point before the peak being less than one evaluation; C = 0.1·1·c
    assert row.split() == ["0.1", "1", "0.3", "(0.29–0.31)", "0.3", "(0.29–0.31)", "0.03", "0.043", "0.001"]
    code, out, _ = l2dyn("predict", "--experiment", "source", "--budget", "7", "--first-decay", "3")
    assert (code, out.split()[-1]) == (0, "0.1")
    code, out, _ = l2dyn("predict", "--experiment", "source")
    assert (code, len(out.splitlines())) == (0, 2)
    assert not derived_l2_path("tiny", "source").exists()


def test_c_of_a_listed_experiment_without_a_peak(workflow, l2dyn, make_record):
    dag = Dag(TINY)
    for task in dag.plan.tasks("source"):
        dag.store.save(trained(make_record, task, peak=100))
    code, out, (line,) = l2dyn("predict", "--experiment", "source")
    assert (code, out) == (2, "")
    assert "source" in line


@pytest.mark.parametrize("change", [{"auto_l2": {}}, {"lr_schedule": SCHEDULE}], ids=str)
def test_c_only_of_a_constant_l2_and_learning_rate(write_scale, l2dyn, make_record, change):
    """As the configuration has it, for which such a source is an error."""
    write_scale(scale(setup=CONVOLUTIONAL, changing=SOURCE | CONVOLUTIONAL | change))
    dag = Dag(TINY)
    for task in dag.plan.tasks("changing"):
        dag.store.save(trained(make_record, task, peak=30))
    code, _, (line,) = l2dyn("predict", "--experiment", "changing", "--budget", "10")
    assert code == 2
    assert "changing" in line
    assert next(iter(change)) in line


def test_a_damaged_record_stops_a_prediction(workflow, l2dyn, make_record):
    dag = Dag(TINY)
    (task,) = dag.plan.tasks("source")
    dag.store.save(trained(make_record, task, peak=30))
    dag.store.path(task.run_id).write_bytes(b"PAR1")
    code, _, (line,) = l2dyn("predict", "--experiment", "guess")
    assert code == 1
    assert task.run_id in line
    assert not derived_l2_path("tiny", "guess").exists()


def test_plan_and_status_of_what_is_pending(workflow, l2dyn):
    code, out, _ = l2dyn("plan")
    assert code == 0
    # runs, own, capped, longest run, steps
    assert cells(out, "guess")[:6] == ["*", "2", "2", "0", "40", "50"]
    assert cells(out, "all")[:5] == ["9", "8", "0", "100", "400"]  # the source and the grid share a run
    assert re.search(r"^\* guess: pending.* source", out, re.MULTILINE)
    code, out, _ = l2dyn("status")
    assert code == 0
    assert re.search(r"^guess: pending.* source", out, re.MULTILINE)
    write_derived_l2(derived_l2_path("tiny", "guess"), FOUND)
    code, out, _ = l2dyn("plan")
    assert "pending" not in out
    assert cells(out, "guess")[:5] == ["2", "1", "0", "40", "40"]  # the grid lists the other one
    assert "pending" not in l2dyn("status")[1]


def test_plan_and_status_count_runs(write_scale, l2dyn, make_record):
    """Not rows: a run counts once, whatever the number of its budgets."""
    write_scale(scale(source=GRID | {"horizon": {"budgets": [5, 10, 40]}}))
    _, out, _ = l2dyn("plan")
    assert cells(out, "source")[:5] == ["6", "6", "0", "40", "240"]
    dag = Dag(TINY)
    dag.store.save(trained(make_record, dag.plan.tasks("source")[0], peak=5))
    _, out, _ = l2dyn("status")
    # runs, done, of these shipped, diverged, checkpointed, missing
    assert cells(out, "source") == ["6", "1", "0", "0", "0", "5"]
