"""The cost model: a calibration by hand, and one of this machine that `plan` reads."""

import dataclasses
import json
import logging

import pytest

from l2dyn.cli.main import main
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.runs import calibrations
from l2dyn.runs.calibrations import Calibration, KindCost
from l2dyn.runs.cost import kind, step_flops, training_flops, training_seconds
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec
from l2dyn.specs.optimizers import SGDSpec
from l2dyn.specs.run import RunSpec
from l2dyn.workflow import Workflow

DATA = DataSpec(name="digits", train_samples=100, test_samples=50)


def task(steps, l2=0.1, net=None, **fields) -> Task:
    net = net or FullyConnectedSpec(hidden_layers=1, width=8)
    spec = RunSpec(net=net, data=DATA, lr=0.1, l2=l2, **fields)
    return Task(spec, steps, (steps,), EvaluationGrid(every_epochs=10))


def calibration(of: Task, step_s, sample_s, job_s=5.0) -> Calibration:
    known = KindCost(of.spec.net.kind, step_flops(of), step_s, sample_s)
    return Calibration("a machine", "2026-01-01T00:00:00", job_s, {kind(of): known})


def test_members_leave_and_share_evaluations():
    """By hand: steps 0-20 with 3 members, 20-40 with 2, evaluated at 0, 10, 20 with 3 and at 30, 40 with 2."""
    tasks = [task(40, 0.1), task(20, 0.2), task(40, 0.3)]
    known = calibration(tasks[0], step_s=(1.0, 0.1), sample_s=(0.01, 0.001))
    steps = 20 * (1.0 + 0.3) + 20 * (1.0 + 0.2)
    evaluations = 150 * (3 * (0.01 + 0.003) + 2 * (0.01 + 0.002))
    assert training_seconds(tasks, "cpu", 1, known) == pytest.approx(5.0 + steps + evaluations)


def test_conv_nets_train_one_after_the_other():
    net = ConvNetSpec(channels=(4, 4, 4, 4), dense=8, pool=2, pool_stride=2)
    tasks = [task(40, l2, net, batch=50) for l2 in (0.1, 0.2)]
    known = calibration(tasks[0], step_s=(0.0, 1.0), sample_s=(0.0, 0.01))
    evaluated = 1 + 40 / 20  # every 10 epochs of 2 steps, and the start
    assert training_seconds(tasks, "cpu", 1, known) == pytest.approx(5.0 + 2 * (40 + evaluated * 150 * 0.01))


def test_an_unknown_net_is_scaled_from_the_nearest_of_its_kind():
    small = task(100, net=FullyConnectedSpec(hidden_layers=1, width=16))
    far, near = task(100), task(100, net=FullyConnectedSpec(hidden_layers=1, width=32))
    kinds = {kind(t): KindCost("fc", step_flops(t), (0.0, s), (0.0, 0.0)) for t, s in ((far, 1.0), (near, 3.0))}
    known = Calibration("a machine", "now", 0.0, kinds)
    wide = task(100, net=FullyConnectedSpec(hidden_layers=1, width=64))
    expected = 100 * 3.0 * step_flops(wide) / step_flops(near)
    assert training_seconds([wide], "cpu", 1, known) == pytest.approx(expected)
    either = (step_flops(small) / step_flops(far), 3 * step_flops(small) / step_flops(near))
    assert known.of(kind(small), step_flops(small)).step_s[1] in either
    conv = task(40, net=ConvNetSpec(channels=(4, 4, 4, 4), dense=8, pool=2, pool_stride=2), batch=50)
    assert known.of(kind(conv), step_flops(conv)) is None
    assert training_seconds([conv], "cpu", 2, known) == pytest.approx(training_flops(conv) / 1e11)


def test_without_a_calibration_the_nominal_rate_counts():
    assert training_seconds([task(1000)], "cuda", 1, None) == pytest.approx(training_flops(task(1000)) / 1e14)
    assert training_seconds([], "cpu", 1, calibration(task(1), (0, 1), (0, 1))) == 0.0


