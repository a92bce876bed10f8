"""A batch in parts trains the same net as in one piece; what does not fit into memory is halved."""

import pytest
import torch

from l2dyn.errors import UserError
from l2dyn.specs.nets import ConvNetSpec, WideResNetSpec
from l2dyn.specs.run import AugmentationSpec, AutoL2Spec
from l2dyn.tests.made_up import assert_same_columns, made_up_samples, make_task
from l2dyn.training.single import SingleTrainer

PLAIN = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)
SETUPS = {
    "no batch norm": {"net": PLAIN},
    "batch norm of fours": {"net": PLAIN.model_copy(update={"batch_norm": True, "norm_group": 4})},
    "a Wide ResNet with mixup and AutoL2": {
        "net": WideResNetSpec(depth=10, width=1, norm_group=4),
        "augmentation": AugmentationSpec(flip=True, crop=1, mixup=0.3),
        "auto_l2": AutoL2Spec(interval=2, refractory=0.0),
        "momentum": 0.9,
    },
    "half the squared error": {"net": PLAIN, "loss": "half_mse"},
}


def trainer(micro_batch=0, **fields):
    samples = made_up_samples(24, 16, downscale=2)
    task = make_task(samples, 6, **{"lr": 0.05, "l2": 0.02, "batch": 8, "order_seed": 3} | fields)
    return SingleTrainer([task], samples, micro_batch=micro_batch)


def columns(trainer):
    (ended,) = trainer.train()
    return ended.columns


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("micro_batch", [1, 4, 6])
def test_a_batch_in_parts_trains_the_same_net(setup, micro_batch, monkeypatch):
    whole, parted = trainer(**SETUPS[setup]), trainer(micro_batch, **SETUPS[setup])
    sizes, outputs_of = set(), parted._outputs_of

    def seen(net, x):
        if torch.is_grad_enabled():
            sizes.add(len(x))
        return outputs_of(net, x)

    monkeypatch.setattr(parted, "_outputs_of", seen)
    assert_same_columns(columns(parted), columns(whole), rtol=1e-11, atol=1e-11)
    group = whole._together
    assert max(sizes) == max(group, micro_batch // group * group) < 8


def limit_memory(monkeypatch, trainer, most, training=True):
    """Let training passes of more samples fail, or those of an evaluation, as on a GPU that is full."""
    outputs_of = trainer._outputs_of

    def scarce(net, x):
        if torch.is_grad_enabled() == training and len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs_of(net, x)

    monkeypatch.setattr(trainer, "_outputs_of", scarce)


def test_what_does_not_fit_into_memory_is_halved_until_it_does(monkeypatch):
    whole, scarce = trainer(net=PLAIN), trainer(net=PLAIN)
    limit_memory(monkeypatch, scarce, 3)
    assert_same_columns(columns(scarce), columns(whole), rtol=1e-11, atol=1e-11)
    assert scarce.micro_batch == 2


@pytest.mark.parametrize("setup", ["no batch norm", "batch norm of fours"])
def test_an_evaluation_that_does_not_fit_is_halved_until_it_does(setup, monkeypatch, caplog):
    whole, scarce = trainer(**SETUPS[setup]), trainer(**SETUPS[setup])
    limit_memory(monkeypatch, scarce, 5, training=False)
    with caplog.at_level("INFO"):
        assert_same_columns(columns(scarce), columns(whole), rtol=1e-11, atol=1e-11)
    assert caplog.text.count("are evaluated at once from now on") <= 4  # it is remembered
    assert scarce.micro_batch == 0


def test_no_more_samples_are_evaluated_at_once_than_trained(monkeypatch):
    one = trainer(micro_batch=4, net=PLAIN)
    limit_memory(monkeypatch, one, 4, training=False)
    columns(one)
    assert one._evaluated_at_once > 4


def test_an_evaluation_that_never_fits_is_one_line(monkeypatch):
    scarce = trainer(net=PLAIN)
    limit_memory(monkeypatch, scarce, 0, training=False)
    with pytest.raises(UserError, match="do not fit into memory to be evaluated"):
        columns(scarce)


@pytest.mark.parametrize("norm_group", [0, 3, 4])
def test_a_group_that_does_not_fit_is_one_line(norm_group, monkeypatch):
    net = PLAIN.model_copy(update={"batch_norm": True, "norm_group": norm_group})
    scarce = trainer(net=net)
    limit_memory(monkeypatch, scarce, 3)
    with pytest.raises(UserError, match="do not fit into memory") as refusal:
        columns(scarce)
    assert "\n" not in str(refusal.value)
