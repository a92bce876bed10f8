"""The loop over one net: convolutional nets with SGD, augmentation, learning-rate schedules and AutoL2.

The same interface as the batched ensemble, so that a job treats both alike; batching several convolutional nets would
turn their convolutions into grouped ones, which are slow.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from l2dyn.augmentation import Augmentation
from l2dyn.auto_l2 import AutoL2
from l2dyn.data import Samples
from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.build import build_net
from l2dyn.runs.datasets import input_shape
from l2dyn.runs.plan import Task
from l2dyn.runs.records import COLUMNS
from l2dyn.training.finished import Finished
from l2dyn.training.inputs import Images, black, targets
from l2dyn.training.order import DataOrder
from l2dyn.training.precision import PARAMETER_DTYPES, PRODUCT_DTYPES

log = logging.getLogger(__name__)
STRETCH = 16  # steps between two looks at the clock
EVALUATED_AT_ONCE = {"cpu": 128, "cuda": 2048}  # samples: what a CPU's caches hold, what fills a GPU


class SingleNet:
    """SGD, with or without momentum, on one net.

    The penalty (λ/2)·‖θ‖² over all parameters lives in the optimizer's coupled weight_decay and nowhere else: the loss
    never holds it. Nothing waits for the device but evaluations, AutoL2's measurements and the order of a new epoch.
    """

    def __init__(self, tasks: list[Task], samples: Samples, device: str = "cpu"):
        (task,) = tasks
        spec = task.spec
        self.tasks, self.device = [task], device
        self.dtype = PARAMETER_DTYPES[spec.precision]
        self.step = 0
        self.rows: list[list[float]] = []
        self.wall_s = 0.0
        self._outputs = samples.outputs
        self._train, self._test = (
            (Images(samples.spec, images, self.dtype, device), targets(samples, labels, spec.loss, self.dtype, device))
            for images, labels in (
                (samples.train_images, samples.train_labels),
                (samples.test_images, samples.test_labels),
            )
        )
        shape = input_shape(samples.spec.name, samples.spec.pool)
        self.net = build_net(spec.model, shape, samples.outputs, spec.init_seed).to(device, self.dtype)
        self._train_net = torch.compile(self.net, dynamic=False) if device == "cuda" else self.net
        self.compile_s: float | None = None  # seconds of compiling it, which wall_s leaves out
        parameters = list(self.net.parameters())
        rates = {"lr": spec.lr, "momentum": spec.momentum, "weight_decay": spec.l2}
        self.optimizer = torch.optim.SGD(parameters, **rates, fused=True if device == "cuda" else None)
        _assert_one_penalty(self.optimizer, parameters, spec.l2)
        self.auto_l2 = None
        if spec.auto_l2 is not None:
            policy = spec.auto_l2
            self.auto_l2 = AutoL2(
                self.optimizer,
                init_l2=spec.l2,
                factor=policy.factor,
                cooldown=policy.cooldown,
                min_l2=policy.min_l2,
                trigger=policy.trigger,
            )
            self._interval = max(1, round(policy.interval * spec.steps_per_epoch))
        self.order = DataOrder([spec.order_seed], samples.spec.train, spec.batch, device)
        self.augment = Augmentation(spec.augmentation, spec.augmentation_seed, fill=black(samples.spec))
        self._measured = torch.zeros(2, dtype=torch.float64, device=device)  # loss and error summed over the interval
        self._grid = task.evaluations()

    def train(self, pause: Callable[["SingleNet"], bool] = lambda net: False) -> Iterator[Finished]:
        """As Ensemble.train: yield the run when it has finished or diverged; stop here when `pause` says so."""
        task = self.tasks[0]
        if self.step == 0 and not self.rows:
            self._evaluate()
        for upcoming in [step for step in self._grid if step > self.step]:
            while self.step < upcoming:
                started = time.monotonic()
                self.advance(min(upcoming - self.step, STRETCH))
                self.wall_s += time.monotonic() - started
                if self.step < upcoming and pause(self):
                    return
            started = time.monotonic()
            diverged = not self._evaluate()
            self.wall_s += time.monotonic() - started
            if diverged or self.step >= task.steps:
                status = "diverged" if diverged else "finished"
                self.tasks = []
                yield Finished.from_rows(task, status, self.step, self.rows, self.wall_s, self.state_dict())
                return
            if pause(self):
                return

    def state_dict(self) -> dict:
        """Everything needed to go on."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "auto_l2": self.auto_l2.state_dict() if self.auto_l2 else None,
            "measured": self._measured.cpu(),
            "rows": torch.tensor(self.rows, dtype=torch.float64),
            "wall_s": self.wall_s,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state of the same run."""
        self.step = state["step"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.auto_l2:
            self.auto_l2.load_state_dict(state["auto_l2"])
        self._measured.copy_(state["measured"])
        self.rows = state["rows"].tolist()
        self.wall_s = state["wall_s"]

    def load_members(self, step: int, states: list[dict], rows: list[dict[str, np.ndarray]]) -> None:
        """Go on from the final state and columns of a run that ended at `step`, to lengthen it."""
        (state,), (columns,) = states, rows
        self.load_state_dict(state)
        self.rows = np.column_stack([columns[name] for name in COLUMNS]).tolist()

    def advance(self, steps: int) -> None:
        """Take that many steps; on a GPU they may still be under way."""
        if self._train_net is not self.net and self.compile_s is None:
            self._compile()
        spec = self.tasks[0].spec
        images, labels = self._train
        self.net.train()
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = spec.lr_at(self.step)
            chosen = self.order.indices(self.step)
            chosen = slice(None) if chosen is None else chosen
            x, y = self.augment(_planes(images.take(chosen)), self._soft(labels[chosen]), self.step)
            outputs = self._outputs_of(self._train_net, x)
            loss = self._losses(outputs, y).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.step += 1
            if self.auto_l2:
                self._observe(outputs.detach(), y, loss.detach())

    def _outputs_of(self, net: nn.Module, x: Tensor) -> Tensor:
        """The net's outputs in the parameters' dtype; its products of bfloat16 copies where the precision says so."""
        product_dtype = PRODUCT_DTYPES.get(self.tasks[0].spec.precision)
        with torch.autocast(self.device, product_dtype, enabled=product_dtype is not None):
            return net(x).to(self.dtype)

    def _compile(self) -> None:
        """Compile the net for training by a step that changes nothing; without a compiler, train it as it is."""
        started = time.monotonic()
        x = _planes(self._train[0].take(slice(self.tasks[0].spec.batch or None)))
        kept = {name: buffer.clone() for name, buffer in self.net.named_buffers()}  # running statistics
        self.net.train()
        try:
            self._outputs_of(self._train_net, x).sum().backward()
        except Exception as error:  # whatever the compiler lacks, the run can do without
            log.warning("l2dyn: the net is not compiled: %s", " ".join(str(error).split())[:200])
            self._train_net = self.net
            return
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            for name, buffer in self.net.named_buffers():
                buffer.copy_(kept[name])
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.compile_s = time.monotonic() - started
        self.wall_s -= self.compile_s
        log.info("compiled in %.0f s", self.compile_s)

    def _observe(self, outputs: Tensor, y: Tensor, loss: Tensor) -> None:
        """Add to AutoL2's measurement, and hand it over at the end of each interval: the only wait for the device."""
        error = _wrong(outputs, y).to(torch.float64).mean()
        self._measured += torch.stack([loss.to(torch.float64), error])
        if self.step % self._interval == 0:
            mean_loss, mean_error = (self._measured / self._interval).tolist()
            self.auto_l2.step(mean_loss, mean_error)
            self._measured.zero_()

    def _soft(self, labels: Tensor) -> Tensor:
        """Class indices as rows of probabilities [n, classes]; targets of mse stay as they are."""
        return functional.one_hot(labels, self._outputs).to(self.dtype) if labels.dtype == torch.long else labels

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample [n], without the penalty."""
        if self.tasks[0].spec.loss == "cross_entropy":
            return functional.cross_entropy(outputs, y, reduction="none")
        return 0.5 * (outputs - y).square().sum(dim=1)

    @torch.no_grad()
    def measure(self) -> Tensor:
        """Training loss and error, test loss and error, and ‖θ‖ of the net as it is: [5] float64."""
        task = self.tasks[0]
        self.net.eval()
        with _normalizing_as_in_training(self.net, task.spec.batch or task.spec.data.train):
            train = self._measure_on(*self._train, limit=task.grid.train_samples or len(self._train[0]))
            test = self._measure_on(*self._test, limit=len(self._test[0]))
        square = sum(p.to(torch.float64).square().sum() for p in self.net.parameters())
        return torch.stack([*train, *test, square.sqrt()])

    def _evaluate(self) -> bool:
        """Measure the net and note a row; False when it has diverged (no row then)."""
        task = self.tasks[0]
        train_loss, train_error, test_loss, test_error, norm = self.measure().tolist()
        if not np.isfinite([train_loss, norm]).all():
            return False
        epoch = self.step / task.spec.steps_per_epoch
        l2 = self.auto_l2.get_last_l2() if self.auto_l2 else task.spec.l2
        values = (train_loss, train_error, test_loss, 1.0 - test_error, norm)
        self.rows.append([self.step, epoch, task.spec.lr_at(self.step), l2, *values])
        return True

    def _measure_on(self, images: Images, labels: Tensor, limit: int) -> Tensor:
        """(loss, error), means over the first `limit` samples, un-augmented.

        Samples are cut into nearly equal parts of as many as training normalizes together, and whole parts are
        evaluated at once, so that the result does not depend on how many.
        """
        spec = self.tasks[0].spec
        group, batch = getattr(spec.model, "norm_group", 0), spec.batch or spec.data.train
        size = group if 0 < group < batch else batch
        parts = torch.arange(limit, device=self.device).tensor_split(max(1, round(limit / size)))
        at_once = max(1, EVALUATED_AT_ONCE[self.device] // size)
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for first in range(0, len(parts), at_once):
            chosen = torch.cat(parts[first : first + at_once])
            y = self._soft(labels[chosen])
            outputs = self._outputs_of(self.net, _planes(images.take(chosen)))
            sums = (self._losses(outputs, y).to(torch.float64).sum(), _wrong(outputs, y).to(torch.float64).sum())
            total += torch.stack(sums)
        return total / limit


@contextmanager
def _normalizing_as_in_training(net: nn.Module, batch: int) -> Iterator[None]:
    """Batch statistics at test time over as many samples as in training, however many are evaluated at once."""
    whole = [m for m in net.modules() if isinstance(m, GroupedBatchNorm) and not 0 < m.group < batch]
    before = [m.group for m in whole]
    for module in whole:
        module.group = batch
    try:
        yield
    finally:
        for module, group in zip(whole, before, strict=True):
            module.group = group


def _wrong(outputs: Tensor, y: Tensor) -> Tensor:
    """Which samples [n] are misclassified: by the largest output, by the sign where there is one."""
    if y.shape[1] == 1:
        return (outputs.sign() != y.sign())[:, 0]
    return outputs.argmax(dim=1) != y.argmax(dim=1)


def _planes(images: Tensor) -> Tensor:
    """[n, height, width, channels] as [n, channels, height, width]: channels-last in memory without a copy."""
    return images.movedim(-1, -3)


def _assert_one_penalty(optimizer: torch.optim.Optimizer, parameters: list[Tensor], l2: float) -> None:
    """Every parameter is penalized, once: by the optimizer, with coupled weight decay (init2winit's rule)."""
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in parameters}), "a parameter escapes the penalty, or is penalized twice"
    assert all(group["weight_decay"] == l2 for group in optimizer.param_groups), "one λ for all parameters"
