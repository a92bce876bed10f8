"""The command line as people and scripts call it: exit codes, time limits, kill -9, one line for every bad input."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from checkout import ROOT, lines_of_users, needs

SHARED_FIGURES = yaml.safe_load((ROOT / "config" / "figures.yaml").read_text())

ONE_LINE = {
    "unknown key": (lambda v: v["experiments"]["fig2ab"].update(learning_rate=[0.1]), "learning_rate"),
    "negative l2": (lambda v: v["experiments"]["fig2ab"]["l2"].append(-0.1), "l2"),
    "grid beyond its cap": (
        lambda v: v["experiments"]["fig2c"].update(
            horizon={"t_lr_l2": 1e9, "t_lr": 1e9, "cap_epochs": 1, "beyond_cap": "skip"}
        ),
        "fig2c",
    ),
    "wrong type": (lambda v: v["experiments"]["fig2ab"]["net"].update(width="wide"), "width"),
}


@pytest.mark.parametrize("case", ONE_LINE, ids=list(ONE_LINE))
def test_a_bad_configuration_is_one_line_that_names_file_and_key(fresh, case):
    change, key = ONE_LINE[case]
    fresh.edit_config(change)
    for done in (fresh.l2dyn("plan", "--scale", "tiny", rc=2), fresh.snakemake("-n", "all", rc=1)):
        (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
        assert line.startswith("l2dyn: config/tiny.yaml: ")
        assert key in line


@pytest.mark.parametrize(
    ("setting", "named"), [("scale=huge", "huge"), ("sclae=smoke", "sclae"), ("train=perhaps", "train")]
)
def test_a_bad_setting_is_one_line(fresh, setting, named):
    done = fresh.snakemake("-n", "all", "--config", setting, rc=1)
    (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert named in line


@pytest.mark.parametrize("folder", ["Snakefile/results", "with {braces}"])
def test_an_unusable_results_folder_is_one_line(fresh, folder):
    done = fresh.snakemake("all", rc=1, L2DYN_RESULTS=folder)
    (line,) = [line for line in done.stderr.splitlines() if "profile" not in line]
    assert folder in line
    assert "L2DYN_RESULTS" in line


def test_a_figure_without_a_notebook_or_a_scale_without_figures_still_trains(fresh):
    """As CONTRIBUTING's recipe has it: the experiment and its figure's entry come first, the notebook afterwards."""
    fresh.edit_config(lambda values: values["figures"].update(figNew={"experiments": ["fig2ab"]}))
    done = fresh.snakemake("-n", "results/tiny/fig2ab/summary.csv")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2dyn")]
    notebook = str(fresh.path / "figures" / "figNew.py")
    assert [part for part in ("config/tiny.yaml", "figures.figNew", notebook) if part not in line] == []
    done = fresh.snakemake("-n", "figures/figNew.pdf", rc=1)
    assert notebook in done.stdout + done.stderr.replace(line, "")
    assert "Traceback" not in done.stdout + done.stderr
    fresh.edit_config(lambda values: values.update(figures=dict.fromkeys([*values["figures"], *SHARED_FIGURES])))
    done = fresh.snakemake("-n", "results/tiny/fig2ab/summary.csv")
    assert "results/tiny/fig2ab/summary.csv" in done.stdout + done.stderr


def test_missing_and_damaged_data_are_one_line(fresh, tmp_path):
    train = ("train", "--scale", "gpu", "--experiment", "fig5c", "--device", "cpu")
    (line,) = lines_of_users(fresh.l2dyn(*train, "--data-dir", str(tmp_path / "nowhere"), rc=2))
    assert "data_dir holds no train-images-idx3-ubyte" in line
    (tmp_path / "raw" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "raw" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    (line,) = lines_of_users(fresh.l2dyn(*train, "--data-dir", str(tmp_path / "raw"), rc=2))
    assert "a file of MNIST is damaged" in line


BAD_ARGUMENTS = (
    ("train", "--scale", "tiny", "--experiment", "fig9"),
    ("train", "--scale", "tiny", "--experiment", "fig2ab", "--slice", "3/2"),
    ("train", "--scale", "tiny", "--experiment", "fig2ab", "--time-limit", "soon"),
    ("train", "--scale", "tiny", "--experiment", "fig2ab", "--threads", "0"),
    ("import", "nothing.parquet"),
    ("export", "--scale", "tiny", "nothing.parquet"),
    ("status", "--scale", "nowhere"),
)


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS, ids=" ".join)
def test_a_bad_argument_is_one_line(pristine, arguments):
    done = pristine.l2dyn(*arguments, rc=2)
    assert done.stderr.strip().splitlines()[-1].startswith(("l2dyn", "usage"))
    assert "Traceback" not in done.stderr


def test_export_and_import_carry_runs_between_machines(tiny, fresh):
    bundle = tiny.path / "carried.parquet"
    tiny.l2dyn("export", "--scale", "tiny", str(bundle))
    count = len(tiny.records())
    assert f"{count} runs brought" in fresh.l2dyn("import", str(bundle)).stdout
    assert "0 runs brought" in fresh.l2dyn("import", str(bundle)).stdout
    assert fresh.records() == tiny.records()
    assert fresh.snakemake("all").trained == 0
    assert fresh.summary("fig2ab") == tiny.summary("fig2ab")
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 8
    bundle.write_bytes(damaged)
    done = fresh.l2dyn("import", str(bundle), rc=None)  # 1, or 2 where the bit lies in the header
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    for content in (b"", b"<html>", bundle.read_bytes()[:100]):
        bundle.write_bytes(content)
        (line,) = fresh.l2dyn("import", str(bundle), rc=2).stderr.strip().splitlines()
        assert "not a bundle of l2dyn" in line


def test_everything_by_hand_without_snakemake(fresh):
    """As on a machine that has none: train, predict, train, summarize."""
    done = fresh.l2dyn("train", "--scale", "tiny", "--experiment", "fig4a", "--log", "train.log")
    assert done.stdout + done.stderr == ""  # with a log file the terminal has warnings only
    assert fresh.trained_by(fresh.path / "train.log") == 1
    fresh.l2dyn("predict", "--scale", "tiny", "--experiment", "fig1b-predicted")
    fresh.l2dyn("train", "--scale", "tiny", "--experiment", "fig1b-predicted")
    fresh.l2dyn("summarize", "--scale", "tiny", "--experiment", "fig1b-predicted")
    assert [row["status"] for row in fresh.summary("fig1b-predicted")] == ["finished"] * 2
    shown = fresh.l2dyn("predict", "--scale", "tiny", "--experiment", "fig4a", "--budget", "8").stdout
    assert "c_argmax" in shown.splitlines()[0]


def test_status_counts_and_verifies(tiny):
    lines = tiny.l2dyn("status", "--scale", "tiny").stdout.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("fig2ab")] == [["fig2ab", "6", "6"]]


def test_plan_says_what_it_shows_runs_steps_hours_and_disk(pristine):
    for scale in ("smoke", "quick", "desktop", "gpu", "paper"):
        text = pristine.l2dyn("plan", "--scale", scale).stdout
        rows = {line.split()[0] for line in text.splitlines() if line.strip()}
        assert {"fig1b-tuned", "fig2ab", "fig2c", "fig3-norm", "fig4a", "fig5c", "all"} <= rows
        assert text.count("pending, its l2 is measured on fig4a") == 2
        assert "t* and the best test accuracy over a grid of η and λ" in text


# --- stopping --------------------------------------------------------------------------------------


def lengthen(epochs):
    def change(values):
        net = {"kind": "fc", "hidden_layers": 2, "width": 32}
        values["experiments"]["fig2ab"].update(lr=[0.05], l2=[0.01, 0.02], horizon={"epochs": epochs}, net=net)

    return change


TRAIN = ("train", "--scale", "tiny", "--experiment", "fig2ab")


@pytest.mark.slow
def test_a_time_limit_stops_with_a_checkpoint_and_a_later_call_goes_on(fresh):
    fresh.edit_config(lengthen(1_000_000))
    fresh.l2dyn("data", "digits")
    done = fresh.l2dyn(*TRAIN, "--time-limit", "8s", rc=75)
    assert "call again" in done.stderr
    assert len(list((fresh.path / "results" / "cache" / "checkpoints").glob("*.ckpt"))) == 1
    status = fresh.l2dyn("status", "--scale", "tiny").stdout
    assert [line.split()[5] for line in status.splitlines() if line.startswith("fig2ab")] == ["2"]
    again = fresh.l2dyn(*TRAIN, "--time-limit", "8s", rc=75)
    assert re.search(r"resumed a stack of 2 runs at step \d+", again.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_goes_on_from_its_checkpoint_to_the_same_result(fresh, sent):
    """A real kill -9 (and a SIGTERM, as Slurm sends it) in the middle of training."""
    fresh.edit_config(lengthen(60_000))  # longer than the first checkpoint waits
    fresh.l2dyn(*TRAIN)
    columns = {run: read(fresh, run) for run in fresh.records()}
    shutil.rmtree(fresh.path / "results" / "cache")
    env = fresh.environment(PYTHONPATH=str(fresh.path / "src"))
    process = subprocess.Popen([sys.executable, "-m", "l2dyn", *TRAIN], cwd=fresh.path, env=env, stderr=subprocess.PIPE)
    checkpoints = fresh.path / "results" / "cache" / "checkpoints"
    while not list(checkpoints.glob("*.ckpt")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, sent)
    process.communicate(timeout=60)
    assert process.returncode == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert fresh.records() == set()
    assert len(list(checkpoints.glob("*.ckpt"))) == 1
    done = fresh.l2dyn(*TRAIN)
    assert "resumed a stack of 2 runs" in done.stderr
    assert not list(checkpoints.glob("*.ckpt"))
    assert {run: read(fresh, run) for run in fresh.records()} == columns


def read(checkout, run):
    from l2dyn.runs.records import read_record

    record = read_record(checkout.path / "results" / "cache" / "runs" / f"{run}.parquet", run)
    return {name: values.tolist() for name, values in record.columns.items()}


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the group", "the main process", "the jobs"])
def test_a_killed_workflow_loses_no_finished_run(fresh, whom):
    """kill -9 while jobs train; then --unlock where Snakemake itself died, and one call that trains no run twice."""
    process = subprocess.Popen(
        fresh.command("all", "--keep-going"),
        cwd=fresh.path,
        env=fresh.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(fresh.records()) < 3 and process.poll() is None:
        time.sleep(0.02)
    if whom == "the jobs":
        subprocess.run(["pkill", "-9", "-s", str(os.getsid(process.pid)), "-f", "l2dyn train"], check=False)
        process.wait(timeout=300)
    else:
        (os.killpg if whom == "the group" else os.kill)(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        time.sleep(0 if whom == "the group" else 20)  # its children end by themselves
        fresh.snakemake("--unlock")
    before = fresh.records()
    assert len(before) >= 3
    done = fresh.snakemake("all")
    logs = fresh.train_logs(since=0)
    assert done.trained == len(fresh.records() - before), logs
    assert (fresh.path / "figures" / "fig4.pdf").exists()


# --- real data -------------------------------------------------------------------------------------


@pytest.fixture
def real_data():
    """The folder of real data."""
    folder = os.environ.get("L2DYN_DATA")
    needs(bool(folder), "L2DYN_DATA names no folder with real data")
    return folder


@pytest.mark.slow
def test_real_mnist_trains(fresh, real_data):
    """A few steps of the gpu scale's nets on real MNIST."""

    def few_steps(values):
        values["experiments"]["fig2ab"].update(lr=[0.05], l2=[0.01], seeds=[0], horizon={"epochs": 6})
        values["experiments"]["fig5c"].update(seeds=[0], horizon={"epochs": 2})
        values["experiments"]["fig5c"]["net"]["width"] = 512
        values.update(train=True, device="cpu", threads=1)

    fresh.edit_config(few_steps, "gpu")
    for experiment in ("fig2ab", "fig5c"):
        fresh.l2dyn("train", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": real_data})
        fresh.l2dyn("summarize", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": real_data})
    assert len(fresh.records()) == 2


@pytest.mark.slow
def test_real_cifar10_trains(fresh, real_data):
    """The gpu scale's WRN-28-10 on one tiny batch, and a small WRN and CNN for a few steps, on real CIFAR-10."""

    def few_steps(values):
        values.update(train=True, device="cpu", threads=1)
        wide, small, cnn = (values["experiments"][name] for name in ("fig2de", "fig2f", "fig3-norm"))
        for experiment, batch in ((wide, 4), (small, 16), (cnn, 16)):
            data = {"name": "cifar10", "train_samples": 2 * batch, "test_samples": batch}
            tiny = {"lr": [0.01], "l2": [0.01], "batch": batch, "data": data, "horizon": {"epochs": 1}}
            experiment.update(tiny | {"evaluation": {"train_subset": batch}})
            experiment.pop("order_shards", None)  # the whole batch is smaller than the authors' shards
        small["net"] = {"kind": "wrn", "depth": 10, "width": 1}
        small["augmentation"] = {"flip": True, "crop": 4, "mixup": 0.2}
        cnn["net"] = {"kind": "convnet", "channels": [8, 8, 8, 8], "dense": 16, "batch_norm": True}

    fresh.edit_config(few_steps, "gpu")
    for experiment in ("fig2de", "fig2f", "fig3-norm"):
        fresh.l2dyn("train", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": real_data})
        fresh.l2dyn("summarize", "--scale", "gpu", "--experiment", experiment, env={"L2DYN_DATA": real_data})
    assert len(fresh.records()) == 3


def test_output_that_nobody_reads_to_its_end_is_no_error(pristine):
    piped = f'"{sys.executable}" -m l2dyn plan --scale gpu | head -1'
    done = pristine.run("bash", "-c", piped, PYTHONPATH=str(pristine.path / "src"))
    assert done.stdout.startswith("gpu: ")
    assert done.stderr == ""
