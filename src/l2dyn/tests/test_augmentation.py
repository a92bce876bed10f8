"""Augmentation against loops over single samples and pixels, and the distribution of its draws."""

import math

import numpy as np
import pytest
import torch

from l2dyn.data.augmentation import Augmentation
from l2dyn.specs.run import AugmentationSpec

EVERYTHING = AugmentationSpec(flip=True, crop=2, mixup=0.4)
SPECS = {
    "crop": AugmentationSpec(crop=3),
    "flip": AugmentationSpec(flip=True),
    "mixup": AugmentationSpec(mixup=1.0),
    "everything": EVERYTHING,
}


def make_batch(samples=11, channels=3, height=6, width=5, classes=4, dtype=torch.float64):
    generator = np.random.default_rng(samples)
    images = torch.from_numpy(generator.normal(size=(samples, channels, height, width))).to(dtype)
    return images, torch.eye(classes, dtype=dtype)[torch.from_numpy(generator.integers(classes, size=samples))]


def one_by_one(images, targets, draws, padding, fill):
    """The same draws applied to one sample after another, in NumPy."""
    images, targets = images.numpy().copy(), targets.numpy().copy()
    _, channels, height, width = images.shape
    for i, image in enumerate(images.copy()):
        if draws.offsets is not None:
            top, left = (int(v) - padding for v in draws.offsets[i])
            for c in range(channels):
                for row in range(height):
                    for column in range(width):
                        inside = 0 <= row + top < height and 0 <= column + left < width
                        images[i, c, row, column] = image[c, row + top, column + left] if inside else fill[c]
        if draws.flips is not None and draws.flips[i]:
            images[i] = images[i][:, :, ::-1].copy()
    if draws.weights is None:
        return images, targets
    mixed = []
    for values in (images, targets):
        pairs = zip(draws.weights.tolist(), values, values[draws.partners.numpy()], strict=True)
        mixed.append(np.stack([weight * own + (1 - weight) * other for weight, own, other in pairs]))
    return mixed


@pytest.mark.parametrize("fill", [0.0, [-0.5, 1.5, 2.5]], ids=["zero", "by channel"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("name", SPECS)
def test_equals_a_loop_over_samples(name, layout, fill):
    images, targets = make_batch()
    kept = images.clone(), targets.clone()
    augmentation = Augmentation(SPECS[name], seed=5, fill=fill)
    given = images.contiguous(memory_format=layout)
    for step in range(4):
        ours = augmentation(given, targets, step)
        draws = augmentation.draw(step, len(images))
        theirs = one_by_one(images, targets, draws, SPECS[name].crop, np.broadcast_to(fill, 3))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=0, atol=1e-14)
        assert ours[0].is_contiguous(memory_format=layout)
    assert torch.equal(given, kept[0])  # inputs are left alone
    assert torch.equal(targets, kept[1])


def test_one_channel_and_a_single_sample():
    images, targets = make_batch(samples=1, channels=1)
    augmentation = Augmentation(EVERYTHING, seed=0, fill=[7.0])
    ours = augmentation(images, targets, 3)
    theirs = one_by_one(images, targets, augmentation.draw(3, 1), 2, [7.0])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=0, atol=1e-14)


def test_an_empty_spec_returns_the_same_tensors():
    images, targets = make_batch()
    ours = Augmentation(AugmentationSpec(), seed=0)(images, targets, 0)
    assert ours[0] is images
    assert ours[1] is targets
    assert Augmentation(AugmentationSpec(flip=True), seed=0)(images, targets, 0)[1] is targets


def frequencies_agree(counts, samples, cells):
    """Every cell within 5 standard deviations of the uniform count."""
    p = 1 / cells
    return (np.abs(counts - samples * p) < 5 * math.sqrt(samples * p * (1 - p))).all()


def test_offsets_and_flips_are_uniform_and_independent():
    """Jointly over (row, column, flip), read off the images themselves: pixel values tell where they came from."""
    p, samples = 1, 9000
    images = torch.arange(1.0, 10).reshape(1, 1, 3, 3).expand(samples, 1, 3, 3)
    out, _ = Augmentation(AugmentationSpec(flip=True, crop=p), seed=1)(images, torch.ones(samples, 1), 0)
    seen, counts = np.unique(out.reshape(samples, 9).numpy(), axis=0, return_counts=True)
    assert len(seen) == (2 * p + 1) ** 2 * 2
    assert frequencies_agree(counts, samples, len(seen))


