"""The data set "cifar10": Parquet files in the layout of the Hugging Face data set uoft-cs/cifar10, or torchvision."""

import io
from pathlib import Path

import numpy as np

from l2dyn.data.torchvision_source import torchvision_splits
from l2dyn.errors import UserError
from l2dyn.specs.data_sets import DATA_SETS

Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]
SHAPE = DATA_SETS["cifar10"].shape
PARQUET = ("cifar10", "cifar10/plain_text", "plain_text", "cifar10/data", ".")
PICKLES = ("cifar-10-batches-py", "cifar10/cifar-10-batches-py")


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split from `data_dir`, or downloaded.

    `data_dir` holds the Parquet files of uoft-cs/cifar10, in one of the folders PARQUET, or what torchvision leaves:
    one of PICKLES.

    Raises:
        UserError: none of them, a file that is missing or damaged, no network.
    """
    if data_dir is None:
        return _of_torchvision(None)
    for name in PARQUET:
        if any((Path(data_dir) / name).glob("train-*.parquet")):
            return _parquet_split(Path(data_dir) / name, "train"), _parquet_split(Path(data_dir) / name, "test")
    for name in PICKLES:
        if (folder := Path(data_dir) / name).is_dir():
            return _of_torchvision(str(folder.parent))
    looked = ", ".join((*(f"{name}/train-*.parquet" for name in PARQUET), *PICKLES))
    raise UserError(f"{data_dir}: data_dir holds no CIFAR-10; looked for {looked}")


def _of_torchvision(data_dir: str | None) -> tuple[Split, Split]:
    train, test = ((split.data, np.asarray(split.targets)) for split in torchvision_splits("CIFAR10", data_dir))
    return train, test


def _parquet_split(folder: Path, split: str) -> Split:
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
            pixels = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table.column("img").to_pylist()]
            images.append(np.stack(pixels))
            labels.append(np.asarray(table.column("label").to_pylist(), dtype=np.int64))
            if images[-1].shape[1:] != SHAPE:
                raise ValueError(f"images of shape {images[-1].shape[1:]}, not {SHAPE}")
        except Exception as error:  # whatever the decoders say, the file is not what it should be
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"{path}: a damaged file of CIFAR-10 ({reason})") from None
    return np.concatenate(images), np.concatenate(labels)
