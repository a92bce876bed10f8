"""The loop over one net against plain PyTorch, with the penalty in the loss and every schedule written out."""

import dataclasses
import functools
import io

import numpy as np
import pytest
import torch
from l2dyn.augmentation import Augmentation
from l2dyn.runs.datasets import input_shape
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.spec import (
    AugmentationSpec,
    AutoL2Spec,
    ConvNetSpec,
    DataSpec,
    FullyConnectedSpec,
    RunSpec,
    WideResNetSpec,
)
from l2dyn.runs.store import RunStore
from l2dyn.training.single_net import SingleNet
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional

from l2dyn import data
from l2dyn.data import Samples
from l2dyn.nets.build import build_net
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.training import job, single_net
from l2dyn.training.checkpoint import headers
from l2dyn.training.order import epoch_permutation

CONV = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)
CONV_BN = dataclasses.replace(CONV, batch_norm=True)
CONV_RUNNING = dataclasses.replace(CONV_BN, norm_statistics="running")
WRN = WideResNetSpec(depth=10, width=1)
CROP_AND_MIXUP = AugmentationSpec(crop=1, mixup=0.3)
EVERYTHING = {  # that a state has to hold
    "model": CONV_RUNNING,
    "momentum": 0.9,
    "l2": 0.3,
    "lr": 0.05,
    "lr_decay_epochs": (7, 14),
    "auto_l2": AutoL2Spec(factor=0.5, interval=7 / 3, cooldown=1),  # 7 steps
    "augmentation": AugmentationSpec(flip=True, crop=1, mixup=0.3),
    "augmentation_seed": 5,
}
WRN_DECAYED = {"model": WRN, "momentum": 0.9, "pool": 4, "augmentation": CROP_AND_MIXUP, "lr_decay_epochs": (6, 13)}


