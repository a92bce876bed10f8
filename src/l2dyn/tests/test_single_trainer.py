"""The trainer of one net against plain PyTorch, with the penalty in the loss and every schedule written out."""

import functools
import io
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from l2dyn.data import samples as numpy_samples
from l2dyn.data.augmentation import Augmentation
from l2dyn.nets.build import build_net
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec, WideResNetSpec
from l2dyn.specs.optimizers import OptimizerSpec
from l2dyn.specs.run import AugmentationSpec, AutoL2Spec
from l2dyn.tests import made_up
from l2dyn.tests.made_up import assert_same_columns, made_up_samples
from l2dyn.training import single
from l2dyn.training.order import epoch_permutation
from l2dyn.training.single import SingleTrainer
from l2dyn.training.stacked import StackedTrainer

CONV = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)
CONV_BN = CONV.model_copy(update={"batch_norm": True})
CONV_WITHOUT_BIASES = CONV.model_copy(update={"bias": False})
WRN = WideResNetSpec(depth=10, width=1)
CROP_AND_MIXUP = AugmentationSpec(crop=1, mixup=0.3)
EVERYTHING = {  # that a state has to hold
    "net": CONV_BN,
    "momentum": 0.9,
    "l2": 0.3,
    "lr": 0.05,
    "lr_decay_epochs": (7, 14),
    "auto_l2": AutoL2Spec(rule="risen", factor=0.5, interval=7, cooldown=1),
    "augmentation": AugmentationSpec(flip=True, crop=1, mixup=0.3),
    "augmentation_seed": 5,
}
WRN_DECAYED = {"net": WRN, "momentum": 0.9, "augmentation": CROP_AND_MIXUP, "lr_decay_epochs": (6, 13)}
SPARSE = EvaluationGrid(every_epochs=10)  # for batches of 8 every 30 steps


def make_samples(train=24, test=20, downscale=2, **how):
    return made_up_samples(train, test, downscale=downscale, **how)


def make_task(samples, steps=60, grid=None, **fields) -> Task:
    fields = {"net": CONV, "lr": 0.05, "l2": 0.02, "batch": 8, "order_seed": 3} | fields
    return made_up.make_task(samples, steps, grid=grid or EvaluationGrid(every_epochs=4 / 3), **fields)


def ended(trainer):
    (only,) = trainer.train()
    return only


def trained(task, samples):
    return ended(SingleTrainer([task], samples))


def assert_same_nets(one, other):
    for (name, values), theirs in zip(one.net.state_dict().items(), other.net.state_dict().values(), strict=True):
        assert torch.equal(values, theirs), name


