"""Checkpoints: one file, a JSON header and then the state, each with its SHA-256; written whole or not at all.

They lie in the cache, never among a rule's outputs, and belong to the stack of runs that wrote them: whoever trains one
of its members goes on with all of them.
"""

import io
import logging
import time
from pathlib import Path

import torch

from l2dyn.errors import UserError
from l2dyn.files import cannot_be_read, set_aside, sha256, write_atomically
from l2dyn.runs.checkpoint_header import SUFFIX, Header, header_line, header_of, read_header
from l2dyn.specs.run import NUMERICS_VERSION

log = logging.getLogger(__name__)
SPACING = 50  # the next checkpoint waits for this many times the cost of the last


class CheckpointTimer:
    """Says when the next checkpoint is due, so that they cost at most 1/SPACING of the time."""

    def __init__(self, first_after_s: float = 3.0):
        self._due = time.monotonic() + first_after_s

    def due(self) -> bool:
        """Whether to write one now."""
        return time.monotonic() >= self._due

    def wrote(self, cost_s: float) -> None:
        """One was written, at this cost; wait at least SPACING times as long."""
        self._due = time.monotonic() + max(SPACING * cost_s, 1.0)


def write_checkpoint(path: Path, run_ids: list[str], horizons: list[int], state: dict) -> float:
    """Write a state atomically; returns the seconds it took.

    Raises:
        UserError: when it cannot be written.
    """
    started = time.monotonic()
    stream = io.BytesIO()
    torch.save(state, stream)
    payload = stream.getvalue()
    header = {
        "run_ids": run_ids,
        "horizons": horizons,
        "step": state["step"],
        "numerics_version": NUMERICS_VERSION,
        "sha256": sha256(payload),
    }
    write_atomically(path, header_line(header) + payload)
    return time.monotonic() - started


def read_checkpoint(path: Path) -> tuple[Header, dict] | None:
    """The header and state of a checkpoint, verified.

    None for one of another numerics version or one that is gone; one whose digests do not fit is set aside with a
    warning, and None returned.

    Raises:
        UserError: where it cannot be read now: whatever else fails is no damage.
    """
    try:
        first, _, payload = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except (OSError, MemoryError) as error:
        raise cannot_be_read(path, error) from error
    try:
        header = header_of(path, first)
        if header.numerics_version != NUMERICS_VERSION:
            return None
        if sha256(payload) != header.sha256:
            raise ValueError("its SHA-256 does not fit")
    except ValueError as error:
        _set_aside_damaged(path, error)
        return None
    try:
        return header, torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # it is what was written, so want of memory, or another version of torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be loaded now ({reason}); it is kept, its digests fit") from error


def headers(folder: Path) -> list[Header]:
    """The headers of all checkpoints in a folder, of any numerics version; a damaged one is set aside with a warning.

    Raises:
        UserError: for one that cannot be read now.
    """
    found = []
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        try:
            found.append(read_header(path))
        except ValueError as error:
            _set_aside_damaged(path, error)
    return [header for header in found if header is not None]  # None: another job finished it meanwhile


def _set_aside_damaged(path: Path, error: ValueError) -> None:
    aside = set_aside(path)
    log.warning("%s: damaged checkpoint (%s); set aside as %s, its runs start anew", path, error, aside.name)
