"""The stacked trainer: its plain steps against plain PyTorch, its fast ones against the plain ones."""

import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from l2dyn.data import samples as numpy_samples
from l2dyn.nets.fully_connected import draw_parameters
from l2dyn.nets.stacked_fully_connected import StackedFullyConnected
from l2dyn.runs.plan import Task
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.tests.made_up import assert_same_columns, made_up_samples, make_task, trained
from l2dyn.training import stacked_steps
from l2dyn.training.captured_steps import CapturedSteps
from l2dyn.training.inputs import Images
from l2dyn.training.order import epoch_permutation
from l2dyn.training.stacked import StackedTrainer
from l2dyn.training.stacked_steps import WrittenOutSteps
from l2dyn.training.trainer import MEASURES

NTK = FullyConnectedSpec(hidden_layers=2, width=9, bias=False, parameterization="ntk", weight_std=1.0)


def oracle(task: Task, samples) -> dict[str, list[float]]:
    """The same run the way a user would write it: nn.Sequential, torch.optim.SGD, one net."""
    spec = task.spec
    inputs, outputs = math.prod(spec.data.image_shape), spec.data.outputs
    layers = []
    for fan_in, fan_out in pairwise([inputs, *[spec.net.width] * spec.net.hidden_layers, outputs]):
        layers += [torch.nn.Linear(fan_in, fan_out, bias=spec.net.bias, dtype=torch.float64), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    linear = [m for m in net if isinstance(m, torch.nn.Linear)]
    for module, weight in zip(linear, draw_parameters(spec.net, inputs, outputs, spec.init_seed), strict=True):
        module.weight.data = weight.T.to(torch.float64).clone()
        if spec.net.bias:
            module.bias.data.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.l2)

    def tensors(images, labels):
        x = torch.from_numpy(numpy_samples.inputs(spec.data, images))
        return x, torch.from_numpy(numpy_samples.parity(labels) if spec.data.labels == "parity" else labels)

    def loss_of(outputs, targets):
        if spec.loss == "half_mse" and targets.dim() == 1:
            targets = torch.nn.functional.one_hot(targets, 10).to(torch.float64)
        if spec.loss == "half_mse":
            return 0.5 * (outputs - targets).square().sum(dim=1).mean()
        return torch.nn.functional.cross_entropy(outputs, targets)

    def correct(outputs, targets):
        if spec.data.labels == "parity":
            return (torch.sign(outputs) == targets).double().mean()
        return (outputs.argmax(dim=1) == targets).double().mean()

    x, y = tensors(samples.train_images, samples.train_labels)
    x_test, y_test = tensors(samples.test_images, samples.test_labels)
    columns = {key: [] for key in ("step", *MEASURES)}
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


