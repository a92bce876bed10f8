"""One row a run, from the prefix up to the declared horizon."""

import csv
import math

import numpy as np
import pytest
from l2dyn.metrics import peak
from l2dyn.runs.spec import NUMERICS_VERSION
from l2dyn.runs.store import write_manifest
from l2dyn.summary import FIELDS, outdated, summarize, write_summary

from l2dyn.errors import UserError
from l2dyn.runs.records import write_records


@pytest.fixture
def one(tiny, plan_of):
    """one(**changes): the plan of a single run, 100 epochs of the full batch."""

    def build(**changes):
        experiment = tiny["experiments"]["first"] | {"lr": [0.1], "l2": [0.01], "horizon": {"epochs": 100}} | changes
        return plan_of({"about": "x", "figures": {}, "experiments": {"first": experiment}})

    return build


def curve(at, top=0.9, when=20):
    """Rises until `when`, then falls slowly."""
    at = np.asarray(at, dtype=float)
    return np.where(at <= when, 0.1 + (top - 0.1) * at / when, top - 0.001 * (at - when))


AT = [0, 1, 2, 5, 10, 15, 20, 40, 70, 100]


def row_of(plan, store):
    (row,) = summarize(plan, "first", store)
    assert set(row) <= set(FIELDS)
    return row


def test_missing(one, store):
    plan = one(seeds=[3], momentum=0.9)
    (run,) = plan.experiments["first"]
    assert row_of(plan, store) == {
        "run_id": run.run_id,
        "experiment": "first",
        "dataset": "digits",
        "lr": 0.1,
        "l2": 0.01,
        "momentum": 0.9,
        "seed": 3,
        "status": "missing",
        "horizon_steps": 100,
        "horizon_epochs": 100,
        "capped": False,
    }


def test_finished(one, store, make_record):
    plan = one()
    record = make_record(plan.experiments["first"][0].spec, steps=100, at=AT, test_accuracy=curve(AT))
    store.save(record)
    row = row_of(plan, store)
    expected = {
        "status": "finished",
        "steps": 100,
        "t_star": 20.0,
        "t_star_after": 15.0,
        "t_argmax": 20.0,
        "censored": False,
        "max_test_accuracy": 0.9,
        "shelf": "results",
        "numerics_version": NUMERICS_VERSION,
        "device": "cpu (x86_64)",
        "revision": "abc",
    }
    assert {key: row[key] for key in expected} == expected
    assert row["final_test_accuracy"] == pytest.approx(0.82)
    losses, errors = record.columns["train_loss"], record.columns["train_error"]
    assert row["min_train_loss"] == losses.min()
    assert row["t_min_train_loss"] == AT[losses.argmin()]
    assert (row["min_train_error"], row["final_train_error"]) == (errors.min(), errors[-1])


def test_epochs_of_minibatches(one, store, make_record):
    plan = one(batch=16)
    at = [4 * e for e in AT]
    store.save(make_record(plan.experiments["first"][0].spec, steps=400, at=at, test_accuracy=curve(AT)))
    row = row_of(plan, store)
    assert (row["horizon_steps"], row["horizon_epochs"], row["steps"], row["t_star"]) == (400, 100, 400, 20.0)


def test_the_prefix_up_to_the_declared_horizon(one, store, make_record):
    """What a longer run did later is no business of this experiment, censoring included."""
    plan = one()
    at = [*AT, 200, 400]
    accuracy = np.r_[curve(AT, when=80), 0.95, 0.99]
    loss, error = np.r_[np.linspace(1, 0.5, len(AT)), 0.01, 0.001], np.r_[np.linspace(1, 0.5, len(AT)), 0.0, 0.0]
    spec = plan.experiments["first"][0].spec
    store.save(make_record(spec, steps=400, at=at, test_accuracy=accuracy, train_loss=loss, train_error=error))
    row = row_of(plan, store)
    assert (row["status"], row["steps"], row["horizon_steps"]) == ("finished", 100, 100)
    expected = peak(AT, accuracy[: len(AT)], horizon=100)
    assert (row["t_star"], row["t_argmax"], row["censored"]) == (expected.t_star, expected.t_argmax, expected.censored)
    assert row["max_test_accuracy"] == accuracy[: len(AT)].max()
    assert row["final_test_accuracy"] == accuracy[len(AT) - 1]
    assert (row["min_train_loss"], row["min_train_error"], row["t_min_train_loss"]) == (0.5, 0.5, 100.0)
    assert row["final_train_error"] == 0.5


def test_short(one, store, make_record):
    plan = one()
    at = [a for a in AT if a <= 70]
    store.save(make_record(plan.experiments["first"][0].spec, steps=70, at=at, test_accuracy=curve(at)))
    row = row_of(plan, store)
    assert (row["status"], row["steps"], row["horizon_steps"]) == ("short", 70, 100)
    assert (row["t_star"], row["max_test_accuracy"]) == (20.0, 0.9)


def test_diverged(one, store, make_record):
    plan = one()
    at = [0, 1, 2, 5]
    record = make_record(
        plan.experiments["first"][0].spec,
        steps=5,
        at=at,
        status="diverged",
        test_accuracy=[0.1, 0.6, 0.7, 0.1],
        train_loss=[2.0, 1.0, 0.5, 9e9],
    )
    store.save(record)
    row = row_of(plan, store)
    assert (row["status"], row["steps"], row["max_test_accuracy"]) == ("diverged", 5, 0.7)
    assert not {"t_star", "t_star_after", "t_argmax", "censored"} & set(row)
    assert (row["min_train_loss"], row["t_min_train_loss"]) == (0.5, 2.0)


