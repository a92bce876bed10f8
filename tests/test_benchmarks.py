"""Every benchmark at its smallest: that it runs and writes what it says. How fast anything is, is nobody's test."""

import importlib
import json
import math
import subprocess
import sys

import pytest
from checkout import ROOT

HERE = ROOT / "benchmarks"
TINY_FC = "--width 8 --samples 32 --members 2 --window 0.001"
CASES = {  # name: options, and what each row must hold
    "wrn_train": (
        "--rates --synthetic --depth 10 --width 1 --batch 8 --train 16 --test 8 --workers 0 --window 0.001",
        {"ours, img/s", "baseline, img/s", "ratio", "fraction"},
    ),
    "cnn_train": ("--rates --channels 4 --batch 8 --train 16 --workers 0 --window 0.001", {"batch norm", "ratio"}),
    "fig5c_convergence": (
        "--scale smoke --widths 8 16 --seeds 2 --halve 8",
        {"width", "smallest loss", "seeds", "from theory, %"},
    ),
    "units": (
        "--data digits --width 16 --samples 64 --steps 20 --rates 0.5 50",
        {"η", "torch: outcome", "authors: outcome", "authors: lr"},
    ),
    "auto_l2": ("--width 8 --window 0.001", {"what", "microseconds", "fastest"}),
    "growth": ("--members 1 2 --widths 8 64 --samples 16 --window 0.001", {"width", "members"}),
    "precision": (
        "--emulate --width 8 --seeds 1 --test 50 --steps-cap 20",
        {"case", "products", "t*", "best accuracy", "norm, largest gap to float64"},
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder for all of them, so that the digits are prepared once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark the way Python sees it as a script: with its own folder on the path."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


@pytest.fixture
def run(benchmark, results, tmp_path, monkeypatch, capsys):
    """Run a benchmark's main in this process; what its JSON file holds, and what it printed."""
    monkeypatch.setenv("L2DYN_RESULTS", str(results))
    monkeypatch.chdir(ROOT)

    def run(name: str, options: str):
        output = tmp_path / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options.split(), "--output", str(output)])
        benchmark(name).main()
        return json.loads(output.read_text()), capsys.readouterr().out

    return run


def check_written(written: dict, printed: str, name: str, keys: set[str]) -> None:
    """What the JSON file of any benchmark holds, and that its table is printed."""
    assert written["benchmark"] == name
    assert set(written["versions"]) == {"python", "torch", "l2dyn", "git"}
    assert written["machine"]["cpu"]
    assert written["rows"]
    for row in written["rows"]:
        assert keys <= set(row)
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert all(key in printed for key in keys)


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_runs_and_writes_what_it_says(run, name):
    options, keys = CASES[name]
    check_written(*run(name, options), name, keys)


def test_two_machines_compares_the_numbers_of_two_results(run, tmp_path):
    """Beside themselves all are within their margin; one that moved is not."""
    for name, exponent in (("one", -1.0), ("two", -1.1), ("far", -1.4)):
        (tmp_path / name).mkdir()
        rows = [
            "kind,panel,series,x,y,low,high,run_ids",
            f"number,a,exponent of l2,,{exponent},{exponent - 0.1},{exponent + 0.1},r1",
            "number,a,C (0.5pp) at l2=0.1,,2.0,1.0,4.0,r1",
            'number,b,"accuracy tuned minus predicted, 8 epochs",,0.01,,,',
            "points,a,lr=0.1,0.1,5,,,r1",
        ]
        (tmp_path / name / "fig3.csv").write_text("\n".join(rows) + "\n")
    written, _ = run("two_machines", f"{tmp_path / 'one'} {tmp_path / 'two'}")
    assert (written["inside"], written["numbers"]) == (3, 3)
    written, printed = run("two_machines", f"{tmp_path / 'one'} {tmp_path / 'far'}")
    assert (written["inside"], written["numbers"]) == (2, 3)
    assert written["rows"][0]["within"] == "False"
    assert written["rows"][0]["intervals overlap"] == "False"
    assert "2 of 3 numbers within their margin" in printed