PARITY = {"labels": "parity", "scaling": "unit"}
CASES = {  # fields of the run, of the samples
    "full batch": ({}, {}),
    "deep, no penalty": ({"net": FullyConnectedSpec(hidden_layers=4, width=9), "l2": 0.0}, {}),
    "no hidden width to spare": ({"net": FullyConnectedSpec(hidden_layers=1, width=1)}, {}),
    "no bias, momentum": (
        {"net": FullyConnectedSpec(hidden_layers=2, width=12, bias=False), "momentum": 0.9, "lr": 0.02},
        {},
    ),
    "minibatch": ({"batch": 16, "order_seed": 3}, {}),
    "minibatch that leaves a rest": ({"batch": 20, "order_seed": 4, "momentum": 0.5}, {}),
    "half_mse on classes": ({"loss": "half_mse", "lr": 0.05}, {}),
    "parity": ({"loss": "half_mse", "lr": 0.02}, PARITY),
    "more samples than pixels": ({}, {"downscale": 7}),
    "more samples than pixels, momentum": ({"momentum": 0.9, "lr": 0.02}, {"downscale": 7}),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_equals_plain_pytorch_in_any_company(case):
    """100 steps in float64 agree to 1e-9, alone and beside members with other η, λ, seeds and horizons."""
    fields, data = CASES[case]
    samples = made_up_samples(**{"downscale": 2} | data)
    task = make_task(samples, steps=100, **{"lr": 0.05} | fields)
    shared = {k: v for k, v in fields.items() if k in ("net", "batch", "loss")}
    shared["momentum"] = 0.7 if task.spec.momentum else 0.0
    company = [
        make_task(samples, steps=17, lr=0.05, l2=0.3, init_seed=1, **shared),
        task,
        make_task(samples, steps=130, lr=0.01, l2=0.0, init_seed=2, **shared),
        make_task(samples, steps=60, lr=1e6, l2=0.5, init_seed=5, **shared),  # diverges
    ]
    expected = oracle(task, samples)
    for tasks in ([task], company):
        columns = trained(tasks, samples, StackedTrainer)[task.run_id].columns
        assert columns["step"].tolist() == expected["step"]
        assert_same_columns(columns, expected, names=expected, rtol=1e-9, atol=1e-9)


SHORT_CUTS = {  # by which steps, with what
    "span": (WrittenOutSteps(), {}),
    "span, momentum": (WrittenOutSteps(), {"momentum": 0.9}),
    "span in blocks": (WrittenOutSteps(), {"blocks": 1}),
    "span, no bias, NTK": (WrittenOutSteps(), {"net": NTK, "lr": 1.0}),
    "blocks of two, no span": (WrittenOutSteps(span=False), {"blocks": 2}),
    "blocks, momentum": (WrittenOutSteps(span=False), {"blocks": 1, "momentum": 0.9}),
    "none": (WrittenOutSteps(span=False, blocks=False), {}),
    "none, NTK with biases": (
        WrittenOutSteps(span=False, blocks=False),
        {"net": NTK.model_copy(update={"bias": True}), "lr": 1.0, "momentum": 0.8},
    ),
    "minibatches of their own": (WrittenOutSteps(), {"batch": 16}),
}


@pytest.mark.parametrize("case", SHORT_CUTS, ids=list(SHORT_CUTS))
def test_the_fast_steps_are_the_plain_ones(case, monkeypatch):
    """Each short cut of the written-out steps, over 200 steps with members that leave: 1e-9 in float64."""
    steps, fields = SHORT_CUTS[case]
    fields = {"lr": 0.02} | fields  # at larger ones rounding grows with every step
    if members := fields.pop("blocks", 0):
        monkeypatch.setattr(stacked_steps, "BLOCK_BYTES", members * 48 * 12 * 8)  # samples, width, float64
    samples = made_up_samples(downscale=2)
    tasks = [
        make_task(samples, steps=s, l2=l2, init_seed=s, order_seed=s, grid=EvaluationGrid(every_epochs=20), **fields)
        for s, l2 in ((60, 0.1), (120, 0.0), (200, 0.01))
    ]
    plain, fast = (trained(tasks, samples, StackedTrainer, steps=how) for how in ("plain", steps))
    for run_id, expected in plain.items():
        assert_same_columns(fast[run_id].columns, expected.columns, rtol=1e-9, atol=1e-9)
    assert expected.columns["train_loss"][-1] < expected.columns["train_loss"][0]


def test_a_short_cut_that_is_not_taken_says_why(caplog):
    caplog.set_level("INFO")
    samples, few_pixels = made_up_samples(), made_up_samples(downscale=7)
    StackedTrainer([make_task(samples)], samples)
    assert not caplog.messages
    StackedTrainer([make_task(samples, batch=16)], samples)
    StackedTrainer([make_task(samples, precision="tf32")], samples)
    StackedTrainer([make_task(few_pixels)], few_pixels)
    reasons = [message.partition(": ")[2] for message in caplog.messages]
    assert [reason.split()[0] for reason in reasons] == ["it", "products", "48"]


def test_steps_that_cannot_be_captured_are_taken_as_they_are(monkeypatch, caplog):
    """Where CUDA graphs fail, with one line; here there is no GPU to capture anything on."""
    taken = []
    steps = CapturedSteps(lambda: taken.append(1), "cuda")
    monkeypatch.setattr(steps, "_warm_up", lambda: (steps._step(), setattr(steps, "_warmed", steps._warmed + 1)))
    monkeypatch.setattr(steps, "_wait", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)

    def refused(*_, **__):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refused)
    for count in (2, 30, 7):
        steps.advance(count)
    assert len(taken) == 39
    assert [r.getMessage().count("not permitted when") for r in caplog.records] == [1]


