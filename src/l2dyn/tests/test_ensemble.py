"""The batched ensemble against plain PyTorch: nn.Sequential and torch.optim.SGD, one net at a time."""

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from l2dyn.runs.datasets import input_shape
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.spec import DataSpec, FullyConnectedSpec, RunSpec
from l2dyn.training.ensemble import Ensemble
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from l2dyn import data
from l2dyn.data import Samples
from l2dyn.nets.fully_connected import StackedFullyConnected, draw_parameters
from l2dyn.runs.plan import Task
from l2dyn.training.inputs import Images
from l2dyn.training.order import epoch_permutation

GOLDEN = Path(__file__).parent / "golden_ensemble.json"


def make_samples(train=48, test=40, labels="class", scaling="standardize", seed=0, pool=1) -> Samples:
    """Small random digits that a net can learn: class-dependent patterns with noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, size=(10, 28, 28, 1))
    classes = generator.integers(0, 10, size=train + test)
    noise = generator.integers(0, 256, size=(train + test, 28, 28, 1))
    images = ((2 * patterns[classes] + noise) // 3).astype(np.uint8)
    how = {"labels": labels, "scaling": scaling, "pool": pool}
    spec = DataSpec(name="digits", checksum="made up", train=train, test=test, **how)
    return Samples(spec, images[:train], classes[:train], images[train:], classes[train:])


def make_task(samples, steps=200, lr=0.1, l2=0.01, **fields) -> Task:
    model = fields.pop("model", FullyConnectedSpec(hidden_layers=2, width=12))
    spec = RunSpec(model=model, data=samples.spec, lr=lr, l2=l2, **{"precision": "float64"} | fields)
    return Task(spec, steps, (steps,), EvaluationGrid())


def trained(tasks, samples):
    return {f.task.run_id: f for f in Ensemble(tasks, samples).train()}


def oracle(task: Task, samples: Samples) -> dict[str, list[float]]:
    """The same run the way a user would write it."""
    spec = task.spec
    outputs = samples.outputs
    inputs = math.prod(input_shape(spec.data.name, spec.data.pool))
    widths = [inputs, *[spec.model.width] * spec.model.hidden_layers, outputs]
    layers = []
    for fan_in, fan_out in pairwise(widths):
        layers += [torch.nn.Linear(fan_in, fan_out, bias=spec.model.bias, dtype=torch.float64), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    linear = [m for m in net if isinstance(m, torch.nn.Linear)]
    for module, weight in zip(linear, draw_parameters(spec.model, inputs, outputs, spec.init_seed), strict=True):
        module.weight.data = weight.T.to(torch.float64).clone()
        if spec.model.bias:
            module.bias.data.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.l2)

    def tensors(images, labels):
        x = torch.from_numpy(data.inputs(spec.data, images))
        return x, torch.from_numpy(data.parity(labels) if spec.data.labels == "parity" else labels)

    x, y = tensors(samples.train_images, samples.train_labels)
    x_test, y_test = tensors(samples.test_images, samples.test_labels)

    def loss_of(outputs, targets):
        if spec.loss == "mse" and targets.dim() == 1:
            targets = torch.nn.functional.one_hot(targets, 10).to(torch.float64)
        if spec.loss == "mse":
            return 0.5 * (outputs - targets).square().sum(dim=1).mean()
        return torch.nn.functional.cross_entropy(outputs, targets)

    def correct(outputs, targets):
        if spec.data.labels == "parity":
            return (torch.sign(outputs) == targets).double().mean()
        return (outputs.argmax(dim=1) == targets).double().mean()

    columns = {key: [] for key in ("step", "train_loss", "train_error", "test_loss", "test_accuracy", "param_norm")}
    wanted = set(task.evaluations())
    for step in range(task.steps + 1):
        if step in wanted:
            with torch.no_grad():
                columns["step"].append(step)
                columns["train_loss"].append(loss_of(net(x), y).item())
                columns["train_error"].append(1 - correct(net(x), y).item())
                columns["test_loss"].append(loss_of(net(x_test), y_test).item())
                columns["test_accuracy"].append(correct(net(x_test), y_test).item())
                columns["param_norm"].append(math.sqrt(sum(p.square().sum().item() for p in net.parameters())))
        batch = slice(None)
        if spec.batch:
            epoch, position = divmod(step, spec.steps_per_epoch)
            order = epoch_permutation(spec.order_seed, epoch, len(x))
            batch = order[position * spec.batch : (position + 1) * spec.batch]
        optimizer.zero_grad()
        loss_of(net(x[batch]), y[batch]).backward()
        optimizer.step()
    return columns


CASES = {
    "full batch": {},
    "no penalty": {"l2": 0.0},
    "deep": {"model": FullyConnectedSpec(hidden_layers=4, width=9)},
    "no hidden width to spare": {"model": FullyConnectedSpec(hidden_layers=1, width=1)},
    "no bias": {"model": FullyConnectedSpec(hidden_layers=2, width=12, bias=False)},
    "momentum": {"momentum": 0.9, "lr": 0.02},
    "minibatch": {"batch": 16, "order_seed": 3},
    "minibatch that leaves a rest": {"batch": 20, "order_seed": 4, "momentum": 0.5},
    "mse on classes": {"loss": "mse", "lr": 0.05},
    "more samples than pixels": {"pool": 7},
    "more samples than pixels, momentum": {"pool": 7, "momentum": 0.9, "lr": 0.02},
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_equals_plain_pytorch_in_any_company(case):
    """200 steps in float64 agree to 1e-9, alone and beside members with other η, λ, seeds and horizons."""
    case = dict(CASES[case])
    samples = make_samples(pool=case.pop("pool", 1))
    task = make_task(samples, **case)
    shared = {k: v for k, v in case.items() if k in ("model", "batch", "loss")}
    momentum = 0.7 if task.spec.momentum else 0.0
    company = [
        make_task(samples, steps=17, lr=0.05, l2=0.3, init_seed=1, momentum=momentum, **shared),
        task,
        make_task(samples, steps=260, lr=0.01, l2=0.0, init_seed=2, momentum=momentum, **shared),
        make_task(samples, steps=90, lr=1e6, l2=0.5, init_seed=5, momentum=momentum, **shared),  # diverges
    ]
    expected = oracle(task, samples)
    for tasks in ([task], company):
        columns = trained(tasks, samples)[task.run_id].columns
        assert columns["step"].tolist() == expected["step"]
        for name, values in expected.items():
            np.testing.assert_allclose(columns[name], values, rtol=1e-9, atol=1e-9, err_msg=f"{name} of {len(tasks)}")


def test_parity_labels_equal_plain_pytorch():
    samples = make_samples(labels="parity", scaling="unit")
    model = FullyConnectedSpec(hidden_layers=1, width=30, bias=False)
    task = make_task(samples, loss="mse", model=model, lr=0.02)
    columns, expected = trained([task], samples)[task.run_id].columns, oracle(task, samples)
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_ntk_parameterization_is_the_standard_net_at_rescaled_rates():
    """W = m·V: gradient descent on V at η with λ is gradient descent on W at m²η with λ/m²; here all m are equal."""
    samples = make_samples(labels="parity", scaling="unit")
    width = 784  # so that every layer has the same fan-in
    ntk = FullyConnectedSpec(hidden_layers=1, width=width, bias=False, parameterization="ntk", weight_std=1.5)
    standard = FullyConnectedSpec(hidden_layers=1, width=width, bias=False, weight_std=1.5)
    m2 = 1.5**2 / width
    one = make_task(samples, steps=30, loss="mse", model=ntk, lr=5.0, l2=0.001)
    other = make_task(samples, steps=30, loss="mse", model=standard, lr=5.0 * m2, l2=0.001 / m2)
    a, b = (trained([task], samples)[task.run_id].columns for task in (one, other))
    np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-6)  # the draws are rounded to float32
    np.testing.assert_allclose(a["param_norm"] * math.sqrt(m2), b["param_norm"], rtol=1e-6)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("scaling", ["standardize", "unit"])
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_scaling_on_the_device_is_that_of_data_inputs(monkeypatch, once, scaling, pool):
    if not once:
        monkeypatch.setattr("l2dyn.training.inputs.SCALED_ONCE", 0)
    samples = make_samples(scaling=scaling)
    spec = dataclasses.replace(samples.spec, pool=pool)
    images = Images(spec, samples.train_images, torch.float64, "cpu")
    expected = data.inputs(spec, samples.train_images)
    np.testing.assert_allclose(images.take().flatten(1).numpy(), expected, rtol=1e-12, atol=1e-12)
    chosen = torch.tensor([[3, 1], [0, 7]])
    np.testing.assert_allclose(
        images.take(chosen).flatten(-3).numpy(), expected[chosen.numpy()], rtol=1e-12, atol=1e-12
    )


def test_divergence_is_recorded_and_stops_nobody():
    samples = make_samples()
    wild, tame = make_task(samples, lr=1e6), make_task(samples)
    outcome = trained([wild, tame], samples)
    assert outcome[wild.run_id].status == "diverged"
    assert outcome[tame.run_id].status == "finished"
    assert outcome[tame.run_id].steps == 200
    columns = outcome[wild.run_id].columns
    assert np.isfinite(np.stack([columns["train_loss"], columns["param_norm"]])).all()
    assert outcome[wild.run_id].steps > columns["step"][-1]


def test_the_kernels_norm_is_measured_where_the_spec_says():
    """Against autograd on the trained weights, beside runs with other horizons; and it changes nothing else."""
    samples = make_samples(labels="parity", scaling="unit")
    model = FullyConnectedSpec(hidden_layers=2, width=9, bias=False, parameterization="ntk", weight_std=1.0)
    how = {"model": model, "loss": "mse", "lr": 0.2}
    runs = [make_task(samples, steps=s, init_seed=i, kernel_samples=5, **how) for i, s in enumerate((60, 35))]
    found = trained(runs, samples)
    plain = make_task(samples, steps=60, **how)
    assert plain.run_id != runs[0].run_id
    columns, expected = found[runs[0].run_id].columns, trained([plain], samples)[plain.run_id].columns
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-9, err_msg=name)

    ensemble = Ensemble([plain], samples)
    ensemble.advance(60)
    ensemble.net.materialize()
    weights = [w[0].T.clone().requires_grad_() for w in ensemble.net.weights]
    hidden = torch.from_numpy(data.inputs(samples.spec, samples.train_images[:5]))
    for layer, weight in enumerate(weights):
        hidden = hidden @ weight.T * ensemble.net.multipliers[layer]
        hidden = hidden.relu() if layer < 2 else hidden
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(f, weights, retain_graph=True)]) for f in hidden[:, 0]]
    gradients = torch.stack(rows)
    norm = (gradients @ gradients.T).norm().item()
    assert columns["kernel_norm"][-1] == pytest.approx(norm, rel=1e-9)


def test_evaluations_may_wait_on_the_device():
    """As on a GPU, where the host asks for several evaluations at once: the same records."""
    samples = make_samples()
    tasks = [make_task(samples, lr=1e6), make_task(samples, steps=90, l2=0.1), make_task(samples)]
    expected = trained(tasks, samples)
    for limit in (7, 1000):
        ensemble = Ensemble(tasks, samples)
        ensemble._pending_limit = limit
        found = {f.task.run_id: f for f in ensemble.train()}
        for run_id, finished in expected.items():
            assert (found[run_id].status, found[run_id].steps) == (finished.status, finished.steps)
            for name, values in finished.columns.items():
                np.testing.assert_allclose(found[run_id].columns[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("tf32", 1e-5), ("bfloat16", 0.03)])
def test_precisions(precision, close):
    """Rounded products change a short run by as much as their rounding."""
    samples = make_samples()
    runs = {kind: make_task(samples, steps=40, lr=0.002, precision=kind) for kind in ("float64", precision)}
    columns = {kind: trained([task], samples)[task.run_id].columns for kind, task in runs.items()}
    found, exact = (columns[kind]["train_loss"] for kind in (precision, "float64"))
    assert 0 < abs(found - exact).max() < close * exact.max()


def test_bfloat16_rounds_the_operands_of_every_product_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(shape, generator=generator) for shape in ((5, 7), (2, 7, 6), (2, 6, 3), (2, 1, 6), (2, 1, 3))]
    x, weights, biases = draw[0], draw[1:3], draw[3:]
    net = StackedFullyConnected(weights, biases, [1.0, 1.0], torch.bfloat16)
    rounded = [w.bfloat16().double() for w in weights]
    hidden = (x.bfloat16().double() @ rounded[0] + biases[0]).relu().float()
    outputs = hidden.bfloat16().double() @ rounded[1] + biases[1]
    np.testing.assert_allclose(net.forward(x)[-1], outputs, rtol=1e-5, atol=1e-5)
    grads = {i: (left, right) for i, left, right, _ in net.backward(net.forward(x), outputs.float()) if i < 2}
    held = torch.zeros_like(weights[0])
    net.accumulate(held, *grads[0], 0.5)
    below = (outputs.float().bfloat16().double() @ rounded[1].mT) * (hidden > 0)
    expected = 0.5 * x.bfloat16().double().T @ below.float().bfloat16().double()
    np.testing.assert_allclose(held, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "fields", [{}, {"momentum": 0.9}, {"precision": "tf32"}, {"precision": "bfloat16"}, {"batch": 16}, {"loss": "mse"}]
)
def test_on_a_gpu_steps_never_wait_and_change_tensors_in_place(fields):
    """With tensors that claim to be on a GPU: no product mixes devices, and nothing asks for a value."""
    samples = make_samples()
    tasks = [make_task(samples, **{"precision": "float32"} | fields, init_seed=seed) for seed in (0, 1)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        ensemble = Ensemble(tasks, samples, "cuda")
        before = [id(tensor) for tensor in (*ensemble.net.trained, *ensemble.velocities)]
        if ensemble.order.batch:
            ensemble._minibatch_steps(3)
        else:
            ensemble._full_batch_step(ensemble._block(slice(None)))
        assert not list(ensemble._evaluate())
        ((step, measured),) = ensemble._pending
        assert (step, measured.shape, measured.device.type) == (0, (2, 5), "cuda")
        assert [id(tensor) for tensor in (*ensemble.net.trained, *ensemble.velocities)] == before
        with pytest.raises(DataDependentOutputException):  # so this test would notice
            measured[0, 0].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_captured_steps_are_the_same_steps(momentum):
    samples = make_samples()
    tasks = [make_task(samples, steps=s, init_seed=i, lr=0.02, momentum=momentum) for i, s in enumerate((60, 150, 200))]
    expected = trained(tasks, samples)
    for finished in Ensemble(tasks, samples, "cuda").train():
        for name, values in expected[finished.task.run_id].columns.items():
            np.testing.assert_allclose(finished.columns[name], values, rtol=1e-8, atol=1e-10, err_msg=name)


def test_budgets_are_measured_and_a_longer_run_serves_them_as_its_prefix():
    samples = make_samples()
    short = make_task(samples, steps=37)
    long = Task(short.spec, 200, (37, 200), EvaluationGrid())
    a, b = (trained([task], samples)[task.run_id].columns for task in (short, long))
    count = int(np.searchsorted(b["step"], 37, side="right"))
    for name in a:
        assert a[name].tolist() == b[name][:count].tolist(), name


@pytest.mark.parametrize("batch", [0, 16])
def test_a_resumed_ensemble_is_bitwise_the_uninterrupted_one(batch):
    samples = make_samples()
    tasks = [make_task(samples, steps=s, init_seed=i, batch=batch, momentum=0.9) for i, s in enumerate((60, 150, 200))]
    whole = trained(tasks, samples)
    first = Ensemble(tasks, samples)
    done = {f.task.run_id: f for f in first.train(lambda ensemble: ensemble.step >= 101)}
    assert 0 < len(first.tasks) < 3
    second = Ensemble(first.tasks, samples)
    second.load_state_dict(first.state_dict())
    done |= {f.task.run_id: f for f in second.train()}
    assert done.keys() == whole.keys()
    for run_id, finished in whole.items():
        for name, values in finished.columns.items():
            assert values.tolist() == done[run_id].columns[name].tolist(), name


def test_lengthening_from_a_final_state_equals_training_at_once():
    samples = make_samples()
    short = make_task(samples, steps=80, momentum=0.9)
    long = Task(short.spec, 200, (80, 200), EvaluationGrid())
    finished = trained([short], samples)[short.run_id]
    ensemble = Ensemble([long], samples)
    ensemble.load_members(80, [finished.state], [finished.columns])
    (lengthened,) = ensemble.train()
    expected = trained([long], samples)[long.run_id]
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(lengthened.columns[name], values, err_msg=name)


def test_an_epoch_sees_every_sample_once():
    one, other = epoch_permutation(3, 0, 100), epoch_permutation(3, 1, 100)
    assert sorted(one.tolist()) == list(range(100))
    assert one.tolist() != other.tolist()
    assert epoch_permutation(4, 0, 100).tolist() != one.tolist()


def golden_columns() -> dict[str, list[float]]:
    samples = make_samples()
    tasks = [
        make_task(samples, steps=120, l2=0.02, momentum=0.0),
        make_task(samples, steps=60, lr=0.3, l2=0.001, init_seed=1),
    ]
    minibatch = make_task(samples, steps=40, batch=16, momentum=0.9, order_seed=2)
    out = {}
    for group in (tasks, [minibatch]):
        for finished in trained(group, samples).values():
            key = finished.task.run_id
            out[key] = {n: finished.columns[n].tolist() for n in ("train_loss", "test_loss", "param_norm")}
    return out


def test_golden():
    """A change of training arithmetic must bump NUMERICS_VERSION; then run this module as a script to write it anew."""
    expected = json.loads(GOLDEN.read_text())
    found = golden_columns()
    assert found.keys() == expected["runs"].keys(), "run ids changed: a default or a field's form was changed"
    for run_id, columns in expected["runs"].items():
        for name, values in columns.items():
            np.testing.assert_allclose(found[run_id][name], values, rtol=1e-9, err_msg=f"{run_id} {name}")


def test_golden_belongs_to_this_numerics_version():
    from l2dyn.runs.spec import NUMERICS_VERSION

    assert json.loads(GOLDEN.read_text())["numerics_version"] == NUMERICS_VERSION


if __name__ == "__main__":
    from l2dyn.runs.spec import NUMERICS_VERSION

    GOLDEN.write_text(json.dumps({"numerics_version": NUMERICS_VERSION, "runs": golden_columns()}, indent=1) + "\n")
