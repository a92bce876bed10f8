"""The data set "mnist", through torchvision."""

import numpy as np

from l2dyn.data.torchvision_source import torchvision_splits

Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split from `data_dir`/MNIST/raw, or downloaded. Raises UserError as torchvision_splits."""
    splits = torchvision_splits("MNIST", data_dir, folder="MNIST/raw")
    train, test = ((split.data.numpy()[..., None], split.targets.numpy()) for split in splits)
    return train, test
