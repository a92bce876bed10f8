"""Runs with AdamW: their trajectory against the update written out, and what it means for their time scale."""

import numpy as np
import pytest
import torch

from l2dyn.nets.build import build_net
from l2dyn.runs.plan import Task
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.optimizers import AdamWSpec, SGDSpec
from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training.dispatch import trainer_for
from l2dyn.training.single import SingleTrainer


def adamw_task(samples, steps=12, **fields):
    task = make_task(samples, steps, lr=0.01, l2=0.5, **fields)
    spec = task.spec.model_copy(update={"optimizer": AdamWSpec(beta1=0.8, beta2=0.9)})
    return Task(spec, steps, (steps,), EvaluationGrid())


def test_the_decay_is_apart_from_the_gradient_and_its_scaling():
    """θ ← (1 − ηλ)·θ − η·m̂/(√v̂ + ε), on the full batch, in NumPy but for the gradient."""
    samples = made_up_samples(24, 16)
    task = adamw_task(samples)
    trainer = SingleTrainer([task], samples)
    net = build_net(task.spec.net, samples.spec.image_shape, samples.spec.outputs, task.spec.init_seed).double()
    theta = [p.detach().numpy().copy() for p in net.parameters()]
    first, second = ([np.zeros_like(p) for p in theta] for _ in range(2))
    images, labels = trainer._train
    x, y = images.take().movedim(-1, -3), labels
    for step in range(1, 13):
        with torch.no_grad():
            for p, value in zip(net.parameters(), theta, strict=True):
                p.copy_(torch.from_numpy(value))
        loss = torch.nn.functional.cross_entropy(net(x), y)
        for i, g in enumerate(torch.autograd.grad(loss, list(net.parameters()))):
            g = g.numpy()
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.9 * second[i] + 0.1 * g * g
            scaled = (first[i] / (1 - 0.8**step)) / (np.sqrt(second[i] / (1 - 0.9**step)) + 1e-8)
            theta[i] = (1 - 0.01 * 0.5) * theta[i] - 0.01 * scaled
    trainer.advance(12)
    for p, value in zip(trainer.net.parameters(), theta, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-7, atol=1e-9)


def test_it_trains_one_by_one_and_has_an_id_of_its_own():
    samples = made_up_samples(24, 16)
    task = adamw_task(samples)
    assert isinstance(trainer_for([task], samples), SingleTrainer)
    assert task.spec.momentum == 0.0
    others = [SGDSpec(), AdamWSpec(), AdamWSpec(beta1=0.8)]
    ids = {task.spec.model_copy(update={"optimizer": one}).run_id for one in others}
    assert len({*ids, task.run_id}) == 4


@pytest.mark.parametrize("beta", [-0.1, 1.0, "0.9"])
def test_betas_out_of_range_are_refused(beta):
    with pytest.raises(ValueError, match="beta1"):
        AdamWSpec(beta1=beta)
