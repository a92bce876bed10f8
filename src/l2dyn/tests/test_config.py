"""Configuration files: what is accepted, and one line with file and key for what is not."""

import json
import math

import jsonschema
import pytest
import yaml

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.loading import load_scale, parse_overrides, scale_names
from l2dyn.config.schema import schema_text
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.runs.plan import Plan


def refused(*parts, name="tiny", **overrides) -> str:
    """The error of loading a scale: one line that contains every part."""
    with pytest.raises(UserError) as caught:
        load_scale(name, **overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == [], line
    return line


def change(values, key, value):
    """Set a value at a dotted key; ... removes it."""
    *path, last = key.split(".")
    for part in path:
        values = values[part]
    if value is ...:
        del values[last]
    else:
        values[last] = value


@pytest.mark.parametrize("name", ["smoke", "quick", "desktop", "gpu", "paper"])
def test_every_scale_loads_and_plans(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("L2DYN_DEVICE", raising=False)
    assert name in scale_names()
    plan = Plan(name, load_scale(name))
    assert all(plan.tasks(experiment) or plan.provisional(experiment) for experiment in plan.experiments)


def test_a_good_scale(workplace, tiny):
    scale = load_scale("tiny")
    assert list(scale.experiments) == ["first", "budget"]
    assert scale.experiments["first"].l2 == (0.0, 0.01, 0.02)
    assert (scale.train, scale.reuse, scale.threads, scale.data_dir) == (True, True, 1, None)
    assert scale_names() == ["tiny"]


SECTIONS = {
    "": "train",
    "experiments.first": "horizon",
    "experiments.first.net": "width",
    "experiments.first.data": "checksum",
    "experiments.first.horizon": "cap_epochs",
    "experiments.first.evaluation": "ratio",
    "theory": "kernel",
    "theory.modes": "eigenvalues",
    "theory.kernel": "points",
    "figures.fig2": "experiments",
}


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_named(write_scale, tiny, section):
    if section.endswith("evaluation"):
        change(tiny, section, {})
    key = f"{section}.widht".lstrip(".")
    change(tiny, key, 5)
    write_scale(tiny)
    line = refused("config/tiny.yaml", "unknown key widht", section)
    assert SECTIONS[section] in line.split("known here:")[1]


@pytest.mark.parametrize(
    ("key", "misspelt"), [("experiments.first.lr", "experiments.first.lrs"), ("about", "abuot"), ("figures", "figure")]
)
def test_a_misspelt_required_key_is_named(write_scale, tiny, key, misspelt):
    """What the user typed wrong, and not only what is missing for it."""
    change(tiny, key, ...)
    change(tiny, misspelt, [0.1])
    write_scale(tiny)
    refused("config/tiny.yaml", f"unknown key {misspelt.rpartition('.')[2]}")


@pytest.mark.parametrize("name", ["data", "net", "l2"])
def test_known_keys_are_those_of_the_section(write_scale, tiny, name):
    """An experiment may be called as a key of experiments is."""
    tiny["experiments"][name] = tiny["experiments"]["first"] | {"foo": 1}
    write_scale(tiny)
    assert "horizon" in refused(f"experiments.{name}: unknown key foo").split("known here:")[1]


BAD = [
    ("about", 5),
    ("device", "tpu"),
    ("threads", 0),
    ("threads", True),
    ("train", "maybe"),
    ("experiments", [1]),
    ("experiments.first", None),
    ("experiments.first.net.kind", "transformer"),
    ("experiments.first.net.width", 1.5),
    ("experiments.first.net.hidden_layers", 10**30),
    ("experiments.first.slices", 10**30),
    ("experiments.first.net.width", "wide"),
    ("experiments.first.net.weight_std", 0),
    ("experiments.first.optimizer", {"kind": "no such optimizer"}),
    ("experiments.first.optimizer", {"kind": "sgd", "momentum": 1}),
    ("experiments.first.data.name", "cifar"),
    ("experiments.first.data.test_samples", 4001),
    ("experiments.first.lr", []),
    ("experiments.first.lr", 0.1),
    ("experiments.first.lr", [0]),
    ("experiments.first.lr", [True]),
    ("experiments.first.lr", [math.nan]),
    ("experiments.first.lr", [0.1, 0.10]),
    ("experiments.first.l2", [-0.01]),
    ("experiments.first.l2", [0.0, -0.0]),
    ("experiments.first.l2", [0.01, "1e-2"]),
    ("experiments.first.l2", {"tuned_from": "nobody"}),
    ("experiments.first.l2", {"tuned_from": "budget", "predicted_from": "budget"}),
    ("experiments.first.seeds", [1, 2, 1]),
    ("experiments.first.batch", 65),
    ("experiments.first.precision", "float16"),
    ("experiments.first.horizon", {}),
    ("experiments.first.horizon", {"epochs": 5, "t_lr_l2": 2}),
    ("experiments.first.horizon", {"t_lr_l2": 2}),  # l2 holds 0
    ("experiments.first.horizon", {"t_lr": 2}),  # and values above 0
    ("experiments.first.horizon", {"budgets": [5, 5]}),
    ("experiments.first.horizon.beyond_cap", "stop"),
    ("experiments.first.evaluation", {"ratio": 1.2}),
    ("experiments.first.evaluation", {"train_subset": 65}),
    ("experiments.first.auto_l2", {}),  # starts at a listed l2 > 0
    ("experiments.first.slices", 0),
    ("theory.modes.eigenvalues", [1.0]),
    ("theory.kernel.experiment", "nobody"),
    ("figures.fig2.experiments", ["nobody"]),
    ("figures.fig5.theory", ["modes", "other"]),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_value_is_named(write_scale, tiny, key, value):
    change(tiny, key, value)
    write_scale(tiny)
    # An error of a list's element or of a section names the place from the top or, after a colon, the key within it.
    refused("config/tiny.yaml: ", *key.split("."))


@pytest.mark.parametrize("name", ["fig 2", "../x", "2a", "a_b", ""])
def test_a_bad_experiment_name(write_scale, tiny, name):
    tiny["experiments"][name] = tiny["experiments"]["first"]
    write_scale(tiny)
    refused("config/tiny.yaml", f"experiments.{name}")


def test_parity_labels_need_half_mse(write_scale, tiny):
    tiny["experiments"]["first"]["data"]["labels"] = "parity"
    write_scale(tiny)
    refused("config/tiny.yaml", "experiments.first", "loss")


def test_a_figure_of_an_absent_theory(write_scale, tiny):
    del tiny["theory"]["modes"]
    write_scale(tiny)
    refused("config/tiny.yaml", "figures.fig5.theory", "theory.modes")


@pytest.mark.parametrize(
    ("change_of_first", "reason"),
    [
        ({"net": {"kind": "convnet"}, "batch": 8}, "first does not train fully-connected nets"),
        ({"batch": 8}, "first does not train by plain gradient descent"),
        ({"optimizer": {"kind": "sgd", "momentum": 0.5}}, "first does not train by plain gradient descent"),
        ({"data": {"name": "mnist", "train_samples": 64, "test_samples": 100}}, "first trains on another data set"),
        (None, "no experiment 'first'"),
    ],
)
def test_theory_stands_beside_full_batch_gradient_descent_only(write_scale, tiny, change_of_first, reason):
    tiny["theory"] = {"constant": {"experiments": ["budget", "first"]}}
    tiny["figures"] = {}
    write_scale(tiny)
    assert load_scale("tiny").theory.constant.needs == ("budget", "first")
    if change_of_first is None:
        del tiny["experiments"]["first"]
    else:
        tiny["experiments"]["first"] |= change_of_first
    write_scale(tiny)
    refused("config/tiny.yaml", "theory.constant.experiments", reason)


@pytest.mark.parametrize("key", ["about", "experiments", "figures", "experiments.first.lr", "experiments.first.net"])
def test_a_missing_key_is_named(write_scale, tiny, key):
    if key == "experiments":
        tiny |= {"theory": {}}
    change(tiny, key, ...)
    write_scale(tiny)
    refused("config/tiny.yaml", key, "missing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1\n",
        "just words\n",
        "a: [1\n",
        "a: {b: c\n",
        "\ta: 1\n",
        "a: *nobody\n",
        "a: \x07\n",
        "about: 2024-13-45\n",  # matches a date, and is none
        "threads: !!int one\n",
        "a: !!python/object:os.system {}\n",
    ],
    ids=repr,
)
def test_not_yaml(write_scale, text):
    write_scale(text)
    refused("config/tiny.yaml")


def test_not_utf8(workplace):
    (workplace / "config" / "tiny.yaml").write_bytes(b"about: \xff\xfe\n")
    refused("config/tiny.yaml")


def test_a_broken_line_is_named(write_scale, tiny):
    good = yaml.safe_dump(tiny)
    path = write_scale(good + "foo: [1, 2\n")
    refused(str(path.relative_to(path.parent.parent)), "line ", "not valid YAML")


@pytest.mark.parametrize("deep", [False, True])
def test_a_duplicate_key_is_refused(write_scale, tiny, deep):
    text = yaml.safe_dump(tiny, sort_keys=False)
    twice = text.replace("epochs: 50\n", "epochs: 50\n      epochs: 60\n") if deep else text + "device: cuda\n"
    assert twice != text
    write_scale(twice)
    refused("config/tiny.yaml", "line ", "epochs" if deep else "device")


def test_a_duplicate_experiment_is_refused(write_scale, tiny):
    text = yaml.safe_dump(tiny, sort_keys=False)
    again = yaml.safe_dump({"experiments": {"first": tiny["experiments"]["first"]}}, sort_keys=False)
    body = again.removeprefix("experiments:\n")
    write_scale(text.replace("experiments:\n", "experiments:\n" + body, 1))
    refused("config/tiny.yaml", "first")


def test_a_missing_scale_lists_the_others(workplace, write_scale, tiny):
    write_scale(tiny, "huge")
    refused("scale=nope", "config/nope.yaml", "huge, tiny", name="nope")


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_scientific_notation_is_a_number(write_scale, tiny, written):
    """YAML 1.1 would take 1e-4 for text."""
    tiny["experiments"]["first"]["l2"] = ["HERE"]
    write_scale(yaml.safe_dump(tiny).replace("HERE", written))
    assert load_scale("tiny").experiments["first"].l2 == (0.0001,)


MERGED = """
about: merge keys
templates:
  base: &base
    shows: x
    net: &net {kind: fc, hidden_layers: 1, width: 4}
    data: {name: digits, train_samples: 64, test_samples: 100}
  long: &long
    <<: *base
    lr: [0.1]
    l2: [0.01]
    horizon: {epochs: 10}
experiments:
  a:
    <<: *long
    net:
      <<: *net
      width: 8
    lr: [0.2, 0.3]
  b:
    <<: [*base, *long]
    shows: y
figures: {}
"""


def test_merge_keys_with_overrides(write_scale):
    write_scale(MERGED)
    a, b = load_scale("tiny").experiments.values()
    assert (a.shows, a.net.width, a.net.hidden_layers, a.lr, a.l2) == ("x", 8, 1, (0.2, 0.3), (0.01,))
    assert (b.shows, b.net.width, b.lr) == ("y", 4, (0.1,))


def test_a_duplicate_beside_a_merge_is_refused(write_scale):
    write_scale(MERGED.replace("    lr: [0.2, 0.3]\n", "    lr: [0.2, 0.3]\n    lr: [0.4]\n"))
    refused("config/tiny.yaml", "lr")


def test_the_environment_overrides_where(write_scale, tiny, monkeypatch):
    write_scale(tiny | {"device": "cpu", "data_dir": "in-the-file"})
    assert (load_scale("tiny").device, load_scale("tiny").data_dir) == ("cpu", "in-the-file")
    monkeypatch.setenv("L2DYN_DATA", "/elsewhere")
    monkeypatch.setenv("L2DYN_DEVICE", "cuda")
    assert (load_scale("tiny").device, load_scale("tiny").data_dir) == ("cuda", "/elsewhere")
    given = load_scale("tiny", device="auto", data_dir="/option", threads=3, train=False, reuse=False)
    assert (given.device, given.data_dir, given.threads, given.train, given.reuse) == (
        "auto",
        "/option",
        3,
        False,
        False,
    )
    monkeypatch.setenv("L2DYN_DATA", "")
    monkeypatch.setenv("L2DYN_DEVICE", "")
    assert (load_scale("tiny").device, load_scale("tiny").data_dir) == ("cpu", "in-the-file")


def test_a_bad_environment_is_named(workplace, monkeypatch):
    monkeypatch.setenv("L2DYN_DEVICE", "tpu")
    refused("L2DYN_DEVICE", "tpu")


@pytest.mark.parametrize("override", [{"threads": 0}, {"threads": -1}, {"device": "tpu"}, {"foo": 1}, {"train": "?"}])
def test_a_bad_override_is_refused(workplace, override):
    refused(*override, **override)


def test_no_override_leaves_the_file(write_scale, tiny):
    write_scale(tiny | {"train": False, "reuse": False, "threads": 2})
    scale = load_scale("tiny", train=None, reuse=None, threads=None)
    assert (scale.train, scale.reuse, scale.threads) == (False, False, 2)


def test_snakemakes_config_is_parsed():
    assert parse_overrides({}).scale == "quick"
    given = parse_overrides({"scale": "gpu", "reuse": "false", "train": False, "threads": 4})
    assert (given.scale, given.reuse, given.train, given.threads) == ("gpu", False, False, 4)


@pytest.mark.parametrize("values", [{"scael": "gpu"}, {"reuse": "maybe"}, {"device": "tpu"}, {"threads": 0}])
def test_snakemakes_config_is_checked(values):
    with pytest.raises(UserError) as caught:
        parse_overrides(values)
    assert "\n" not in str(caught.value)
    assert "--config" in str(caught.value)
    assert next(iter(values)) in str(caught.value)


def test_what_all_scales_share_stands_once(write_scale, tiny, workplace):
    """Figures come from config/figures.yaml; a scale adds its own, changes one, or leaves one out."""
    shared = workplace / "config" / "figures.yaml"
    shared.write_text(yaml.safe_dump({"fig9": {"experiments": ["first"]}, "fig2": {"experiments": ["first"]}}))
    assert set(load_scale("tiny").figures) == {"fig2", "fig5", "fig9"}
    assert load_scale("tiny").figures["fig2"].experiments == ("first", "budget")
    write_scale(tiny | {"figures": {"fig9": None}})
    assert list(load_scale("tiny").figures) == ["fig2"]
    write_scale({key: value for key, value in tiny.items() if key != "figures"})
    assert set(load_scale("tiny").figures) == {"fig2", "fig9"}
    assert scale_names() == ["tiny"]
    shared.write_text(yaml.safe_dump({"fig9": {"experiments": ["nobody"]}}))
    refused("config/tiny.yaml: figures.fig9", "no experiment 'nobody'", "config/figures.yaml")
    refused("scale=figures", name="figures")


def test_outside_a_checkout_one_line_says_so(tmp_path, monkeypatch):
    from l2dyn.config import loading

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "ROOT", tmp_path / "site-packages")
    refused("needs a checkout", name="quick")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("[!f]*.yaml")), ids=lambda path: path.stem)
def test_the_schema_takes_every_scale_and_no_misspelt_key(path):
    schema = json.loads(schema_text())
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    next(iter(content["experiments"].values()))["lrs"] = [0.1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_configuration_and_runs_share_the_specs():
    """No second, mirrored set of classes."""
    from l2dyn.specs.run import RunSpec

    for name in ("net", "data", "optimizer", "loss", "precision", "augmentation"):
        assert ExperimentConfig.model_fields[name].annotation == RunSpec.model_fields[name].annotation
