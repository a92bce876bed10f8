"""Checkpoints: one file, a JSON header and then the state, each with its SHA-256; written whole or not at all.

They lie in the cache, never among a rule's outputs, and belong to the stack of runs that wrote them: whoever trains one
of its members goes on with all of them.
"""

import io
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from l2dyn.files import set_aside, sha256, write_atomically
from l2dyn.runs.checkpoint_header import header_line, read_header_line
from l2dyn.specs.run import NUMERICS_VERSION

log = logging.getLogger(__name__)
SUFFIX = ".ckpt"
SPACING = 50  # the next checkpoint waits for this many times the cost of the last


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself: the run ids in stacking order, their horizons and the step reached."""

    path: Path
    run_ids: list[str]
    horizons: list[int]
    step: int


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
    """Write a state atomically; returns the seconds it took. Raises UserError when it cannot be written."""
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

    None for one of another numerics version; a damaged one is set aside with a warning, and None returned.
    """
    try:
        first, _, payload = path.read_bytes().partition(b"\n")
        header = read_header_line(first)
        if header["numerics_version"] != NUMERICS_VERSION:
            return None
        if sha256(payload) != header["sha256"]:
            raise ValueError("its SHA-256 does not fit")
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
        return Header(path, header["run_ids"], header["horizons"], header["step"]), state
    except FileNotFoundError:
        return None
    except Exception as error:  # any failure to decode it means the same: it is damaged
        _set_aside_damaged(path, error)
        return None


def headers(folder: Path) -> list[Header]:
    """The headers of all readable checkpoints in a folder; the states stay unread."""
    found = []
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        try:
            with open(path, "rb") as stream:
                header = read_header_line(stream.readline())
            if header["numerics_version"] == NUMERICS_VERSION:
                found.append(Header(path, header["run_ids"], header["horizons"], header["step"]))
        except FileNotFoundError:
            continue  # another job finished it meanwhile
        except (OSError, ValueError, KeyError, TypeError) as error:
            _set_aside_damaged(path, error)
    return found


def _set_aside_damaged(path: Path, error: Exception) -> None:
    aside = set_aside(path)
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    log.warning("%s: damaged checkpoint (%s); set aside as %s, its runs start anew", path, reason, aside.name)
