"""Made-up samples, tasks and their training, for the tests of the trainers."""

import numpy as np

from l2dyn.data.samples import Samples
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.specs.optimizers import SGDSpec
from l2dyn.specs.run import RunSpec
from l2dyn.training.dispatch import trainer_for
from l2dyn.training.trainer import Ended

FC = {"net": FullyConnectedSpec(hidden_layers=2, width=12), "precision": "float64"}


def made_up_samples(train=48, test=40, seed=0, **how) -> Samples:
    """Small random digits that a net can learn: class-dependent patterns with noise. how: fields of the data."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, size=(10, 28, 28, 1))
    classes = generator.integers(0, 10, size=train + test)
    noise = generator.integers(0, 256, size=(train + test, 28, 28, 1))
    images = ((2 * patterns[classes] + noise) // 3).astype(np.uint8)
    spec = DataSpec(name="digits", checksum="made up", train_samples=train, test_samples=test, **how)
    return Samples(spec, images[:train], classes[:train], images[train:], classes[train:])


def arrays_of(samples: Samples) -> dict[str, np.ndarray]:
    """What l2dyn.data.arrays.load gives, as if these samples were the whole data set."""
    return {name: getattr(samples, name) for name in ("train_images", "train_labels", "test_images", "test_labels")}


def make_task(samples, steps=200, lr=0.1, l2=0.01, momentum=0.0, grid=None, **fields) -> Task:
    """A run on these samples, of FC unless `fields` say otherwise."""
    fields = FC | {"optimizer": SGDSpec(momentum=momentum)} | fields
    spec = RunSpec(data=samples.spec, lr=lr, l2=l2, **fields)
    return Task(spec, steps, (steps,), grid or EvaluationGrid())


def trained(tasks, samples, trainer=trainer_for, **how) -> dict[str, Ended]:
    """How these tasks end, by run id."""
    return {ended.task.run_id: ended for ended in trainer(tasks, samples, **how).train()}


def assert_same_columns(found, expected, names=None, **close):
    """Columns equal to the last bit, or as np.testing.assert_allclose takes them with `close`; `names`: only these."""
    assert names or list(found) == list(expected)
    for name in names or expected:
        compare = np.testing.assert_allclose if close else np.testing.assert_array_equal
        compare(found[name], expected[name], err_msg=name, **close)