def make_samples(train=24, test=20, labels="class", scaling="standardize", pool=2, seed=0) -> Samples:
    """Small random digits that a net can learn: class-dependent patterns with noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, size=(10, 28, 28, 1))
    classes = generator.integers(0, 10, size=train + test)
    noise = generator.integers(0, 256, size=(train + test, 28, 28, 1))
    images = ((2 * patterns[classes] + noise) // 3).astype(np.uint8)
    sizes = {"train": train, "test": test}
    spec = DataSpec(name="digits", checksum="made up", labels=labels, scaling=scaling, pool=pool, **sizes)
    return Samples(spec, images[:train], classes[:train], images[train:], classes[train:])


def make_task(samples, steps=60, grid=None, **fields) -> Task:
    fields = {"model": CONV, "lr": 0.05, "l2": 0.02, "batch": 8, "order_seed": 3, "precision": "float64"} | fields
    fields.pop("pool", None)
    return Task(RunSpec(data=samples.spec, **fields), steps, (steps,), grid or EvaluationGrid(ratio=1.4))


def trained(task, samples):
    (finished,) = SingleNet([task], samples).train()
    return finished


def assert_same_columns(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def assert_same_tensors(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def oracle(task: Task, samples: Samples, lr_at_step=None, interval=None) -> dict[str, list[float]]:
    """The same run the way a user would write it.

    lr_at_step: {step: learning rate from then on}. interval: steps between two measurements of AutoL2.
    """
    spec = task.spec
    shape = input_shape("digits", spec.data.pool)
    net = build_net(spec.model, shape, samples.outputs, seed=99).double()
    drawn = build_net(spec.model, shape, samples.outputs, spec.init_seed)
    net.load_state_dict({name: values.double() for name, values in drawn.state_dict().items()})
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=0.0)
    fill = (0.0 - 0.1307) / 0.3081 if spec.data.scaling == "standardize" else 0.0
    augment = Augmentation(spec.augmentation, spec.augmentation_seed, fill)

    def tensors(images, labels):
        x = torch.from_numpy(data.inputs(spec.data, images)).reshape(-1, *shape).permute(0, 3, 1, 2)
        if spec.data.labels == "parity":
            return x, torch.tensor([[1.0 if c % 2 == 0 else -1.0] for c in labels], dtype=torch.float64)
        return x, torch.eye(10, dtype=torch.float64)[torch.from_numpy(labels)]

    def loss_of(out, y):
        if spec.loss == "mse":
            return 0.5 * ((out - y) ** 2).sum() / len(y)
        return -(y * torch.log_softmax(out, dim=1)).sum() / len(y)

    def error_of(out, y):
        wrong = torch.sign(out) != y if spec.data.labels == "parity" else out.argmax(1) != y.argmax(1)
        return wrong.double().mean().item()

    def measure(x, y):
        """In parts of about a minibatch where batch norm sees the others."""
        of_batch = getattr(spec.model, "batch_norm", True) and spec.model.norm_statistics == "batch"
        parts = max(1, round(len(x) / spec.batch)) if of_batch and spec.batch else 1
        with torch.no_grad():
            out = torch.cat([net(piece) for piece in torch.tensor_split(x, parts)])
            return loss_of(out, y).item(), error_of(out, y)

    x, y = tensors(samples.train_images, samples.train_labels)
    x_test, y_test = tensors(samples.test_images, samples.test_labels)
    steps_per_epoch = len(x) // spec.batch if spec.batch else 1
    lr, l2 = spec.lr, spec.l2
    previous, refractory, losses, errors = None, 0, [], []
    columns = {name: [] for name in COLUMNS}
    wanted = set(task.evaluations())
    for step in range(task.steps + 1):
        lr = (lr_at_step or {}).get(step, lr)
        if step in wanted:
            net.eval()
            train, test = measure(x, y), measure(x_test, y_test)
            norm = np.sqrt(sum(p.detach().square().sum().item() for p in parameters))
            row = (step, step / steps_per_epoch, lr, l2, *train, test[0], 1 - test[1], norm)
            for name, value in zip(COLUMNS, row, strict=True):
                columns[name].append(value)
            net.train()
        chosen = torch.arange(len(x))
        if spec.batch:
            epoch, position = divmod(step, steps_per_epoch)
            order = epoch_permutation(spec.order_seed, epoch, len(x))
            chosen = order[position * spec.batch : (position + 1) * spec.batch]
        x_step, y_step = augment(x[chosen].contiguous(), y[chosen], step)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        out = net(x_step)
        loss = loss_of(out, y_step)
        (loss + 0.5 * l2 * sum(p.square().sum() for p in parameters)).backward()
        optimizer.step()
        if spec.auto_l2:
            losses.append(loss.item())
            errors.append(error_of(out.detach(), y_step))
            if len(losses) == interval:
                current = {"loss": sum(losses) / interval, "error": sum(errors) / interval}
                watched = ("loss", "error") if spec.auto_l2.trigger == "either" else (spec.auto_l2.trigger,)
                if previous and refractory == 0 and any(current[name] > previous[name] for name in watched):
                    l2, refractory = l2 * spec.auto_l2.factor, spec.auto_l2.cooldown
                else:
                    refractory = max(0, refractory - 1)
                previous, losses, errors = current, [], []
    return columns


# name: (fields of the run and the samples, what the oracle is told by hand)
CASES = {
    "ConvNet": ({}, {}),
    "ConvNet, full batch": ({"batch": 0, "steps": 24}, {}),
    "ConvNet with batch norm and momentum": ({"model": CONV_BN, "momentum": 0.9}, {}),
    "ConvNet with running statistics": ({"model": CONV_RUNNING, "momentum": 0.9, "steps": 40}, {}),
    "WRN, momentum, crop and mixup, two decays": (WRN_DECAYED, {"lr_at_step": {18: 0.05 * 0.2, 39: 0.05 * 0.2 * 0.2}}),
    "AutoL2": (
        {"l2": 0.4, "lr": 0.1, "auto_l2": AutoL2Spec(factor=0.5, interval=2 / 3, cooldown=2)},
        {"interval": 2},
    ),
    "mse on classes": ({"loss": "mse", "lr": 0.02, "steps": 40}, {}),
    "mse on parity": ({"loss": "mse", "labels": "parity", "scaling": "unit", "lr": 0.02}, {}),
    "AutoL2 on the error of parity": (
        {
            "loss": "mse",
            "labels": "parity",
            "lr": 0.02,
            "auto_l2": AutoL2Spec(factor=0.5, interval=1, cooldown=0, trigger="error"),
        },
        {"interval": 3},
    ),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_equals_plain_pytorch(case):
    """All columns agree to 1e-9 in float64."""
    fields, told = CASES[case]
    samples = make_samples(**{name: fields[name] for name in ("labels", "scaling", "pool") if name in fields})
    task = make_task(samples, **{name: v for name, v in fields.items() if name not in ("labels", "scaling")})
    expected = oracle(task, samples, **told)
    finished = trained(task, samples)
    assert (finished.status, finished.steps) == ("finished", task.steps)
    assert list(finished.columns) == list(COLUMNS)
    assert expected["train_loss"][-1] != expected["train_loss"][0]
    assert (len(set(expected["l2"])) > 2) == ("AutoL2" in case)  # λ has fallen at least twice
    for name, values in expected.items():
        np.testing.assert_allclose(finished.columns[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_net_learns():
    samples = make_samples(train=48)
    columns = trained(make_task(samples, steps=40, model=CONV_BN, batch=16, momentum=0.9, l2=1e-3), samples).columns
    assert columns["train_loss"][-1] < 0.3 * columns["train_loss"][0]
    assert columns["test_accuracy"][-1] > 0.5


SPARSE = EvaluationGrid(every_epochs=10)  # at steps 0, 30 and 60


def round_trip(state: dict) -> dict:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@functools.cache
def uninterrupted(kind: str):
    """Samples, task, and how it ends."""
    fields = {"everything": EVERYTHING, "wrn": WRN_DECAYED | {"steps": 36}}[kind]
    samples = make_samples(pool=fields.get("pool", 2))
    task = make_task(samples, grid=SPARSE, **fields)
    return samples, task, trained(task, samples)


@pytest.mark.parametrize(("kind", "stop"), [*(("everything", stop) for stop in (5, 20, 30, 55)), ("wrn", 20)])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(monkeypatch, kind, stop):
    """Stopped at evaluations, between them, and within an interval of AutoL2."""
    samples, task, whole = uninterrupted(kind)
    monkeypatch.setattr(single_net, "STRETCH", 5)
    first = SingleNet([task], samples)
    assert list(first.train(lambda net: net.step >= stop)) == []
    assert first.step == stop
    assert first.tasks == [task]
    second = SingleNet([task], samples)
    second.load_state_dict(round_trip(first.state_dict()))
    (rest,) = second.train()
    assert_same_columns(rest.columns, whole.columns)
    assert_same_tensors(rest.state["net"], whole.state["net"])
    assert kind == "wrn" or len(set(whole.columns["l2"])) > 1


def test_a_run_stopped_at_every_opportunity_is_the_uninterrupted_one(monkeypatch):
    monkeypatch.setattr(single_net, "STRETCH", 4)
    samples = make_samples()
    task = make_task(samples, steps=33, grid=EvaluationGrid(every_epochs=4), **EVERYTHING)
    state, done, stops = None, [], 0
    while not done:
        net = SingleNet([task], samples)
        if state:
            net.load_state_dict(state)
        done = list(net.train(lambda net: True))
        state, stops = round_trip(net.state_dict()), stops + 1
    assert stops == 9
    assert net.tasks == []
    assert_same_columns(done[0].columns, trained(task, samples).columns)


def test_a_state_does_not_depend_on_the_stretches(monkeypatch):
    samples, task, whole = uninterrupted("everything")
    monkeypatch.setattr(single_net, "STRETCH", 1)
    assert_same_columns(trained(task, samples).columns, whole.columns)


@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["plain", "everything"])
def test_lengthening_from_a_final_state_equals_training_at_once(fields):
    samples = make_samples()
    short = make_task(samples, steps=20, **fields)
    long = Task(short.spec, 40, (20, 40), short.grid)
    finished = trained(short, samples)
    net = SingleNet([long], samples)
    net.load_members(20, [round_trip(finished.state)], [finished.columns])
    (lengthened,) = net.train()
    assert (lengthened.status, lengthened.steps) == ("finished", 40)
    whole = trained(long, samples)
    assert_same_columns(lengthened.columns, whole.columns)
    assert_same_tensors(lengthened.state["net"], whole.state["net"])


@pytest.mark.parametrize("fields", [{}, {"model": CONV_BN, "momentum": 0.9}, {"loss": "mse"}])
def test_divergence_is_recorded_with_finite_rows(fields):
    samples = make_samples()
    net = SingleNet([make_task(samples, steps=400, **{"lr": 1e9, "l2": 0.1} | fields)], samples)
    (finished,) = net.train()
    assert finished.status == "diverged"
    assert finished.steps < 400
    assert finished.steps > finished.columns["step"][-1]
    assert net.tasks == []
    for name, values in finished.columns.items():
        assert np.isfinite(values).all(), name


def test_the_columns_lr_and_l2_are_what_the_next_step_uses(monkeypatch):
    """At every step: of the schedule, of AutoL2, and of the optimizer."""
    samples = make_samples()
    task = make_task(samples, grid=EvaluationGrid(every_epochs=1 / 3), **EVERYTHING)
    net = SingleNet([task], samples)
    used = []
    step = net.optimizer.step

    def noting(*args):
        (group,) = net.optimizer.param_groups
        used.append((group["lr"], group["weight_decay"]))
        return step(*args)

    monkeypatch.setattr(net.optimizer, "step", noting)
    (finished,) = net.train()
    columns = finished.columns
    assert columns["step"].tolist() == list(range(61))
    assert columns["epoch"].tolist() == [s / 3 for s in range(61)]
    assert list(zip(columns["lr"], columns["l2"], strict=True))[:-1] == used
    expected = [0.05 * 0.2 ** ((s >= 21) + (s >= 42)) for s in range(61)]
    np.testing.assert_allclose(columns["lr"], expected, rtol=1e-15)
    falls = np.flatnonzero(np.diff(columns["l2"])) + 1
    assert len(falls) > 0
    assert (falls % 7 == 0).all()  # only where an interval ends
    np.testing.assert_allclose(columns["l2"][falls], columns["l2"][falls - 1] * 0.5, rtol=1e-15)


@pytest.mark.parametrize("model", [CONV_BN, CONV_RUNNING], ids=["batch", "running"])
def test_evaluation_leaves_training_untouched(model):
    samples = make_samples()
    rare = make_task(samples, steps=30, grid=SPARSE, **EVERYTHING | {"model": model})
    often = dataclasses.replace(rare, grid=EvaluationGrid(every_epochs=1 / 3))
    one, other = trained(rare, samples), trained(often, samples)
    assert one.columns["step"].tolist() == [0, 30]
    assert len(other.columns["step"]) == 31
    assert_same_columns(one.columns, {name: values[[0, 30]] for name, values in other.columns.items()})
    assert_same_tensors(one.state["net"], other.state["net"])


def test_train_loss_is_taken_on_the_first_train_samples():
    """As on a training set cut to them; the trajectory and the test columns are those of the whole."""
    samples = make_samples()
    task = make_task(samples, steps=20)
    part = dataclasses.replace(task, grid=dataclasses.replace(task.grid, train_samples=20))
    whole, cut = trained(task, samples), trained(part, samples)
    assert_same_tensors(whole.state["net"], cut.state["net"])
    differing = {name for name in COLUMNS if whole.columns[name].tolist() != cut.columns[name].tolist()}
    assert differing == {"train_loss", "train_error"}
    net = build_net(CONV, (14, 14, 1), 10, 0).double()
    net.load_state_dict(cut.state["net"])
    x = torch.from_numpy(data.inputs(samples.spec, samples.train_images[:20])).reshape(20, 1, 14, 14)
    labels = torch.from_numpy(samples.train_labels[:20])
    with torch.no_grad():
        out = net(x)
    np.testing.assert_allclose(cut.columns["train_loss"][-1], functional.cross_entropy(out, labels), rtol=1e-12)
    assert cut.columns["train_error"][-1] == pytest.approx((out.argmax(1) != labels).double().mean().item())


@pytest.mark.parametrize(
    "model",
    [CONV, CONV_RUNNING, CONV_BN, dataclasses.replace(CONV_BN, norm_group=4)],
    ids=["none", "running", "batch", "groups"],
)
def test_a_record_does_not_depend_on_how_many_samples_are_evaluated_at_once(monkeypatch, model):
    """Nor on the device, on which that number depends: not even where a batch's statistics are larger than it."""
    samples = make_samples()
    task = make_task(samples, steps=10, model=model)
    whole = trained(task, samples).columns
    monkeypatch.setattr(single_net, "EVALUATED_AT_ONCE", {"cpu": 3})
    parts = trained(task, samples).columns
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_norm_group_beyond_the_batch_is_the_batch():
    """In training both normalize over 8 samples, so both are to be measured so."""
    samples = make_samples()
    one, other = (
        trained(make_task(samples, steps=12, model=dataclasses.replace(CONV_BN, norm_group=group)), samples)
        for group in (0, 100)
    )
    assert_same_tensors(one.state["net"], other.state["net"])
    assert_same_columns(other.columns, one.columns)