def oracle(task: Task, samples, lr_at_step=None) -> dict[str, list[float]]:
    """The same run the way a user would write it.

    lr_at_step: {step: learning rate from then on}.
    """
    spec = task.spec
    shape = spec.data.image_shape
    net = build_net(spec.net, shape, spec.data.outputs, seed=99).double()
    drawn = build_net(spec.net, shape, spec.data.outputs, spec.init_seed)
    net.load_state_dict({name: values.double() for name, values in drawn.state_dict().items()})
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=0.0)
    fill = (0.0 - 0.1307) / 0.3081 if spec.data.scaling == "standardize" else 0.0
    augment = Augmentation(spec.augmentation, spec.augmentation_seed, fill)

    def tensors(images, labels):
        x = torch.from_numpy(numpy_samples.inputs(spec.data, images)).reshape(-1, *shape).permute(0, 3, 1, 2)
        if spec.data.labels == "parity":
            return x, torch.tensor([[1.0 if c % 2 == 0 else -1.0] for c in labels], dtype=torch.float64)
        return x, torch.eye(10, dtype=torch.float64)[torch.from_numpy(labels)]

    def loss_of(out, y):
        if spec.loss == "half_mse":
            return 0.5 * ((out - y) ** 2).sum() / len(y)
        return -(y * torch.log_softmax(out, dim=1)).sum() / len(y)

    def error_of(out, y):
        wrong = torch.sign(out) != y if spec.data.labels == "parity" else out.argmax(1) != y.argmax(1)
        return wrong.double().mean().item()

    def measure(x, y):
        """In parts of about a minibatch where batch norm sees the others."""
        normalizes = getattr(spec.net, "batch_norm", isinstance(spec.net, WideResNetSpec))
        parts = max(1, round(len(x) / spec.batch)) if normalizes and spec.batch else 1
        with torch.no_grad():
            out = torch.cat([net(piece) for piece in torch.tensor_split(x, parts)])
            return loss_of(out, y).item(), error_of(out, y)

    x, y = tensors(samples.train_images, samples.train_labels)
    x_test, y_test = tensors(samples.test_images, samples.test_labels)
    steps_per_epoch = len(x) // spec.batch if spec.batch else 1
    lr, l2 = spec.lr, spec.l2
    previous, refractory, losses, errors = None, 0, [], []
    minibatches, rests_until = [], -1
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
        if spec.auto_l2 and spec.auto_l2.rule == "no_better" and step % spec.auto_l2.interval == 0:
            minibatches.append((loss.item(), error_of(out.detach(), y_step)))
            kept, last_two = minibatches[:-2], minibatches[-2:]
            worse = any(kept and min(m[i] for m in last_two) >= min(m[i] for m in kept) for i in (0, 1))
            if worse and step > rests_until:
                l2 = l2 * spec.auto_l2.factor
                rests_until = step + spec.auto_l2.refractory * (1 - spec.momentum) / (lr * l2)
                del minibatches[-2]
        (loss + 0.5 * l2 * sum(p.square().sum() for p in parameters)).backward()
        optimizer.step()
        if spec.auto_l2 and spec.auto_l2.rule == "risen":
            interval = spec.auto_l2.interval
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
PARITY = {"loss": "half_mse", "lr": 0.02, "steps": 20}
CASES = {  # fields of the run, of the samples; what the oracle is told by hand
    "ConvNet, full batch": ({"batch": 0, "steps": 12}, {}, {}),
    "ConvNet with batch norm and momentum": ({"net": CONV_BN, "momentum": 0.9, "steps": 24}, {}, {}),
    "WRN, momentum, crop and mixup, two decays": (
        WRN_DECAYED | {"steps": 24, "lr_decay_epochs": (3, 5)},
        {"downscale": 4},
        {"lr_at_step": {9: 0.05 * 0.2, 15: 0.05 * 0.2 * 0.2}},
    ),
    "AutoL2": (
        {"l2": 0.4, "lr": 0.1, "momentum": 0.5, "auto_l2": AutoL2Spec(factor=0.5, interval=3, refractory=0.2)},
        {},
        {},
    ),
    "AutoL2, risen": (
        {"l2": 0.4, "lr": 0.1, "auto_l2": AutoL2Spec(rule="risen", factor=0.5, interval=2, cooldown=2)},
        {},
        {},
    ),
    "half_mse on classes": (PARITY, {}, {}),
    "AutoL2 on the error of parity": (
        PARITY
        | {"steps": 60, "auto_l2": AutoL2Spec(rule="risen", factor=0.5, interval=3, cooldown=0, trigger="error")},
        {"labels": "parity"},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_equals_plain_pytorch(case):
    """All columns agree to 1e-9 in float64."""
    fields, data, told = CASES[case]
    samples = make_samples(**data)
    task = make_task(samples, **fields)
    expected = oracle(task, samples, **told)
    found = trained(task, samples)
    assert (found.status, found.steps) == ("finished", task.steps)
    assert expected["train_loss"][-1] != expected["train_loss"][0]
    assert (len(set(expected["l2"])) > 2) == ("AutoL2" in case)  # λ has fallen at least twice
    assert_same_columns(found.columns, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("net", "fields"),
    [
        (FullyConnectedSpec(hidden_layers=2, width=12), {"momentum": 0.9, "lr": 0.02}),
        (FullyConnectedSpec(hidden_layers=1, width=9, parameterization="ntk"), {"batch": 16, "lr": 0.5}),
        (FullyConnectedSpec(hidden_layers=1, width=9, bias=False), {}),
        (FullyConnectedSpec(hidden_layers=2, width=12), {"batch": 16, "order_seed": 2, "order_shards": 4}),
    ],
)
def test_a_fully_connected_net_trains_as_in_a_stack(net, fields):
    """The same function from the same seed, by autograd and torch's optimizer: 1e-9 in float64."""
    samples = made_up_samples()
    task = made_up.make_task(samples, steps=60, net=net, init_seed=4, grid=SPARSE, **fields)
    found, expected = (ended(kind([task], samples)) for kind in (SingleTrainer, StackedTrainer))
    assert_same_columns(found.columns, expected.columns, rtol=1e-9, atol=1e-9)


class AdamSpec(OptimizerSpec):
    """As somebody adds an optimizer: a class beside SGDSpec."""

    optimizer: ClassVar[str] = "torch.optim:Adam"

    kind: Literal["adam"] = "adam"
    beta: float = 0.9

    def arguments(self) -> dict:
        return {"betas": (self.beta, 0.99)}


def test_an_optimizer_is_whatever_its_spec_imports():
    samples = make_samples()
    task = make_task(samples)
    adam = task.spec.model_copy(update={"optimizer": AdamSpec(beta=0.7)})
    trainer = SingleTrainer([Task(adam, 12, (12,), task.grid)], samples)
    assert type(trainer.optimizer) is torch.optim.Adam
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.05, 0.02, (0.7, 0.99))
    columns = ended(trainer).columns
    assert columns["train_loss"][-1] < columns["train_loss"][0]
    assert not adam.stacks


@pytest.mark.parametrize("net", [FullyConnectedSpec(hidden_layers=2, width=12), CONV_WITHOUT_BIASES], ids=["fc", "cnn"])
def test_the_kernel_against_gradients_one_by_one(net):
    """Its norm, and its rotation from the drawn net, also where a run went on from a checkpoint."""
    samples = make_samples(labels="parity")
    task = make_task(samples, steps=8, lr=0.02, loss="half_mse", kernel_samples=5, net=net)
    trainer = SingleTrainer([task], samples)

    def kernel():
        x = torch.from_numpy(numpy_samples.inputs(samples.spec, samples.train_images[:5])).reshape(5, 1, 14, 14)
        rows = []
        for f in trainer.net(x).flatten():
            gradients = torch.autograd.grad(f, list(trainer.net.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in gradients]))
        return torch.stack(rows) @ torch.stack(rows).T

    first = kernel()
    columns = ended(trainer).columns
    last = kernel()
    rotation = 1 - (first * last).sum().item() / (first.norm() * last.norm()).item()
    assert rotation > 1e-4
    assert columns["kernel_norm"][[0, -1]] == pytest.approx([first.norm().item(), last.norm().item()], rel=1e-9)
    assert columns["kernel_rotation"][[0, -1]] == pytest.approx([0.0, rotation], rel=1e-7, abs=1e-12)

    before = SingleTrainer([task], samples)
    before.advance(4)
    after = SingleTrainer([task], samples)
    after.load_tensors(round_trip(before.tensors()))
    torch.testing.assert_close(after.measure(), before.measure(), rtol=0, atol=0)


