"""Every command on the pages is run here, at the smoke scale or dry where it would take long or need a cluster."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from checkout import ROOT

pytestmark = pytest.mark.slow  # they need the whole smoke scale

PAGES = ("README.md", "CONTRIBUTING.md", "config/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
INSTEAD = {  # what would take hours, or install a second time: the same, so that it only says what it would do
    "make figures": "make figures SCALE=smoke",
    "make test": "make --dry-run test",
    "make all": "make all SCALE=smoke",
    "make install": "make install",
    "make figures TORCH_INDEX=https://download.pytorch.org/whl/cpu": "make --dry-run figures TORCH_INDEX=x",
    "pytest src": "python -m pytest src --collect-only -q",
    ".venv/bin/pytest src": "python -m pytest src --collect-only -q",
    ".ci/run": "bash -n .ci/run",
    "snakemake --cores 8 figures/fig2.pdf": "python -m snakemake --cores 8 figures/fig2.pdf --dry-run",
    "snakemake --profile slurm --config scale=paper": "snakemake --profile slurm --dry-run --config scale=paper",
    "snakemake --profile slurm": "python -m snakemake --profile slurm --dry-run",
    "snakemake --unlock": "python -m snakemake --unlock",
    "snakemake --cores 2 all --config scale=desktop": "python -m snakemake all -n --config scale=desktop",
    ". .venv/bin/activate": "bash -n .venv/bin/activate",
    "l2dyn train": "python -m l2dyn train --help",
    "l2dyn data <name> --facts": "python -m l2dyn data digits --facts",
    "l2dyn plan --scale <scale>": "python -m l2dyn plan --scale smoke",
    "l2dyn train --scale smoke --experiment NAME": "python -m l2dyn train --scale smoke --experiment fig4a",
    "snakemake --cores 2 results/smoke/NAME/summary.csv --config scale=smoke": (
        "snakemake --cores 2 results/smoke/fig4a/summary.csv --config scale=smoke"
    ),
    "snakemake --cores 2 figures/<name>.pdf --config scale=<scale>": (
        "snakemake --cores 2 figures/fig4.pdf --config scale=smoke"
    ),
    "snakemake --profile slurm results/smoke/fig4a/summary.csv --config scale=smoke": (
        "snakemake --profile slurm results/smoke/fig4a/summary.csv --dry-run --config scale=smoke"
    ),
    "pytest tests/test_repository.py": "python -m pytest --version",  # the copy is no checkout of git
    "cp results/quick/*.png docs/gallery/": "cp results/smoke/*.png docs/gallery/",
    "make report": "make --dry-run report",
    "cp -r slurm ~/.config/snakemake/mycluster": "cp -r slurm mycluster",
    "snakemake --profile mycluster": "snakemake --profile slurm --dry-run",
    "l2dyn train --scale gpu --experiment fig4a --slice 1/3 --time-limit 50m": "python -m l2dyn train --help",
    "l2dyn export --scale gpu runs.parquet": "python -m l2dyn export --scale smoke runs.parquet",
    "l2dyn import runs.parquet": "python -m l2dyn import --help",
    "cp -a": "cp --version",
    "python benchmarks/units.py": "python benchmarks/units.py --help",
    "snakemake --executor kubernetes --default-storage-provider s3 …": "python -m snakemake --version",
    "l2dyn predict --experiment fig4a": "python -m l2dyn predict --scale smoke --experiment fig4a --budget 9",
    "mkdocs build --strict": "python -m mkdocs build --strict --quiet",
    "l2dyn pages": "python -m l2dyn pages --help",
    "l2dyn homogeneity": "python -m l2dyn homogeneity --steps 1",
}
PROGRAMS = (
    "make",
    "mkdocs",
    "pytest",
    "snakemake",
    "l2dyn",
    "python",
    ".ci/run",
    ".venv/bin/pytest",
    "cp",
    "mamba",
    "conda",
)


def commands() -> list:
    """Every command in a block of bash or between backticks, with its page."""
    found = {}
    for page in PAGES:
        text = (ROOT / page).read_text()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                found.setdefault(line.partition("#")[0].strip(), page)
        for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            command = " ".join(span.split())
            if command.split()[0] in PROGRAMS and (len(command.split()) > 1 or command in INSTEAD):
                found.setdefault(command, page)
    return [pytest.param(command, id=f"{page}: {command}") for command, page in found.items() if command]


@pytest.fixture(scope="module")
def used(finished, tmp_path_factory):
    """A finished smoke scale whose environment is the one that runs the tests."""
    checkout = finished.copy_to(tmp_path_factory.mktemp("pages") / "checkout")
    (checkout.path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (checkout.path / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (checkout.path / ".venv" / "installed").touch()
    checkout.env["PYTHONPATH"] = str(checkout.path / "src")
    checkout.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return checkout


@pytest.mark.parametrize("command", commands())
def test_a_command_on_a_page_works(used, command):
    instead = INSTEAD.get(command, command)
    words = shlex.split(instead)
    if words[0] in ("l2dyn", "pytest", "snakemake"):
        words = [sys.executable, "-m", *words]
    elif words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "cp":
        words = ["bash", "-c", instead]
    used.run(*words)


def test_the_pages_hold_commands():
    names = [param.values[0] for param in commands()]
    assert {"make figures", "make test", "pytest src", "snakemake --unlock"} <= set(names)
    assert set(INSTEAD) <= set(names), set(INSTEAD) - set(names)
