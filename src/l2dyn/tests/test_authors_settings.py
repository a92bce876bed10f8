"""The authors' settings, whole: their units, net, data, augmentation and order, against the same written in NumPy.

authors_wide_resnet.py and authors_augmentation.py were written from a description of the authors' code, by somebody who
had not read ours: forward and backward pass by hand, loss and penalty in their units.
"""

import numpy as np
import pytest
import torch

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.data.augmentation import Augmentation
from l2dyn.nets.build import build_net
from l2dyn.runs.plan import Task
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import WideResNetSpec
from l2dyn.specs.run import RunSpec
from l2dyn.specs.units import from_torch, to_torch
from l2dyn.tests import authors_wide_resnet as reference
from l2dyn.tests.authors_augmentation import augment
from l2dyn.tests.made_up import made_up_samples
from l2dyn.training.order import DataOrder
from l2dyn.training.single import SingleTrainer

THEIRS = {"kind": "wrn", "depth": 10, "width": 1, "shortcut": "3x3", "bias": True, "padding": "same"}
GROUP, TEST_GROUP, SHARDS, BATCH = 4, 10, 2, 8


def experiment(downscale: int, **fields) -> ExperimentConfig:
    """One of their runs at a small size, in their units."""
    config = ExperimentConfig.model_validate(
        {
            "shows": "their settings",
            "units": "authors",
            "net": THEIRS | {"norm_group": GROUP, "test_norm_group": TEST_GROUP},
            "data": {"name": "digits", "train_samples": 26, "test_samples": 30}
            | {"scaling": "split", "downscale": downscale},
            "optimizer": {"kind": "sgd", "momentum": 0.9},
            "augmentation": {"flip": True, "crop": 2, "mixup": 1.0, "variant": "authors", "mixup_group": GROUP},
            "lr": [0.2],
            "l2": [0.0005],
            "batch": BATCH,
            "order_shards": SHARDS,
            "precision": "float64",
            "horizon": {"epochs": 2},
        }
        | fields
    )
    # the samples are made up, which no configuration may say
    return config.model_copy(update={"data": config.data.model_copy(update={"checksum": "made up"})})


def scaled(images: np.ndarray, window: int) -> np.ndarray:
    """[n, channels, height, width] of uint8 images, downscaled, with one mean and std over all of them."""
    side = images.shape[1] // window
    small = np.empty((len(images), images.shape[3], side, side))
    for row in range(side):
        for column in range(side):
            block = images[:, row * window : (row + 1) * window, column * window : (column + 1) * window] / 255
            small[:, :, row, column] = block.mean(axis=(1, 2))
    return (small - small.mean()) / small.std()


@pytest.mark.parametrize("downscale", [4, 3])  # 7×7 pixels, odd; 9×9, then 5×5 and 3×3
def test_three_steps_of_training_in_their_units(downscale):
    config = experiment(downscale)
    spec = config.run(0.2, 0.0005, seed=3, epochs=2)
    samples = made_up_samples(train=26, test=30, downscale=downscale, scaling="split")
    trainer = SingleTrainer([Task(spec, 6, (6,), EvaluationGrid())], samples)
    start = {name: value.numpy().copy() for name, value in trainer.net.state_dict().items()}
    assert list(start) == list(reference.parameter_shapes(10, 1, channels=1))

    images = scaled(samples.train_images, downscale)
    targets = np.eye(10)[samples.train_labels]
    augmentation = Augmentation(spec.augmentation, spec.augmentation_seed)
    order = DataOrder([spec.order_seed], 26, BATCH, "cpu", SHARDS)
    batches = []
    for step in range(3):
        chosen = order.indices(step).numpy()
        drawn = augmentation.draw(step, BATCH)
        arguments = (drawn.flips.numpy(), drawn.offsets.numpy(), drawn.weights.numpy())
        batches.append(augment(images[chosen], targets[chosen], *arguments, pad=2, group=GROUP))
    expected = reference.train(start, batches, lr=0.2, l2=0.0005, momentum=0.9, depth=10, width=1, group=GROUP)
    trainer.advance(3)
    for name, value in trainer.net.state_dict().items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-12, err_msg=name)

    test_loss, test_accuracy = trainer.measure()[0, 2:4].tolist()
    test_images, labels = scaled(samples.test_images, downscale), samples.test_labels
    outputs = reference.forward(expected, test_images, depth=10, width=1, group=TEST_GROUP)
    assert test_loss == pytest.approx(10 * reference.loss(outputs, np.eye(10)[labels]), rel=1e-11)
    assert test_accuracy == pytest.approx((outputs.argmax(axis=1) == labels).mean(), abs=1e-12)


