"""A training job under Slurm: how long it may take, and when trying it again is of no use."""

import hashlib
import json
import os
import time
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import write_atomically
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Slice
from l2dyn.training.checkpoint import headers

MARGIN_S = 60.0  # for the last checkpoint and for Snakemake, which starts before the job's own process


def limit_under_slurm(environment=os.environ) -> float | None:
    """Seconds until a job must stop by itself, None outside Slurm.

    What Slurm says of the job's end counts, else the minutes that the rule asked for; less a margin.
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    if end := environment.get("SLURM_JOB_END_TIME"):
        left = float(end) - time.time()
    elif minutes := environment.get("L2DYN_RUNTIME_MINUTES"):
        left = 60.0 * float(minutes)
    else:
        return None
    return max(left - min(MARGIN_S, 0.2 * left), 1.0)


def refuse_a_fault(cache: Cache, slice_: Slice, environment=os.environ) -> None:
    """Raise UserError where Snakemake tries a job for the third time under Slurm and two attempts made no progress.

    A job that stopped at its time limit has a newer checkpoint or more finished runs than at its start, and goes on for
    as many attempts as it takes. What was there at the start of each attempt is noted beside the checkpoints. Outside
    Slurm nothing is noted before the second attempt.
    """
    attempt = int(environment.get("L2DYN_ATTEMPT", "0"))
    if attempt == 0:
        return
    if attempt == 1:
        forget_attempts(cache, slice_)  # of an earlier call of Snakemake
        if "SLURM_JOB_ID" not in environment:
            return
    path = _path(cache, slice_)
    try:
        earlier = json.loads(path.read_text())
    except (OSError, ValueError):
        earlier = []
    now = _progress(cache, slice_)
    if len(earlier) >= 2 and earlier[-1] == earlier[-2] == now:
        raise UserError(
            f"{slice_.experiment} {slice_.name}: failed twice without a newer checkpoint, which is no time limit; "
            "not tried again in this call, see its log"
        )
    write_atomically(path, json.dumps([*earlier, now]).encode())


def forget_attempts(cache: Cache, slice_: Slice) -> None:
    """Remove what refuse_a_fault noted, as when the slice is done."""
    _path(cache, slice_).unlink(missing_ok=True)


def _path(cache: Cache, slice_: Slice) -> Path:
    return cache.checkpoints / f"{slice_.key}.attempts"


def _progress(cache: Cache, slice_: Slice) -> str:
    """Hash of what there is of a slice: finished runs, and the steps of its checkpoints."""
    ids = {task.run_id for task in slice_.tasks}
    done = sorted(run_id for run_id in ids if cache.path(run_id).exists())
    checkpointed = sorted(
        (header.step, header.run_ids) for header in headers(cache.checkpoints) if ids & set(header.run_ids)
    )
    return hashlib.sha256(json.dumps([done, checkpointed]).encode()).hexdigest()[:16]
