"""Experiments that would not train as they say are refused, and every key is explained."""

import re
from typing import get_args

import pytest

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.loading import load_scale
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.specs.base import Spec
from l2dyn.specs.data_sets import DATA_SETS

CONVNET = {"kind": "convnet", "channels": [4, 4, 4, 4], "dense": 8, "pool": 2, "pool_stride": 2}
UNTRAINABLE = [
    ({"data": {"name": "digits", "train_samples": 64, "test_samples": 9, "downscale": 29}}, "data", "downscale: 29"),
    ({"net": CONVNET | {"pool": 9}}, "net: images of 28×28", "pool of 9"),
    (
        {"data": {"name": "digits", "train_samples": 64, "test_samples": 9, "checksum": "abc"}},
        "data.checksum",
        "leave it",
    ),
    ({"batch": 16, "evaluation": {"every_epochs": 0.24}}, "evaluation.every_epochs: 0.24", "1/4 of an epoch"),
    ({"evaluation": {"every_epochs": 1e-300}}, "evaluation.every_epochs", "step"),
    ({"lr_schedule": {"at": [0.5, 0.009]}}, "lr_schedule.at: 0.009", "first of the 50 steps"),
    ({"lr_schedule": {"at": [0.01]}, "horizon": {"budgets": [100, 20]}}, "lr_schedule.at", "first of the 20 steps"),
    (
        {"lr_schedule": {"at": [0.01]}, "l2": [0, 5.0], "horizon": {"t_l2": 100, "t_lr": 9}},
        "lr_schedule.at",
        "20 steps",
    ),
    ({"lr_schedule": {"at": [0.009]}, "l2": {"tuned_from": "budget"}}, "lr_schedule.at", "first of the 50 steps"),
]


@pytest.mark.parametrize(("change", "key", "why"), UNTRAINABLE, ids=lambda v: v if isinstance(v, str) else "")
def test_what_would_not_train_as_it_says_is_refused_at_once(write_scale, tiny, change, key, why):
    """Not by a traceback in the middle of a job."""
    tiny["experiments"]["other"] = tiny["experiments"]["budget"] | change
    write_scale(tiny)
    with pytest.raises(UserError) as caught:
        load_scale("tiny")
    line = str(caught.value)
    assert line.startswith("config/tiny.yaml: experiments.other")
    assert [part for part in (key, why) if part not in line] == []


def test_the_bounds_of_what_trains_are_taken(write_scale, tiny):
    data = {"name": "digits", "train_samples": 64, "test_samples": 9}
    tiny["experiments"]["other"] = tiny["experiments"]["budget"] | {
        "data": data | {"downscale": 28, "checksum": DATA_SETS["digits"].checksum},
        "batch": 16,
        "evaluation": {"every_epochs": 0.25},
        "lr_schedule": {"at": [0.005]},
    }
    tiny["experiments"]["convolutional"] = tiny["experiments"]["budget"] | {"net": CONVNET | {"pool": 8}}
    write_scale(tiny)
    assert load_scale("tiny").experiments["other"].data.image_shape == (1, 1, 1)


def sections(annotation):
    """The specs that a field may hold: all kinds of net, say."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in sections(part)]


@pytest.mark.parametrize(
    ("config", "field"),
    [(config, field) for config in (ScaleConfig, ExperimentConfig) for field in config.model_fields],
)
def test_every_key_stands_in_the_readmes_table(config, field):
    """Also the keys of its sections, unless their docstring has them; those of theory curves stand in their source."""
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    table = text.split("## Keys of a scale" if config is ScaleConfig else "## Keys of an experiment")[1].split("\n## ")[
        0
    ]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{field}` |")]
    written = " ".join(re.findall("`([^`]*)`", row))
    inner = [] if field == "experiments" else sections(config.model_fields[field].annotation)
    told = {spec: f"{written} {spec.__doc__} {spec.__mro__[1].__doc__}" for spec in inner}
    untold = {
        spec.__name__: [key for key in spec.model_fields if not re.search(rf"\b{key}\b", told[spec])] for spec in inner
    }
    assert {name: keys for name, keys in untold.items() if keys} == {}
