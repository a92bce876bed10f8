"""Whether a call of Snakemake sends jobs through Slurm, and whether this machine can."""

import itertools
import os
import re
import shutil
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from l2dyn.errors import UserError

# options of Snakemake with which it submits no job; flags of one letter may share a word, as in -np
_NO_JOBS = re.compile(
    r"-[aDFfkpq]*[DlnSt][aDFfklnpqSt]*"
    r"|--(dry-?run|touch|unlock|lint|dag|rulegraph|filegraph|d3dag|report|summary|detailed-summary|archive|containerize"
    r"|export-cwl|generate-unit-tests|print-compilation|cm|l[ciptu]|conda-cleanup-envs|conda-create-envs-only"
    r"|container-cleanup-images|(list|delete|cleanup)[a-z-]*)(=.*)?"
)


def check_executor(arguments: list[str]) -> None:
    """Raise UserError where jobs are to go through Slurm and this machine has none, before any of them is tried.

    arguments: of the snakemake call. Dry runs and the like need no Slurm.
    """
    if any(map(_NO_JOBS.fullmatch, arguments)) or not _through_slurm(arguments):
        return
    missing = [name for name in ("sbatch", "sacct") if shutil.which(name) is None]
    if "sbatch" in missing:
        raise UserError("--profile slurm: no sbatch on this machine; call it on a login node of a Slurm cluster")
    if missing:
        raise UserError(
            "--profile slurm: no program sacct, which the executor needs; slurm/config.yaml says what helps"
        )


def _through_slurm(arguments: list[str]) -> bool:
    """Whether a snakemake call names the executor slurm, itself or by the last profile found here that names one."""
    executors = _given(arguments, "--executor", "-e")
    if not executors:
        profiles = _given(arguments, "--profile") or [os.environ.get("SNAKEMAKE_PROFILE", "")]
        executors = [found for found in map(_executor_of, filter(None, profiles)) if found]
    return executors[-1:] == ["slurm"]


def _given(arguments: list[str], *options: str) -> list[str]:
    """What a call gives these options, in the three ways of writing it: `--option X`, `--option=X`, `-oX`."""
    found = []
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name in options:
            found.append(value if equals else following)
        elif argument[:2] in options:
            found.append(argument[2:])
    return found


def _executor_of(profile: str) -> str | None:
    """The executor that a profile names, a folder or a YAML file; None where there is neither."""
    paths = (Path(profile), Path(profile) / "profile.yaml", Path(profile) / "config.yaml")
    path = next((path for path in paths if path.is_file()), None)
    try:
        content = YAML(typ="safe", pure=True).load(path) if path else None
    except (YAMLError, ValueError):  # Snakemake has read it in its own way
        return None
    return content.get("executor") if isinstance(content, dict) else None
