"""Where jobs are to go through Slurm and there is none, the call ends before any of them is tried."""

import pytest

from l2dyn.errors import UserError
from l2dyn.executor import check_executor
from l2dyn.files import ROOT

NO_JOBS = ("-n", "-np", "-pn", "-nq", "--dry-run", "--touch", "-t", "--list", "-l", "--dag", "--dag=dot", "--summary")
NO_JOBS += ("--report=a.html", "--report a.html", "--lint", "--unlock", "--delete-all-output", "--lt")


@pytest.mark.parametrize(
    ("arguments", "program", "refused"),
    [
        ("--profile slurm", "", "no sbatch on this machine"),
        ("--profile=slurm", "", "no sbatch on this machine"),
        ("--executor slurm all", "", "no sbatch on this machine"),
        ("--profile slurm", "sbatch", "no program sacct"),
        ("--profile slurm", "sbatch sacct", None),
        ("-e slurm", "", "no sbatch on this machine"),
        ("-eslurm", "", "no sbatch on this machine"),
        ("--profile quoted", "", "no sbatch on this machine"),
        ("--profile quoted/config.yaml", "", "no sbatch on this machine"),
        ("--profile slurm -kp", "", "no sbatch on this machine"),
        ("--profile slurm -d newest", "", "no sbatch on this machine"),
        ("--profile slurm -dnewest", "", "no sbatch on this machine"),
        ("--profile slurm --profile local", "", None),
        ("--profile slurm --executor local", "", None),
        *(("--profile slurm " + option, "", None) for option in NO_JOBS),
        ("--cores 2 figures", "", None),
        ("--profile local", "", None),
        ("--profile nowhere", "", None),
    ],
)
def test_without_slurm_the_call_ends_before_any_job(tmp_path, monkeypatch, arguments, program, refused):
    profiles = {"quoted": 'jobs: 2\nexecutor: "slurm"  # ours\n', "local": "executor: local\n", "odd": "executor: [\n"}
    profiles["slurm"] = (ROOT / "slurm" / "config.yaml").read_text()
    for name, text in profiles.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in program.split():
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    if refused is None:
        check_executor(["snakemake", *arguments.split()])
        return
    with pytest.raises(UserError, match=refused):
        check_executor(["snakemake", *arguments.split()])
