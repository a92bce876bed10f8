"""Samples on the training device: uint8 pixels, scaled when they are used (a small set is scaled once)."""

import math

import numpy as np
import torch
from torch import Tensor

from l2dyn.data import Samples, parity
from l2dyn.runs.datasets import DATASETS, input_shape
from l2dyn.runs.spec import DataSpec

SCALED_ONCE = 2**26  # bytes: images up to this size are kept scaled


class Images:
    """One split's images [n, height, width, channels], as l2dyn.data.inputs scales them."""

    def __init__(self, spec: DataSpec, images: np.ndarray, dtype: torch.dtype, device: str):
        self.spec, self.dtype = spec, dtype
        info = DATASETS[spec.name]
        self._mean, self._std = (torch.tensor(v, dtype=dtype, device=device) for v in (info.mean, info.std))
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
        height, width, channels = input_shape(self.spec.name, self.spec.pool)
        pool = self.spec.pool
        values = images.to(self.dtype)
        if pool > 1:
            values = values[..., : height * pool, : width * pool, :]
            values = values.unflatten(-3, (height, pool)).unflatten(-2, (width, pool)).mean(dim=(-4, -2))
        if self.spec.scaling == "unit":
            norms = values.flatten(-3).norm(dim=-1)[..., None, None, None]
            return values * (math.sqrt(height * width * channels) / norms)
        return (values / 255.0 - self._mean) / self._std


def black(spec: DataSpec) -> list[float]:
    """The scaled value of a black pixel, per channel."""
    info = DATASETS[spec.name]
    if spec.scaling == "unit":
        return [0.0] * len(info.mean)
    return [-mean / std for mean, std in zip(info.mean, info.std, strict=True)]


def targets(samples: Samples, labels: np.ndarray, loss: str, dtype: torch.dtype, device: str) -> Tensor:
    """Class indices [n] for cross-entropy; floats [n, outputs] for mse (±1 for parity labels, else one-hot)."""
    if loss == "cross_entropy":
        return torch.from_numpy(labels).to(device)
    if samples.spec.labels == "parity":
        return torch.from_numpy(parity(labels)).to(device, dtype)
    return torch.nn.functional.one_hot(torch.from_numpy(labels), samples.outputs).to(device, dtype)
