"""One row a run, from the prefix up to the declared horizon."""

import csv
import math

import numpy as np
import pytest

from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.measures.peaks import peak
from l2dyn.runs.bundles import RECORDED, Bundles
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import write_records
from l2dyn.specs.run import NUMERICS_VERSION
from l2dyn.tables.summary import FIELDS, summarize, write_summary


@pytest.fixture
def bundle(tmp_path):
    """bundle(*records, name): the records as a rule hands them over."""

    def write(*records, name="1of1-0.parquet"):
        write_records(tmp_path / name, records, recorded=[r.run_id for r in records] if name == RECORDED else ())
        return Bundles([tmp_path / name])

    return write


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


def row_of(plan, records):
    (row,) = summarize(plan, "first", records)
    assert set(row) <= set(FIELDS)
    return row


def test_missing(one, bundle):
    plan = one(seeds=[3], optimizer={"kind": "sgd", "momentum": 0.9})
    (run,) = plan.experiments["first"]
    assert row_of(plan, bundle()) == {
        "run_id": run.run_id,
        "experiment": "first",
        "dataset": "digits",
        "units": "torch",
        "lr": 0.1,
        "l2": 0.01,
        "lr_torch": 0.1,
        "l2_torch": 0.01,
        "momentum": 0.9,
        "seed": 3,
        "status": "missing",
        "horizon_steps": 100,
        "horizon_epochs": 100,
        "capped": False,
    }


@pytest.mark.parametrize("steps_per_epoch", [1, 4])
def test_finished(one, bundle, make_record, steps_per_epoch):
    """Times are in epochs, also of minibatches."""
    plan = one(batch=16) if steps_per_epoch == 4 else one()
    at = [steps_per_epoch * epoch for epoch in AT]
    record = make_record(plan.experiments["first"][0].spec, steps=at[-1], at=at, test_accuracy=curve(AT))
    row = row_of(plan, bundle(record))
    losses, errors = record.columns["train_loss"], record.columns["train_error"]
    expected = {
        "status": "finished",
        "horizon_steps": at[-1],
        "horizon_epochs": 100,
        "steps": at[-1],
        "t_star": 20.0,
        "t_star_after": 15.0,
        "t_argmax": 20.0,
        "censored": False,
        "max_test_accuracy": 0.9,
        "final_test_accuracy": pytest.approx(0.82),
        "min_train_loss": losses.min(),
        "t_min_train_loss": AT[losses.argmin()],
        "min_train_error": errors.min(),
        "final_train_error": errors[-1],
        "source": "trained",
        "numerics_version": NUMERICS_VERSION,
        "device": "cpu (x86_64)",
        "revision": "abc",
    }
    assert {key: row[key] for key in expected} == expected


def test_the_prefix_up_to_the_declared_horizon(one, bundle, make_record):
    """What a longer run did later is no business of this experiment, censoring included."""
    plan = one()
    at = [*AT, 200, 400]
    accuracy = np.r_[curve(AT, when=80), 0.95, 0.99]
    loss, error = np.r_[np.linspace(1, 0.5, len(AT)), 0.01, 0.001], np.r_[np.linspace(1, 0.5, len(AT)), 0.0, 0.0]
    spec = plan.experiments["first"][0].spec
    record = make_record(spec, steps=400, at=at, test_accuracy=accuracy, train_loss=loss, train_error=error)
    row = row_of(plan, bundle(record))
    assert (row["status"], row["steps"], row["horizon_steps"]) == ("finished", 100, 100)
    expected = peak(AT, accuracy[: len(AT)], horizon=100)
    assert (row["t_star"], row["t_argmax"], row["censored"]) == (expected.t_star, expected.t_argmax, expected.censored)
    assert row["max_test_accuracy"] == accuracy[: len(AT)].max()
    assert row["final_test_accuracy"] == accuracy[len(AT) - 1]
    assert (row["min_train_loss"], row["min_train_error"], row["t_min_train_loss"]) == (0.5, 0.5, 100.0)
    assert row["final_train_error"] == 0.5


