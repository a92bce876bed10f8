"""Samples on the training device: uint8 pixels, scaled when they are used (a small set is scaled once)."""

import math

import numpy as np
import torch
from torch import Tensor

from l2dyn.data.samples import Samples, parity
from l2dyn.specs.data_sets import DataSpec
from l2dyn.training.order import DataOrder

SCALED_ONCE = 2**26  # bytes: images up to this size are kept scaled


class Images:
    """One split's images [n, height, width, channels], scaled as l2dyn.data.samples.inputs does."""

    def __init__(self, spec: DataSpec, images: np.ndarray, dtype: torch.dtype, device: str):
        self.spec, self.dtype = spec, dtype
        mean, std = _of_split(spec, images) if spec.scaling == "split" else (spec.data_set.mean, spec.data_set.std)
        self._mean, self._std = (torch.tensor(v, dtype=dtype, device=device) for v in (mean, std))
        self._held = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        if self._held.numel() * dtype.itemsize <= SCALED_ONCE:
            self._held = self._scaled(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, chosen: Tensor | slice = slice(None)) -> Tensor:
        """The chosen images [..., height, width, channels], scaled, in the training precision."""
        images = self._held[chosen]
        return images if images.dtype == self.dtype else self._scaled(images)

    def _scaled(self, images: Tensor) -> Tensor:
        height, width, channels = self.spec.image_shape
        window = self.spec.downscale
        values = images.to(self.dtype)
        if window > 1:
            values = values[..., : height * window, : width * window, :]
            values = values.unflatten(-3, (height, window)).unflatten(-2, (width, window)).mean(dim=(-4, -2))
        if self.spec.scaling == "unit":
            norms = values.flatten(-3).norm(dim=-1)[..., None, None, None]
            return values * (math.sqrt(height * width * channels) / norms)
        return (values / 255.0 - self._mean) / self._std


class Batches:
    """The training samples of each step. order: what minibatches are drawn from; it has none for the full batch."""

    def __init__(self, images: Images, targets: Tensor, order: DataOrder):
        self.images, self.targets, self.order = images, targets, order
        self._whole: Tensor | None = None

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """(images [(E,) n, height, width, channels], targets [(E,) n, …]) of the step after `step` steps.

        With E in front where the members' orders differ.
        """
        chosen = self.order.indices(step)
        if chosen is not None:
            return self.images.take(chosen), self.targets[chosen]
        if self._whole is None:
            self._whole = self.images.take()
        return self._whole, self.targets


def on_device(samples: Samples, loss: str, dtype: torch.dtype, device: str) -> list[tuple[Images, Tensor]]:
    """[(images, targets) of the training split, of the test split]."""
    splits = (samples.train_images, samples.train_labels), (samples.test_images, samples.test_labels)
    return [
        (Images(samples.spec, images, dtype, device), targets(samples.spec, labels, loss, dtype, device))
        for images, labels in splits
    ]


def black(spec: DataSpec) -> list[float]:
    """The scaled value of a black pixel, per channel."""
    info = spec.data_set
    if spec.scaling == "unit":
        return [0.0] * len(info.mean)
    if spec.scaling == "split":
        raise ValueError("what black becomes differs between the splits; pad with 0 after scaling")
    return [-mean / std for mean, std in zip(info.mean, info.std, strict=True)]


def _of_split(spec: DataSpec, images: np.ndarray) -> tuple[float, float]:
    """(mean, std) over all pixels and channels of these images, in [0, 1], downscaled."""
    height, width, channels = spec.image_shape
    window = spec.downscale
    count = total = square = 0.0
    for first in range(0, len(images), 1000):
        block = images[first : first + 1000, : height * window, : width * window] / 255.0
        block = block.reshape(-1, height, window, width, window, channels).mean(axis=(2, 4))
        count, total, square = count + block.size, total + block.sum(), square + np.square(block).sum()
    mean = total / count
    return float(mean), math.sqrt(square / count - mean**2)


def targets(spec: DataSpec, labels: np.ndarray, loss: str, dtype: torch.dtype, device: str) -> Tensor:
    """Class indices [n] for cross-entropy; floats [n, outputs] for half_mse (±1 for parity labels, else one-hot)."""
    if loss == "cross_entropy":
        return torch.from_numpy(labels).to(device)
    if spec.labels == "parity":
        return torch.from_numpy(parity(labels)).to(device, dtype)
    return torch.nn.functional.one_hot(torch.from_numpy(labels), spec.outputs).to(device, dtype)