def test_ntk_parameterization_is_the_standard_net_at_rescaled_rates():
    """W = m·V: gradient descent on V at η with λ is gradient descent on W at m²η with λ/m²; here all m are equal."""
    samples = made_up_samples(**PARITY)
    width = 784  # so that every layer has the same fan-in
    ntk = FullyConnectedSpec(hidden_layers=1, width=width, bias=False, parameterization="ntk", weight_std=1.5)
    standard = FullyConnectedSpec(hidden_layers=1, width=width, bias=False, weight_std=1.5)
    m2 = 1.5**2 / width
    one = make_task(samples, steps=30, loss="half_mse", net=ntk, lr=5.0, l2=0.001)
    other = make_task(samples, steps=30, loss="half_mse", net=standard, lr=5.0 * m2, l2=0.001 / m2)
    a, b = (trained([task], samples)[task.run_id].columns for task in (one, other))
    np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-6)  # the draws are rounded to float32
    np.testing.assert_allclose(a["param_norm"] * math.sqrt(m2), b["param_norm"], rtol=1e-6)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("scaling", ["standardize", "unit"])
@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_scaling_on_the_device_is_that_of_the_numpy_inputs(monkeypatch, once, scaling, downscale):
    if not once:
        monkeypatch.setattr("l2dyn.training.inputs.SCALED_ONCE", 0)
    samples = made_up_samples(scaling=scaling, downscale=downscale)
    images = Images(samples.spec, samples.train_images, torch.float64, "cpu")
    expected = numpy_samples.inputs(samples.spec, samples.train_images)
    np.testing.assert_allclose(images.take().flatten(1).numpy(), expected, rtol=1e-12, atol=1e-12)
    chosen = torch.tensor([[3, 1], [0, 7]])
    found = images.take(chosen).flatten(-3).numpy()
    np.testing.assert_allclose(found, expected[chosen.numpy()], rtol=1e-12, atol=1e-12)


def test_divergence_is_recorded_and_stops_nobody():
    samples = made_up_samples(downscale=2)
    wild, tame = make_task(samples, lr=1e6), make_task(samples)
    ended = trained([wild, tame], samples)
    assert (ended[tame.run_id].status, ended[tame.run_id].steps) == ("finished", 200)
    assert ended[wild.run_id].status == "diverged"
    columns = ended[wild.run_id].columns
    assert np.isfinite(np.stack([columns["train_loss"], columns["param_norm"]])).all()
    assert ended[wild.run_id].steps > columns["step"][-1]


def test_the_kernels_norm_is_measured_where_the_spec_says():
    """Against autograd on the trained weights, beside runs with other horizons; and it changes nothing else."""
    samples = made_up_samples(**PARITY)
    how = {"net": NTK, "loss": "half_mse", "lr": 0.2}
    runs = [make_task(samples, steps=s, init_seed=i, kernel_samples=5, **how) for i, s in enumerate((60, 35))]
    plain = make_task(samples, steps=60, **how)
    assert plain.run_id != runs[0].run_id
    columns, expected = trained(runs, samples)[runs[0].run_id].columns, trained([plain], samples)[plain.run_id].columns
    assert_same_columns(columns, expected, names=expected, rtol=1e-9)

    trainer = StackedTrainer([plain], samples, steps="plain")
    x = torch.from_numpy(numpy_samples.inputs(samples.spec, samples.train_images[:5]))

    def kernel(net):
        def function(*weights):
            return StackedFullyConnected(list(weights), [], net.multipliers).forward(x)[-1].flatten()

        jacobian = torch.autograd.functional.jacobian(function, tuple(net.weights))
        gradients = torch.cat([of_layer.flatten(1) for of_layer in jacobian], dim=1)
        return gradients @ gradients.T

    first = kernel(trainer.stack.net)
    trainer.advance(60)
    last = kernel(trainer.stack.net)
    rotation = 1 - (first * last).sum().item() / (first.norm() * last.norm()).item()
    assert columns["kernel_norm"][-1] == pytest.approx(last.norm().item(), rel=1e-9)
    assert rotation > 1e-3
    assert columns["kernel_rotation"][[0, -1]] == pytest.approx([0.0, rotation], rel=1e-7, abs=1e-12)


def test_a_run_whose_kernel_vanishes_is_finished_without_a_rotation():
    """At λη = 1/2 the weights halve with every step, until products of them are below what float64 holds."""
    samples = made_up_samples(**PARITY)
    how = {"net": NTK, "loss": "half_mse", "kernel_samples": 5, "grid": EvaluationGrid(every_epochs=100)}
    task = make_task(samples, steps=400, lr=0.1, l2=5.0, **how)
    ended = trained([task], samples)[task.run_id]
    assert ended.status == "finished"
    assert ended.columns["kernel_norm"][-1] == 0
    assert np.isnan(ended.columns["kernel_rotation"]).tolist() == (ended.columns["kernel_norm"] == 0).tolist()
    assert all(np.isfinite(values).all() for name, values in ended.columns.items() if name != "kernel_rotation")