def test_their_loss_and_penalty_on_any_net():
    """Three steps of momentum on the cross-entropy over samples and classes plus λ·Σθ², against torch's SGD."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    y = torch.softmax(torch.randn(16, 5, generator=generator, dtype=torch.float64), dim=1)
    theirs = [
        torch.randn(6, 7, generator=generator, dtype=torch.float64),
        torch.randn(7, 5, generator=generator).double(),
    ]
    ours = [p.clone().requires_grad_() for p in theirs]
    lr, weight_decay = to_torch("authors", 5, lr=0.5, l2=0.03)
    optimizer = torch.optim.SGD(ours, lr=lr, momentum=0.9, weight_decay=weight_decay)
    velocities = [torch.zeros_like(p) for p in theirs]
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(torch.tanh(x @ ours[0]) @ ours[1], y).backward()
        optimizer.step()
        theirs = [p.detach().requires_grad_() for p in theirs]
        logarithms = torch.log_softmax(torch.tanh(x @ theirs[0]) @ theirs[1], dim=1)
        total = -(y * logarithms).mean() + 0.03 * sum((p**2).sum() for p in theirs)
        gradients = torch.autograd.grad(total, theirs)
        velocities = [0.9 * v + g for v, g in zip(velocities, gradients, strict=True)]
        theirs = [p - 0.5 * v for p, v in zip(theirs, velocities, strict=True)]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_conversion_is_decimal_and_goes_back():
    for lr, l2 in ((0.2, 0.0005), (0.2, 1.25e-4), (0.1, 0.0003), (1.6, 0.1), (0.3, 7e-7)):
        there = to_torch("authors", 10, lr=lr, l2=l2)
        assert from_torch("authors", 10, lr=there[0], l2=there[1]) == (lr, l2)
    assert to_torch("authors", 10, lr=0.2, l2=0.0003) == (0.02, 0.006)  # 20·0.0003 is not, in binary
    assert to_torch("torch", 10, lr=0.2, l2=0.0003) == from_torch("torch", 10, lr=0.2, l2=0.0003) == (0.2, 0.0003)


def test_units_govern_horizons_and_auto_l2():
    """t·η·λ = 0.1 in their units is lr·wd·t = 0.2; AutoL2's first λ = 0.1 is a weight decay of 2."""
    config = experiment(4, horizon={"t_lr_l2": 0.1}, auto_l2=None)
    spec = config.run(0.2, 0.0005, 0, 1.0)
    assert (spec.lr, spec.l2) == (0.02, 0.01)
    steps, _ = config.horizon.steps(0.2, 0.0005, spec.steps_per_epoch)
    assert steps / spec.steps_per_epoch * spec.lr * spec.l2 == pytest.approx(0.2)
    first = experiment(4, l2=[0.1], auto_l2={"interval": 10}).run(0.2, 0.1, 0, 1.0)
    assert first.l2 == 2.0
    assert config.shown(spec) == (0.2, 0.0005)


def test_their_wrn_28_10_has_38557770_parameters():
    spec = WideResNetSpec(depth=28, width=10, shortcut="3x3", bias=True, padding="same", norm_group=128)
    with torch.device("meta"):
        from l2dyn.nets.wide_resnet import WideResNet

        net = WideResNet(spec, (32, 32, 3), 10)
    counted = {"conv weight": 0, "conv bias": 0, "norm": 0, "dense": 0}
    for name, parameter in net.named_parameters():
        kind = "dense" if "readout" in name else "norm" if "norm" in name else f"conv {name.rpartition('.')[2]}"
        counted[kind] += parameter.numel()
    assert counted == {"conv weight": 38_523_312, "conv bias": 10_096, "norm": 17_952, "dense": 6_410}
    assert sum(counted.values()) == 38_557_770


@pytest.mark.parametrize("side", [8, 7])
def test_the_forward_pass_at_two_sizes(side):
    """With three channels, two blocks a group and a width above 1."""
    spec = WideResNetSpec(depth=16, width=2, shortcut="3x3", bias=True, padding="same", norm_group=2)
    net = build_net(spec, (side, side, 3), 4, seed=1).double()
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in net.parameters():  # nonzero biases, scales other than 1
            parameter.add_(torch.from_numpy(0.1 * generator.standard_normal(parameter.shape)))
    parameters = {name: value.detach().numpy() for name, value in net.named_parameters()}
    images = generator.standard_normal((4, 3, side, side))
    expected = reference.forward(parameters, images, depth=16, width=2, group=2)
    np.testing.assert_allclose(net(torch.from_numpy(images)).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


def test_shards_each_shuffle_their_own_part():
    """As on devices that keep their own share of the training set: every batch has as many samples of each part."""
    order = DataOrder([5], samples=26, batch=8, device="cpu", shards=2)
    epochs = [[order.indices(3 * epoch + step).tolist() for step in range(3)] for epoch in range(2)]
    for batches in epochs:
        for batch in batches:
            assert all(i < 13 for i in batch[:4])
            assert all(i >= 13 for i in batch[4:])
        seen = [i for batch in batches for i in batch]
        assert len(set(seen)) == 24  # one of each part is left out by chance
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"order_shards": 3}, "order_shards: 3 does not divide batch"),
        ({"augmentation": {"mixup": 1.0, "variant": "authors", "mixup_group": 3}}, "mixup_group: 3 does not divide"),
        ({"augmentation": {"mixup": 1.0, "mixup_group": 4}}, "goes with variant authors"),
        ({"augmentation": {"crop": 2}}, "pads after scaling"),
        ({"loss": "half_mse"}, "defined for loss cross_entropy only"),
        ({"units": "theirs"}, "units"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        experiment(4, **fields)


def test_without_effect_there_is_one_id():
    plain = {"batch": 8, "net": {"kind": "wrn", "depth": 10, "width": 1}, "lr": 0.1, "l2": 0.1}
    data = {"name": "digits", "train_samples": 24, "test_samples": 20}
    first = RunSpec(data=data, **plain)
    assert RunSpec(data=data, **plain, augmentation={"variant": "authors"}).run_id == first.run_id
    auto = [RunSpec(data=data, **plain, auto_l2={"cooldown": n}).run_id for n in (1, 5)]
    assert auto[0] == auto[1] != first.run_id
