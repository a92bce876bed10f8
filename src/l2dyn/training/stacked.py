"""The stacked trainer: runs of one fully-connected net and one data set, trained together as parameters [E, …].

A single run is a stack of one. How the steps are computed stands behind it, in l2dyn.training.stacked_steps.
"""

import math

import torch
from torch import Tensor

from l2dyn.data.samples import Samples
from l2dyn.nets.ntk import empirical_ntk, norm_and_rotation
from l2dyn.runs.plan import Task
from l2dyn.specs.base import imported
from l2dyn.training.inputs import Batches, Images, on_device
from l2dyn.training.loop import TrainingLoop
from l2dyn.training.order import DataOrder
from l2dyn.training.precision import PARAMETER_DTYPES, PRODUCT_DTYPES
from l2dyn.training.stacked_steps import LOSSES, AutogradSteps, Stack, StackedSteps, WrittenOutSteps

CHUNK = 2048  # samples evaluated at once
PENDING = 64  # evaluations that a GPU keeps before the host asks for them


class StackedTrainer(TrainingLoop):
    """SGD, with or without momentum and L2 penalty, on stacked nets: g = ∂L/∂θ + λθ, v ← μv + g, θ ← θ − ηv.

    Members have their own η, λ, μ, seeds and horizon; net, data, loss, batch, order_shards and precision are the first
    task's.
    steps: "fast" (the backward pass written out and every short cut that applies), "plain" (autograd, to read and to
    compare with), or such steps with some short cuts switched off. A state goes on with the kind of steps that made it.
    """

    def __init__(self, tasks: list[Task], samples: Samples, device: str = "cpu", steps: str | StackedSteps = "fast"):
        super().__init__(tasks)
        first = tasks[0].spec
        self.device, self.dtype = device, PARAMETER_DTYPES[first.precision]
        self.pending_limit = PENDING if device == "cuda" else 1
        self._measures = LOSSES[first.loss]
        self._train, self._test = on_device(samples, first.loss, self.dtype, device)
        net = imported(first.net.stacked_module).initialized(
            first.net,
            math.prod(samples.spec.image_shape),
            samples.spec.outputs,
            [task.spec.init_seed for task in tasks],
            self.dtype,
            device,
            PRODUCT_DTYPES.get(first.precision),
        )
        seeds = [task.spec.order_seed for task in tasks]
        self.order = DataOrder(seeds, len(self._train[0]), first.batch, device, first.order_shards)
        self._steps = {"fast": WrittenOutSteps, "plain": AutogradSteps}[steps]() if isinstance(steps, str) else steps
        self._steps.begin(net, Batches(*self._train, self.order), first, device)
        lr, l2, momentum = (
            torch.tensor(values, device=device, dtype=self.dtype)[:, None, None]
            for values in zip(*((t.spec.lr, t.spec.l2, t.spec.momentum) for t in tasks), strict=True)
        )
        velocities = [torch.zeros_like(p) for p in net.trained] if first.momentum > 0 else []
        self.stack = Stack(net, velocities, lr, l2, momentum, shrink=-lr * l2)
        self._steps.take(self.stack)
        count = first.kernel_samples
        self._first_kernel = self._kernel(count) if count else None  # of the drawn net, also where a state follows

    def advance(self, steps: int) -> None:
        """See Trainer."""
        self._steps.advance(self.step, steps)
        self.step += steps

    @torch.no_grad()
    def measure(self) -> Tensor:
        """See Trainer."""
        net = self.stack.net
        net.materialize()
        train_loss, train_error = self._measure_on(*self._train)
        test_loss, test_error = self._measure_on(*self._test)
        measures = [train_loss, train_error, test_loss, 1.0 - test_error, net.norms()]
        if count := self.tasks[0].spec.kernel_samples:
            measures += norm_and_rotation(self._kernel(count), self._first_kernel)
        return torch.stack(measures, dim=1)

    def _kernel(self, count: int) -> Tensor:
        """Θ of every member on the first `count` training samples, [E, count, count] float64."""
        return empirical_ntk(self.stack.net, self._train[0].take(slice(count)).flatten(-3)).to(torch.float64)

    def rates(self) -> list[tuple[float, float]]:
        """See TrainingLoop."""
        return [(task.spec.lr, task.spec.l2) for task in self.tasks]

    def keep(self, members: list[int]) -> None:
        """See TrainingLoop."""
        self.stack = self.stack.members(torch.tensor(members, dtype=torch.long, device=self.device))
        if self._first_kernel is not None:
            self._first_kernel = self._first_kernel[members]
        self.order.keep(members)
        self._steps.take(self.stack)

    def tensors(self) -> dict:
        """See TrainingLoop."""
        return {
            "parameters": [p.cpu() for p in self.stack.net.trained],
            "velocities": [v.cpu() for v in self.stack.velocities],
        }

    def load_tensors(self, state: dict) -> None:
        """See TrainingLoop.

        Raises:
            ValueError: for a state of another kind of steps.
        """
        held = [*self.stack.net.trained, *self.stack.velocities]
        for tensor, value in zip(held, [*state["parameters"], *state["velocities"]], strict=True):
            tensor.copy_(value)

    def _measure_on(self, x: Images, y: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, error) of each member, [E] float64."""
        loss = torch.zeros(len(self.tasks), dtype=torch.float64, device=self.device)
        error = torch.zeros_like(loss)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            outputs = self.stack.net.forward(x.take(part).flatten(-3))[-1].to(torch.float64)
            part_loss, part_error = self._measures(outputs, y[part])
            loss += part_loss * outputs.shape[1]
            error += part_error * outputs.shape[1]
        return loss / len(x), error / len(x)