def test_what_decides_a_kind():
    base = task(20)
    assert kind(task(900, l2=0.5, init_seed=3)) == kind(base)
    for change in ({"precision": "tf32"}, {"batch": 50}, {"optimizer": SGDSpec(momentum=0.9)}, {"loss": "half_mse"}):
        assert kind(task(20, **change)) != kind(base)


@pytest.fixture(autouse=True)
def _importable_in_other_processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))


@pytest.fixture
def results(tmp_path, copy_digits, monkeypatch):
    copy_digits(tmp_path)
    monkeypatch.setenv("L2DYN_RESULTS", str(tmp_path))
    monkeypatch.delenv("L2DYN_DEVICE", raising=False)
    return tmp_path


def test_a_device_is_kept_beside_the_others(results):
    known = calibration(task(1), (0.0, 1.0), (0.0, 0.1))
    calibrations.write_calibration(known, is_gpu=True)
    calibrations.write_calibration(dataclasses.replace(known, device=calibrations.cpu_name(2), job_s=1.0), is_gpu=False)
    calibrations.write_calibration(dataclasses.replace(known, device="b", date="2027", job_s=2.0), is_gpu=True)
    calibrations.write_calibration(dataclasses.replace(known, device=calibrations.cpu_name(2), job_s=3.0), is_gpu=False)
    assert calibrations.calibration_for("cuda", 1).device == "b"
    latest = dataclasses.replace(known, device=calibrations.cpu_name(2), job_s=3.0)
    assert calibrations.calibration_for("cpu", 2) == latest
    assert calibrations.calibration_for("cpu", 1) is None


DAMAGED = ["{", '{"a": {}}', "[]", '{"a": {"date": "", "job_s": 1, "gpu": true, "kinds": {"k": {}}}}']
DAMAGED += ['{"a": {"date": "", "job_s": 1, "kinds": {}}}']


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_damaged_file_is_named_and_counts_as_none(results, text, device, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("l2dyn"), "propagate", True)
    (results / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration.json: damaged .*remove it"):
        calibrations.read_calibrations()
    assert calibrations.calibration_for(device, 1) is None
    (line,) = caplog.messages
    assert line.startswith(f"l2dyn: {results / 'calibration.json'}: damaged")
    assert "nominal rate" in line


def test_a_damaged_file_stops_no_workflow(results, caplog, monkeypatch):
    """One warning for all jobs; their time limits are those of a machine without a calibration."""
    monkeypatch.setattr(logging.getLogger("l2dyn"), "propagate", True)
    parts = Workflow({"scale": "smoke"}).plan.slices("fig2ab")

    def limits():
        flow = Workflow({"scale": "smoke"})
        return [flow.runtime_minutes("fig2ab", part.index, part.count, part.key) for part in parts * 2]

    without = limits()
    (results / "calibration.json").write_text("{")
    assert limits() == without
    assert len(caplog.messages) == 1


@pytest.mark.slow
def test_plan_says_what_calibrate_found(results, monkeypatch, capsys):
    """The smoke scale's nets, timed here: the file, the plan that reads it, and a job's time limit."""
    from l2dyn.training import calibration as timing

    monkeypatch.setattr(timing, "TIMED_S", 0.01)
    assert main(["plan", "--scale", "smoke"]) == 0
    assert "nominal" in capsys.readouterr().out
    assert main(["calibrate", "--scale", "smoke"]) == 0
    (device,) = json.loads((results / "calibration.json").read_text())
    assert device == calibrations.cpu_name(1)
    capsys.readouterr()
    assert main(["plan", "--scale", "smoke", "--slices"]) == 0
    written = capsys.readouterr().out
    assert f"as l2dyn calibrate found on {device}" in written
    assert "fig2ab 1/" in written
    flow = Workflow({"scale": "smoke"})
    for part in flow.plan.slices("fig2ab"):
        nets = [calibrations.calibration_for("cpu", 1).of(kind(t), step_flops(t)) for t in part.tasks]
        assert all(min(*net.step_s, *net.sample_s) >= 0 < sum(net.step_s) for net in nets)
        assert flow.runtime_minutes("fig2ab", part.index, part.count, part.key) >= 5