def test_fc_steps_has_a_row_for_each_fast_path_and_baseline(run):
    written, printed = run("fc_steps", f"{TINY_FC} --precisions float32 tf32")
    check_written(written, printed, "fc_steps", {"steps", "products", "model-steps/s", "gain over plain"})
    ours = ["plain", "written out", "+ span", "+ blocks", "all"]
    names = [(row["steps"], row["products"]) for row in written["rows"]]
    of_precisions = [(name, precision) for precision in ("float32", "tf32") for name in ours]
    assert names == [*of_precisions, ("torch.func.vmap", "float32"), ("eager loop", "float32")]
    gains = [row["gain over plain"] for row in written["rows"] if row["steps"] == "plain"]
    assert gains == pytest.approx([1.0, 1.0])


def test_fc_steps_ways_are_those_of_the_trainer(benchmark):
    """Each row is computed as its name says: with a span and in blocks or not."""
    fc_steps = benchmark("fc_steps")
    tasks = [fc_steps.task(256, 32, seed, "float32") for seed in range(20)]
    found = {}
    for name, steps in fc_steps.ways("cpu").items():
        steps = steps()
        trainer = fc_steps.StackedTrainer(tasks, fc_steps.random_samples(tasks[0].spec.data), "cpu", steps)
        blocks = len(steps._blocks()) if name != "plain" else 1
        found[name] = (trainer.stack.net.span is not None, blocks > 1)
    assert found == {
        "plain": (False, False),
        "written out": (False, False),
        "+ span": (True, False),
        "+ blocks": (False, True),
        "all": (True, True),
    }


def test_fc_sweep_trains_the_same_runs_on_both_sides(run):
    """Same weights, same steps: the losses agree to rounding, and the table is made of the times in the file."""
    options = "--scale smoke --runs 2 --steps-cap 20 --slices 1 --processes 1 --window 0.001"
    written, printed = run("fc_sweep", options)
    check_written(written, printed, "fc_sweep", {"quantity", "ours", "baseline", "gain"})
    experiment = written["experiment"]
    assert (experiment["runs"], experiment["model_steps"], experiment["whole_grid"]) == (2, 40, False)
    for row in written["runs"]:
        assert row["loss to step 10, rel."] < 1e-3
        assert 0 < row["best accuracy, ours"] <= 1
        assert abs(row["difference"]) < 0.05
    rows = {row["quantity"].strip(): row for row in written["rows"]}
    (repeat,) = written["repeats"]
    for side, processes in (("ours", 1), ("baseline", 2)):
        took = repeat[side]
        assert rows["wall time, s"][side] == took["wall_s"]
        assert rows["model-steps/s"][side] == pytest.approx(40 / took["wall_s"])
        assert len(took["processes"]) == processes
        assert 0 < took["in_loops_s"] < sum(process["wall_s"] for process in took["processes"]) <= took["wall_s"]
    assert rows["wall time, s"]["gain"] == pytest.approx(repeat["baseline"]["wall_s"] / repeat["ours"]["wall_s"])
    assert rows["model-steps/s"]["gain"] == pytest.approx(rows["wall time, s"]["gain"])
    assert written["matmul"]["best_gflops"] >= written["matmul"]["net_gflops"] > 0


