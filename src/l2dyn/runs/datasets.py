"""Facts about the data sets: sizes, pixel statistics and the checksum of the canonical arrays.

Canonical order: within each split, samples sorted by the SHA-256 of (pixels, label), so that every source of a data
set (torchvision, a folder of Parquet files, a package) gives the same arrays. The checksums are constants: a run's
identity contains them, and `rule data` verifies them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as the runs see it."""

    title: str  # as printed on figures
    checksum: str  # SHA-256 of the canonical arrays, see l2dyn.data.checksum
    train: int  # samples in the training split
    test: int
    shape: tuple[int, ...]  # of one image, channels last
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    classes: int = 10


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        title="embedded MNIST digits",
        checksum="c811794bd3c1d3a5faf0738ad05224d1841fe7d7776576eb067dddeacfe97d0a",
        train=1000,
        test=4000,
        shape=(28, 28, 1),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "mnist": DatasetInfo(
        title="MNIST",
        checksum="b9472402dd9a735ef307743502c58ad2f9422d178ffe17db4a4c61995a7b9e4c",
        train=60000,
        test=10000,
        shape=(28, 28, 1),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "cifar10": DatasetInfo(
        title="CIFAR-10",
        checksum="0230cd24b345e3b3dc9bf2fa65869f616335773c7fd7c87e4acae6a32383f915",
        train=50000,
        test=10000,
        shape=(32, 32, 3),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
}


def input_shape(name: str, pool: int = 1) -> tuple[int, int, int]:
    """(height, width, channels) of a data set's images after averaging over pool × pool pixels.

    >>> input_shape("digits", pool=2)
    (14, 14, 1)
    """
    height, width, channels = DATASETS[name].shape
    return height // pool, width // pool, channels
