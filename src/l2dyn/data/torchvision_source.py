"""Data sets that torchvision reads, and downloads with their checksum."""

import pickle
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder


def torchvision_splits(name: str, data_dir: str | None, folder: str) -> list:
    """The training and the test split of a torchvision data set, from `data_dir` or downloaded beside the results.

    folder: what `data_dir` must hold, for the error, one of "this or that". Raises UserError: no torchvision, no such
    folder, a file that is missing or damaged, no network.
    """
    try:
        from torchvision import datasets
    except ImportError:
        raise UserError(f"data set {name} needs torchvision; install it with: pip install torchvision") from None
    root = Path(data_dir) if data_dir else results_folder() / "data" / "torchvision"
    if data_dir and not any((root / part).is_dir() for part in folder.split(" or ")):
        raise UserError(f"{root}: data_dir holds no folder {folder} with the files of {name}")
    try:
        return [getattr(datasets, name)(str(root), train=train, download=not data_dir) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if data_dir:
            raise UserError(f"{root}: a file of {name} is missing or damaged ({reason})") from None
        remedy = f"set data_dir or L2DYN_DATA to a folder that holds {folder}"
        raise UserError(f"{name}: could not be downloaded ({reason}); {remedy}") from None
