"""Random changes of a batch of training images, drawn anew for every sample of every step.

All of it is batched tensor operations on the images' own device. The draws are a pure function of (seed, step), apart
from the order of the data, so that resuming replays them.
"""

import hashlib
import operator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from l2dyn.specs.run import AugmentationSpec


@dataclass(frozen=True)
class Draws:
    """What is drawn for the N samples of one step, on the CPU; None for what the spec does not ask for."""

    offsets: Tensor | None  # int64 [N, 2], row and column of the crop in the padded image, in [0, 2·crop]
    flips: Tensor | None  # bool [N]
    weights: Tensor | None  # float64 [N], λ ~ Beta(α, α)
    partners: Tensor | None  # int64 [N], a permutation


class Augmentation:
    """Crop, then flip, then mixup, each as the spec asks for it; see there for the authors' variant.

    crop p: pad by p pixels of value `fill`, then cut out the original size at an offset that is uniform on [0, 2p]².
    flip: left to right with probability ½. mixup α: x_i ← λ_i x_i + (1 − λ_i) x_{π(i)}, and the targets likewise, with
    λ_i ~ Beta(α, α) for each sample and a random permutation π of the batch.

    seed: any integer. fill: the scaled value of a black pixel, one number or one for each channel [C]; the authors pad
    with 0 whatever it is.

    Offsets, flips and permutations come from torch's CPU generator, the λ_i from NumPy's, in float64. Each kind has a
    stream of its own, so that one being switched on leaves the others' draws as they are; no draw depends on the
    device or the dtype of the images.

    Raises:
        ValueError: for a negative crop or mixup, or a fill with more than one dimension.

    >>> augmentation = Augmentation(AugmentationSpec(flip=True, crop=4, mixup=0.2), seed=0)
    >>> images, labels = torch.rand(8, 3, 32, 32), torch.eye(10)[:8]
    >>> images, targets = augmentation(images, labels, step=0)
    >>> images.shape, targets.sum(dim=1).allclose(torch.ones(8))
    (torch.Size([8, 3, 32, 32]), True)
    """

    def __init__(self, spec: AugmentationSpec, seed: int, fill=0.0):
        if operator.index(spec.crop) < 0:
            raise ValueError(f"crop must not be negative, got {spec.crop}")
        if not 0 <= spec.mixup < float("inf"):
            raise ValueError(f"mixup must be 0 or a positive α of the Beta distribution, got {spec.mixup}")
        self.spec, self.seed = spec, operator.index(seed)
        self._authors = spec.variant == "authors"
        fill = 0.0 if self._authors else fill
        self.fill = torch.as_tensor(fill, dtype=torch.float64)
        if self.fill.ndim > 1:
            raise ValueError(f"fill must be one number or one for each channel, got shape {tuple(self.fill.shape)}")

    def __call__(self, images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The batch of step `step`, augmented: new images and targets, of the shapes, dtypes and device given.

        images: floating [N, C, H, W], already scaled; channels_last stays channels_last. targets: floating
        [N, classes], one-hot or any distribution over the classes. What nothing changes is returned as it is: both
        for an empty spec, the targets without mixup.

        Raises:
            ValueError: for other shapes or dtypes, or a `fill` of another number of channels.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(f"images must be floating [N, C, H, W], got {images.dtype} {tuple(images.shape)}")
        if targets.ndim != 2 or len(targets) != len(images) or not targets.is_floating_point():
            raise ValueError(f"targets must be floating [N, classes], got {targets.dtype} {tuple(targets.shape)}")
        if self.fill.numel() not in (1, images.shape[1]):
            raise ValueError(f"fill has {self.fill.numel()} channels, the images have {images.shape[1]}")
        if self.spec == AugmentationSpec():
            return images, targets
        last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        draws = self.draw(step, len(images))
        if draws.flips is not None and self._authors:
            images = _flip(images, draws.flips)
        if draws.offsets is not None:
            images = self._crop(images, draws.offsets.to(images.device, non_blocking=True), layout)
        if draws.flips is not None and not self._authors:
            images = _flip(images, draws.flips)
        if draws.weights is not None:
            images, targets = (_mix(values, draws) for values in (images, targets))
        return images.contiguous(memory_format=layout), targets

    def draw(self, step: int, samples: int) -> Draws:
        """The draws of one step for a batch of that many samples."""
        offsets = flips = weights = partners = None
        if self.spec.crop:
            ends = 2 * self.spec.crop + (not self._authors)
            offsets = torch.randint(ends, (samples, 2), generator=self._generator("crop", step))
        if self.spec.flip:
            flips = torch.randint(2, (samples,), generator=self._generator("flip", step)).bool()
        if self.spec.mixup:
            partners = self._partners(step, samples)
            # torch's Beta takes no generator
            beta = np.random.default_rng(self._hash("mixup", step)).beta(self.spec.mixup, self.spec.mixup, samples)
            weights = torch.from_numpy(beta)
        return Draws(offsets, flips, weights, partners)

    def _partners(self, step: int, samples: int) -> Tensor:
        if not self._authors:
            return torch.randperm(samples, generator=self._generator("partners", step))
        group = self.spec.mixup_group or samples
        return torch.arange(samples).view(-1, group).flip(1).flatten()

    def _hash(self, kind: str, step: int) -> int:
        # hashed, because torch's CPU generator takes no more than the low 32 bits of a seed
        text = f"augmentation {kind} {self.seed} {operator.index(step)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def _generator(self, kind: str, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._hash(kind, step))

    def _crop(self, images: Tensor, offsets: Tensor, layout: torch.memory_format) -> Tensor:
        samples, channels, height, width = images.shape
        p = self.spec.crop
        fill = self.fill.to(images.device, images.dtype, non_blocking=True).reshape(1, -1, 1, 1)
        size = samples, channels, height + 2 * p, width + 2 * p
        padded = torch.empty(size, dtype=images.dtype, device=images.device, memory_format=layout).copy_(fill)
        padded[:, :, p : p + height, p : p + width] = images
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, 2p+1, 2p+1, H, W], a view
        return crops[torch.arange(samples, device=images.device), :, offsets[:, 0], offsets[:, 1]]


def _flip(images: Tensor, flips: Tensor) -> Tensor:
    flips = flips.to(images.device, non_blocking=True)
    return torch.where(flips[:, None, None, None], images.flip(-1), images)


def _mix(values: Tensor, draws: Draws) -> Tensor:
    partners = draws.partners.to(values.device, non_blocking=True)
    weights = draws.weights.to(values.device, values.dtype, non_blocking=True)
    weights = weights.reshape(-1, *[1] * (values.ndim - 1))
    return weights * values + (1 - weights) * values[partners]