def test_grouped_batch_norm_is_measured_in_its_groups():
    """norm_group equal to the batch is the ungrouped norm, in training and (parts being alike) in evaluation."""
    samples = make_samples(test=16)
    one, other = (
        trained(make_task(samples, steps=12, model=dataclasses.replace(CONV_BN, norm_group=group)), samples)
        for group in (0, 8)
    )
    assert_same_tensors(one.state["net"], other.state["net"])
    for name, values in one.columns.items():
        np.testing.assert_allclose(other.columns[name], values, rtol=1e-12, atol=1e-12, err_msg=name)


def sgd(parameters, l2=0.1):
    return torch.optim.SGD(parameters, lr=0.1, weight_decay=l2)


def test_a_parameter_that_escapes_the_penalty_is_refused():
    a, b, other = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3, 3))
    check = single_net._assert_one_penalty
    check(sgd([a, b]), [a, b], 0.1)
    with pytest.raises(AssertionError, match="escapes"):
        check(sgd([a]), [a, b], 0.1)
    with pytest.raises(AssertionError, match="one λ"):
        check(sgd([a, b], l2=0.2), [a, b], 0.1)
    with pytest.raises(AssertionError, match="one λ"):
        check(sgd([{"params": [a]}, {"params": [b], "weight_decay": 0.0}]), [a, b], 0.1)
    with pytest.raises(AssertionError, match="escapes"):
        check(sgd([a, other]), [a, b], 0.1)  # as many, but not the same