def test_diverged_before_the_first_measurement(one, store, make_record):
    plan = one()
    store.save(make_record(plan.experiments["first"][0].spec, steps=1, at=[], status="diverged"))
    row = row_of(plan, store)
    assert (row["status"], row["steps"]) == ("diverged", 1)
    assert "max_test_accuracy" not in row


@pytest.mark.parametrize(("diverged_at", "status"), [(100, "diverged"), (101, "finished"), (5000, "finished")])
def test_diverged_after_the_horizon(one, store, make_record, diverged_at, status):
    plan = one()
    at = [*AT[:-1], 100, diverged_at] if diverged_at > 100 else AT
    accuracy = np.r_[curve(AT), 0.1] if diverged_at > 100 else curve(AT)
    spec = plan.experiments["first"][0].spec
    store.save(make_record(spec, steps=diverged_at, at=at, status="diverged", test_accuracy=accuracy))
    row = row_of(plan, store)
    assert (row["status"], row["steps"]) == (status, 100)
    assert ("t_star" in row) == (status == "finished")


def test_never_above_chance(one, store, make_record):
    plan = one()
    store.save(make_record(plan.experiments["first"][0].spec, steps=100, at=AT, test_accuracy=curve(AT, top=0.19)))
    row = row_of(plan, store)
    assert (row["status"], row["max_test_accuracy"]) == ("finished", 0.19)
    assert "t_star" not in row


def test_two_classes_have_another_chance(one, store, make_record, tiny):
    data = tiny["experiments"]["first"]["data"] | {"labels": "parity"}
    plan = one(data=data, loss="mse")
    store.save(make_record(plan.experiments["first"][0].spec, steps=100, at=AT, test_accuracy=curve(AT, top=0.55)))
    assert "t_star" not in row_of(plan, store)


def test_the_shipped_shelf(one, store, make_record):
    plan = one()
    spec = plan.experiments["first"][0].spec
    record = make_record(spec, steps=100, at=AT, test_accuracy=curve(AT), numerics_version=NUMERICS_VERSION - 1)
    write_records(store.shipped / "runs" / "a.parquet", [record])
    write_manifest(store.shipped / "runs")
    rows = summarize(plan, "first", store)
    assert (rows[0]["status"], rows[0]["shelf"], rows[0]["t_star"]) == ("finished", "shipped", 20.0)
    assert rows[0]["numerics_version"] == NUMERICS_VERSION - 1
    assert outdated(rows) == 1
    store.save(make_record(spec, steps=100, at=AT, test_accuracy=curve(AT)))
    rows = summarize(plan, "first", store)
    assert (rows[0]["shelf"], outdated(rows)) == ("results", 0)


def test_a_row_for_every_run_in_the_order_of_the_grid(tiny, plan_of, store, make_record):
    plan = plan_of(tiny)
    runs = plan.experiments["budget"]
    store.save(make_record(runs[3].spec, steps=50, test_accuracy=np.full(51, 0.9)))
    rows = summarize(plan, "budget", store)
    assert [r["run_id"] for r in rows] == [r.run_id for r in runs]
    assert [r["status"] for r in rows] == ["missing"] * 3 + ["finished"] + ["missing"] * 2
    assert {r["experiment"] for r in rows} == {"budget"}
    assert outdated(rows) == 0


def test_a_damaged_record_stops_the_summary(one, store, make_record):
    plan = one()
    store.save(make_record(plan.experiments["first"][0].spec, steps=100))
    store.path(plan.experiments["first"][0].run_id).write_bytes(b"")
    with pytest.raises(UserError, match=plan.experiments["first"][0].run_id):
        summarize(plan, "first", store)
    assert row_of(plan, store)["status"] == "missing"


def test_csv_round_trip(tiny, plan_of, store, make_record, tmp_path):
    plan = plan_of(tiny)
    runs = plan.experiments["budget"]
    record = make_record(runs[0].spec, steps=50, test_accuracy=curve(range(51)))
    record.provenance["device"] = 'NVIDIA "H100", 80 GB\nλ'
    store.save(record)
    store.save(make_record(runs[1].spec, steps=3, status="diverged", train_loss=[1.0, 2.0, 3.0, math.inf]))
    rows = summarize(plan, "budget", store)
    path = tmp_path / "deep" / "summary.csv"
    write_summary(path, rows)
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        read = list(reader)
    assert tuple(reader.fieldnames) == FIELDS
    assert len(read) == len(rows) == 6
    for written, back in zip(rows, read, strict=True):
        for name in FIELDS:
            value = written.get(name)
            if value is None:
                assert back[name] == ""
            elif isinstance(value, bool):
                assert back[name] == str(value).lower()
            else:
                assert type(value)(back[name]) == value, name


@pytest.mark.parametrize("value", [np.float64(0.1), np.float32(0.25), np.int64(3), np.bool_(True)])
def test_csv_of_numpy_values(tmp_path, value):
    """A number is written as a number, whoever computed it."""
    write_summary(tmp_path / "summary.csv", [{"run_id": "a", "t_star": value}])
    with open(tmp_path / "summary.csv", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["t_star"] in {"0.1", "0.25", "3", "true"}


def test_an_empty_summary_has_a_header(tmp_path):
    write_summary(tmp_path / "summary.csv", [])
    assert (tmp_path / "summary.csv").read_text() == ",".join(FIELDS) + "\n"
