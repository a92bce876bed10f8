"""How a stack's steps are computed: plainly by autograd, or with the backward pass written out.

AutogradSteps is what a step means; WrittenOutSteps does the same, to rounding, with less work (a test compares them).
"""

import logging
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from l2dyn.nets.stacked_fully_connected import (
    StackedFullyConnected,
    cross_entropy,
    cross_entropy_delta,
    half_mse,
    half_mse_delta,
)
from l2dyn.specs.run import RunSpec
from l2dyn.training.captured_steps import CapturedSteps
from l2dyn.training.inputs import Batches

log = logging.getLogger(__name__)
LOSSES = {"cross_entropy": cross_entropy, "half_mse": half_mse}
DELTAS = {"cross_entropy": cross_entropy_delta, "half_mse": half_mse_delta}
BLOCK_BYTES = 2**19  # activations of one layer that a CPU core's cache holds beside the others


@dataclass(frozen=True)
class Stack:
    """What E members hold besides their data; steps change net and velocities in place."""

    net: StackedFullyConnected
    velocities: list[Tensor]  # in the shapes of net.trained; none without momentum
    lr: Tensor  # [E, 1, 1], as the others
    l2: Tensor
    momentum: Tensor
    shrink: Tensor  # −ηλ: the part of θ that the penalty takes in a step

    def members(self, chosen: slice | Tensor) -> "Stack":
        """These members: views for a slice, copies for indices."""
        rates = (tensor[chosen] for tensor in (self.lr, self.l2, self.momentum, self.shrink))
        return Stack(self.net.members(chosen), [v[chosen] for v in self.velocities], *rates)


class StackedSteps(Protocol):
    """A way to compute steps. `begin` is called once, `take` then and whenever members have left."""

    def begin(self, net: StackedFullyConnected, batches: Batches, spec: RunSpec, device: str) -> None:
        """A stack begins; how the net is held may still change (StackedFullyConnected.trained).

        spec: of any member; its loss and precision are all members'. device: "cpu" or "cuda".
        """

    def take(self, stack: Stack) -> None:
        """From now on these tensors train."""

    def advance(self, step: int, steps: int) -> None:
        """Take so many steps after `step` of them."""


class AutogradSteps:
    """Each step as a textbook has it. With products in bfloat16 only those of the forward pass are rounded."""

    def begin(self, net: StackedFullyConnected, batches: Batches, spec: RunSpec, device: str) -> None:
        """See StackedSteps."""
        self._batches, self._loss = batches, LOSSES[spec.loss]

    def take(self, stack: Stack) -> None:
        """See StackedSteps."""
        self._stack = stack

    def advance(self, step: int, steps: int) -> None:
        """See StackedSteps."""
        for at in range(step, step + steps):
            images, targets = self._batches.at(at)
            self._step(images.flatten(-3), targets)

    def _step(self, x: Tensor, targets: Tensor) -> None:
        stack, parameters = self._stack, self._stack.net.parameters
        for theta in parameters:
            theta.requires_grad_()
        loss, _ = self._loss(stack.net.forward(x)[-1], targets)  # of each member, [E]
        gradients = torch.autograd.grad(loss.sum(), parameters)  # a member's loss depends on its own parameters only
        with torch.no_grad():
            for i, (theta, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                theta.requires_grad_(False)
                change = gradient + stack.l2 * theta
                if stack.velocities:
                    change = stack.velocities[i].mul_(stack.momentum).add_(change)
                theta.sub_(stack.lr * change)


class WrittenOutSteps:
    """Steps by the net's own backward pass, which accumulates gradients straight into parameters or velocities.

    Short cuts, each taken where it applies:
    span: the first layer of full-batch training held in the span of its inputs (nets.stacked_fully_connected.Span); why
    not is a line of the log.
    blocks: members in groups whose activations a CPU's cache holds, each trained for a stretch at a time.
    graphs: full-batch steps on a GPU captured as CUDA graphs (training.captured_steps).
    """

    def __init__(self, span: bool = True, blocks: bool = True, graphs: bool = True):
        self._span, self._block, self._graph = span, blocks, graphs

    def begin(self, net: StackedFullyConnected, batches: Batches, spec: RunSpec, device: str) -> None:
        """See StackedSteps."""
        self._batches, self._delta, self._device = batches, DELTAS[spec.loss], device
        self._x = batches.at(0)[0].flatten(-3) if batches.order.batch == 0 else None
        reason = self._no_span(spec.precision)
        if reason:
            log.info("the first layer is not held in its span: %s", reason)
        else:
            net.hold_in_span(self._x)

    def take(self, stack: Stack) -> None:
        """See StackedSteps."""
        self._stack = stack
        self._captured: CapturedSteps | None = None  # its graphs would hold the old tensors

    def advance(self, step: int, steps: int) -> None:
        """See StackedSteps."""
        if self._x is None:
            for at in range(step, step + steps):
                self._minibatch_step(at)
        elif self._device == "cuda" and self._graph:
            if self._captured is None:
                self._captured = CapturedSteps(lambda: self._full_batch_step(self._stack), self._device)
            self._captured.advance(steps)
        else:
            for block in self._blocks():
                for _ in range(steps):
                    self._full_batch_step(block)

    def _no_span(self, precision: str) -> str:
        """Why there is no span, nothing where there is one."""
        if not self._span:
            return "switched off"
        if self._x is None:
            return f"it trains on batches of {self._batches.order.batch} samples"
        # two products with x cost more than one with its Gram matrix
        samples, inputs = self._x.shape
        if samples >= 2 * inputs:
            return f"{samples} samples of {inputs} inputs would cost more there"
        if precision not in ("float32", "float64"):
            return f"products rounded to {precision} would be those of another kernel"
        return ""

    def _blocks(self) -> list[Stack]:
        members = len(self._stack.net)
        if not self._block or self._device != "cpu":
            return [self._stack]
        widest = max(weight.shape[2] for weight in self._stack.net.weights)
        one = len(self._x) * widest * self._x.dtype.itemsize
        size = max(1, BLOCK_BYTES // one)
        return [self._stack.members(slice(first, first + size)) for first in range(0, members, size)]

    def _minibatch_step(self, step: int) -> None:
        images, targets = self._batches.at(step)
        activations = self._stack.net.forward(images.flatten(-3))
        self._update(self._stack, activations, self._delta(activations[-1], targets))

    def _full_batch_step(self, block: Stack) -> None:
        net = block.net
        activations = net.forward_on_span() if net.span else net.forward(self._x)
        self._update(block, activations, self._delta(activations[-1], self._batches.targets))

    def _update(self, block: Stack, activations: list[Tensor | None], delta: Tensor) -> None:
        held, net = block.net.trained, block.net
        if block.velocities:  # v ← μv + λθ + ∂L/∂θ, θ ← θ − ηv
            for i, left, right, multiplier in net.backward(activations, delta):
                velocity = block.velocities[i]
                velocity.mul_(block.momentum).addcmul_(held[i], block.l2)
                net.accumulate(velocity, left, right, multiplier)
                held[i].addcmul_(velocity, block.lr, value=-1.0)
            return
        # θ ← θ − ηλθ − η∂L/∂θ; δ comes multiplied by −η, so each gradient is accumulated by its own product
        for i, left, right, multiplier in net.backward(activations, delta.mul_(-block.lr)):
            held[i].addcmul_(held[i], block.shrink)
            net.accumulate(held[i], left, right, multiplier)