def test_samples_are_drawn_independently():
    """Neighbours in a batch, and one place of the batch over the steps, share nothing."""
    augmentation = Augmentation(EVERYTHING, seed=2)
    many = augmentation.draw(0, 20000)
    steps = [augmentation.draw(step, 1) for step in range(2000)]
    for offsets, flips, weights in (
        (many.offsets, many.flips, many.weights),
        (*(torch.cat([getattr(d, name) for d in steps]) for name in ("offsets", "flips", "weights")),),
    ):
        series = np.stack([offsets[:, 0], offsets[:, 1], flips, weights]).astype(float)
        now, following = series[:, :-1], series[:, 1:]
        bound = 5 / math.sqrt(now.shape[1])
        assert (np.abs(np.corrcoef(now, following)[:4, 4:]) < bound).all()
        assert (np.abs(np.corrcoef(series) - np.eye(4)) < bound).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_follow_the_beta_distribution(alpha):
    samples = 20000
    weights = Augmentation(AugmentationSpec(mixup=alpha), seed=3).draw(0, samples).weights.numpy()
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 * variance**2 * (2 * alpha + 1) / (2 * alpha + 3)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert abs(weights.mean() - 0.5) < 5 * math.sqrt(variance / samples)
    deviations = (weights - 0.5) ** 2
    assert abs(deviations.mean() - variance) < 5 * math.sqrt((fourth - variance**2) / samples)
    assert abs((deviations**2).mean() - fourth) < 5 * (deviations**2).std() / math.sqrt(samples)


def test_partners_are_a_uniform_permutation():
    augmentation = Augmentation(AugmentationSpec(mixup=1.0), seed=4)
    drawn = np.stack([augmentation.draw(step, 4).partners for step in range(4800)])
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    seen, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(seen) == 24
    assert frequencies_agree(counts, 4800, 24)


def same(a, b):
    return all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("name", SPECS)
def test_replays_by_seed_and_step(name):
    images, targets = make_batch(samples=40)
    first = Augmentation(SPECS[name], seed=8)(images, targets, 12)
    later = Augmentation(SPECS[name], seed=8)
    for step in (0, 13, 12):
        torch.rand(3)  # nor does the global generator matter
        again = later(images, targets, step)
    assert same(first, again)
    others = [(9, 12), (8, 13), (8 + 2**32, 12), (12, 8), (-8, 12)]
    assert not any(same(first, Augmentation(SPECS[name], seed)(images, targets, step)) for seed, step in others)


def test_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    Augmentation(EVERYTHING, seed=0)(*make_batch(), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_each_kind_has_a_stream_of_its_own():
    whole = Augmentation(EVERYTHING, seed=6).draw(7, 50)
    assert torch.equal(whole.offsets, Augmentation(AugmentationSpec(crop=2), seed=6).draw(7, 50).offsets)
    assert torch.equal(whole.flips, Augmentation(AugmentationSpec(flip=True), seed=6).draw(7, 50).flips)
    alone = Augmentation(AugmentationSpec(mixup=0.4), seed=6).draw(7, 50)
    assert torch.equal(whole.weights, alone.weights)
    assert torch.equal(whole.partners, alone.partners)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
def test_draws_do_not_depend_on_device_or_dtype(device, dtype, tolerance):
    images, targets = make_batch(samples=64)
    augmentation = Augmentation(EVERYTHING, seed=9, fill=[0.1, 0.2, 0.3])
    reference = augmentation(images, targets, 1)
    ours = augmentation(images.to(device, dtype), targets.to(device, dtype), 1)
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == dtype
        assert a.device.type == device
        torch.testing.assert_close(a.double().cpu(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_stay_distributions(dtype):
    images, targets = make_batch(samples=500, dtype=dtype)
    _, mixed = Augmentation(AugmentationSpec(mixup=0.2), seed=0)(images, targets, 0)
    assert (mixed >= 0).all()
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(500, dtype=dtype))
    assert ((mixed > 0.01) & (mixed < 0.99)).any()


def test_refuses_bad_batches():
    images, targets = make_batch()
    augmentation = Augmentation(EVERYTHING, seed=0)
    for wrong in (images[0], images.to(torch.uint8)):
        with pytest.raises(ValueError, match=r"^images must"):
            augmentation(wrong, targets, 0)
    for wrong in (targets[:-1], targets.argmax(dim=1), targets.long()):
        with pytest.raises(ValueError, match=r"^targets must"):
            augmentation(images, wrong, 0)
    with pytest.raises(ValueError, match=r"^fill has 2 channels"):
        Augmentation(EVERYTHING, seed=0, fill=[0.0, 1.0])(images, targets, 0)
    with pytest.raises(ValueError, match=r"^fill must"):
        Augmentation(EVERYTHING, seed=0, fill=torch.zeros(3, 1, 1))
