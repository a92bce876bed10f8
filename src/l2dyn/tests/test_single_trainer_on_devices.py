"""The trainer of one net and its device: what waits for it, precisions, compilation."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from l2dyn.nets.build import build_net
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.tests.made_up import assert_same_columns
from l2dyn.tests.test_single_trainer import (
    CONV,
    CROP_AND_MIXUP,
    EVERYTHING,
    WRN,
    ended,
    make_samples,
    make_task,
    trained,
)
from l2dyn.training import single
from l2dyn.training.single import SingleTrainer

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
    trainer = SingleTrainer([make_task(samples)], samples)
    made = []
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, **kwargs: made.append(args) or tensor(*args, **kwargs))
    trainer.advance(4)
    assert made == []


def test_images_scaled_when_used_make_the_same_run(monkeypatch):
    samples = make_samples()
    task = make_task(samples, steps=20, augmentation=CROP_AND_MIXUP)
    columns = trained(task, samples).columns
    monkeypatch.setattr("l2dyn.training.inputs.SCALED_ONCE", 0)
    assert_same_columns(trained(task, samples).columns, columns, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [0, 8])
def test_nothing_waits_for_the_device_between_evaluations(monkeypatch, batch):
    samples = make_samples()
    task = make_task(samples, batch=batch, **{k: v for k, v in EVERYTHING.items() if k != "auto_l2"})
    trainer = SingleTrainer([task], samples)
    counted = []
    with monkeypatch.context() as patched:
        count_synchronizations(patched, counted)
        trainer.advance(8)
        assert counted == []
        with pytest.raises(AssertionError, match="waits for the device"):  # it would have been seen
            list(trainer._evaluate())
    (group,) = trainer.optimizer.param_groups
    assert [type(group[name]) for name in ("lr", "weight_decay", "momentum")] == [float] * 3


def test_auto_l2_waits_once_an_interval(monkeypatch):
    samples = make_samples()
    trainer = SingleTrainer([make_task(samples, **EVERYTHING)], samples)
    counted = []
    with monkeypatch.context() as patched:
        count_synchronizations(patched, counted, allowed=("tolist",))
        trainer.advance(22)
    assert counted == ["tolist"] * 3
    assert type(trainer.optimizer.param_groups[0]["weight_decay"]) is float


NETS = {
    "conv": CONV,
    "wrn": WRN.model_copy(update={"norm_group": 4}),
    "fc": FullyConnectedSpec(hidden_layers=1, width=9),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_bfloat16_rounds_products_and_leaves_the_rest_in_float32(net):
    samples = make_samples(downscale=2)
    trainers = {}
    for precision in ("float32", "bfloat16"):
        trainers[precision] = SingleTrainer([make_task(samples, net=net, lr=0.001, precision=precision)], samples)
        trainers[precision].advance(3)
    rounded = trainers["bfloat16"].net
    held = [*rounded.state_dict().values(), *(p.grad for p in rounded.parameters())]
    assert {v.dtype for v in held} == {torch.float32}
    found, exact = (trainers[precision].measure()[0] for precision in ("bfloat16", "float32"))
    assert 0 < abs(found[0] - exact[0]) < 0.03 * exact[0]
    assert abs(found[2] - exact[2]) < 0.03 * exact[2]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_on_a_gpu_no_operation_mixes_devices_or_asks_for_a_value(monkeypatch, net):
    """With tensors that claim to be on a GPU."""
    samples = make_samples(downscale=2)
    real = build_net(net, (14, 14, 1), 10, 0)

    def claimed(p):
        return torch.nn.Parameter(torch.empty_strided(p.shape, p.stride(), device="cuda"))

    def moved(*_):
        """Module.to fails on tensors that only claim to be somewhere."""
        for module in real.modules():
            module._parameters = {k: p if p is None else claimed(p) for k, p in module._parameters.items()}
        real.to = lambda *_: real
        return real

    def backward(_):
        """The autograd engine wants a real device; what it runs is counted above."""
        for parameter in real.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(single, "build_net", moved)
    with FakeTensorMode(allow_non_fake_inputs=True):
        task = make_task(samples, **EVERYTHING | {"net": net, "precision": "float32"})
        trainer = SingleTrainer([task], samples, "cuda")
        trainer._train_net = trainer.net  # nothing here can compile for a GPU
        monkeypatch.setattr(trainer.optimizer, "step", lambda: None)  # it asks the driver
        trainer.advance(2)  # less than AutoL2's interval
        measured = trainer.measure()
        assert (measured.shape, measured.device.type) == ((1, 5), "cuda")
        with pytest.raises(DataDependentOutputException):  # so this test would notice
            measured[0, 0].item()


@pytest.mark.parametrize("net", [NETS["wrn"], NETS["fc"]], ids=["wrn", "fc"])
def test_a_compiled_net_trains_alike(net):
    """In one graph, so that nothing falls back to Python; and compiling it leaves no trace."""
    samples = make_samples(downscale=2)
    task = make_task(samples, steps=4, net=net, lr_decay_epochs=(1,))
    trainer = SingleTrainer([task], samples)
    torch.compiler.reset()
    trainer._train_net = torch.compile(trainer.net, backend="eager", fullgraph=True, dynamic=False)
    found = ended(trainer)
    assert trainer.compile_s > 0
    assert found.wall_s >= 0
    assert_same_columns(found.columns, trained(task, samples).columns, rtol=1e-9, atol=1e-12)


def test_without_a_compiler_the_net_trains_as_it_is(caplog):
    def none(graph, inputs):
        raise RuntimeError("no C compiler here\nand a long trace")

    samples = make_samples()
    task = make_task(samples, steps=3)
    trainer = SingleTrainer([task], samples)
    torch.compiler.reset()
    trainer._train_net = torch.compile(trainer.net, backend=none)
    caplog.set_level("WARNING", "torch")
    found = ended(trainer)
    (line,) = [r.getMessage() for r in caplog.records if "not compiled" in r.getMessage()]
    assert "no C compiler here" in line
    assert "\n" not in line
    assert trainer.compile_s is None
    assert_same_columns(found.columns, trained(task, samples).columns)
