"""The batched ensemble: runs of one net and one data set, trained together as stacked `[E, …]` parameters.

A single run is an ensemble of one. Members have their own η, λ, seed and horizon; a member that has finished or
diverged leaves the batch, and its record does not depend on the company it trained in (beyond rounding).
"""

import bisect
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from l2dyn.data import Samples
from l2dyn.nets.fully_connected import (
    StackedFullyConnected,
    cross_entropy,
    cross_entropy_delta,
    half_mse,
    half_mse_delta,
)
from l2dyn.runs.datasets import input_shape
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.training.finished import Finished
from l2dyn.training.inputs import Images, targets
from l2dyn.training.order import DataOrder
from l2dyn.training.precision import PARAMETER_DTYPES

LOSSES = {"cross_entropy": (cross_entropy, cross_entropy_delta), "mse": (half_mse, half_mse_delta)}
CHUNK = 2048  # samples evaluated at once


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
        )
        self.velocities = [torch.zeros_like(p) for p in self.net.parameters] if self.with_momentum else []
        self.order = DataOrder([t.spec.order_seed for t in tasks], samples.spec.train, first.batch, device)
        self.lr = torch.tensor([t.spec.lr for t in tasks], device=device, dtype=self.dtype)[:, None, None]
        self.l2 = torch.tensor([t.spec.l2 for t in tasks], device=device, dtype=self.dtype)[:, None, None]
        self.rows: list[list[list[float]]] = [[] for _ in tasks]
        self.wall_s = [0.0] * len(tasks)
        self._plan_evaluations()

    def train(self, pause: Callable[["Ensemble"], bool] = lambda ensemble: False) -> Iterator[Finished]:
        """Train to every member's horizon, yielding members as they finish or diverge.

        pause: called between short stretches of steps; when it returns True, training stops here, to be resumed from
        `state_dict`. On a GPU nothing but evaluations waits for the device.
        """
        if self.step == 0 and not any(self.rows):
            yield from self._evaluate()
        while self.tasks:
            upcoming = self._grid[bisect.bisect_right(self._grid, self.step)]
            while self.step < upcoming:
                started = time.monotonic()
                self._advance(min(upcoming - self.step, 32))
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
        return {
            "step": self.step,
            "parameters": [p.cpu() for p in self.net.parameters],
            "velocities": [v.cpu() for v in self.velocities],
            "rows": [torch.tensor(rows, dtype=torch.float64) for rows in self.rows],
            "wall_s": list(self.wall_s),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state of an ensemble of the same members in the same order."""
        self.step = state["step"]
        self._put(self.net.parameters, state["parameters"])
        self._put(self.velocities, state["velocities"])
        self.rows = [rows.tolist() for rows in state["rows"]]
        self.wall_s = list(state["wall_s"])

    def load_members(self, step: int, states: list[dict[str, list[Tensor]]], rows: list[dict[str, np.ndarray]]) -> None:
        """Go on from the final states and columns of runs that all ended at `step`, to lengthen them."""
        self.step = step
        for key, held in (("parameters", self.net.parameters), ("velocities", self.velocities)):
            stacked = [torch.stack(parts) for parts in zip(*(s[key] for s in states), strict=True)]
            self._put(held, stacked)
        self.rows = [np.column_stack([r[name] for name in COLUMNS]).tolist() for r in rows]

    def _advance(self, steps: int) -> None:
        images, labels = self._train
        x, y = (images.take().flatten(-3), labels) if self.order.batch == 0 else (None, None)
        shrink = -self.lr * self.l2  # [E, 1, 1], the part of θ that the penalty takes in a step
        for _ in range(steps):
            chosen = self.order.indices(self.step)
            if chosen is not None:
                x, y = images.take(chosen).flatten(-3), labels[chosen]
            activations = self.net.forward(x)
            delta = self._delta(activations[-1], y)
            if self.with_momentum:
                self._momentum_update(activations, delta)
            else:
                self._plain_update(activations, delta.mul_(-self.lr), shrink)
            self.step += 1

    def _plain_update(self, activations: list[Tensor], delta: Tensor, shrink: Tensor) -> None:
        """θ ← θ − ηλθ − η∂L/∂θ; δ comes multiplied by −η, so each gradient is accumulated by its own product."""
        for layer, hidden, part, multiplier in self.net.backward(activations, delta):
            weight = self.net.weights[layer]
            weight.addcmul_(weight, shrink).baddbmm_(hidden, part, alpha=multiplier)
            if self.net.biases:
                bias = self.net.biases[layer]
                bias.addcmul_(bias, shrink).add_(part.sum(dim=1, keepdim=True))

    def _momentum_update(self, activations: list[Tensor], delta: Tensor) -> None:
        """V ← μv + λθ + ∂L/∂θ, θ ← θ − ηv."""
        layers = len(self.net.weights)
        for layer, hidden, part, multiplier in self.net.backward(activations, delta):
            velocity, weight = self.velocities[layer], self.net.weights[layer]
            velocity.mul_(self.momentum).addcmul_(weight, self.l2).baddbmm_(hidden, part, alpha=multiplier)
            weight.addcmul_(velocity, self.lr, value=-1.0)
            if self.net.biases:
                velocity, bias = self.velocities[layers + layer], self.net.biases[layer]
                velocity.mul_(self.momentum).addcmul_(bias, self.l2).add_(part.sum(dim=1, keepdim=True))
                bias.addcmul_(velocity, self.lr, value=-1.0)

    @torch.no_grad()
    def _evaluate(self) -> Iterator[Finished]:
        """Measure every member and let those go that have finished or diverged."""
        train_loss, train_error = self._measure_on(*self._train)
        test_loss, test_error = self._measure_on(*self._test)
        norms = self.net.norms()
        measured = torch.stack([train_loss, train_error, test_loss, 1.0 - test_error, norms]).T.cpu().tolist()
        leaving = []
        for member, (task, values) in enumerate(zip(self.tasks, measured, strict=True)):
            if self.step not in self._own_grids[member]:
                continue  # measured for others; its record must not depend on its company
            diverged = not np.isfinite([values[0], values[4]]).all()
            if not diverged:
                epoch = self.step / task.spec.steps_per_epoch
                self.rows[member].append([self.step, epoch, task.spec.lr, task.spec.l2, *values])
            if diverged or self.step >= task.steps:
                leaving.append((member, "diverged" if diverged else "finished"))
        for member, status in leaving:
            yield self._finished(member, status)
        if leaving:
            gone = {member for member, _ in leaving}
            self._keep([m for m in range(len(self.tasks)) if m not in gone])

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
            "parameters": [p[member].cpu().clone() for p in self.net.parameters],
            "velocities": [v[member].cpu().clone() for v in self.velocities],
        }
        return Finished.from_rows(self.tasks[member], status, self.step, self.rows[member], self.wall_s[member], state)

    def _keep(self, members: list[int]) -> None:
        index = torch.tensor(members, dtype=torch.long, device=self.device)
        self.net.keep(index)
        self.velocities = [v[index] for v in self.velocities]
        self.lr, self.l2, self.momentum = self.lr[index], self.l2[index], self.momentum[index]
        self.order.keep(members)
        self.tasks = [self.tasks[m] for m in members]
        self.rows = [self.rows[m] for m in members]
        self.wall_s = [self.wall_s[m] for m in members]
        self._plan_evaluations()

    def _plan_evaluations(self) -> None:
        self._own_grids = [set(task.evaluations()) for task in self.tasks]
        self._grid = sorted(set().union(*self._own_grids)) if self.tasks else []

    def _charge(self, seconds: float) -> None:
        share = seconds / max(1, len(self.tasks))
        self.wall_s = [spent + share for spent in self.wall_s]

    def _put(self, held: list[Tensor], values: list[Tensor]) -> None:
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)
