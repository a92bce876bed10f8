"""Data sets that torchvision reads, and downloads with their checksum."""

import pickle
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder


def torchvision_splits(name: str, data_dir: str | None = None) -> list:
    """The training and the test split of a torchvision data set, from `data_dir` or downloaded beside the results.

    A download goes to a temporary name and is verified; a truncated one is fetched again.

    Raises:
        UserError: no torchvision, a file that is missing or damaged, no network.
    """
    try:
        from torchvision import datasets
    except ImportError:
        raise UserError(f"data set {name} needs torchvision; install it with: pip install torchvision") from None
    root = Path(data_dir) if data_dir else results_folder() / "data" / "torchvision"
    try:
        return [getattr(datasets, name)(str(root), train=train, download=not data_dir) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if data_dir:
            raise UserError(f"{root}: a file of {name} is missing or damaged ({reason})") from None
        remedy = "set data_dir or L2DYN_DATA to a folder that holds it"
        raise UserError(f"{name}: could not be downloaded ({reason}); {remedy}") from None
