"""The cost model: a calibration by hand, and one of this machine that `plan` reads."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from l2dyn.runs.dag import Dag
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.spec import ConvNetSpec, DataSpec, FullyConnectedSpec, RunSpec

from l2dyn import cli
from l2dyn.errors import UserError
from l2dyn.runs import cost
from l2dyn.runs.cost import Calibration, KindCost, kind, step_flops, training_flops, training_seconds
from l2dyn.runs.plan import MAX_MEMBERS, Task, batches

DATA = DataSpec(name="digits", checksum="none", train=100, test=50)


def task(steps, l2=0.1, model=None, **fields) -> Task:
    model = model or FullyConnectedSpec(hidden_layers=1, width=8)
    spec = RunSpec(model=model, data=DATA, lr=0.1, l2=l2, **fields)
    return Task(spec, steps, (steps,), EvaluationGrid(every_epochs=10))


def calibration(of: Task, step_s, sample_s, job_s=5.0) -> Calibration:
    known = KindCost(of.spec.model.kind, step_flops(of), step_s, sample_s)
    return Calibration("a machine", "2026-01-01T00:00:00", job_s, {kind(of): known})


def test_members_leave_and_share_evaluations():
    """By hand: steps 0-20 with 3 members, 20-40 with 2, evaluated at 0, 10, 20 with 3 and at 30, 40 with 2."""
    tasks = [task(40, 0.1), task(20, 0.2), task(40, 0.3)]
    known = calibration(tasks[0], step_s=(1.0, 0.1), sample_s=(0.01, 0.001))
    steps = 20 * (1.0 + 0.3) + 20 * (1.0 + 0.2)
    evaluations = 150 * (3 * (0.01 + 0.003) + 2 * (0.01 + 0.002))
    assert training_seconds(tasks, "cpu", 1, known) == pytest.approx(5.0 + steps + evaluations)


def test_conv_nets_train_one_after_the_other():
    model = ConvNetSpec(channels=(4, 4, 4, 4), dense=8, pool=2, pool_stride=2)
    tasks = [task(40, l2, model, batch=50) for l2 in (0.1, 0.2)]
    known = calibration(tasks[0], step_s=(0.0, 1.0), sample_s=(0.0, 0.01))
    evaluated = 1 + 40 / 20  # every 10 epochs of 2 steps, and the start
    assert training_seconds(tasks, "cpu", 1, known) == pytest.approx(5.0 + 2 * (40 + evaluated * 150 * 0.01))


def test_an_unknown_net_is_scaled_from_the_nearest_of_its_kind():
    small = task(100, model=FullyConnectedSpec(hidden_layers=1, width=16))
    far, near = task(100), task(100, model=FullyConnectedSpec(hidden_layers=1, width=32))
    kinds = {kind(t): KindCost("fc", step_flops(t), (0.0, s), (0.0, 0.0)) for t, s in ((far, 1.0), (near, 3.0))}
    known = Calibration("a machine", "now", 0.0, kinds)
    wide = task(100, model=FullyConnectedSpec(hidden_layers=1, width=64))
    expected = 100 * 3.0 * step_flops(wide) / step_flops(near)
    assert training_seconds([wide], "cpu", 1, known) == pytest.approx(expected)
    assert known.of(small).step_s[1] in (step_flops(small) / step_flops(far), 3 * step_flops(small) / step_flops(near))
    conv = task(40, model=ConvNetSpec(channels=(4, 4, 4, 4), dense=8, pool=2, pool_stride=2), batch=50)
    assert known.of(conv) is None
    assert training_seconds([conv], "cpu", 2, known) == pytest.approx(training_flops(conv) / 1e11)


def test_without_a_calibration_the_nominal_rate_counts():
    assert training_seconds([task(1000)], "cuda", 1, None) == pytest.approx(training_flops(task(1000)) / 1e14)
    assert training_seconds([], "cpu", 1, calibration(task(1), (0, 1), (0, 1))) == 0.0


def test_batches_are_cut_at_the_largest_size_and_by_where_runs_begin():
    many = [task(20, l2=0.001 * i) for i in range(1, MAX_MEMBERS + 6)]
    sizes = [len(batch) for batch in batches(many)]
    assert sizes == [MAX_MEMBERS, 5]
    begun = {many[0].run_id: 10, many[1].run_id: 10}
    assert sorted(len(b) for b in batches(many[:5], lambda t: begun.get(t.run_id, 0))) == [2, 3]


def test_what_decides_a_kind():
    base = task(20)
    assert kind(task(900, l2=0.5, init_seed=3)) == kind(base)
    for other in (task(20, precision="tf32"), task(20, batch=50), task(20, momentum=0.9), task(20, loss="mse")):
        assert kind(other) != kind(base)


@pytest.fixture(autouse=True)
def _importable_in_other_processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(cost.__file__).parents[2]))


@pytest.fixture
def results(tmp_path, copy_digits, monkeypatch):
    copy_digits(tmp_path)
    monkeypatch.setenv("L2DYN_RESULTS", str(tmp_path))
    monkeypatch.delenv("L2DYN_DEVICE", raising=False)
    return tmp_path


def test_a_device_is_kept_beside_the_others(results):
    known = calibration(task(1), (0.0, 1.0), (0.0, 0.1))
    cost.write_calibration(known, is_gpu=True)
    cost.write_calibration(dataclasses.replace(known, device=cost.cpu_name(2), job_s=1.0), is_gpu=False)
    cost.write_calibration(dataclasses.replace(known, device="b", date="2027", job_s=2.0), is_gpu=True)
    cost.write_calibration(dataclasses.replace(known, device=cost.cpu_name(2), job_s=3.0), is_gpu=False)
    assert cost.calibration_for("cuda", 1).device == "b"
    assert cost.calibration_for("cpu", 2) == dataclasses.replace(known, device=cost.cpu_name(2), job_s=3.0)
    assert cost.calibration_for("cpu", 1) is None


@pytest.mark.parametrize(
    "text", ["{", '{"a": {}}', "[]", '{"a": {"date": "", "job_s": 1, "gpu": true, "kinds": {"k": {}}}}']
)
def test_a_damaged_file_is_named(results, text):
    (results / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration.json: damaged .*remove it"):
        cost.calibration_for("cpu", 1)


def test_plan_says_what_calibrate_found(results, monkeypatch, capsys):
    """The smoke scale's nets, timed here: the file, the plan that reads it, and a job's time limit."""
    from l2dyn.training import calibration as timing

    monkeypatch.setattr(timing, "TIMED_S", 0.01)
    assert cli.main(["plan", "--scale", "smoke"]) == 0
    assert "nominal" in capsys.readouterr().out
    assert cli.main(["calibrate", "--scale", "smoke"]) == 0
    (device,) = json.loads((results / "calibration.json").read_text())
    assert device == cost.cpu_name(1)
    capsys.readouterr()
    assert cli.main(["plan", "--scale", "smoke", "--slices"]) == 0
    written = capsys.readouterr().out
    assert f"as l2dyn calibrate found on {device}" in written
    assert "fig2ab 1/" in written
    dag = Dag({"scale": "smoke"})
    for part in dag.plan.slices("fig2ab"):
        nets = [cost.calibration_for("cpu", 1).of(t) for t in part.tasks]
        assert all(min(*net.step_s, *net.sample_s) >= 0 < sum(net.step_s) for net in nets)
        assert dag.runtime_minutes("fig2ab", part.index, part.count, part.key) >= 5


def test_estimates_need_no_torch():
    code = "import sys, l2dyn.runs.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