def round_trip(state: dict) -> dict:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@functools.cache
def uninterrupted(kind: str):
    """Samples, task, and how it ends."""
    fields, data = {
        "everything": (EVERYTHING | {"steps": 45}, {}),
        "wrn": (WRN_DECAYED | {"steps": 24}, {"downscale": 4}),
    }[kind]
    samples = make_samples(**data)
    task = make_task(samples, grid=SPARSE, **fields)
    trainer = SingleTrainer([task], samples)
    return samples, task, ended(trainer), trainer


@pytest.mark.parametrize(("kind", "stop"), [*(("everything", stop) for stop in (5, 30, 40)), ("wrn", 20)])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(monkeypatch, kind, stop):
    """Stopped at evaluations, between them, and within an interval of AutoL2; and stretches do not matter."""
    samples, task, whole, to_the_end = uninterrupted(kind)
    monkeypatch.setattr(SingleTrainer, "stretch", 1)
    first = SingleTrainer([task], samples)
    assert list(first.train(lambda trainer: trainer.step >= stop)) == []
    assert (first.step, first.tasks) == (stop, [task])
    second = SingleTrainer([task], samples)
    second.load_state_dict(round_trip(first.state_dict()))
    assert_same_columns(ended(second).columns, whole.columns)
    assert_same_nets(second, to_the_end)
    assert kind == "wrn" or len(set(whole.columns["l2"])) > 1


def test_a_run_stopped_at_every_opportunity_is_the_uninterrupted_one():
    """Which is after the first evaluation and then, since each trainer's first stretch is short, after every step."""
    samples = make_samples()
    task = make_task(samples, steps=33, grid=EvaluationGrid(every_epochs=4), **EVERYTHING)
    state, done, stops = None, [], 0
    while not done:
        trainer = SingleTrainer([task], samples)
        if state:
            trainer.load_state_dict(state)
        done = list(trainer.train(lambda trainer: True))
        state, stops = round_trip(trainer.state_dict()), stops + 1
    assert stops == 1 + 33
    assert trainer.tasks == []
    assert_same_columns(done[0].columns, trained(task, samples).columns)


@pytest.mark.parametrize("fields", [{}, {"net": CONV_BN, "momentum": 0.9}, {"loss": "half_mse"}])
def test_divergence_is_recorded_with_finite_rows(fields):
    samples = make_samples()
    trainer = SingleTrainer([make_task(samples, steps=400, **{"lr": 1e9, "l2": 0.1} | fields)], samples)
    found = ended(trainer)
    assert found.status == "diverged"
    assert 400 > found.steps > found.columns["step"][-1]
    assert trainer.tasks == []
    for name, values in found.columns.items():
        assert np.isfinite(values).all(), name


