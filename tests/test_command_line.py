"""The command line as people and scripts call it: exit codes, time limits, kill -9, one line for every bad input."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from checkout import needs

ONE_LINE = {
    "unknown key": (lambda v: v["experiments"]["fig2ab"].update(learning_rate=[0.1]), "learning_rate"),
    "unknown key at the top": (lambda v: v.update(devices="cpu"), "devices"),
    "negative l2": (lambda v: v["experiments"]["fig2ab"]["l2"].append(-0.1), "l2"),
    "momentum 1": (lambda v: v["experiments"]["fig2ab"].update(momentum=1), "momentum"),
    "empty grid": (lambda v: v["experiments"]["fig2ab"].update(lr=[]), "lr"),
    "grid beyond its cap": (
        lambda v: v["experiments"]["fig5c"].update(horizon={"t_lr_l2": 1e9, "cap_epochs": 1, "beyond_cap": "skip"}),
        "fig5c",
    ),
    "wrong type": (lambda v: v["experiments"]["fig2ab"]["model"].update(width="wide"), "width"),
    "too many samples": (lambda v: v["experiments"]["fig2ab"]["data"].update(train=10**6), "train"),
}


@pytest.mark.parametrize("case", ONE_LINE, ids=list(ONE_LINE))
def test_a_bad_configuration_is_one_line_that_names_file_and_key(smoke, case):
    before = smoke.records()
    change, key = ONE_LINE[case]
    smoke.edit_config("smoke", change)
    for done in (
        smoke.l2dyn("plan", "--scale", "smoke", rc=2),
        smoke.snakemake("-n", "all", rc=1),
    ):
        (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
        assert line.startswith("l2dyn: config/smoke.yaml: ")
        assert key in line
    assert smoke.records() == before


@pytest.mark.parametrize(
    ("setting", "named"), [("scale=huge", "huge"), ("sclae=smoke", "sclae"), ("train=perhaps", "train")]
)
def test_a_bad_setting_is_one_line(fresh, setting, named):
    done = fresh.snakemake("-n", "all", "--config", setting, rc=1)
    (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert named in line


@pytest.mark.parametrize("folder", ["/sys/l2dyn", "Snakefile/results"])
def test_an_unwritable_results_folder_is_one_line(fresh, folder):
    done = fresh.snakemake("all", rc=1, L2DYN_RESULTS=folder)
    (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert folder in line
    assert "L2DYN_RESULTS" in line
    done = fresh.l2dyn("train", "--scale", "smoke", "--experiment", "fig5c", rc=2, env={"L2DYN_RESULTS": folder})
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2dyn: ")]
    assert folder in line


def test_a_full_disk_is_one_line_and_loses_nothing(fresh, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    needs(mounted.returncode == 0, "a tmpfs cannot be mounted here (that takes root)")
    try:
        env = {"L2DYN_RESULTS": str(disk)}
        fresh.l2dyn("data", "digits", env=env, rc=0)
        train = ("train", "--scale", "smoke", "--experiment", "fig2ab")
        fresh.l2dyn(*train, "--slice", "1/2", env=env)
        stored = sorted((disk / "runs").glob("*.parquet"))
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096))
        done = fresh.l2dyn(*train, env=env, rc=2)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2dyn: ")]
        assert "disk" in line
        assert set(stored) <= set((disk / "runs").glob("*.parquet"))
        (disk / "filler").unlink()
        fresh.l2dyn(*train, env=env)
        assert len(list((disk / "runs").glob("*.parquet"))) == 6
        assert not list((disk / "runs").glob(".*"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_missing_and_damaged_data_are_one_line(fresh, tmp_path):
    train = ("train", "--scale", "gpu", "--experiment", "fig5c", "--device", "cpu")
    done = fresh.l2dyn(*train, "--data-dir", str(tmp_path / "nowhere"), rc=2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2dyn: ")]
    assert "MNIST/raw" in line
    (tmp_path / "raw" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "raw" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    done = fresh.l2dyn(*train, "--data-dir", str(tmp_path / "raw"), rc=2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2dyn: ")]
    assert "missing or damaged" in line


def test_bad_arguments(fresh):
    for arguments in (
        ("train", "--scale", "smoke", "--experiment", "fig9"),
        ("train", "--scale", "smoke", "--experiment", "fig2ab", "--slice", "3/2"),
        ("train", "--scale", "smoke", "--experiment", "fig2ab", "--time-limit", "soon"),
        ("train", "--scale", "smoke", "--experiment", "fig2ab", "--threads", "0"),
        ("import", "nothing.parquet"),
        ("export", "--scale", "smoke", "nothing.parquet"),
        ("status", "--scale", "nowhere"),
    ):
        done = fresh.l2dyn(*arguments, rc=2)
        assert done.stderr.strip().splitlines()[-1].startswith(("l2dyn", "usage"))
        assert "Traceback" not in done.stderr


def long_run(values):
    values["experiments"]["fig2ab"].update(
        lr=[0.05], l2=[0.01, 0.02], horizon={"epochs": 100000}, model={"kind": "fc", "hidden_layers": 2, "width": 32}
    )


def shorten(values):
    long_run(values)
    values["experiments"]["fig2ab"]["horizon"] = {"epochs": 20000}  # longer than the first checkpoint waits


def test_a_time_limit_stops_with_a_checkpoint_and_a_later_call_goes_on(fresh):
    fresh.edit_config("smoke", long_run)
    fresh.l2dyn("data", "digits")
    train = ("train", "--scale", "smoke", "--experiment", "fig2ab")
    started = time.monotonic()
    done = fresh.l2dyn(*train, "--time-limit", "8s", rc=75)
    assert time.monotonic() - started < 30
    assert "call again" in done.stderr
    assert len(list((fresh.path / "results" / "checkpoints").glob("*.ckpt"))) == 1
    status = fresh.l2dyn("status", "--scale", "smoke").stdout
    assert [line.split()[5] for line in status.splitlines() if line.startswith("fig2ab")] == ["2"]
    again = fresh.l2dyn(*train, "--time-limit", "8s", rc=75)
    assert "resumed an ensemble of 2 runs at step" in again.stderr


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_goes_on_from_its_checkpoint_to_the_same_result(fresh, sent):
    """A real kill -9 (and a SIGTERM, as Slurm sends it) in the middle of training."""
    fresh.edit_config("smoke", shorten)
    train = ("train", "--scale", "smoke", "--experiment", "fig2ab")
    fresh.l2dyn(*train)
    expected = {run: (fresh.path / "results/runs" / f"{run}.parquet").read_bytes() for run in fresh.records()}
    columns = {run: read(fresh, run) for run in expected}
    shutil.rmtree(fresh.path / "results" / "runs")
    env = fresh.environment(PYTHONPATH=str(fresh.path / "src"))
    process = subprocess.Popen([sys.executable, "-m", "l2dyn", *train], cwd=fresh.path, env=env, stderr=subprocess.PIPE)
    checkpoints = fresh.path / "results" / "checkpoints"
    for _ in range(600):
        if list(checkpoints.glob("*.ckpt")) or process.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(process.pid, sent)
    process.communicate(timeout=60)
    assert process.returncode == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert fresh.records() == {}
    assert len(list(checkpoints.glob("*.ckpt"))) == 1
    done = fresh.l2dyn(*train)
    assert "resumed an ensemble of 2 runs" in done.stderr
    assert not list(checkpoints.glob("*.ckpt"))
    for run, values in columns.items():
        assert read(fresh, run) == values


def read(checkout, run):
    from l2dyn.runs.records import read_record

    record = read_record(checkout.path / "results" / "runs" / f"{run}.parquet", run)
    return {name: values.tolist() for name, values in record.columns.items()}


def test_plan_says_runs_steps_hours_and_disk(fresh):
    for scale in ("smoke", "quick", "gpu", "paper"):
        lines = fresh.l2dyn("plan", "--scale", scale).stdout.splitlines()
        assert lines[0].split()[:2] == ["experiment", "runs"]
        rows = {line.split()[0] for line in lines[1:-2]}
        assert {"fig1b-tuned", "fig2ab", "fig2c", "fig3-norm", "fig4a", "fig5c"} <= rows
        assert sum("pending, its l2 is measured on fig4a" in line for line in lines) == 2


def test_real_mnist_trains(fresh):
    """A few steps of the gpu scale's nets on real MNIST, where a folder with it is named."""
    folder = os.environ.get("L2DYN_DATA")
    if not folder:
        pytest.skip("L2DYN_DATA names no folder with real MNIST")

    def few_steps(values):
        values["experiments"]["fig2ab"].update(lr=[0.05], l2=[0.01], horizon={"epochs": 6})
        values["experiments"]["fig5c"].update(seeds=[0], horizon={"epochs": 2})
        values["experiments"]["fig5c"]["model"]["width"] = 512
        values.update(train=True, device="cpu", threads=1)  # it may have fewer cores than the scale asks for

    fresh.edit_config("gpu", few_steps)
    for experiment in ("fig2ab", "fig5c"):
        fresh.l2dyn("train", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": folder})
        fresh.l2dyn("summarize", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": folder})
    assert len(fresh.records()) == 2


def test_real_cifar10_trains(fresh):
    """The gpu scale's WRN-28-10 on one tiny batch, and a small WRN and CNN for a few steps, on real CIFAR-10."""
    folder = os.environ.get("L2DYN_DATA")
    if not folder:
        pytest.skip("L2DYN_DATA names no folder with real CIFAR-10")

    def few_steps(values):
        values.update(train=True, device="cpu", threads=1)  # it may have fewer cores than the scale asks for
        wide, small, cnn = (values["experiments"][name] for name in ("fig2de", "fig2f", "fig3-norm"))
        for experiment, batch in ((wide, 4), (small, 16), (cnn, 16)):
            data = {"name": "cifar10", "train": 2 * batch, "test": batch}
            tiny = {"lr": [0.01], "l2": [0.01], "batch": batch, "data": data, "horizon": {"epochs": 1}}
            experiment.update(tiny | {"evaluation": {"train_samples": batch}})
        small["model"] = {"kind": "wrn", "depth": 10, "width": 1}
        small["augmentation"] = {"flip": True, "crop": 4, "mixup": 0.2}
        cnn["model"] = {"kind": "convnet", "channels": [8, 8, 8, 8], "dense": 16, "batch_norm": True}

    fresh.edit_config("gpu", few_steps)
    for experiment in ("fig2de", "fig2f", "fig3-norm"):
        fresh.l2dyn("train", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": folder})
        fresh.l2dyn("summarize", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": folder})
    assert len(fresh.records()) == 3
