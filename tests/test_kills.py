"""kill -9 anywhere: a training process at fifty random moments, the whole workflow ten times; nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from checkout import ROOT

pytestmark = pytest.mark.slow

PAIR = """
import sys
sys.path.insert(0, {src!r})
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from l2dyn.data import arrays
from l2dyn.runs.bundles import Finished
from l2dyn.runs.cache import Cache
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.nets import ConvNetSpec, WideResNetSpec
from l2dyn.specs.run import AugmentationSpec, AutoL2Spec
from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training import checkpoint, job

SAMPLES = made_up_samples(train=64, test=50, downscale=2)
arrays.load = lambda *_, **__: {{
    name: getattr(SAMPLES, name) for name in ("train_images", "train_labels", "test_images", "test_labels")
}}
# checkpoints as often as can be, so that a kill falls behind the first one
job.CheckpointTimer = lambda: type("Often", (), {{"due": lambda self: True, "wrote": lambda self, cost: None}})()
CONV = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2, batch_norm=True)
WRN = WideResNetSpec(depth=10, width=1)
SETUPS = {{
    "a stack": [make_task(SAMPLES, s, lr, 0.01, batch=16, order_seed=i, precision="float32")
                for i, (s, lr) in enumerate(((1500, 0.1), (900, 0.05), (1500, 1e6)))],
    "a CNN with batch norm": [make_task(SAMPLES, 120, 0.05, 0.02, net=CONV, batch=16, precision="float32")],
    "a WRN with augmentation and momentum": [make_task(
        SAMPLES, 40, 0.05, 0.02, 0.9, net=WRN, batch=16, precision="float32",
        augmentation=AugmentationSpec(flip=True, crop=1, mixup=0.3))],
    "AutoL2": [make_task(
        SAMPLES, 120, 0.1, 0.5, 0.9, net=CONV, batch=16, precision="float32",
        auto_l2=AutoL2Spec(interval=3, refractory=0.1))],
    "a learning-rate schedule": [make_task(
        SAMPLES, 120, 0.1, 0.02, 0.9, net=CONV, batch=16, precision="float32", lr_decay_epochs=(8, 17))],
}}


def train(name, folder):
    cache = Cache(Path(folder))
    job.train(SETUPS[name], Finished(cache, Shelf(reuse=False)), threads=1)
    return {{t.run_id: cache.load(t.run_id) for t in SETUPS[name]}}
"""

KILLED = (
    PAIR
    + """
import os, random, signal, tempfile, time
name, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
with tempfile.TemporaryDirectory() as folder:
    started = time.monotonic()
    expected = train(name, folder)
    whole = time.monotonic() - started
    begun = [p.name for p in Path(folder).rglob("*.ckpt")]
    assert begun == []
done = resumed = differing = 0
while done < kills:
    with tempfile.TemporaryDirectory() as folder:
        while True:
            child = os.fork()  # torch is loaded once
            if child == 0:
                train(name, folder)
                os._exit(0)
            time.sleep(chance.uniform(0.02, whole))
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status) or done == kills:
                break  # it had ended before
            done += 1
            resumed += bool(list(Path(folder).rglob("*.ckpt")))
        found = train(name, folder)
        for run_id, record in expected.items():
            same = found[run_id].status == record.status and all(
                np.array_equal(found[run_id].columns[c], v) for c, v in record.columns.items())
            differing += not same
print("kills", done, "with a checkpoint", resumed, "differing", differing)
"""
)


@pytest.mark.parametrize(
    ("setup", "kills"),
    [
        ("a stack", 10),
        ("a CNN with batch norm", 10),
        ("a WRN with augmentation and momentum", 10),
        ("AutoL2", 10),
        ("a learning-rate schedule", 10),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(setup, kills, tmp_path):
    """Resumed as often as it was killed, it records what a run that was never stopped records."""
    code = KILLED.format(src=str(ROOT / "src"))
    done = subprocess.run(
        [sys.executable, "-c", code, setup, str(kills), "1"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert int(words[1]) == kills
    assert int(words[5]) >= kills // 2  # the others fell before the first checkpoint
    assert words[-1] == "0", done.stdout


def test_a_workflow_that_is_killed_ten_times_loses_nothing(fresh):
    """The whole tree of the smoke scale; then one plain call: all figures, no finished run trained twice."""
    fresh.scale = "smoke"
    chance, counted = random.Random(4), set()
    for kill in range(10):
        process = subprocess.Popen(
            fresh.command("figures"),
            cwd=fresh.path,
            env=fresh.environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(8, 25))
        while kill >= 5 and not fresh.records() and process.poll() is None:
            time.sleep(0.1)  # a slow machine's first kills may all fall before the first run has finished
        with suppress(ProcessLookupError):  # it had ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        fresh.snakemake("--unlock")
        counted |= fresh.records()
    before = fresh.records()
    assert counted == before  # none was lost or set aside
    done = fresh.snakemake("figures")
    assert done.trained == len(fresh.records() - before)
    assert before  # some had finished before the last kill
    for number in range(1, 6):
        assert (fresh.path / "figures" / f"fig{number}.pdf").exists()


def test_two_processes_on_the_same_slice_give_one_result(fresh):
    fresh.l2dyn("data", "digits")
    command = [sys.executable, "-m", "l2dyn", "train", "--scale", "tiny", "--experiment", "fig2ab"]
    env = fresh.environment(PYTHONPATH=str(fresh.path / "src"))
    outputs = [fresh.path / f"{i}.parquet" for i in range(2)]
    both = [subprocess.Popen([*command, "--output", str(path)], cwd=fresh.path, env=env) for path in outputs]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert not list((fresh.path / "results" / "cache").rglob(".*"))
    from l2dyn.runs.records import read_records

    first, second = (read_records(path) for path in outputs)
    assert [record.run_id for record in first] == [record.run_id for record in second]
    for one, two in zip(first, second, strict=True):
        assert {name: v.tolist() for name, v in one.columns.items()} == {n: v.tolist() for n, v in two.columns.items()}
