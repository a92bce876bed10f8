"""Plain NumPy reference of flip, zero padding, crop and mixup (NCHW), sample by sample."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def augment(
    images: Array, targets: Array, flips: NDArray[np.bool_], offsets: NDArray[np.int64], weights: Array,
    pad: int, group: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Flip left-right, pad by zeros, crop at offsets (row, column), then mix with the reversed group.

    Args:
        images: [n, channels, height, width].
        targets: [n, classes].
        flips: [n], whether to flip (before padding and cropping).
        offsets: [n, 2], row and column of the crop in the padded image, from 0 to 2 pad.
        weights: [n], weight of the sample itself; its partner has 1 - weight.
        pad: Zeros on each side.
        group: Consecutive samples among which partners are taken; divides n.
    """
    n, _, height, width = images.shape
    if n % group:
        raise ValueError(f"group {group} does not divide the batch {n}")
    cropped = np.empty(images.shape)
    for i in range(n):
        image = images[i, :, :, ::-1] if flips[i] else images[i]
        row, column = (int(offset) for offset in offsets[i])
        if not (0 <= row <= 2 * pad and 0 <= column <= 2 * pad):
            raise ValueError(f"offset {row}, {column} outside of 0 to {2 * pad}")
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        cropped[i] = padded[:, row : row + height, column : column + width]
    mixed_images, mixed_targets = np.empty(images.shape), np.empty(targets.shape)
    for i in range(n):
        start = i // group * group
        partner = start + group - 1 - (i - start)
        mixed_images[i] = weights[i] * cropped[i] + (1 - weights[i]) * cropped[partner]
        mixed_targets[i] = weights[i] * targets[i] + (1 - weights[i]) * targets[partner]
    return mixed_images, mixed_targets