@pytest.mark.parametrize("model", [CONV, CONV_BN, WRN], ids=["conv", "conv-bn", "wrn"])
def test_the_optimizer_penalizes_every_parameter_of_the_net(model):
    samples = make_samples(pool=4 if model is WRN else 2)
    net = SingleNet([make_task(samples, model=model)], samples)
    held = {id(p) for group in net.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.net.parameters()}
    assert all(p.requires_grad for p in net.net.parameters())
    assert {group["weight_decay"] for group in net.optimizer.param_groups} == {0.02}


SYNCHRONIZING = ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__")


def count_synchronizations(monkeypatch, counted: list, allowed=()):
    def forbid(name):
        original = getattr(torch.Tensor, name)

        def called(self, *args, **kwargs):
            counted.append(name)
            assert name in allowed, f"Tensor.{name} waits for the device"
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, called)

    for name in SYNCHRONIZING:
        forbid(name)


def test_scaling_while_training_copies_nothing_to_the_device(monkeypatch):
    """A tensor made of numbers on a GPU waits for it: so not in every step where images are scaled when used."""
    monkeypatch.setattr("l2dyn.training.inputs.SCALED_ONCE", 0)
    samples = make_samples()
    net = SingleNet([make_task(samples)], samples)
    made = []
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, **kwargs: made.append(args) or tensor(*args, **kwargs))
    net.advance(4)
    assert made == []


