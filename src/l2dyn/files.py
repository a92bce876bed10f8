"""Files that appear whole or not at all, and where the project keeps them."""

import contextlib
import errno
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from l2dyn.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, for an editable install


def results_folder() -> Path:
    """`results/` below the current folder, or where L2DYN_RESULTS says."""
    return Path(os.environ.get("L2DYN_RESULTS") or "results")


def shipped_folder() -> Path:
    """`paper_results/` of the checkout: the recorded runs that ship with the project (read-only)."""
    return Path("paper_results") if Path("paper_results").is_dir() else ROOT / "paper_results"


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, sync, rename.

    Raises:
        UserError: when the folder cannot be written or the disk is full; an earlier file at `path` is kept then.
    """
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def explained_os_errors(path: Path):
    """Turn an OSError on `path` into a line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path}: no disk space left; free some and call again, nothing stored is lost") from error
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); set L2DYN_RESULTS to a writable folder") from error


def cannot_be_read(path: Path, error: Exception) -> UserError:
    """The error of a file that the system does not hand over, which says nothing about its content."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    return UserError(f"{path}: cannot be read now ({reason}); it is kept, call again")


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `*.corrupt`, `*.2.corrupt` where that is taken, and return the new name."""
    aside, count = path.with_name(f"{path.name}.corrupt"), 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.{count}.corrupt")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
    return aside


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def git_revision() -> str:
    """Short git revision of the checkout, with '+' when files differ from it; 'unknown' without git."""
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return run.stdout.strip() or "unknown"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
