"""A copy of the checkout, and how a person runs its commands there."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def needs(condition: bool, reason: str) -> None:
    """Skip where the machine lacks something, except where L2DYN_REQUIRE_ALL says that it may lack nothing."""
    if condition:
        return
    if os.environ.get("L2DYN_REQUIRE_ALL") == "1":
        pytest.fail(f"L2DYN_REQUIRE_ALL=1, and {reason}")
    pytest.skip(reason)


@dataclass
class Checkout:
    """A copy of the project and a way to run its commands there."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, rc: int | None = 0, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
        """Run a command; its exit code must be `rc` (None: any)."""
        done = subprocess.run(
            command, cwd=self.path, env=self.environment(**env), capture_output=True, text=True, timeout=timeout
        )
        assert rc is None or done.returncode == rc, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def environment(self, **env: str) -> dict[str, str]:
        """Without activated environments, PYTHONPATH or project variables: as a newcomer's shell."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("L2DYN_") and k not in ("PYTHONPATH", "CORES")}
        return kept | self.env | env

    def snakemake(self, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
        """Run Snakemake with two cores at the smoke scale unless another is named."""
        config = [] if "--config" in arguments else ["--config", "scale=smoke"]
        split = arguments.index("--config") if not config else len(arguments)
        targets, config = (arguments[:split], list(arguments[split:])) if not config else (arguments, config)
        flags = [a for a in targets if a.startswith("-")]
        files = [a for a in targets if not a.startswith("-")]
        return self.run(sys.executable, "-m", "snakemake", "--cores", "2", *flags, *config, "--", *files, **kwargs)

    def l2dyn(self, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
        """Run the command line."""
        env = {"PYTHONPATH": str(self.path / "src")} | kwargs.pop("env", {})
        return self.run(sys.executable, "-m", "l2dyn", *arguments, **env, **kwargs)

    def edit_config(self, scale: str, change) -> None:
        """Load config/<scale>.yaml, let `change` mutate it, write it back."""
        path = self.path / "config" / f"{scale}.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def records(self) -> dict[str, int]:
        """Modification times of the records by run id."""
        return {p.stem: p.stat().st_mtime_ns for p in (self.path / "results" / "runs").glob("*.parquet")}

    def copy_to(self, path: Path) -> "Checkout":
        """A copy with results, metadata and times."""
        shutil.copytree(self.path, path, symlinks=True)
        return Checkout(path, dict(self.env))


def jobs_of(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Jobs by rule, from Snakemake's 'Job stats' table."""
    lines = (done.stdout + done.stderr).splitlines()
    counts = {}
    for start in [i for i, line in enumerate(lines) if line.startswith("Job stats:")]:
        for line in lines[start + 3 :]:
            parts = line.split()
            if len(parts) != 2 or parts[0] == "total":
                break
            counts[parts[0]] = int(parts[1])
    return counts
