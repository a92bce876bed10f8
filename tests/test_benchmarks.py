"""Every benchmark at its smallest: that it runs and writes what it says. How fast anything is, is nobody's test."""

import json
import math
import os
import subprocess
import sys

import pytest
from checkout import ROOT

HERE = ROOT / "benchmarks"
TINY_FC = "--width 8 --samples 32 --members 2"
CASES = {  # name: options, and what each row must hold
    "fc_steps": (f"{TINY_FC} --window 0.01", {"precision", "ratio", "fraction"}),
    "wrn_train": (
        "--rates --synthetic --depth 10 --width 1 --batch 8 --train 16 --test 8 --workers 0 --window 0.01",
        {"ours, img/s", "baseline, img/s", "ratio", "fraction"},
    ),
    "cnn_train": ("--rates --channels 4 --batch 8 --train 16 --workers 0 --window 0.01", {"batch norm", "ratio"}),
    "fig5c_convergence": (
        "--scale smoke --widths 8 16 --seeds 2 --halve 8",
        {"width", "smallest loss", "seeds", "from theory, %"},
    ),
    "growth": ("--members 1 2 --widths 8 64 --samples 16 --window 0.01", {"width", "members"}),
    "precision": (
        "--emulate --width 8 --seeds 1 --test 50 --steps-cap 20",
        {"case", "products", "t*", "best accuracy", "norm, largest gap to float64"},
    ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a benchmark in a folder of its own, with prepared digits; the JSON file it writes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    environment = os.environ | {"L2DYN_RESULTS": str(folder), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    how = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", "l2dyn", "data", "digits"], check=True, **how)

    def run(name: str, options: str, code: int = 0):
        output = folder / f"{name}.json"
        command = [sys.executable, str(HERE / f"{name}.py"), *options.split()]
        command += [] if name == "gpu" else ["--output", str(output)]
        done = subprocess.run(command, check=False, **how)
        assert done.returncode == code, done.stderr[-3000:]
        return (json.loads(output.read_text()) if output.exists() else None), done.stdout

    return run


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_runs_and_writes_what_it_says(run, name):
    options, keys = CASES[name]
    written, printed = run(name, options)
    assert written["benchmark"] == name
    assert set(written["versions"]) == {"python", "torch", "l2dyn", "git"}
    assert written["machine"]["cpu"]
    assert written["rows"]
    for row in written["rows"]:
        assert keys <= set(row)
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert next(iter(keys)) in printed


@pytest.mark.parametrize("side", ["ours", "baseline"])
def test_wrn_accuracy_of_either_side(run, side):
    options = "--synthetic --depth 10 --width 1 --batch 8 --train 16 --test 8 --workers 0 --epochs 1"
    written, _ = run("wrn_train", f"--accuracy {side} --seed 3 {options}")
    (row,) = written["rows"]
    assert (row["side"], row["seed"], row["epochs"]) == (side, 3, 1)
    assert 0 <= row["test accuracy"] <= 1


def test_cnn_train_compares_whole_commands(run):
    written, _ = run("cnn_train", "--scale smoke --experiments fig3-norm --runs 1")
    (row,) = written["rows"]
    assert row["runs"] == 1
    assert min(row["ours, s"], row["baseline, s"], row["baseline in loops, s"]) > 0


def test_emulated_tf32_is_the_nearest_with_ten_bits(monkeypatch):
    """Against NumPy's rounding of the mantissa to 11 significant bits."""
    import numpy as np
    import torch

    monkeypatch.syspath_prepend(str(HERE))
    import precision

    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 1000)
    mantissa, exponent = np.frexp(values.double().numpy())
    expected = np.ldexp(np.rint(mantissa * 2**11), exponent - 11)
    np.testing.assert_array_equal(precision.to_tf32(values).double().numpy(), expected)
    left, right = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    with precision.EmulatedTf32():
        product = torch.bmm(left, right)
    rounded = precision.to_tf32(left).double() @ precision.to_tf32(right).double()
    np.testing.assert_allclose(product, rounded, rtol=1e-6)
    assert not torch.equal(product, torch.bmm(left, right))


def test_gpu_lists_what_is_not_measured_and_goes_on_later(run, tmp_path):
    (tmp_path / "fc-512.json").write_text("{}")
    _, printed = run("gpu", f"--output-folder {tmp_path} --list")
    assert "fc-512: measured" in printed
    assert "wrn-rates: not measured" in printed
    _, printed = run("gpu", f"--output-folder {tmp_path} --only fc-512 fc-2048 --time-limit 1s", code=75)
    assert "call again" in printed


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no GPU")
def test_gpu_steps_on_a_gpu(run):
    run("fc_steps", f"--device cuda {TINY_FC} --window 0.01")
