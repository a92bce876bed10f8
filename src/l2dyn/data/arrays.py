"""Data sets as verified arrays on disk, whatever their source.

`prepare` brings a data set into one canonical order and verifies it against the checksum in DATA_SETS; `load` reads the
prepared file and verifies it again.
"""

import hashlib
import io
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from l2dyn.errors import UserError
from l2dyn.files import results_folder, set_aside, write_atomically
from l2dyn.specs.base import imported
from l2dyn.specs.data_sets import DATA_SETS

log = logging.getLogger(__name__)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def prepared_path(name: str, results: Path | None = None) -> Path:
    """Where the prepared arrays of a data set lie; the name carries their checksum."""
    folder = Path(results) if results is not None else results_folder()
    return folder / "data" / f"{name}-{DATA_SETS[name].checksum[:10]}.npz"


def prepare(name: str, path: Path, data_dir: str | None = None) -> None:
    """Write the canonical arrays of a data set to `path`, verified.

    data_dir: a folder that holds the real data; without it they are downloaded.

    Raises:
        UserError: a missing or damaged source file, no network, a wrong checksum, an unwritable folder.
    """
    arrays = from_source(name, data_dir)
    found, expected = checksum(arrays), DATA_SETS[name].checksum
    if found != expected:
        source = data_dir or "the source"
        raise UserError(f"{source}: data set {name} has checksum {found[:16]}…, expected {expected[:16] or 'none'}…")
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(Path(path), stream.getvalue())


def load(name: str, path: Path | None = None, data_dir: str | None = None) -> dict[str, np.ndarray]:
    """The canonical arrays by name: uint8 images [n, height, width, channels] and int64 labels [n] of each split.

    Prepares the file first when it is missing. A damaged one is set aside with a warning and prepared again.
    """
    path = prepared_path(name) if path is None else Path(path)
    if path.exists():
        try:
            with np.load(path) as stored:
                arrays = {key: stored[key] for key in ARRAYS}
            if checksum(arrays) == DATA_SETS[name].checksum:
                return arrays
            reason = "wrong checksum"
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).splitlines()[0]
        aside = set_aside(path)
        log.warning("%s: damaged data file (%s); set aside as %s and prepared again", path, reason, aside.name)
    prepare(name, path, data_dir)
    with np.load(path) as stored:
        return {key: stored[key] for key in ARRAYS}


def facts(name: str, data_dir: str | None = None) -> dict:
    """What an entry of DATA_SETS says of a data set, as read from its source, its checksum not verified.

    Keys as the fields of DataSet: checksum, train_samples, test_samples, shape (height, width, channels), classes, and
    per channel mean and std of the training pixels scaled to [0, 1].

    Raises:
        UserError: for a source without samples.
    """
    arrays = from_source(name, data_dir)
    images = arrays["train_images"]
    for key in ("train_images", "test_images"):
        if len(arrays[key]) == 0:
            raise UserError(f"data set {name}: its source gives no {key}")
    # as many of each of the 256 values in a channel: sums of whole numbers, exact and small in memory
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])]
    values = np.arange(256) / 255.0
    means = [float(np.average(values, weights=count)) for count in counts]
    variances = [np.average((values - mean) ** 2, weights=count) for mean, count in zip(means, counts, strict=True)]
    return {
        "checksum": checksum(arrays),
        "train_samples": len(images),
        "test_samples": len(arrays["test_images"]),
        "shape": tuple(images.shape[1:]),
        "mean": tuple(means),
        "std": tuple(float(np.sqrt(variance)) for variance in variances),
        "classes": int(arrays["train_labels"].max()) + 1,
    }


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and bytes of the canonical arrays."""
    out = hashlib.sha256()
    for key in ARRAYS:
        values = np.ascontiguousarray(arrays[key])
        out.update(f"{key} {values.dtype.str} {values.shape}".encode())
        out.update(values.tobytes())
    return out.hexdigest()


def from_source(name: str, data_dir: str | None = None) -> dict[str, np.ndarray]:
    """The canonical arrays by name, from their source and not verified.

    Raises:
        UserError: as the source does, and for images and labels that do not belong together.
    """
    train, test = imported(DATA_SETS[name].source)(data_dir)
    for split, (images, labels) in (("training", train), ("test", test)):
        shapes = np.shape(images), np.shape(labels)
        if len(shapes[0]) != 4 or len(shapes[1]) != 1 or shapes[0][0] != shapes[1][0]:
            found = f"images {list(shapes[0])} and labels {list(shapes[1])}"
            wanted = "[n, height, width, channels] and [n]"
            raise UserError(f"{data_dir or 'its source'}: the {split} split of {name} has {found}, not {wanted}")
    return dict(zip(ARRAYS, (*canonical_order(*train), *canonical_order(*test)), strict=True))


def canonical_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, height, width, channels] and labels [n], sorted by the SHA-256 of (pixels, label)."""
    images = np.ascontiguousarray(images, dtype=np.uint8)
    labels = np.asarray(labels, dtype=np.int64)
    hashes = [
        hashlib.sha256(image.tobytes() + int(label).to_bytes(2, "little")).digest()
        for image, label in zip(images, labels, strict=True)
    ]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return images[order], labels[order]
