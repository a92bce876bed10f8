"""The batched ensemble: runs of one net and one data set, trained together as stacked `[E, …]` parameters.

A single run is an ensemble of one. Members have their own η, λ, seed and horizon; a member that has finished or
diverged leaves the batch, and its record does not depend on the company it trained in (beyond rounding).
"""

import bisect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from l2dyn.data import Samples
from l2dyn.nets.empirical_kernel import empirical_ntk
from l2dyn.nets.fully_connected import (
    StackedFullyConnected,
    cross_entropy,
    cross_entropy_delta,
    half_mse,
    half_mse_delta,
)
from l2dyn.runs.datasets import input_shape
from l2dyn.runs.plan import Task
from l2dyn.runs.records import columns_of
from l2dyn.training.captured_steps import CapturedSteps
from l2dyn.training.finished import Finished
from l2dyn.training.inputs import Images, targets
from l2dyn.training.order import DataOrder
from l2dyn.training.precision import PARAMETER_DTYPES, PRODUCT_DTYPES

LOSSES = {"cross_entropy": (cross_entropy, cross_entropy_delta), "mse": (half_mse, half_mse_delta)}
CHUNK = 2048  # samples evaluated at once
STRETCH = 32  # steps between two looks at the clock
BLOCK_BYTES = 2**19  # activations of one layer that a CPU core's cache holds beside the others
PENDING = 64  # evaluations that a GPU keeps before the host asks for them


@dataclass(frozen=True)
class _Block:
    """Views of some members' tensors, enough to train them."""

    net: StackedFullyConnected
    velocities: list[Tensor]
    lr: Tensor  # [E, 1, 1], as the others
    l2: Tensor
    momentum: Tensor
    shrink: Tensor


