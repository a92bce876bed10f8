"""Which experiments may name another one as the source of their λ: what is refused names the file and the key."""

import math
import re

import pytest

from l2dyn.config.loading import load_scale, scale_names
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import Plan

SETUP = {
    "shows": "x",
    "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
    "lr": [0.1],
}
SOURCE = SETUP | {"l2": [0.01], "horizon": {"epochs": 100}}
GUESS = SETUP | {"l2": {"predicted_from": "source"}, "horizon": {"budgets": [10, 40]}}
TUNED = {"l2": {"tuned_from": "source"}}
SCHEDULE = {"lr_schedule": {"factor": 0.2, "at": [0.5]}}


def scale(source=None, guess=None, **others) -> dict:
    """Two experiments, `source` and `guess`, and further ones."""
    both = {"source": SOURCE | (source or {}), "guess": GUESS | (guess or {})}
    return {"about": "x", "device": "cpu", "figures": {}, "experiments": both | others}


@pytest.fixture
def refused(write_scale):
    """refused(values): the line that says why; it begins with the file."""

    def refuse(values) -> str:
        write_scale(values)
        with pytest.raises(UserError) as caught:
            load_scale("tiny")
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith("config/tiny.yaml: ")
        return line.removeprefix("config/tiny.yaml: ")

    return refuse


def test_what_is_accepted():
    """A source may stand below; it may have learning rates that nobody asks for."""
    other = GUESS | {"l2": {"predicted_from": "source", "reading": "within"}, "horizon": {"epochs": 300}}
    values = scale(source={"lr": [0.1, 0.2]}, guess=SCHEDULE, other=other, tuned=GUESS | TUNED | {"seeds": [3, 4]})
    values["experiments"] = dict(reversed(values["experiments"].items()))
    tuned, other, guess, source = ScaleConfig.model_validate(values).experiments.values()
    assert [e.selected for e in (source, guess, other, tuned)] == [False, True, True, True]
    assert [e.l2.source for e in (guess, other, tuned)] == ["source"] * 3
    assert [e.l2.reading for e in (guess, other, tuned)] == ["argmax", "within", "argmax"]
    assert (guess.horizon.fixed, other.horizon.fixed) == ([10, 40], [300])


