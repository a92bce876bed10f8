"""A copy of the checkout, and how a person runs its commands there."""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
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
    scale: str = "smoke"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """results/<scale>."""
        return self.path / "results" / self.scale

    def run(self, *command: str, rc: int | None = 0, timeout: float = 1800, **env: str) -> subprocess.CompletedProcess:
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

    def command(self, *arguments: str) -> list[str]:
        """Snakemake with two cores at this checkout's scale, targets before --config, as people must write it."""
        split = arguments.index("--config") if "--config" in arguments else len(arguments)
        settings = arguments[split:] or ("--config", f"scale={self.scale}")
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments[:split], *settings]

    def snakemake(self, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
        """Run Snakemake; the result has `trained`, the number of runs that its jobs trained."""
        started = time.time()
        done = self.run(*self.command(*arguments), **kwargs)
        done.trained = sum(self.trained_by(path) for path in self.train_logs(since=started))
        return done

    def train_logs(self, since: float) -> list[Path]:
        """Logs of training jobs that were written since then."""
        return [path for path in self.path.glob("results/*/logs/train-*.log") if path.stat().st_mtime >= since - 0.01]

    @staticmethod
    def trained_by(log: Path) -> int:
        """How many runs a training job finished, as its log says."""
        return len(re.findall(r" run [0-9a-f]{12} (?:finished|diverged) after", log.read_text()))

    def l2dyn(self, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
        """Run the command line."""
        env = {"PYTHONPATH": str(self.path / "src")} | kwargs.pop("env", {})
        return self.run(sys.executable, "-m", "l2dyn", *arguments, **env, **kwargs)

    def edit_config(self, change, scale: str | None = None) -> None:
        """Load config/<scale>.yaml, let `change` mutate it, write it back."""
        path = self.path / "config" / f"{scale or self.scale}.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the checkout."""
        path = self.path / name
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new))

    def records(self) -> set[str]:
        """Run ids in the cache."""
        return {p.stem for p in (self.path / "results" / "cache" / "runs").glob("*.parquet")}

    def bundles(self, experiment: str = "*") -> list[Path]:
        """The bundles of an experiment, or of all."""
        return sorted(self.out.glob(f"{experiment}/runs/*.parquet"))

    def summary(self, experiment: str) -> list[dict[str, str]]:
        """The rows of an experiment's summary."""
        return rows_of(self.out / experiment / "summary.csv")

    def tree(self) -> dict[str, str]:
        """Every file with the hash of its content; Snakemake's own notes are left out."""
        kept = (p for p in sorted(self.path.rglob("*")) if p.is_file() and ".snakemake" not in p.parts)
        return {str(p.relative_to(self.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}

    def copy_to(self, path: Path) -> "Checkout":
        """A copy with results, metadata and times."""
        shutil.copytree(self.path, path, symlinks=True)
        return Checkout(path, self.scale, dict(self.env))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open() as stream:
        return list(csv.DictReader(stream))


def jobs_of(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Jobs by rule, from Snakemake's 'Job stats' tables; the last one counts where checkpoints added more."""
    lines = (done.stdout + done.stderr).splitlines()
    counts = {}
    for start in [i for i, line in enumerate(lines) if line.startswith("Job stats:")]:
        for line in lines[start + 3 :]:
            parts = line.split()
            if len(parts) != 2 or parts[0] == "total":
                break
            counts[parts[0]] = max(int(parts[1]), counts.get(parts[0], 0))
    return counts


def made(done) -> dict[str, int]:
    """Jobs below training that ran."""
    below = ("summarize", "select_l2", "theory", "figure", "publish", "claims", "results")
    return {rule: count for rule, count in jobs_of(done).items() if rule in below}


def nothing_to_do(done: subprocess.CompletedProcess) -> bool:
    """Whether Snakemake said so."""
    return "Nothing to be done" in done.stdout + done.stderr


def lines_of_users(done: subprocess.CompletedProcess) -> list[str]:
    """The lines that are meant for a person: those that begin with `l2dyn: `."""
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("l2dyn: ")]


def damage(path: Path) -> None:
    """Cut the last 20 bytes off a file."""
    path.write_bytes(path.read_bytes()[:-20])


def flip_in_columns(path: Path) -> None:
    """Change a number in a Parquet file, whose metadata stays whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    losses = table.column("train_loss").to_numpy().copy()
    losses[1] += 1.0
    pq.write_table(table.set_column(table.column_names.index("train_loss"), "train_loss", pa.array(losses)), path)