class Ensemble:
    """SGD, with or without momentum and L2 penalty, on stacked nets.

    One step of member e: g = ∂L/∂θ + λ_e θ, v ← μ v + g, θ ← θ − η_e v, over ALL parameters, biases included: PyTorch's
    SGD with coupled weight_decay. L is the loss without the penalty.
    """

    def __init__(self, tasks: list[Task], samples: Samples, device: str = "cpu"):
        first = tasks[0].spec
        self.tasks, self.device = list(tasks), device
        self.dtype = PARAMETER_DTYPES[first.precision]
        self.momentum = torch.tensor([t.spec.momentum for t in tasks], device=device, dtype=self.dtype)[:, None, None]
        self.with_momentum = first.momentum > 0
        self.step = 0
        self._measure, self._delta = LOSSES[first.loss]
        self._train, self._test = (
            (Images(samples.spec, images, self.dtype, device), targets(samples, labels, first.loss, self.dtype, device))
            for images, labels in (
                (samples.train_images, samples.train_labels),
                (samples.test_images, samples.test_labels),
            )
        )
        self.net = StackedFullyConnected.initialized(
            first.model,
            math.prod(input_shape(samples.spec.name, samples.spec.pool)),
            samples.outputs,
            [t.spec.init_seed for t in tasks],
            self.dtype,
            device,
            PRODUCT_DTYPES.get(first.precision),
        )
        self._x = self._train[0].take().flatten(-3) if first.batch == 0 else None
        # Two products with x cost more than one with its Gram matrix; rounded, that would be another kernel.
        if self._x is not None and len(self._x) < 2 * self._x.shape[1] and first.precision in ("float32", "float64"):
            self.net.hold_in_span(self._x)
        self.velocities = [torch.zeros_like(p) for p in self.net.trained] if self.with_momentum else []
        self.order = DataOrder([t.spec.order_seed for t in tasks], samples.spec.train, first.batch, device)
        self.lr = torch.tensor([t.spec.lr for t in tasks], device=device, dtype=self.dtype)[:, None, None]
        self.l2 = torch.tensor([t.spec.l2 for t in tasks], device=device, dtype=self.dtype)[:, None, None]
        self.shrink = -self.lr * self.l2  # the part of θ that the penalty takes in a step
        self.rows: list[list[list[float]]] = [[] for _ in tasks]
        self._pending: list[tuple[int, Tensor]] = []  # evaluations on the device: step, [E, measures]
        self._pending_limit = PENDING if device == "cuda" else 1
        self._captured: CapturedSteps | None = None
        self.wall_s = [0.0] * len(tasks)
        self._plan_evaluations()

    def train(self, pause: Callable[["Ensemble"], bool] = lambda ensemble: False) -> Iterator[Finished]:
        """Train to every member's horizon, yielding members as they finish or diverge.

        pause: called between short stretches of steps; when it returns True, training stops here, to be resumed from
        `state_dict`. On a GPU the host waits only for members that leave, and where it is far ahead.
        """
        if self.step == 0 and not any(self.rows):
            yield from self._evaluate()
        while self.tasks:
            upcoming = self._grid[bisect.bisect_right(self._grid, self.step)]
            while self.step < upcoming:
                started = time.monotonic()
                self.advance(min(upcoming - self.step, STRETCH))
                self._charge(time.monotonic() - started)
                if self.step < upcoming and pause(self):
                    return
            started = time.monotonic()
            leaving = list(self._evaluate())
            self._charge(time.monotonic() - started)
            yield from leaving
            if self.tasks and pause(self):
                return

    def state_dict(self) -> dict:
        """Everything needed to go on, as plain lists and tensors: see `load_state_dict`."""
        self._note_pending()
        return {
            "step": self.step,
            "parameters": [p.cpu() for p in self.net.trained],
            "velocities": [v.cpu() for v in self.velocities],
            "rows": [torch.tensor(rows, dtype=torch.float64) for rows in self.rows],
            "wall_s": list(self.wall_s),
            "diverged": dict(self._diverged),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state of an ensemble of the same members in the same order."""
        self.step = state["step"]
        self._put(self.net.trained, state["parameters"])
        self._put(self.velocities, state["velocities"])
        self.rows = [rows.tolist() for rows in state["rows"]]
        self.wall_s = list(state["wall_s"])
        self._diverged = dict(state["diverged"])

    def load_members(self, step: int, states: list[dict[str, list[Tensor]]], rows: list[dict[str, np.ndarray]]) -> None:
        """Go on from the final states and columns of runs that all ended at `step`, to lengthen them."""
        self.step = step
        for key, held in (("parameters", self.net.trained), ("velocities", self.velocities)):
            stacked = [torch.stack(parts) for parts in zip(*(s[key] for s in states), strict=True)]
            self._put(held, stacked)
        names = columns_of(self.tasks[0].spec)
        self.rows = [np.column_stack([r[name] for name in names]).tolist() for r in rows]

    def advance(self, steps: int) -> None:
        """Take that many steps; on a GPU they may still be under way."""
        if self.order.batch:
            self._minibatch_steps(steps)
        elif self.device == "cuda":
            if self._captured is None:
                whole = self._block(slice(None))
                self._captured = CapturedSteps(lambda: self._full_batch_step(whole), self.device)
            self._captured.advance(steps)
        else:
            for block in self._blocks():
                for _ in range(steps):
                    self._full_batch_step(block)
        self.step += steps

    def _minibatch_steps(self, steps: int) -> None:
        images, labels = self._train
        block = self._block(slice(None))
        for step in range(self.step, self.step + steps):
            chosen = self.order.indices(step)
            activations = self.net.forward(images.take(chosen).flatten(-3))
            self._update(block, activations, self._delta(activations[-1], labels[chosen]))

    def _full_batch_step(self, block: "_Block") -> None:
        net = block.net
        activations = net.forward_on_span() if net.span else net.forward(self._x)
        self._update(block, activations, self._delta(activations[-1], self._train[1]))

    def _update(self, block: "_Block", activations: list[Tensor | None], delta: Tensor) -> None:
        held, net = block.net.trained, block.net
        if self.with_momentum:  # V ← μv + λθ + ∂L/∂θ, θ ← θ − ηv
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

    def _blocks(self) -> list["_Block"]:
        """The members in groups whose activations a CPU's cache holds, each trained for a stretch at a time."""
        one = self._train[1].shape[0] * max(w.shape[2] for w in self.net.weights) * self.dtype.itemsize
        size = max(1, BLOCK_BYTES // one)
        return [self._block(slice(first, first + size)) for first in range(0, len(self.tasks), size)]

    def _block(self, members: slice) -> "_Block":
        velocities = [v[members] for v in self.velocities]
        rates = (tensor[members] for tensor in (self.lr, self.l2, self.momentum, self.shrink))
        return _Block(self.net.members(members), velocities, *rates)

    @torch.no_grad()
    def measure(self) -> Tensor:
        """Training loss and error, test loss and accuracy, and ‖θ‖ of each member as it is: [E, 5] float64.

        With kernel_samples ‖Θ‖ is a sixth.
        """
        self.net.materialize()
        train_loss, train_error = self._measure_on(*self._train)
        test_loss, test_error = self._measure_on(*self._test)
        measures = [train_loss, train_error, test_loss, 1.0 - test_error, self.net.norms()]
        if count := self.tasks[0].spec.kernel_samples:
            kernel = empirical_ntk(self.net, self._train[0].take(slice(count)).flatten(-3))
            measures.append(kernel.to(torch.float64).norm(dim=(1, 2)))
        return torch.stack(measures, dim=1)

    def _evaluate(self) -> Iterator[Finished]:
        """Measure every member and let those go that have finished or diverged."""
        self._pending.append((self.step, self.measure()))
        ends = any(self.step >= task.steps for task in self.tasks)
        if not ends and len(self._pending) < self._pending_limit:
            return
        self._note_pending()
        statuses = {}
        for member, task in enumerate(self.tasks):
            if member in self._diverged or self.step >= task.steps:
                statuses[member] = "diverged" if member in self._diverged else "finished"
        for member, status in statuses.items():
            yield self._finished(member, status)
        if statuses:
            self._keep([m for m in range(len(self.tasks)) if m not in statuses])

    def _note_pending(self) -> None:
        """Bring the evaluations made since the last call to the host, as rows; a diverged member gets no more."""
        if not self._pending:
            return
        steps, measured = zip(*self._pending, strict=True)
        self._pending = []
        for step, table in zip(steps, torch.stack(measured).cpu().tolist(), strict=True):
            for member, (task, values) in enumerate(zip(self.tasks, table, strict=True)):
                if member in self._diverged or step not in self._own_grids[member]:
                    continue  # measured for others; its record must not depend on its company
                if not np.isfinite([values[0], values[4]]).all():
                    self._diverged[member] = step
                    continue
                self.rows[member].append([step, step / task.spec.steps_per_epoch, task.spec.lr, task.spec.l2, *values])

    def _measure_on(self, x: Images, y: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, error) of each member, [E] float64."""
        loss = torch.zeros(len(self.tasks), dtype=torch.float64, device=self.device)
        error = torch.zeros_like(loss)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            outputs = self.net.forward(x.take(part).flatten(-3))[-1].to(torch.float64)
            part_loss, part_error = self._measure(outputs, y[part])
            loss += part_loss * outputs.shape[1]
            error += part_error * outputs.shape[1]
        return loss / len(x), error / len(x)

    def _finished(self, member: int, status: str) -> Finished:
        state = {
            "parameters": [p[member].cpu().clone() for p in self.net.trained],
            "velocities": [v[member].cpu().clone() for v in self.velocities],
        }
        steps = self._diverged.get(member, self.step)
        return Finished.from_rows(self.tasks[member], status, steps, self.rows[member], self.wall_s[member], state)

    def _keep(self, members: list[int]) -> None:
        index = torch.tensor(members, dtype=torch.long, device=self.device)
        self.net = self.net.members(index)
        self.velocities = [v[index] for v in self.velocities]
        self.lr, self.l2, self.momentum = self.lr[index], self.l2[index], self.momentum[index]
        self.shrink = self.shrink[index]
        self._captured = None  # its graphs hold the old tensors
        self.order.keep(members)
        self.tasks = [self.tasks[m] for m in members]
        self.rows = [self.rows[m] for m in members]
        self.wall_s = [self.wall_s[m] for m in members]
        self._plan_evaluations()

    def _plan_evaluations(self) -> None:
        self._own_grids = [set(task.evaluations()) for task in self.tasks]
        self._grid = sorted(set().union(*self._own_grids)) if self.tasks else []
        self._diverged: dict[int, int] = {}  # member: the step at which it was found

    def _charge(self, seconds: float) -> None:
        share = seconds / max(1, len(self.tasks))
        self.wall_s = [spent + share for spent in self.wall_s]

    def _put(self, held: list[Tensor], values: list[Tensor]) -> None:
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)