def test_the_columns_lr_and_l2_are_what_the_next_step_uses(monkeypatch):
    """At every step: of the schedule, of AutoL2, and of the optimizer."""
    samples = make_samples()
    task = make_task(samples, steps=45, grid=EvaluationGrid(every_epochs=1 / 3), **EVERYTHING)
    trainer = SingleTrainer([task], samples)
    used = []
    step = trainer.optimizer.step

    def noting(*args):
        (group,) = trainer.optimizer.param_groups
        used.append((group["lr"], group["weight_decay"]))
        return step(*args)

    monkeypatch.setattr(trainer.optimizer, "step", noting)
    columns = ended(trainer).columns
    assert columns["step"].tolist() == list(range(46))
    assert columns["epoch"].tolist() == [s / 3 for s in range(46)]
    assert list(zip(columns["lr"], columns["l2"], strict=True))[:-1] == used
    expected = [0.05 * 0.2 ** ((s >= 21) + (s >= 42)) for s in range(46)]
    np.testing.assert_allclose(columns["lr"], expected, rtol=1e-15)
    falls = np.flatnonzero(np.diff(columns["l2"])) + 1
    assert len(falls) > 0
    assert (falls % 7 == 0).all()  # only where an interval ends
    np.testing.assert_allclose(columns["l2"][falls], columns["l2"][falls - 1] * 0.5, rtol=1e-15)


def test_evaluation_leaves_training_untouched():
    samples = make_samples()
    rare = make_task(samples, steps=30, grid=SPARSE, **EVERYTHING)
    often = Task(rare.spec, 30, (30,), EvaluationGrid(every_epochs=1 / 3))
    one, other = SingleTrainer([rare], samples), SingleTrainer([often], samples)
    few, many = ended(one).columns, ended(other).columns
    assert few["step"].tolist() == [0, 30]
    assert len(many["step"]) == 31
    assert_same_columns(few, {name: values[[0, 30]] for name, values in many.items()})
    assert_same_nets(one, other)


def test_train_loss_is_taken_on_the_train_subset():
    """As on a training set cut to it; the trajectory and the test columns are those of the whole."""
    samples = make_samples()
    task = make_task(samples, steps=20)
    part = Task(task.spec, 20, (20,), task.grid.model_copy(update={"train_subset": 20}))
    trainer = SingleTrainer([part], samples)
    whole, cut = trained(task, samples).columns, ended(trainer).columns
    differing = {name for name in COLUMNS if whole[name].tolist() != cut[name].tolist()}
    assert differing == {"train_loss", "train_error"}
    x = torch.from_numpy(numpy_samples.inputs(samples.spec, samples.train_images[:20])).reshape(20, 1, 14, 14)
    labels = torch.from_numpy(samples.train_labels[:20])
    with torch.no_grad():
        out = trainer.net(x)
    np.testing.assert_allclose(cut["train_loss"][-1], functional.cross_entropy(out, labels), rtol=1e-12)
    assert cut["train_error"][-1] == pytest.approx((out.argmax(1) != labels).double().mean().item())


@pytest.mark.parametrize(
    "net", [CONV, CONV_BN, CONV_BN.model_copy(update={"norm_group": 4})], ids=["none", "batch", "groups"]
)
def test_a_record_does_not_depend_on_how_many_samples_are_evaluated_at_once(monkeypatch, net):
    """Nor on the device, on which that number depends: not even where a batch's statistics are larger than it."""
    samples = make_samples()
    task = make_task(samples, steps=10, net=net)
    whole = trained(task, samples).columns
    monkeypatch.setattr(single, "EVALUATED_AT_ONCE", {"cpu": 3})
    assert_same_columns(trained(task, samples).columns, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("group", "close"), [(100, {}), (8, {"rtol": 1e-12, "atol": 1e-12})])
def test_a_norm_group_of_the_batch_or_beyond_is_the_batch(group, close):
    """In training both normalize over 8 samples, so both are to be measured so."""
    samples = make_samples(test=16)
    grouped = CONV_BN.model_copy(update={"norm_group": group})
    one, other = (SingleTrainer([make_task(samples, steps=12, net=net)], samples) for net in (CONV_BN, grouped))
    assert_same_columns(ended(other).columns, ended(one).columns, **close)
    assert_same_nets(one, other)


def test_a_parameter_that_escapes_the_penalty_is_refused():
    a, b, other = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3, 3))

    def check(held, l2=0.1):
        single._assert_one_penalty(torch.optim.SGD(held, lr=0.1, weight_decay=l2), [a, b], 0.1)

    check([a, b])
    for held in ([a], [a, other]):
        with pytest.raises(AssertionError, match="escapes"):
            check(held)
    for held, l2 in (([a, b], 0.2), ([{"params": [a]}, {"params": [b], "weight_decay": 0.0}], 0.1)):
        with pytest.raises(AssertionError, match="one λ"):
            check(held, l2)