def test_short(one, bundle, make_record):
    """A record shorter than declared is used as far as it goes; its t* is no more than a lower bound."""
    plan = one()
    at = [a for a in AT if a <= 70]
    record = make_record(plan.experiments["first"][0].spec, steps=70, at=at, test_accuracy=curve(at))
    row = row_of(plan, bundle(record))
    assert (row["status"], row["steps"], row["horizon_steps"]) == ("short", 70, 100)
    assert (row["t_star"], row["max_test_accuracy"], row["censored"]) == (20.0, 0.9, True)


def test_diverged(one, bundle, make_record):
    plan = one()
    spec = plan.experiments["first"][0].spec
    curves = {"test_accuracy": [0.1, 0.6, 0.7, 0.1], "train_loss": [2.0, 1.0, 0.5, 9e9]}
    row = row_of(plan, bundle(make_record(spec, steps=5, at=[0, 1, 2, 5], status="diverged", **curves)))
    assert (row["status"], row["steps"], row["max_test_accuracy"]) == ("diverged", 5, 0.7)
    assert not {"t_star", "t_star_after", "t_argmax", "censored"} & set(row)
    assert (row["min_train_loss"], row["t_min_train_loss"]) == (0.5, 2.0)
    row = row_of(plan, bundle(make_record(spec, steps=1, at=[], status="diverged")))  # before the first measurement
    assert (row["status"], row["steps"]) == ("diverged", 1)
    assert "max_test_accuracy" not in row


@pytest.mark.parametrize(("diverged_at", "status"), [(100, "diverged"), (101, "finished"), (5000, "finished")])
def test_diverged_after_the_horizon(one, bundle, make_record, diverged_at, status):
    plan = one()
    at = [*AT[:-1], 100, diverged_at] if diverged_at > 100 else AT
    accuracy = np.r_[curve(AT), 0.1] if diverged_at > 100 else curve(AT)
    spec = plan.experiments["first"][0].spec
    row = row_of(plan, bundle(make_record(spec, diverged_at, at=at, status="diverged", test_accuracy=accuracy)))
    assert (row["status"], row["steps"]) == (status, 100)
    assert ("t_star" in row) == (status == "finished")


@pytest.mark.parametrize(
    ("labels", "top", "above"), [("class", 0.19, False), ("parity", 0.55, False), ("parity", 0.65, True)]
)
def test_a_run_that_never_beats_chance_has_no_t_star(one, bundle, make_record, tiny, labels, top, above):
    data = tiny["experiments"]["first"]["data"] | {"labels": labels}
    plan = one(data=data, loss="half_mse")
    record = make_record(plan.experiments["first"][0].spec, steps=100, at=AT, test_accuracy=curve(AT, top=top))
    row = row_of(plan, bundle(record))
    assert (row["status"], row["max_test_accuracy"], "t_star" in row) == ("finished", top, above)


def test_what_ships_is_recorded(one, bundle, make_record):
    """The row names its source and the version of its numerics."""
    plan = one()
    spec = plan.experiments["first"][0].spec
    record = make_record(spec, steps=100, at=AT, test_accuracy=curve(AT), numerics_version=NUMERICS_VERSION - 1)
    row = row_of(plan, bundle(record, name=RECORDED))
    assert (row["status"], row["source"], row["t_star"]) == ("finished", "recorded", 20.0)
    assert row["numerics_version"] == NUMERICS_VERSION - 1


def test_a_row_for_every_run_in_the_order_of_the_grid(tiny, plan_of, bundle, make_record):
    plan = plan_of(tiny)
    runs = plan.experiments["budget"]
    rows = summarize(plan, "budget", bundle(make_record(runs[3].spec, steps=50, test_accuracy=np.full(51, 0.9))))
    assert [r["run_id"] for r in rows] == [r.run_id for r in runs]
    assert [r["status"] for r in rows] == ["missing"] * 3 + ["finished"] + ["missing"] * 2
    assert {r["experiment"] for r in rows} == {"budget"}


