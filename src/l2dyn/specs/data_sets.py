"""The data sets: sizes, pixel statistics, the checksum of the canonical arrays; and which samples of them a run sees.

A new one is an entry of DATA_SETS and a module in l2dyn/data that reads it; `l2dyn data NAME --facts` prints the
numbers of its entry. Canonical order: within each split, samples sorted by the SHA-256 of (pixels, label), so that
every source of a data set gives the same arrays. The checksums are constants: a run's id contains them, and `rule data`
verifies them.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator

from l2dyn.specs.base import Count, Spec
from l2dyn.specs.nets.base import ImageShape


@dataclass(frozen=True)
class DataSet:
    """A data set as the runs see it.

    source: import path of a function that is called with the folder of real data (None: download) and returns (images,
    labels) of the training and of the test split: uint8 [n, height, width, channels] and whole numbers [n], any order.
    """

    title: str  # as printed on figures
    source: str
    checksum: str  # SHA-256 of the canonical arrays, see l2dyn.data.arrays.checksum
    train_samples: int
    test_samples: int
    shape: ImageShape
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    classes: int = 10


DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(
        title="embedded MNIST digits",
        source="l2dyn.data.digits:read",
        checksum="c811794bd3c1d3a5faf0738ad05224d1841fe7d7776576eb067dddeacfe97d0a",
        train_samples=1000,
        test_samples=4000,
        shape=(28, 28, 1),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "mnist": DataSet(
        title="MNIST",
        source="l2dyn.data.mnist:read",
        checksum="b9472402dd9a735ef307743502c58ad2f9422d178ffe17db4a4c61995a7b9e4c",
        train_samples=60000,
        test_samples=10000,
        shape=(28, 28, 1),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "cifar10": DataSet(
        title="CIFAR-10",
        source="l2dyn.data.cifar10:read",
        checksum="0230cd24b345e3b3dc9bf2fa65869f616335773c7fd7c87e4acae6a32383f915",
        train_samples=50000,
        test_samples=10000,
        shape=(32, 32, 3),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
}


class DataSpec(Spec):
    """The samples a run sees: the first `train_samples` and `test_samples` of each split in canonical order.

    labels "parity": ±1 for even and odd classes, one output. scaling "standardize": by the data set's mean and std, per
    channel; "split": by one mean and one std over all pixels and channels of the samples that the run sees, of each
    split by its own; "unit": every image to norm √(pixels). downscale: images are averaged over windows of that many²
    pixels first. checksum: of the data set, filled in when it is not given; records of an earlier state have another.
    """

    name: Literal[tuple(DATA_SETS)]
    checksum: str = ""
    train_samples: Count
    test_samples: Count
    labels: Literal["class", "parity"] = "class"
    scaling: Literal["standardize", "split", "unit"] = "standardize"
    downscale: Count = 1

    @model_validator(mode="after")
    def _fits_its_data_set(self):
        for split in ("train_samples", "test_samples"):
            held, asked = getattr(self.data_set, split), getattr(self, split)
            if asked > held:
                raise ValueError(f"{split}: {asked} asked for, {self.name} has {held}")
        side = min(self.data_set.shape[:2])
        if self.downscale > side:
            raise ValueError(f"downscale: {self.downscale} is more than the {side} pixels of an image's side")
        if self.checksum == "":
            object.__setattr__(self, "checksum", self.data_set.checksum)
        return self

    @property
    def data_set(self) -> DataSet:
        """The facts of the data set."""
        return DATA_SETS[self.name]

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of an image, downscaled.

        >>> DataSpec(name="digits", train_samples=512, test_samples=4000, downscale=2).image_shape
        (14, 14, 1)
        """
        height, width, channels = self.data_set.shape
        return height // self.downscale, width // self.downscale, channels

    @property
    def outputs(self) -> int:
        """How many outputs a net needs."""
        return 1 if self.labels == "parity" else self.data_set.classes

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 0.5 if self.labels == "parity" else 1 / self.data_set.classes