def test_fc_sweep_takes_medians_over_repeats(benchmark):
    fc_sweep, whole_commands = benchmark("fc_sweep"), benchmark("whole_commands")

    def side(wall_s):
        return whole_commands.Side(wall_s, 2 * wall_s, wall_s, [], {})

    class Untrained:
        tasks, model_steps = [benchmark("fc_steps").task(8, 32, 0, "float32")], 120

    repeats = [{"ours": side(ours), "baseline": side(plain)} for ours, plain in ((10, 20), (12, 36), (30, 30))]
    wall, _, _, steps, *_ = fc_sweep.table(Untrained, [784, 8, 10], repeats, {"best_gflops": 1.0, "net_gflops": 1.0})
    expected = {"ours": 12, "baseline": 30, "gain": 2, "smallest": 1, "largest": 3}
    assert wall == {"quantity": "wall time, s", **expected}
    assert (steps["ours"], steps["baseline"], steps["gain"]) == (10, 4, 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--experiment none", "known there: fig1a-fixed"),
        ("--experiment fig3-plain", "net.kind is convnet"),
        ("--experiment fig1b-predicted", "measured on other runs"),
        ("--runs 4", "at most 3"),
    ],
)
def test_fc_sweep_says_what_it_cannot_compare(run, options, reason):
    from l2dyn.errors import UserError

    with pytest.raises(UserError, match=reason):
        run("fc_sweep", f"--scale smoke {options}")


@pytest.mark.parametrize("side", ["ours", "baseline"])
def test_wrn_accuracy_of_either_side(run, side):
    options = "--synthetic --depth 10 --width 1 --batch 8 --train 16 --test 8 --workers 0 --epochs 1"
    written, _ = run("wrn_train", f"--accuracy {side} --seed 3 {options}")
    (row,) = written["rows"]
    assert (row["side"], row["seed"], row["epochs"]) == (side, 3, 1)
    assert 0 <= row["test accuracy"] <= 1


def test_cnn_train_compares_whole_commands(run):
    written, _ = run("cnn_train", "--scale smoke --experiments fig3-norm --runs 1 --steps-cap 6")
    (row,) = written["rows"]
    assert row["runs"] == 1
    assert written["fig3-norm"]["model_steps"] == 6
    assert min(row["ours, s"], row["baseline, s"], row["baseline in loops, s"]) > 0
    assert min(row["mean best accuracy, ours"], row["baseline"]) > 0


def test_emulated_tf32_is_the_nearest_with_ten_bits(benchmark):
    """Against NumPy's rounding of the mantissa to 11 significant bits."""
    import numpy as np
    import torch

    precision = benchmark("precision")
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


def test_gpu_lists_what_is_not_measured_and_goes_on_later(tmp_path):
    (tmp_path / "fc-512.json").write_text("{}")

    def gpu(*options: str):
        command = [sys.executable, str(HERE / "gpu.py"), "--output-folder", str(tmp_path), *options]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    listed = gpu("--list")
    assert listed.returncode == 0, listed.stderr
    assert "fc-512: measured" in listed.stdout
    assert "wrn-rates: not measured" in listed.stdout
    stopped = gpu("--only", "fc-512", "fc-2048", "--time-limit", "1s")
    assert stopped.returncode == 75, stopped.stderr
    assert "call again" in stopped.stdout


@pytest.mark.parametrize("name", ["fc_steps", "fc_sweep", "wrn_train", "cnn_train", "precision"])
def test_what_gpu_calls_is_understood(benchmark, monkeypatch, name):
    """Every part's options, up to the missing GPU."""
    import torch

    from l2dyn.errors import UserError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parts = [words.split() for _, words in benchmark("gpu").PARTS.values() if words.startswith(f"{name}.py")]
    assert bool(parts) == (name != "fc_sweep")
    for script, *options in parts:
        monkeypatch.setattr(sys, "argv", [script, *options])
        with pytest.raises(UserError, match="no GPU"):
            benchmark(name).main()


@pytest.mark.slow
def test_dag_measures_the_workflow(run):
    written, _ = run("dag", "--scale smoke --targets figures/fig5.pdf --repeats 1")
    (row,) = written["rows"]
    assert 0 < row["in training, s"] < row["training jobs, s"] < row["cores x wall, s"]
    assert all(seconds > 0 for name, seconds in row.items() if name.endswith(", s"))
    assert {name.split("-")[1] for name, _ in written["jobs"]} == {"fig2ab"}  # with whose runs those of figure 5 train


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no GPU")
def test_gpu_steps_on_a_gpu(run):
    run("fc_steps", f"--device cuda {TINY_FC} --precisions float32 tf32 bfloat16")
