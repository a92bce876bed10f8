"""The first line of a checkpoint: JSON with a SHA-256 of its own; read without torch."""

import errno
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import cannot_be_read, sha256
from l2dyn.specs.run import NUMERICS_VERSION

SUFFIX = ".ckpt"


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself: the run ids in stacking order, their horizons and the step reached."""

    path: Path
    run_ids: list[str]
    horizons: list[int]
    step: int
    numerics_version: int
    sha256: str  # of the state, which follows the line


def header_line(header: dict) -> bytes:
    """The line that holds a header.

    >>> read_header_line(header_line({"run_ids": ["a"], "step": 3}))
    {'run_ids': ['a'], 'step': 3}
    """
    text = json.dumps(header).encode()
    return text + b" " + sha256(text).encode() + b"\n"


def read_header_line(line: bytes) -> dict:
    """The header of such a line, verified.

    Raises:
        ValueError: for any other line.
    """
    text, _, digest = line.rstrip(b"\n").rpartition(b" ")
    if sha256(text).encode() != digest:
        raise ValueError("the SHA-256 of its header does not fit")
    return json.loads(text)


def header_of(path: Path, line: bytes) -> Header:
    """The header that a checkpoint's first line holds.

    Raises:
        ValueError: for a damaged line.
        UserError: for a whole one with other keys: it is no damage.
    """
    values = read_header_line(line)
    try:
        return Header(path, **values)
    except TypeError:
        raise UserError(f"{path}: written by another version of l2dyn; delete it and its runs start anew") from None


def read_header(path: Path) -> Header | None:
    """The header of a checkpoint, None where the file is gone; the state stays unread.

    Raises:
        ValueError: for a damaged one.
        UserError: for one that cannot be read now.
    """
    try:
        line = _first_line(path)
    except FileNotFoundError:
        return None
    except (OSError, MemoryError) as error:
        raise cannot_be_read(path, error) from error
    return header_of(path, line)


def resumable(headers: Iterable[Header], wanted: Collection[tuple[str, int]]) -> list[Header]:
    """The checkpoints that the training of the runs `wanted`, (run id, horizon in steps), goes on with.

    A stack goes on whole: not where one of its runs is not wanted, or has another horizon now.
    """
    return [
        header
        for header in headers
        if header.numerics_version == NUMERICS_VERSION
        and all(run in wanted for run in zip(header.run_ids, header.horizons, strict=True))
    ]


def _first_line(path: Path) -> bytes:
    """Read twice where need be: on NFS a file that its job replaces in between is stale once."""
    try:
        with open(path, "rb") as stream:
            return stream.readline()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    with open(path, "rb") as stream:
        return stream.readline()
