"""A real Slurm on this machine, with GPUs that jobs can tell apart: what `snakemake --profile slurm` does there."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from checkout import Checkout, needs
from filelock import FileLock

pytestmark = pytest.mark.slow

CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
MinJobAge=300
KillWait=5
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} CPUs={cores} RealMemory=4000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
CONFIGURED = Path("/etc/slurm/slurm.conf")
# any two device files will do for GPUs that jobs can tell apart
DEVICES = ("/dev/tty0", "/dev/tty1") if Path("/dev/tty1").exists() else ("/dev/null", "/dev/zero")
GRES = "".join(f"NodeName={{host}} Name=gpu Type=fake File={device} Flags=nvidia_gpu_env\n" for device in DEVICES)


@pytest.fixture(scope="module")
def alone():
    """There is one /etc/slurm: another process of the tests waits until this one has put its Slurm away."""
    with FileLock(Path(tempfile.gettempdir()) / "l2dyn-slurm-tests.lock", timeout=1800):
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, alone):
    """The environment in which Slurm's commands find it: none, since jobs find it in /etc/slurm only."""
    needs(os.geteuid() == 0, "its daemons need root")
    needs(all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))), "slurm-wlm and munge are not installed")
    needs(not CONFIGURED.exists(), f"{CONFIGURED} is there: this machine has a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    cores = max(2, os.cpu_count() or 2)
    CONFIGURED.parent.mkdir(exist_ok=True)
    CONFIGURED.write_text(CONF.format(host=host, folder=folder, cores=cores))
    gres = CONFIGURED.with_name("gres.conf")
    gres.write_text(GRES.format(host=host))
    subprocess.run("mkdir -p /run/munge && chown munge: /run/munge", shell=True, check=True)
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        if not os.path.exists("/etc/munge/munge.key"):
            subprocess.run(
                "dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none", shell=True, check=True
            )
        subprocess.run("chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key", shell=True, check=True)
        subprocess.run(["su", "munge", "-s", "/bin/sh", "-c", "munged"], check=True)
    env: dict[str, str] = {}
    daemons = [
        subprocess.Popen([name, "-D"], env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("slurmctld", "slurmd")
    ]
    try:
        wait_for(lambda: "idle" in slurm(env, "sinfo", "-h", "-o", "%t"), 60, lambda: log_of(folder))
        yield env
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)
        CONFIGURED.unlink()
        gres.unlink()


def log_of(folder) -> str:
    return "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))


def slurm(env: dict, *command: str) -> str:
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True).stdout


def wait_for(condition, seconds: float, why=lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, why()
        time.sleep(0.5)


def submit(checkout: Checkout, cluster: dict, *targets: str, rc=0, **how):
    """Snakemake with the shipped profile, made quicker and for a cluster without accounting."""
    profile = checkout.path / "slurm" / "config.yaml"
    values = yaml.safe_load(profile.read_text())
    values |= {
        "slurm-status-command": "squeue",
        "slurm-init-seconds-before-status-checks": 3,
        "seconds-between-status-checks": 3,
        "latency-wait": 10,
        "default-resources": ["mem_mb=1000", "runtime=10"],
    }
    profile.write_text(yaml.safe_dump(values))
    bin_folder = checkout.path / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "sacct").write_text("#!/bin/sh\n")  # as slurm/config.yaml advises where there is no accounting
    (bin_folder / "sacct").chmod(0o755)
    env = cluster | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    return env, ["--profile", "slurm", *targets, "--config", f"scale={checkout.scale}", "device=cpu"]


def run(checkout: Checkout, cluster: dict, *targets: str, rc=0):

    env, arguments = submit(checkout, cluster, *targets)
    return checkout.run(sys.executable, "-m", "snakemake", *arguments, rc=rc, timeout=1500, **env)


def test_the_figures_come_through_slurm(fresh, cluster):
    """The tiny scale's whole DAG: every training job through sbatch, tables and figures here."""
    done = run(fresh, cluster, "all")
    text = done.stdout + done.stderr
    assert text.count("has been submitted with SLURM jobid") == len(fresh.bundles())
    assert (fresh.path / "figures" / "fig4.pdf").exists()
    assert (fresh.out / "claims.csv").exists()


def test_jobs_that_run_at_once_see_different_gpus(fresh, cluster):
    """Two jobs that ask for a GPU each, as the plugin asks for `gpu: 1`."""
    script = "echo $CUDA_VISIBLE_DEVICES > {out}; sleep 8"
    outs = [fresh.path / f"gpu{i}" for i in range(2)]
    for out in outs:
        command = ["sbatch", "--gpus=1", "-n1", "-o", "/dev/null", "--wrap", script.format(out=out)]
        subprocess.run(command, env=os.environ | cluster, check=True, capture_output=True)
    wait_for(lambda: all(out.exists() and out.read_text().strip() for out in outs), 60)
    assert sorted(out.read_text().strip() for out in outs) == ["0", "1"]


def interrupted(fresh, cluster, *command: str) -> str:
    """The output of a long slice of two runs, `command` called with its job's id once it has a checkpoint."""

    def longer(values):
        net = {"kind": "fc", "hidden_layers": 2, "width": 32}
        values["experiments"]["fig2ab"].update(
            lr=[0.05], l2=[0.01, 0.02], horizon={"epochs": 90_000}, net=net, slices=1
        )

    fresh.edit_config(longer)
    env, arguments = submit(fresh, cluster, f"results/{fresh.scale}/fig2ab/summary.csv")
    call = [sys.executable, "-m", "snakemake", *arguments]
    how = {"cwd": fresh.path, "env": fresh.environment(**env), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(call, **how)
    checkpoints = fresh.path / "results" / "cache" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("*.ckpt")) or process.poll() is not None, 240)
    (job,) = slurm(cluster, "squeue", "-h", "-o", "%i").split()
    subprocess.run([*command, job], env=os.environ | cluster, check=True)
    text = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, text
    assert len(fresh.records()) == 2
    return text


def test_a_job_that_is_requeued_goes_on_from_its_checkpoint(fresh, cluster):
    """As preemption does it."""
    interrupted(fresh, cluster, "scontrol", "requeue")
    (log,) = fresh.out.glob("logs/train-fig2ab-*.log")
    assert "resumed a stack of 2 runs at step" in log.read_text()


def test_a_job_that_is_cancelled_is_submitted_again(fresh, cluster):
    text = interrupted(fresh, cluster, "scancel")
    assert text.count("has been submitted with SLURM jobid") == 2


def test_without_slurm_one_line_before_any_job(fresh):
    folder = fresh.path / "bin"
    folder.mkdir()
    for name in ("bash", "sh", "env", "git", "uname", "which"):
        (folder / name).symlink_to(shutil.which(name))
    done = fresh.run(sys.executable, "-m", "snakemake", "--profile", "slurm", rc=1, PATH=str(folder))
    lines = [line for line in done.stderr.splitlines() if line.startswith("l2dyn:")]
    assert len(lines) == 1
    assert "no sbatch on this machine" in lines[0]
    assert not (fresh.path / "results").exists()
