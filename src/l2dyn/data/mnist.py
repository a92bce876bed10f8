"""The data set "mnist": the four IDX files, packed or not, under any of their usual names; else through torchvision."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from l2dyn.data.torchvision_source import torchvision_splits
from l2dyn.errors import UserError

Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]
FOLDERS = ("MNIST/raw", "MNIST", "mnist", "raw", ".")
KINDS = {"images": "idx3", "labels": "idx1"}


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split from the IDX files in `data_dir`, or downloaded.

    Raises:
        UserError: a file that is missing or damaged, no network.
    """
    if data_dir is None:
        splits = torchvision_splits("MNIST")
        train, test = ((split.data.numpy()[..., None], split.targets.numpy()) for split in splits)
        return train, test
    train, test = (
        (_idx(_found(data_dir, split, "images"))[..., None], _idx(_found(data_dir, split, "labels")).astype(np.int64))
        for split in ("train", "t10k")
    )
    return train, test


def _found(data_dir: str, split: str, content: str) -> Path:
    """The file of a split, as torchvision, the original page or a mirror names it."""
    kind = KINDS[content]
    names = [f"{split}-{content}{mark}{kind}-ubyte{ending}" for mark in ("-", ".") for ending in ("", ".gz")]
    for folder in FOLDERS:
        for name in names:
            if (path := Path(data_dir) / folder / name).is_file():
                return path
    wanted = f"{names[0]} (also .gz, or {split}-{content}.{kind}-ubyte)"
    raise UserError(f"{data_dir}: data_dir holds no {wanted} of MNIST; looked in {', '.join(FOLDERS)}")


def _idx(path: Path) -> np.ndarray:
    """An IDX file of bytes, any number of dimensions."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
        if content[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise UserError(f"{path}: a file of MNIST is damaged ({error or type(error).__name__})") from None