def test_every_shipped_scale_takes_up_measured_l2(monkeypatch):
    """Whatever is measured, the plans hold together; at least one scale has such experiments."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("L2DYN_DEVICE", raising=False)
    seen = 0
    for name in scale_names():
        config = load_scale(name)
        pending = Plan(name, config)
        selections = {}
        for key in config.selected:
            pairs = [(lr, T) for lr in config.experiments[key].lr for T in config.experiments[key].horizon.fixed]
            selections[key] = L2Selection({(lr, T): float(f"{0.1 / T:.1e}") for lr, T in pairs})
        assert set(pending.pending) == set(selections)
        full = Plan(name, config, selections)
        assert full.pending == []
        for key in selections:
            seen += 1
            assert {task.run_id for task in full.tasks(key)}
            assert sum(t.steps for t in pending.provisional(key)) >= max(p.steps for p in full.experiments[key])
    assert seen


BAD_L2 = [
    ({"predicted_form": "source"}, "guess.l2", "unknown key predicted_form; known here: predicted_from"),
    ({"predicted_from": "source", "slices": 1}, "guess.l2", "unknown key slices"),
    ({"predicted_from": "source", "tuned_from": "source"}, "guess.l2", "one of predicted_from and tuned_from"),
    ({}, "guess.l2", "one of predicted_from and tuned_from"),
    ({"reading": "within"}, "guess.l2", "one of predicted_from and tuned_from"),
    ({"predicted_from": "nobody"}, "guess.l2.predicted_from", "'nobody'"),
    ({"predicted_from": "no body"}, "guess.l2.predicted_from", "'no body'"),
    ({"tuned_from": "guess"}, "guess.l2.tuned_from", "guess lists no l2"),
    ({"predicted_from": "source", "reading": "smoothed"}, "guess.l2.reading", "'argmax' or 'within'"),
    ({"tuned_from": "source", "reading": "within"}, "guess.l2", "predicted_from"),
    ("predicted_from: source", "guess.l2", "'predicted_from: source'"),
    (None, "guess.l2", ""),
    ([], "guess.l2", ""),
    ([0.01, -1], "guess.l2.1", "-1"),
    ([0.01, "big"], "guess.l2.1", "'big'"),
    ([0.01, math.nan], "guess.l2.1", "nan"),
    ([{"predicted_from": "source"}], "guess.l2.0", ""),
    ([0.02, 0.02], "guess", "l2: a value stands there twice"),
]


@pytest.mark.parametrize(("l2", "key", "part"), BAD_L2, ids=str)
def test_a_bad_l2_is_named_as_in_the_file(refused, l2, key, part):
    """Without the tags that pydantic puts between."""
    line = refused(scale(guess={"l2": l2}))
    assert re.match(rf"experiments\.{re.escape(key)}: ", line), line
    assert part in line


@pytest.mark.parametrize("named", ["listed", "selected", "fc", "l2"])
def test_a_name_like_pydantics_tags_stays(refused, named):
    """An experiment may be called so; what stands in the file is never cut out of a key."""
    bad = GUESS | {"l2": {"predicted_from": "source", "foo": 1}}
    assert f"experiments.{named}.l2: unknown key foo; " in refused(scale(**{named: bad}))
    assert f"experiments.{named}.l2.1: " in refused(scale(**{named: SOURCE | {"l2": [0.1, -1]}}))


@pytest.mark.parametrize(
    ("differing", "named"),
    [
        ({"net": SETUP["net"] | {"width": 5}}, "net"),
        ({"data": SETUP["data"] | {"downscale": 2}}, "data"),
        ({"optimizer": {"kind": "sgd", "momentum": 0.9}}, "optimizer"),
        ({"batch": 16}, "batch"),
        ({"loss": "half_mse"}, "loss"),
        ({"precision": "float64"}, "precision"),
        ({"augmentation": {"flip": True}}, "augmentation"),
        ({"auto_l2": {}}, "auto_l2"),
        (SCHEDULE, "lr_schedule"),
        ({"lr": [0.2]}, "lr"),
        ({"l2": [0]}, "source lists no l2 above 0"),
        ({"l2": {"tuned_from": "third"}}, "source lists no l2 above 0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["predicted_from", "tuned_from"])
def test_a_source_that_says_nothing_here(refused, kind, differing, named):
    line = refused(scale(source=differing, guess={"l2": {kind: "source"}}, third=SOURCE))
    assert line.startswith(f"experiments.guess.l2.{kind}: ")
    assert named in line.split(f"{kind}: ")[1]


@pytest.mark.parametrize(
    ("source", "budgets", "good"),
    [
        ({"horizon": {"epochs": 40}}, [10, 40], True),
        ({"horizon": {"epochs": 39}}, [10, 40], False),
        ({"horizon": {"budgets": [5, 40]}}, [10, 40], True),
        ({"horizon": {"budgets": [5, 39]}}, [10, 40], False),
        ({"horizon": {"t_lr_l2": 1000}}, [10], False),
        ({"horizon": {"epochs": 100, "cap_epochs": 60}}, [50], True),
        ({"horizon": {"epochs": 100, "cap_epochs": 20}}, [50], False),
        ({"horizon": {"epochs": 100, "cap_epochs": 20}}, [20], True),
        ({"horizon": {"budgets": [10, 40], "cap_epochs": 20, "beyond_cap": "skip"}}, [10], True),
        ({"horizon": {"budgets": [10, 40], "cap_epochs": 20, "beyond_cap": "skip"}}, [15], False),
        ({"horizon": {"budgets": [10, 40]}} | SCHEDULE, [10, 40], True),
        ({"horizon": {"budgets": [10, 40]}} | SCHEDULE, [20], False),
        ({"horizon": {"epochs": 40}} | SCHEDULE, [10], False),
        ({"lr_schedule": {"factor": 0.3, "at": [0.5]}}, [100], None),
    ],
    ids=str,
)
def test_a_tuning_source_trains_long_enough(refused, source, budgets, good):
    """With a schedule, which depends on the budget, for this budget and by the same schedule; else at least as long."""
    guess = TUNED | {"horizon": {"budgets": budgets}} | (SCHEDULE if "lr_schedule" in source else {})
    values = scale(source=source, guess=guess)
    if good:
        assert ScaleConfig.model_validate(values).selected == ["guess"]
    else:
        line = refused(values)
        assert "experiments.guess.l2.tuned_from: " in line
        assert ("another lr_schedule" if good is None else "does not train for") in line


@pytest.mark.parametrize(
    ("horizon", "key"),
    [
        ({"budgets": [10], "epochs": 10}, "horizon: give one of epochs and budgets"),
        ({"budgets": [10], "t_l2": 1}, "horizon: give one of budgets and t_l2"),
        ({"budgets": []}, "horizon.budgets: "),
        ({"budgets": 10}, "horizon.budgets: "),
        ({"budgets": [10, 0]}, "horizon.budgets.1: "),
        ({"budgets": [math.inf]}, "horizon.budgets.0: "),
        ({"budgets": [True]}, "horizon.budgets.0: "),
        ({"budgets": [10, 10.0]}, "horizon: budgets"),
        ({"budget": [10]}, "horizon: unknown key budget"),
        ({"t_lr_l2": 2.0}, "l2: a selected one needs horizon.epochs or horizon.budgets"),
        ({"epochs": 10, "cap_epochs": 20}, "l2: a selected one needs horizon.epochs or horizon.budgets"),
    ],
    ids=str,
)
def test_bad_budgets(refused, horizon, key):
    line = refused(scale(guess={"horizon": horizon}))
    assert line.removeprefix("experiments.guess").lstrip(".: ").startswith(key)


def test_what_changes_l2_or_needs_it_listed(refused):
    """AutoL2 starts at a listed λ; a theory curve is drawn at the experiment's first."""
    assert "experiments.guess: auto_l2: " in refused(scale(guess={"auto_l2": {}}))
    drawn = {"theory": {"kernel": {"experiment": "guess"}}, "figures": {"fig5": {"theory": ["kernel"]}}}
    assert "theory.kernel.experiment: guess lists no l2" in refused(scale() | drawn)
