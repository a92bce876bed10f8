"""The trainer of one net, whatever its module: any optimizer, augmentation, learning-rate schedules and AutoL2.

Convolutional nets train here one by one, because stacking several would turn their convolutions into grouped ones,
which are slow.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2dyn.data.augmentation import Augmentation
from l2dyn.data.samples import Samples
from l2dyn.errors import UserError
from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.build import build_net
from l2dyn.nets.module_ntk import module_ntk
from l2dyn.nets.ntk import norm_and_rotation
from l2dyn.optim.auto_l2 import AutoL2
from l2dyn.runs.plan import Task
from l2dyn.specs.base import imported
from l2dyn.specs.run import RunSpec
from l2dyn.training.inputs import Batches, Images, black, on_device
from l2dyn.training.loop import TrainingLoop
from l2dyn.training.micro_batches import parts_of
from l2dyn.training.order import DataOrder
from l2dyn.training.precision import PARAMETER_DTYPES, PRODUCT_DTYPES

log = logging.getLogger(__name__)
EVALUATED_AT_ONCE = {"cpu": 128, "cuda": 2048}  # samples: what a CPU's caches hold, what fills a GPU


class SingleTrainer(TrainingLoop):
    """The optimizer of the spec on one net: `tasks` is one task.

    The penalty (λ/2)·‖θ‖² over all parameters lives in the optimizer's coupled weight_decay and nowhere else: the loss
    never holds it. Nothing waits for the device but evaluations, AutoL2's measurements and the order of a new epoch.
    """

    stretch = 16

    def __init__(self, tasks: list[Task], samples: Samples, device: str = "cpu", micro_batch: int = 0):
        super().__init__(tasks)
        (task,) = tasks
        self.spec, self.grid, self.device = task.spec, task.grid, device
        spec = task.spec
        self.dtype = PARAMETER_DTYPES[spec.precision]
        self._train, self._test = on_device(samples, spec.loss, self.dtype, device)
        net = build_net(spec.net, samples.spec.image_shape, samples.spec.outputs, spec.init_seed)
        self.net = net.to(device, self.dtype)
        normalizes = any(isinstance(module, GroupedBatchNorm) for module in self.net.modules())
        self._together = spec.net.normalized_together(spec.samples_a_step) if normalizes else 1
        self.micro_batch = micro_batch
        self._evaluated_at_once = max(EVALUATED_AT_ONCE[device], spec.samples_a_step)
        self._train_net = torch.compile(self.net, dynamic=False) if device == "cuda" else self.net
        self.compile_s: float | None = None  # seconds of compiling it, which wall_s leaves out
        self.optimizer = _optimizer(spec, list(self.net.parameters()), device)
        self.auto_l2 = AutoL2(self.optimizer, init_l2=spec.l2, **spec.auto_l2.model_dump()) if spec.auto_l2 else None
        self._auto_l2_rule = spec.auto_l2.rule if spec.auto_l2 else None
        order = DataOrder([spec.order_seed], len(self._train[0]), spec.batch, device, spec.order_shards)
        self.batches = Batches(*self._train, order)
        fill = 0.0 if spec.data.scaling == "split" else black(samples.spec)
        self.augment = Augmentation(spec.augmentation, spec.augmentation_seed, fill=fill)
        self._first_kernel = (
            self._kernel() if spec.kernel_samples else None
        )  # of the drawn net, also if a state follows
        self._measured = torch.zeros(2, dtype=torch.float64, device=device)  # loss and error summed over the interval

    def prepare(self) -> bool:
        """See TrainingLoop: compile the net where it is compiled."""
        if self._train_net is self.net or self.compile_s is not None:
            return False
        self._compile()
        return True

    def advance(self, steps: int) -> None:
        """See Trainer."""
        self.prepare()
        self.net.train()
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.spec.lr_at(self.step)
            images, targets = self.batches.at(self.step)
            x, y = self.augment(_planes(images), self._soft(targets), self.step)
            outputs, loss = self._backward(x, y)
            if self._auto_l2_rule in ("no_better", "staircase"):
                self._observe(outputs, y, loss)
            self.optimizer.step()
            self.step += 1
            if self._auto_l2_rule == "risen":
                self._observe(outputs, y, loss)

    @torch.no_grad()
    def measure(self) -> Tensor:
        """See Trainer; the training columns are taken on the grid's train_subset."""
        self.net.eval()
        net, batch = self.spec.net, self.spec.samples_a_step
        subset = self.grid.train_subset or len(self._train[0])
        train_loss, train_error = self._measure_on(*self._train, subset, net.normalized_together(batch))
        test_loss, test_error = self._measure_on(*self._test, len(self._test[0]), net.tested_together(batch))
        square = sum(p.to(torch.float64).square().sum() for p in self.net.parameters())
        measures = [train_loss, train_error, test_loss, 1.0 - test_error, square.sqrt()]
        if self._first_kernel is not None:
            measures += norm_and_rotation(self._kernel(), self._first_kernel)
        return torch.stack(measures)[None]

    def _kernel(self) -> Tensor:
        """Θ on the first kernel_samples training samples, [kernel_samples, kernel_samples] float64."""
        x = _planes(self._train[0].take(slice(self.spec.kernel_samples)))
        return module_ntk(self.net, x).to(torch.float64)

    def rates(self) -> list[tuple[float, float]]:
        """See TrainingLoop; a measurement that AutoL2 takes before the next step may still lower λ."""
        return [(self.spec.lr_at(self.step), self.auto_l2.get_last_l2() if self.auto_l2 else self.spec.l2)]

    def keep(self, members: list[int]) -> None:
        """See TrainingLoop; the only member stays as it ended."""

    def tensors(self) -> dict:
        """See TrainingLoop."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "auto_l2": self.auto_l2.state_dict() if self.auto_l2 else None,
            "measured": self._measured.cpu(),
        }

    def load_tensors(self, state: dict) -> None:
        """See TrainingLoop."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.auto_l2:
            self.auto_l2.load_state_dict(state["auto_l2"])
        self._measured.copy_(state["measured"])

    def _outputs_of(self, net: nn.Module, x: Tensor) -> Tensor:
        """The net's outputs in the parameters' dtype; its products of bfloat16 copies where the precision says so."""
        product_dtype = PRODUCT_DTYPES.get(self.spec.precision)
        with torch.autocast(self.device, product_dtype, enabled=product_dtype is not None):
            return net(x).to(self.dtype)

    def _backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Leave the gradient of a batch's mean loss in the parameters; returns its outputs and that loss."""
        while True:
            parts = parts_of(len(x), self._together, self.micro_batch)
            self.optimizer.zero_grad(set_to_none=True)
            try:
                outputs, losses = zip(*(self._backward_part(x, y, part) for part in parts), strict=True)
                return torch.cat(outputs), torch.stack(losses).sum()
            except torch.OutOfMemoryError:
                pass  # its traceback holds the memory until here
            self._halve(parts[0].stop)

    def _backward_part(self, x: Tensor, y: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        outputs = self._outputs_of(self._train_net, x[part])
        losses = self._losses(outputs, y[part])
        loss = losses.mean() if len(losses) == len(x) else losses.sum() / len(x)
        loss.backward()
        return outputs.detach(), loss.detach()

    def _halve(self, size: int) -> None:
        """Take half as many samples at once from now on.

        Raises:
            UserError: where that would cut a batch-norm group.
        """
        if size < 2 * self._together or len(parts_of(self.spec.samples_a_step, self._together, size // 2)) == 1:
            raise UserError(f"run {self.spec.run_id}: {size} samples do not fit into memory and cannot be fewer")
        self.micro_batch = size // 2
        log.info("%d samples do not fit into memory; %d at once", size, self.micro_batch)
        self._free()

    def _free(self) -> None:
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _compile(self) -> None:
        """Compile the net for training by a step that changes nothing; without a compiler, train it as it is."""
        started = time.monotonic()
        x = _planes(self._train[0].take(slice(self.spec.batch or None)))
        self.net.train()
        try:
            self._backward(x, self._soft(self._train[1][: len(x)]))
        except UserError:
            raise
        except Exception as error:  # whatever the compiler lacks, the run can do without
            log.warning("l2dyn: the net is not compiled: %s", " ".join(str(error).split())[:200])
            self._train_net = self.net
            return
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.compile_s = time.monotonic() - started
        log.info("compiled in %.0f s", self.compile_s)

    def _observe(self, outputs: Tensor, y: Tensor, loss: Tensor) -> None:
        """AutoL2's measurement: of this minibatch before its step, or the means of an interval that ends with it.

        The only wait for the device.
        """
        interval, summed = self.spec.auto_l2.interval, self._auto_l2_rule == "risen"
        due = self.step % interval == 0
        if due or summed:
            self._measured += torch.stack([loss.to(torch.float64), _wrong(outputs, y).to(torch.float64).mean()])
        if due:
            self.auto_l2.step(*(self._measured / (interval if summed else 1)).tolist())
            self._measured.zero_()

    def _soft(self, labels: Tensor) -> Tensor:
        """Class indices as rows of probabilities [n, classes]; targets of half_mse stay as they are."""
        if labels.dtype != torch.long:
            return labels
        return functional.one_hot(labels, self.spec.data.outputs).to(self.dtype)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample [n], without the penalty."""
        if self.spec.loss == "cross_entropy":
            return functional.cross_entropy(outputs, y, reduction="none")
        return 0.5 * (outputs - y).square().sum(dim=1)

    def _measure_on(self, images: Images, labels: Tensor, limit: int, size: int) -> Tensor:
        """(loss, error), means over the first `limit` samples, un-augmented, `size` of them normalized together.

        Samples are cut into nearly equal parts of that many, and whole parts are evaluated at once, so that the result
        does not depend on how many: no more than micro_batch has, and fewer where they do not fit into memory.

        Raises:
            UserError: where not even one part fits.
        """
        while True:
            most = min(self._evaluated_at_once, self.micro_batch or limit)
            part = size if self._together > 1 else min(size, most)
            parts = torch.arange(limit, device=self.device).tensor_split(max(1, round(limit / part)))
            at_once = max(1, most // part)
            chosen = [torch.cat(parts[first : first + at_once]) for first in range(0, len(parts), at_once)]
            try:
                with _normalizing(self.net, size):
                    return sum(self._sums_of(images, labels, some) for some in chosen) / limit
            except torch.OutOfMemoryError:
                pass  # its traceback holds the memory until here
            if at_once == 1 and (self._together > 1 or part == 1):
                raise UserError(f"run {self.spec.run_id}: {part} samples do not fit into memory to be evaluated")
            self._evaluated_at_once = at_once * part // 2
            self._free()
            log.info("%d samples are evaluated at once from now on", self._evaluated_at_once)

    def _sums_of(self, images: Images, labels: Tensor, chosen: Tensor) -> Tensor:
        """(loss, error), sums over some samples."""
        y = self._soft(labels[chosen])
        outputs = self._outputs_of(self.net, _planes(images.take(chosen)))
        return torch.stack([one.to(torch.float64).sum() for one in (self._losses(outputs, y), _wrong(outputs, y))])


@contextmanager
def _normalizing(net: nn.Module, group: int) -> Iterator[None]:
    """Batch statistics over so many samples, however many are evaluated at once."""
    norms = [module for module in net.modules() if isinstance(module, GroupedBatchNorm)]
    before = [module.group for module in norms]
    for module in norms:
        module.group = group
    try:
        yield
    finally:
        for module, own in zip(norms, before, strict=True):
            module.group = own


def _optimizer(spec: RunSpec, parameters: list[Tensor], device: str) -> torch.optim.Optimizer:
    """The optimizer of a run on all of its parameters."""
    kind = imported(spec.optimizer.optimizer)
    fused = {"fused": True} if device == "cuda" and kind is torch.optim.SGD else {}  # others are as torch has them
    optimizer = kind(parameters, lr=spec.lr, weight_decay=spec.l2, **spec.optimizer.arguments(), **fused)
    _assert_one_penalty(optimizer, parameters, spec.l2)
    return optimizer


def _assert_one_penalty(optimizer: torch.optim.Optimizer, parameters: list[Tensor], l2: float) -> None:
    """Every parameter is penalized, once: by the optimizer, with coupled weight decay (init2winit's rule)."""
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in parameters}), "a parameter escapes the penalty, or is penalized twice"
    assert all(group["weight_decay"] == l2 for group in optimizer.param_groups), "one λ for all parameters"


def _wrong(outputs: Tensor, y: Tensor) -> Tensor:
    """Which samples [n] are misclassified: by the largest output, by the sign where there is one."""
    if y.shape[1] == 1:
        return (outputs.sign() != y.sign())[:, 0]
    return outputs.argmax(dim=1) != y.argmax(dim=1)


def _planes(images: Tensor) -> Tensor:
    """[n, height, width, channels] as [n, channels, height, width]: channels-last in memory without a copy."""
    return images.movedim(-1, -3)