def test_a_row_for_every_run_and_budget(one, bundle, make_record):
    plan = one(horizon={"budgets": [10, 40, 25]}, seeds=[0, 1])
    whole, short = (
        make_record(task.spec, steps, test_accuracy=0.9 - 0.01 * np.abs(np.arange(steps + 1) - 20))
        for task, steps in zip(plan.tasks("first"), (40, 25), strict=True)
    )
    rows = summarize(plan, "first", bundle(whole, short))
    assert [(row["horizon_steps"], row["seed"], row["status"], row["steps"]) for row in rows] == [
        (10, 0, "finished", 10),
        (10, 1, "finished", 10),
        (25, 0, "finished", 25),
        (25, 1, "finished", 25),
        (40, 0, "finished", 40),
        (40, 1, "short", 25),
    ]
    assert [row["max_test_accuracy"] for row in rows] == pytest.approx([0.8, 0.8, 0.9, 0.9, 0.9, 0.9])
    assert [row["final_test_accuracy"] for row in rows[::2]] == pytest.approx([0.8, 0.85, 0.7])
    assert [row["censored"] for row in rows] == [True, True, False, False, False, True]
    assert len({row["run_id"] for row in rows}) == 2
    first = make_record(whole.spec, 20, status="diverged", test_accuracy=np.full(21, 0.9))  # between its budgets
    rows = summarize(plan, "first", bundle(first, short))[::2]
    assert [(row["status"], row["steps"], "t_star" in row) for row in rows] == [
        ("finished", 10, True),
        ("diverged", 20, False),
        ("diverged", 20, False),
    ]


def test_the_rows_of_an_l2_selection(tiny, bundle, make_record):
    """Runs of another experiment, too, each up to the budget its λ is made for; unknown λ are one missing row."""
    tiny["experiments"]["guess"] = tiny["experiments"]["budget"] | {
        "l2": {"tuned_from": "budget"},
        "horizon": {"budgets": [10, 40]},
        "seeds": [0],
    }
    scale = ScaleConfig.model_validate(tiny)
    plan = Plan("tiny", scale, {"guess": L2Selection({(0.1, 10): 0.04, (0.1, 40): 0.013})})
    rows = summarize(plan, "guess", bundle(*(make_record(task.spec, task.steps) for task in plan.tasks("guess"))))
    assert [(row["l2"], row["horizon_epochs"], row["status"], row["steps"]) for row in rows] == [
        (0.04, 10, "finished", 10),
        (0.013, 40, "finished", 40),
    ]
    for selections in ({}, {"guess": L2Selection({}, "no peak")}):
        unknown = summarize(Plan("tiny", scale, selections), "guess", bundle())
        assert unknown == [
            {"experiment": "guess", "dataset": "digits", "units": "torch", "lr": 0.1, "status": "missing"}
        ]


def test_a_damaged_record_stops_the_summary(one, make_record, tmp_path):
    plan, path = one(), tmp_path / "1of1-0.parquet"
    record = make_record(plan.experiments["first"][0].spec, steps=100)
    write_records(path, [record])
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(UserError, match=f"{path.name}.* delete"):
        summarize(plan, "first", Bundles([path]))


def test_csv_round_trip(tiny, plan_of, bundle, make_record, tmp_path):
    plan = plan_of(tiny)
    runs = plan.experiments["budget"]
    record = make_record(runs[0].spec, steps=50, test_accuracy=curve(range(51)))
    record.provenance["device"] = 'NVIDIA "H100", 80 GB\nλ'
    lost = make_record(runs[1].spec, steps=3, status="diverged", train_loss=[1.0, 2.0, 3.0, math.inf])
    rows = summarize(plan, "budget", bundle(record, lost))
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
    write_summary(path, [])
    assert path.read_text() == ",".join(FIELDS) + "\n"


def test_a_run_that_others_measure_more_often_is_read_where_this_experiment_measures(one, bundle, make_record):
    """Else its maximum would be taken over more noise than that of its neighbours in the grid."""
    plan = one(evaluation={"every_epochs": 10})
    spec, every = plan.experiments["first"][0].spec, np.arange(101)
    accuracy = np.where(every % 10 == 3, 0.9, 0.5)  # lucky evaluations between those of the grid
    row = row_of(plan, bundle(make_record(spec, steps=100, at=every, test_accuracy=accuracy)))
    assert row["max_test_accuracy"] == 0.5
    sparse = make_record(spec, steps=100, at=[0, 8, 29, 100], test_accuracy=[0.1, 0.3, 0.6, 0.5])
    row = row_of(plan, bundle(sparse))  # of a record that was made for another grid: the evaluation before each step
    assert (row["max_test_accuracy"], row["final_test_accuracy"], row["t_argmax"]) == (0.6, 0.5, 29.0)