def test_evaluations_may_wait_on_the_device():
    """As on a GPU, where the host asks for several evaluations at once: the same records."""
    samples = made_up_samples(downscale=2)
    tasks = [make_task(samples, lr=1e6), make_task(samples, steps=90, l2=0.1), make_task(samples)]
    expected = trained(tasks, samples)
    for limit in (7, 1000):
        trainer = StackedTrainer(tasks, samples)
        trainer.pending_limit = limit
        found = {ended.task.run_id: ended for ended in trainer.train()}
        for run_id, ended in expected.items():
            assert (found[run_id].status, found[run_id].steps) == (ended.status, ended.steps)
            assert_same_columns(found[run_id].columns, ended.columns, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("tf32", 1e-5), ("bfloat16", 0.03)])
def test_precisions(precision, close):
    """Rounded products change a short run by as much as their rounding."""
    samples = made_up_samples(downscale=2)
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
    "fields",
    [{}, {"momentum": 0.9}, {"precision": "tf32"}, {"precision": "bfloat16"}, {"batch": 16}, {"loss": "half_mse"}],
)
def test_on_a_gpu_steps_never_wait_and_change_tensors_in_place(fields):
    """With tensors that claim to be on a GPU: no product mixes devices, and nothing asks for a value."""
    samples = made_up_samples()
    tasks = [make_task(samples, **{"precision": "float32"} | fields, init_seed=seed) for seed in (0, 1)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = StackedTrainer(tasks, samples, "cuda", WrittenOutSteps(graphs=False))
        held = [*trainer.stack.net.trained, *trainer.stack.velocities]
        trainer.advance(3)
        assert not list(trainer._evaluate())
        ((step, _, measured),) = trainer._pending
        assert (step, measured.shape, measured.device.type) == (3, (2, 5), "cuda")
        now = [*trainer.stack.net.trained, *trainer.stack.velocities]
        assert all(a is b for a, b in zip(now, held, strict=True))
        with pytest.raises(DataDependentOutputException):  # so this test would notice
            measured[0, 0].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_captured_steps_are_the_same_steps(momentum):
    samples = made_up_samples()
    tasks = [make_task(samples, steps=s, init_seed=i, lr=0.02, momentum=momentum) for i, s in enumerate((60, 150, 200))]
    expected = trained(tasks, samples)
    for run_id, ended in trained(tasks, samples, device="cuda").items():
        assert_same_columns(ended.columns, expected[run_id].columns, rtol=1e-8, atol=1e-10)


def test_budgets_are_measured_and_a_longer_run_serves_them_as_its_prefix():
    samples = made_up_samples(downscale=2)
    short = make_task(samples, steps=37)
    long = Task(short.spec, 200, (37, 200), EvaluationGrid())
    a, b = (trained([task], samples)[task.run_id].columns for task in (short, long))
    count = int(np.searchsorted(b["step"], 37, side="right"))
    assert_same_columns({name: values[:count] for name, values in b.items()}, a)


@pytest.mark.parametrize(("batch", "steps"), [(0, "fast"), (16, "fast"), (0, "plain")])
def test_a_resumed_stack_is_bitwise_the_uninterrupted_one(batch, steps):
    samples = made_up_samples(downscale=2)
    tasks = [make_task(samples, steps=s, init_seed=i, batch=batch, momentum=0.9) for i, s in enumerate((60, 150, 200))]
    make = functools.partial(StackedTrainer, samples=samples, steps=steps)
    whole = {ended.task.run_id: ended for ended in make(tasks).train()}
    first = make(tasks)
    done = {ended.task.run_id: ended for ended in first.train(lambda trainer: trainer.step >= 101)}
    assert 0 < len(first.tasks) < 3
    second = make(first.tasks)
    second.load_state_dict(first.state_dict())
    done |= {ended.task.run_id: ended for ended in second.train()}
    assert done.keys() == whole.keys()
    for run_id, ended in whole.items():
        assert_same_columns(done[run_id].columns, ended.columns)


def test_an_epoch_sees_every_sample_once():
    one, other = epoch_permutation(3, 0, 100), epoch_permutation(3, 1, 100)
    assert sorted(one.tolist()) == list(range(100))
    assert one.tolist() != other.tolist()
    assert epoch_permutation(4, 0, 100).tolist() != one.tolist()