def test_images_scaled_when_used_make_the_same_run(monkeypatch):
    samples = make_samples()
    task = make_task(samples, steps=20, augmentation=CROP_AND_MIXUP)
    columns = trained(task, samples).columns
    monkeypatch.setattr("l2dyn.training.inputs.SCALED_ONCE", 0)
    for name, values in trained(task, samples).columns.items():
        np.testing.assert_allclose(values, columns[name], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("batch", [0, 8])
def test_nothing_waits_for_the_device_between_evaluations(monkeypatch, batch):
    samples = make_samples()
    task = make_task(samples, batch=batch, **{k: v for k, v in EVERYTHING.items() if k != "auto_l2"})
    net = SingleNet([task], samples)
    counted = []
    with monkeypatch.context() as patched:
        count_synchronizations(patched, counted)
        net.advance(8)
        assert counted == []
        with pytest.raises(AssertionError, match="waits for the device"):  # it would have been seen
            net._evaluate()
    assert net.step == 8
    (group,) = net.optimizer.param_groups
    assert [type(group[name]) for name in ("lr", "weight_decay", "momentum")] == [float] * 3


def test_auto_l2_waits_once_an_interval(monkeypatch):
    samples = make_samples()
    net = SingleNet([make_task(samples, **EVERYTHING)], samples)
    counted = []
    with monkeypatch.context() as patched:
        count_synchronizations(patched, counted, allowed=("tolist",))
        net.advance(22)
    assert counted == ["tolist"] * 3
    assert type(net.optimizer.param_groups[0]["weight_decay"]) is float


NETS = {"conv": CONV, "conv, running statistics": CONV_RUNNING, "wrn": dataclasses.replace(WRN, norm_group=4)}


@pytest.mark.parametrize("model", NETS.values(), ids=NETS)
def test_bfloat16_rounds_products_and_leaves_the_rest_in_float32(model):
    samples = make_samples(pool=1)
    nets = {}
    for precision in ("float32", "bfloat16"):
        nets[precision] = SingleNet([make_task(samples, model=model, lr=0.001, precision=precision)], samples)
        nets[precision].advance(3)
    rounded = nets["bfloat16"]
    held = {**rounded.net.state_dict(), **{f"{k} gradient": p.grad for k, p in rounded.net.named_parameters()}}
    assert {v.dtype for v in held.values()} == {torch.float32}
    (loss, other), exact = rounded.measure()[[0, 2]].tolist(), nets["float32"].measure()
    assert 0 < abs(loss - exact[0]) < 0.03 * exact[0]
    assert abs(other - exact[2]) < 0.03 * exact[2]


@pytest.mark.parametrize("model", NETS.values(), ids=NETS)
def test_on_a_gpu_no_operation_mixes_devices_or_asks_for_a_value(monkeypatch, model):
    """With tensors that claim to be on a GPU."""
    samples = make_samples(pool=1)
    how = {**EVERYTHING, "model": model, "precision": "float32"}

    def claimed(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), device="cuda")

    real = build_net(model, (28, 28, 1), 10, 0)

    def moved(*_):
        """Module.to fails on tensors that only claim to be somewhere."""
        for module in real.modules():
            module._parameters = {
                k: p if p is None else torch.nn.Parameter(claimed(p)) for k, p in module._parameters.items()
            }
            module._buffers = {k: b if b is None else claimed(b) for k, b in module._buffers.items()}
        real.to = lambda *_: real
        return real

    def backward(_):
        """The autograd engine wants a real device; what it runs is counted above."""
        for parameter in real.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(single_net, "build_net", moved)
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = SingleNet([make_task(samples, **how)], samples, "cuda")
        net._train_net = net.net  # nothing here can compile for a GPU
        monkeypatch.setattr(net.optimizer, "step", lambda: None)  # it asks the driver
        net.advance(6)  # a step less than AutoL2's interval
        measured = net.measure()
        assert (measured.shape, measured.device.type) == ((5,), "cuda")
        with pytest.raises(DataDependentOutputException):  # so this test would notice
            measured[0].item()


