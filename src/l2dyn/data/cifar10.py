"""The data set "cifar10": Parquet files in the layout of the Hugging Face data set uoft-cs/cifar10, or torchvision."""

import io
from pathlib import Path

import numpy as np

from l2dyn.data.torchvision_source import torchvision_splits
from l2dyn.errors import UserError

Split = tuple[np.ndarray, np.ndarray]  # images [n, height, width, channels], labels [n]


def read(data_dir: str | None) -> tuple[Split, Split]:
    """(training, test) split from `data_dir`/cifar10/*.parquet, else through torchvision. Raises UserError."""
    folder = Path(data_dir) / "cifar10" if data_dir else None
    if folder and folder.is_dir():
        return _parquet_split(folder, "train"), _parquet_split(folder, "test")
    splits = torchvision_splits("CIFAR10", data_dir, folder="cifar10 or cifar-10-batches-py")
    train, test = ((split.data, np.asarray(split.targets)) for split in splits)
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
            images += [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table.column("img").to_pylist()]
            labels += table.column("label").to_pylist()
        except Exception as error:  # whatever the decoders say, the file is not what it should be
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"{path}: a damaged file of CIFAR-10 ({reason})") from None
    return np.stack(images), np.asarray(labels)
