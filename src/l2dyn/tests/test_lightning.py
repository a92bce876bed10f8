"""The Lightning callback against a loop by hand with the same losses."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from l2dyn.optim.auto_l2 import AutoL2

SETTINGS = {"rule": "risen", "interval": 3, "cooldown": 0, "init_l2": 0.2}


@functools.cache
def module_class():
    """The class of Module(log_error), made when a test runs: importing Lightning takes seconds, in every process."""
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        """A small classifier; `losses` are those of its steps, and `seen` what λ each step had."""

        def __init__(self, log_error=True):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            self.log_error, self.losses, self.seen = log_error, [], []

        def training_step(self, batch, index):
            x, y = batch
            outputs = self.net(x)
            loss = nn.functional.cross_entropy(outputs, y)
            if self.log_error:
                self.log("error", (outputs.argmax(1) != y).float().mean())
            self.losses.append(loss.item())
            self.seen.append(self.optimizers().param_groups[0]["weight_decay"])
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    return Module


def module_of(**how):
    return module_class()(**how)


def callback_of(**settings):
    from l2dyn.optim.lightning import AutoL2Callback

    return AutoL2Callback(**SETTINGS | settings)


def batches():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=10)


def fit(module, callback, steps, path, **how):
    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
        **{key: value for key, value in how.items() if key != "ckpt_path"},
    )
    trainer.fit(module, batches(), ckpt_path=how.get("ckpt_path"))
    return trainer


def by_hand(losses, taken=0, state=None):
    """λ at every step, for a measurement after each third one; going on from a state after so many steps."""
    auto_l2 = AutoL2(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5), **SETTINGS)
    if state:
        auto_l2.load_state_dict(state)
    l2 = []
    for step, loss in enumerate(losses, start=taken + 1):
        l2.append(auto_l2.get_last_l2())
        if step % 3 == 0:
            auto_l2.step(loss)
    return l2


@pytest.mark.filterwarnings("ignore")
def test_lambda_falls_as_in_a_loop_by_hand_and_is_logged(tmp_path):
    module, callback = module_of(), callback_of()
    trainer = fit(module, callback, 60, tmp_path)
    assert module.seen == pytest.approx(by_hand(module.losses))
    assert min(module.seen) < 0.2
    assert float(trainer.callback_metrics["l2"]) == pytest.approx(module.seen[-1])


@pytest.mark.filterwarnings("ignore")
def test_with_gradient_accumulation_it_counts_optimizer_steps(tmp_path):
    module, callback = module_of(), callback_of()
    fit(module, callback, 20, tmp_path, accumulate_grad_batches=2)
    assert callback.auto_l2.state_dict()["calls"] == 20 // 3


@pytest.mark.filterwarnings("ignore")
def test_its_state_goes_through_lightnings_checkpoint(tmp_path):
    module = module_of()
    first = callback_of()
    trainer = fit(module, first, 30, tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    resumed, second = module_of(), callback_of()
    fit(resumed, second, 60, tmp_path, ckpt_path=tmp_path / "x.ckpt")
    assert len(resumed.seen) == 30
    assert resumed.seen == pytest.approx(by_hand(resumed.losses, 30, first.auto_l2.state_dict()))
    assert resumed.seen[0] < 0.2


@pytest.mark.filterwarnings("ignore")
def test_a_logged_error_counts(tmp_path):
    callback = callback_of(error="error", trigger="error")
    fit(module_of(), callback, 12, tmp_path)
    assert callback.auto_l2.state_dict()["previous_error"] is not None


@pytest.mark.filterwarnings("ignore")
def test_an_error_that_is_not_logged_is_named(tmp_path):
    with pytest.raises(ValueError, match="error='error' is not among"):
        fit(module_of(log_error=False), callback_of(error="error"), 12, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_of_two_optimizers_the_steps_of_its_own_count(tmp_path):
    class Two(module_class()):
        """Its second optimizer steps at every other batch."""

        automatic_optimization = False

        def configure_optimizers(self):
            halves = list(self.net.parameters())
            return [torch.optim.SGD(halves[:2], lr=0.1), torch.optim.SGD(halves[2:], lr=0.1)]

        def training_step(self, batch, index):
            x, y = batch
            loss = nn.functional.cross_entropy(self.net(x), y)
            first, second = self.optimizers()
            self.manual_backward(loss)
            first.step()
            if index % 2:
                second.step()
            first.zero_grad()
            second.zero_grad()
            return loss

    module, callback = Two(log_error=False), callback_of(optimizer=1)
    fit(module, callback, 27, tmp_path)  # as Lightning counts, of both: 18 batches
    assert callback.auto_l2.state_dict()["calls"] == 9 // 3