@pytest.mark.parametrize("model", NETS.values(), ids=NETS)
def test_a_compiled_net_trains_alike(model):
    """In one graph, so that nothing falls back to Python; and compiling it leaves no trace."""
    samples = make_samples(pool=1)
    task = make_task(samples, steps=5, model=model, lr_decay_epochs=(1,))
    net = SingleNet([task], samples)
    torch.compiler.reset()
    net._train_net = torch.compile(net.net, backend="eager", fullgraph=True, dynamic=False)
    (finished,) = net.train()
    assert net.compile_s > 0
    assert net.wall_s >= 0
    for name, values in trained(task, samples).columns.items():
        np.testing.assert_allclose(finished.columns[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_without_a_compiler_the_net_trains_as_it_is(caplog):
    def none(graph, inputs):
        raise RuntimeError("no C compiler here\nand a long trace")

    samples = make_samples()
    task = make_task(samples, steps=3)
    net = SingleNet([task], samples)
    torch.compiler.reset()
    net._train_net = torch.compile(net.net, backend=none)
    caplog.set_level("WARNING", "torch")
    (finished,) = net.train()
    (line,) = [r.getMessage() for r in caplog.records if "not compiled" in r.getMessage()]
    assert "no C compiler here" in line
    assert "\n" not in line
    assert net.compile_s is None
    assert finished.columns["train_loss"].tolist() == trained(task, samples).columns["train_loss"].tolist()


MADE_UP = make_samples(train=64)


@pytest.fixture
def make_store(tmp_path, monkeypatch):
    """Stores whose data set is made up: reading the digits takes longer than these jobs."""
    arrays = {name: getattr(MADE_UP, name) for name in data.ARRAYS}
    monkeypatch.setattr(data, "load", lambda *_: arrays)
    return lambda name: RunStore(tmp_path / name, tmp_path / "nothing shipped")


def job_task(model, steps=32, **fields) -> Task:
    spec = RunSpec(model=model, data=MADE_UP.spec, **{"lr": 0.05, "l2": 0.01, "batch": 16} | fields)
    return Task(spec, steps, (steps,), EvaluationGrid(ratio=1.4))


class Aging(job.Deadline):
    """A time limit, seen by a job for which a second passes whenever it looks at the clock."""

    def reached(self):
        self.started -= 1.0
        return super().reached()


def test_a_job_trains_convolutional_and_fully_connected_nets(make_store):
    store = make_store("one")
    wanted = [
        job_task(CONV_BN, momentum=0.9),
        job_task(FullyConnectedSpec(hidden_layers=1, width=8)),
        job_task(CONV, auto_l2=AutoL2Spec()),
        job_task(FullyConnectedSpec(hidden_layers=1, width=8), lr=0.1),
        job_task(CONV, lr=1e9, l2=0.1),
    ]
    outcome = job.train(wanted, store)
    assert (outcome.trained, outcome.diverged, outcome.stopped) == (5, 1, False)
    for task in wanted[:4]:
        record = store.load(task.run_id)
        assert (record.status, record.steps) == ("finished", 32)
        assert record.spec == task.spec
        assert list(record.columns) == list(COLUMNS)
        assert record.columns["train_loss"][-1] < record.columns["train_loss"][0]
    assert store.load(wanted[4].run_id).status == "diverged"
    assert headers(store.results / "checkpoints") == []
    again = job.train(wanted, store)
    assert (again.trained, again.found) == (0, 5)


def test_a_job_stopped_by_its_time_limit_is_resumed(make_store, caplog):
    store, whole = make_store("stopped"), make_store("whole")
    task = job_task(**EVERYTHING, steps=48)
    outcome = job.train([task], store, deadline=Aging(limit_s=6.0, margin_s=0.0))
    assert (outcome.trained, outcome.stopped) == (0, True)
    (header,) = headers(store.results / "checkpoints")
    assert (header.run_ids, header.horizons) == ([task.run_id], [48])
    assert 0 < header.step < 48
    with caplog.at_level("INFO"):
        rest = job.train([task], store)
    assert any(f"resumed an ensemble of 1 runs at step {header.step}" in message for message in caplog.messages)
    assert (rest.trained, rest.stopped) == (1, False)
    assert headers(store.results / "checkpoints") == []
    job.train([task], whole)
    assert_same_columns(store.load(task.run_id).columns, whole.load(task.run_id).columns)


def test_a_job_lengthens_a_kept_final_state(make_store, caplog):
    store, whole = make_store("kept"), make_store("whole")
    short = job_task(**EVERYTHING, steps=20)
    long = Task(short.spec, 40, (20, 40), short.grid)
    job.train([short], store, keep_final_state=True)
    with caplog.at_level("INFO"):
        job.train([long], store, keep_final_state=True)
    assert any("20 to 40 steps" in message for message in caplog.messages)
    job.train([long], whole)
    assert_same_columns(store.load(long.run_id).columns, whole.load(long.run_id).columns)
