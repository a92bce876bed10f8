"""What a run is: its id is stable, canonical, and changes with everything that changes the trajectory."""

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.specs.base import canonical_json, imported, to_dict
from l2dyn.specs.data_sets import DATA_SETS, DataSpec
from l2dyn.specs.nets import NETS, ConvNetSpec, FullyConnectedSpec, WideResNetSpec
from l2dyn.specs.optimizers import OPTIMIZERS
from l2dyn.specs.run import AugmentationSpec, AutoL2Spec, RunSpec

CHECKSUM = DATA_SETS["digits"].checksum

# (changed fields, canonical JSON as written by hand, id). A renamed field, a changed default or another number format
# renames every recorded run: when one of these fails, mend the code, not the test.
GOLDEN = {
    "all defaults": (
        {},
        '{"data":{"checksum":"' + CHECKSUM + '","name":"digits","test_samples":100,"train_samples":64},"l2":0.01,'
        '"lr":0.1,"net":{"hidden_layers":1,"kind":"fc","width":4}}',
        "6bc1dc41ca2a",
    ),
    "no defaults": (
        {
            "net": {"bias": False, "parameterization": "ntk", "weight_std": 1},
            "data": {"labels": "parity", "scaling": "unit", "downscale": 2},
            "momentum": 0.9,
            "lr": 1,
            "l2": 0.00001,
            "batch": 16,
            "loss": "half_mse",
            "init_seed": 3,
            "order_seed": 4,
            "precision": "float64",
            "kernel_samples": 8,
        },
        '{"batch":16,"data":{"checksum":"' + CHECKSUM + '","downscale":2,"labels":"parity","name":"digits",'
        '"scaling":"unit","test_samples":100,"train_samples":64},"init_seed":3,"kernel_samples":8,"l2":1e-05,'
        '"loss":"half_mse","lr":1.0,"net":{"bias":false,"hidden_layers":1,"kind":"fc","parameterization":"ntk",'
        '"weight_std":1.0,"width":4},"optimizer":{"kind":"sgd","momentum":0.9},"order_seed":4,"precision":"float64"}',
        "22f31c424cf1",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_run_id_is_the_recorded_one_and_survives_a_file(make_spec, name):
    fields, text, run_id = GOLDEN[name]
    spec = make_spec(**fields)
    assert canonical_json(to_dict(spec)) == text
    assert spec.run_id == run_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    again = RunSpec.model_validate(json.loads(text))
    assert (again, again.run_id, to_dict(again)) == (spec, run_id, json.loads(text))


@given(x=st.floats(min_value=1e-300, allow_infinity=False))
def test_a_number_has_one_form(make_spec, x):
    text = canonical_json(to_dict(make_spec(lr=x)))
    written = [x, np.float64(x), float(repr(x)), float(f"{x:.17e}"), *([int(x)] if x == int(x) else [])]
    assert {canonical_json(to_dict(make_spec(lr=value))) for value in written} == {text}
    assert json.loads(text)["lr"] == x


@given(x=st.floats(0, 1e300), y=st.floats(0, 1e300))
def test_different_numbers_are_different_runs_and_zero_has_no_sign(make_spec, x, y):
    assert (make_spec(l2=x).run_id == make_spec(l2=y).run_id) == (x == y)
    assert make_spec(l2=-0.0).run_id == make_spec(l2=0).run_id


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from("abcdéλ"), st.integers(), max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(values):
    assert canonical_json(values) == canonical_json(dict(reversed(values.items())))


BAD = [
    {"lr": 0},
    {"lr": -0.1},
    {"lr": True},
    {"lr": "0.1"},
    {"l2": math.nan},
    {"l2": math.inf},
    {"l2": -1e-9},
    {"momentum": 1.0},
    {"init_seed": 1.5},
    {"init_seed": -1},
    {"batch": -1},
    {"batch": 65},
    {"loss": "mse"},
    {"precision": "float16"},
    {"kernel_samples": 8},  # ten outputs
    {"kernel_samples": 65, "data": {"labels": "parity"}, "loss": "half_mse"},
    {"data": {"labels": "parity"}},  # with cross-entropy
    {"data": {"train_samples": 1001}},
    {"net": {"width": 0}},
    {"net": {"wdith": 4}},
]


@pytest.mark.parametrize("fields", BAD, ids=str)
def test_what_no_run_can_be_is_refused_and_named(make_spec, fields):
    key, value = next(iter(fields.items()))
    named = next(iter(value)) if isinstance(value, dict) else key
    with pytest.raises(ValueError, match=named):
        make_spec(**fields)


CHANGES = {
    "lr": 0.2,
    "l2": 0.0,
    "momentum": 0.9,
    "batch": 16,
    "loss": "half_mse",
    "init_seed": 1,
    "precision": "float64",
    "net": {"hidden_layers": 2},
    "net.width": {"width": 5},
    "net.bias": {"bias": False},
    "net.parameterization": {"parameterization": "ntk"},
    "net.weight_std": {"weight_std": 1.0},
    "data.name": {"name": "mnist"},
    "data.checksum": {"checksum": "d" * 64},
    "data.train_samples": {"train_samples": 63},
    "data.test_samples": {"test_samples": 99},
    "data.scaling": {"scaling": "unit"},
    "data.downscale": {"downscale": 2},
    "auto_l2": AutoL2Spec(),
    "lr_decay_epochs": (3.0,),
    "augmentation": AugmentationSpec(flip=True),
}


def test_every_field_that_matters_changes_the_id_and_no_other_does(make_spec):
    ids = {name: make_spec(**{name.split(".")[0]: value}).run_id for name, value in CHANGES.items()}
    assert len(set(ids.values()) | {make_spec().run_id}) == len(CHANGES) + 1
    assert make_spec(batch=16, order_seed=1).run_id != make_spec(batch=16).run_id
    assert make_spec(order_seed=7) == make_spec()  # the full batch has no order
    assert make_spec(augmentation_seed=7, lr_decay_factor=0.5) == make_spec()
    spec = make_spec()
    assert spec.model_copy(update={"lr": 0.3}).run_id != spec.run_id


SAME = [  # what a rule or a variant does not look at, and what tells two runs apart
    ({"rule": "staircase"}, {"rule": "staircase", "trigger": "loss"}, True),
    ({"rule": "staircase"}, {"rule": "staircase", "cooldown": 3}, True),
    ({"rule": "staircase"}, {"rule": "staircase", "refractory": 0.8}, False),
    ({"rule": "no_better"}, {"rule": "no_better", "cooldown": 3}, True),
    ({"rule": "no_better"}, {"rule": "no_better", "trigger": "loss"}, False),
    ({"rule": "risen"}, {"rule": "risen", "refractory": 0.8}, True),
    ({"rule": "risen"}, {"rule": "risen", "trigger": "loss"}, False),
    ({"flip": True}, {"flip": True, "variant": "authors"}, True),
    ({}, {"variant": "authors", "mixup_group": 4}, True),
    ({"crop": 1}, {"crop": 1, "variant": "authors"}, False),
    ({"mixup": 0.2}, {"mixup": 0.2, "variant": "authors"}, False),
]


@pytest.mark.parametrize(("one", "other", "same"), SAME, ids=str)
def test_one_trajectory_has_one_id(make_spec, one, other, same):
    kind = {"auto_l2": AutoL2Spec} if "rule" in one else {"augmentation": AugmentationSpec}
    ((field, spec),) = kind.items()
    assert (make_spec(**{field: spec(**one)}).run_id == make_spec(**{field: spec(**other)}).run_id) is same


@pytest.mark.parametrize(("batch", "expected"), [(0, 1), (64, 1), (16, 4), (15, 4), (33, 1), (1, 64)])
def test_steps_per_epoch_drop_an_incomplete_batch(make_spec, batch, expected):
    assert make_spec(batch=batch).steps_per_epoch == expected


def test_the_learning_rate_is_a_function_of_the_step(make_spec):
    spec = make_spec(batch=16, lr=1.0, lr_decay_epochs=(2.0, 3.5), lr_decay_factor=0.5)
    assert [spec.lr_at(step) for step in (0, 7, 8, 13, 14, 99)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_what_trains_as_a_stack(make_spec):
    assert make_spec(batch=16, momentum=0.9).stacks
    for change in ({"auto_l2": AutoL2Spec()}, {"lr_decay_epochs": (1.0,)}, {"augmentation": AugmentationSpec(crop=1)}):
        assert not make_spec(**change).stacks
    data = DataSpec(name="digits", train_samples=64, test_samples=10)
    assert not RunSpec(net=WideResNetSpec(depth=10, width=1), data=data, lr=0.1, l2=0.0, batch=8).stacks


def test_every_kind_is_registered_once_and_its_module_exists():
    for kinds in (NETS, OPTIMIZERS):
        names = [kind.model_fields["kind"].default for kind in kinds]
        assert len(set(names)) == len(names)
    paths = [path for net in NETS for path in (net.module, net.stacked_module) if path]
    paths += [kind.optimizer for kind in OPTIMIZERS] + [data_set.source for data_set in DATA_SETS.values()]
    assert all(callable(imported(path)) for path in paths)


IMAGES = {"fc": (28, 28, 1), "convnet": (14, 14, 1), "wrn": (9, 9, 1), "large": (32, 32, 3)}
COSTED = [
    (FullyConnectedSpec(hidden_layers=3, width=16), IMAGES["fc"], 10),
    (ConvNetSpec(channels=(4, 6, 8, 10), dense=12, pool=2, pool_stride=2), IMAGES["convnet"], 10),
    (ConvNetSpec(channels=(4, 6, 8, 10), dense=12, batch_norm=True), IMAGES["large"], 10),
    (WideResNetSpec(depth=10, width=1), IMAGES["wrn"], 10),
    (WideResNetSpec(depth=16, width=2), IMAGES["large"], 1),
]


@pytest.mark.parametrize(("net", "image", "outputs"), COSTED, ids=lambda v: v.describe() if hasattr(v, "kind") else "")
def test_declared_operations_are_those_that_torch_counts(net, image, outputs):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from l2dyn.nets.build import build_net

    module = build_net(net, image, outputs, seed=0)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(3, image[2], *image[:2]))
    assert sum(net.layer_flops(image, outputs)) == counter.get_total_flops() / 3


def test_specs_and_configuration_need_no_torch():
    code = "import sys, l2dyn.config.loading; sys.exit(bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
