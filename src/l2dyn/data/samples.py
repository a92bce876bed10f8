"""The samples that a run sees, and how their pixels and labels become inputs and targets."""

from dataclasses import dataclass

import numpy as np

from l2dyn.specs.data_sets import DataSpec


@dataclass(frozen=True)
class Samples:
    """What a run sees: uint8 images [n, height, width, channels] and int64 labels [n] of each split."""

    spec: DataSpec
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def samples(spec: DataSpec, arrays: dict[str, np.ndarray]) -> Samples:
    """The first `train_samples` and `test_samples` of each split in canonical order."""
    return Samples(
        spec,
        arrays["train_images"][: spec.train_samples],
        arrays["train_labels"][: spec.train_samples],
        arrays["test_images"][: spec.test_samples],
        arrays["test_labels"][: spec.test_samples],
    )


def inputs(spec: DataSpec, images: np.ndarray) -> np.ndarray:
    """Scaled float64 inputs [n, pixels] of uint8 images, as the DataSpec says; a pixel's channels are neighbours.

    Images are averaged over windows of downscale × downscale pixels first. "standardize": pixels in [0, 1] minus the
    data set's mean, over its std, per channel. "split": minus the mean of all these images, over their std. "unit":
    every image scaled to norm √(pixels), so that x·x/pixels = 1 for each. What trains is scaled by
    l2dyn.training.inputs; a test holds the two together.
    """
    window = spec.downscale
    height, width, channels = spec.image_shape
    values = images[:, : height * window, : width * window].astype(np.float64) / 255.0
    values = values.reshape(-1, height, window, width, window, channels).mean(axis=(2, 4))
    if spec.scaling == "standardize":
        mean, std = np.array(spec.data_set.mean), np.array(spec.data_set.std)
        return ((values - mean) / std).reshape(len(images), -1)
    values = values.reshape(len(images), -1)
    if spec.scaling == "split":
        return (values - values.mean()) / values.std()
    return values * np.sqrt(values.shape[1]) / np.linalg.norm(values, axis=1, keepdims=True)


def parity(labels: np.ndarray) -> np.ndarray:
    """Targets [n, 1] of "parity" labels: +1.0 for an even class, −1.0 for an odd one."""
    return (1.0 - 2.0 * (labels % 2))[:, None]
