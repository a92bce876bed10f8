"""measure_c, the coefficient c = λ·t* of a practitioner's own training (section 3 of the paper)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from l2dyn.arguments import below_one, number, positive, shown
from l2dyn.measures.coefficient import WINDOW, Coefficient, coefficient, running_mean
from l2dyn.measures.peaks import TOLERANCE, peak, time_to_peak
from l2dyn.optim.weight_decay import GroupedWeightDecay, check_optimizer, damped_lr, set_weight_decay

_CONSTANT = ("weight_decay", "lr", "momentum", "dampening")


class NoPeak(ValueError):
    """No peak was seen.

    Attributes:
        t: epochs [n], as far as it was measured.
        values: test accuracy [n] or test loss [n].
    """

    def __init__(self, reason: str, t: list[float], values: list[float]):
        super().__init__(reason)
        self.t, self.values = np.array(t), np.array(values)


@dataclass(frozen=True, eq=False)
class MeasuredC(Coefficient):
    """A Coefficient, its uncertainty being low and high, with the curve that it was read off.

    Attributes:
        t: epochs [n].
        values: test accuracy [n] or test loss [n].
        l2: the λ of the measurement.
        of: "test accuracy" or "test loss".
    """

    t: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0), repr=False)
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0), repr=False)
    l2: float = math.nan
    of: str = "test accuracy"

    def plot(self, ax=None):
        """Draw the curve against t·λ with both readings of c and their bounds (figure 4a). Needs matplotlib.

        Args:
            ax: where to draw; a new figure's where there is none.

        Returns:
            matplotlib's Axes.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().add_subplot()
        ax.plot(self.t * self.l2, self.values, ".-", color="0.4")
        for name, color in (("argmax", "C0"), ("within", "C1")):
            value, low, high = (getattr(self, f"c_{name}{end}") for end in ("", "_low", "_high"))
            ax.axvspan(low, high, color=color, alpha=0.15, linewidth=0)
            ax.axvline(value, color=color, label=f"c_{name} = {value:.3g} ({low:.2g} to {high:.2g})")
        ax.set_xlabel(f"epochs × λ (λ = {self.l2:g})")
        ax.set_ylabel(self.of)
        ax.legend()
        return ax


def measure_c(
    optimizer: torch.optim.Optimizer,
    train: Callable[[int], object],
    test_accuracy: Callable[[], float | Tensor] | None = None,
    *,
    test_loss: Callable[[], float | Tensor] | None = None,
    steps_per_epoch: float,
    l2: float = 0.01,
    interval: float = 0.04,
    max_epochs: float = 10.0,
    tolerance: float = TOLERANCE,
    chance: float = 0.1,
    window: int = WINDOW,
) -> MeasuredC:
    """Measure c = λ·t* in your own training loop: train with a large λ until test accuracy has peaked.

    This is section 3 of arXiv 2006.08643, figure 4a, where a WRN-28-10 with λ = 0.01 gives c ≈ 0.0066 within 2 epochs:
    in the authors' units, which are a weight_decay of 0.2 and c ≈ 0.13 in PyTorch's, as here. From c follows
    the λ to train with, `predict_l2(c.c_argmax, budget=200)`; c and the budget are in epochs.

    Hand over a freshly initialized net's optimizer at the constant learning rate (the initial one of a schedule, which
    must not be stepped meanwhile). The net comes back trained at l2 and is of no further use; every group's
    weight_decay comes back as it was, also after an error; meanwhile a group at 0 stays there and others keep their
    ratios, as AutoL2 has it. Test accuracy is taken at t = 0 and after every interval. A task without an accuracy gives
    test_loss, which is to fall: its fall so far, as a fraction of the largest one, then stands for the accuracy.

    When it stops: the peak must be over as l2dyn.measures.peaks.peak decides (test accuracy
    has come down visibly, or half of the time so far shows much the same t*), and the highest point of the
    running mean, which is c_argmax, must lie in the first half of the evaluations and at least 2·window of them back,
    lest a dip early in training pass for the end. Otherwise it stops at max_epochs and raises NoPeak, with the curve; a
    larger l2 brings the peak nearer. Expect it near (1−μ)/(η·S·l2) epochs (η learning rate, S steps
    per epoch, μ momentum; η·(1−d) for η where SGD has a dampening d), where C is 1; a C far below 1 from SGD says that
    an early dip was taken for the end: try a longer interval.

    Args:
        optimizer: of any kind that AutoL2 takes, with one learning rate, momentum and dampening in all groups. Adam and
            AdamW will do, but their C means nothing, and whether the law holds for decoupled decay is another question.
            A weight_decay that is a Tensor is filled in place; one that is a plain number must not have been frozen
            into a captured CUDA graph.
        train: train(steps) takes that many optimizer steps; it is called again and again and goes on where it left off.
        test_accuracy: test_accuracy() returns a fraction, as a number or a Tensor of one element. It is called often,
            so some thousand test samples may have to do.
        test_loss: the same for a loss, in place of test_accuracy.
        steps_per_epoch: optimizer steps in an epoch, which need not be whole.
        l2: the large λ, a weight_decay (paper: 0.2, or 0.01 in the authors' units with 10 classes; ours: 0.01).
        interval: epochs between evaluations, rounded to whole steps, one at least (ours: 0.04).
        max_epochs: where to give up (paper: 2; ours: 10).
        tolerance: of c_within and of the stopping rule, as a fraction (paper: 0.005).
        chance: the test accuracy of guessing (0.1: ten classes).
        window: how many evaluations the running mean spans; odd.

    Returns:
        A `MeasuredC`: a `Coefficient`, see there, with its curve and a `plot()`.

    Raises:
        NoPeak: a ValueError, where the peak is not over by max_epochs, test accuracy has not beaten chance by 10 points
            (test loss has not fallen), or it was best before the first step, as where chance is wrong or the net comes
            trained.
        ValueError: naming the argument, for values out of range, for an optimizer as AutoL2 does or whose groups differ
            in learning rate or momentum, where learning rate, momentum or weight_decay changes during training, where
            test_accuracy returns no fraction, and where training diverges (a parameter that is no longer finite would
            otherwise look like a peak that is over): take a smaller learning rate or l2.

    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(1500, 10)
    >>> y = (x[:, 0] > 0).long()
    >>> net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> def endless(loader):
    ...     while True:
    ...         yield from loader
    >>> data = torch.utils.data.TensorDataset(x[:500], y[:500])
    >>> batches = endless(torch.utils.data.DataLoader(data, batch_size=250, shuffle=True))
    >>> def train(steps):
    ...     for _ in range(steps):
    ...         images, labels = next(batches)
    ...         optimizer.zero_grad()
    ...         nn.functional.cross_entropy(net(images), labels).backward()
    ...         optimizer.step()
    >>> def test_accuracy():
    ...     with torch.no_grad():
    ...         return (net(x[500:]).argmax(1) == y[500:]).float().mean()
    >>> settings = {"l2": 0.1, "interval": 1, "max_epochs": 100, "chance": 0.5}  # for a task that is so small
    >>> c = measure_c(optimizer, train, test_accuracy, steps_per_epoch=2, **settings)
    >>> 0.3 < c.C_argmax < 10, len(c.t) == len(c.values)
    (True, True)
    >>> from l2dyn import predict_l2
    >>> 0 < predict_l2(c.c_argmax, budget=200) < 0.1
    True
    """
    check_optimizer(optimizer)
    if (test_accuracy is None) == (test_loss is None):
        raise ValueError("give one of test_accuracy and test_loss")
    of, test = ("test_accuracy", test_accuracy) if test_loss is None else ("test_loss", test_loss)
    for name, function in (("train", train), (of, test)):
        if not callable(function):
            raise ValueError(f"{name} must be a function, got {type(function).__name__}")
    steps_per_epoch, interval = positive("steps_per_epoch", steps_per_epoch), positive("interval", interval)
    max_epochs, l2, chance = positive("max_epochs", max_epochs), positive("l2", l2), below_one("chance", chance)
    steps = max(round(interval * steps_per_epoch), 1)
    intervals = math.floor(max_epochs * steps_per_epoch / steps + 1e-9)  # 0.29 · 100 falls short of 29
    if intervals < 1:
        raise ValueError(f"max_epochs must span an interval of {steps / steps_per_epoch:g} epochs, got {max_epochs}")
    score = np.asarray if test_loss is None else _fallen
    chance = chance if test_loss is None else 0.0
    read = functools.partial(
        coefficient,
        l2=l2,
        lr=damped_lr({name: _shared(optimizer, name) for name in _CONSTANT[1:]}),
        steps_per_epoch=steps_per_epoch,
        momentum=_shared(optimizer, "momentum"),
        tolerance=tolerance,
        chance=chance,
        window=window,
    )
    read([0.0], [0.0])  # so that a bad argument is told before the training, not after it
    former = [group["weight_decay"] for group in optimizer.param_groups]
    former = [float(value) if isinstance(value, Tensor) else value for value in former]  # a Tensor will be filled
    try:
        GroupedWeightDecay(optimizer).set(l2)
        settings = _settings(optimizer)
        t, values = [0.0], [_measured(of, test(), 0.0)]
        for k in range(1, intervals + 1):
            train(steps)
            t.append(k * steps / steps_per_epoch)
            _check_training(optimizer, settings, t[-1])
            values.append(_measured(of, test(), t[-1]))
            if _is_over(t, score(values), tolerance, chance, window):
                break
    finally:
        for group, value in zip(optimizer.param_groups, former, strict=False):  # train may have added groups
            set_weight_decay(group, value)
    found = read(t, score(values))
    if found is None or found.censored or 0 in (found.c_argmax, found.c_within):
        raise NoPeak(_why_not(found, of, t, values, chance), t, values)
    curve = {"t": np.array(t), "values": np.array(values), "l2": float(l2), "of": of.replace("_", " ")}
    return MeasuredC(**dataclasses.asdict(found), **curve)


def _fallen(loss) -> np.ndarray:
    """How far a loss has fallen from its first value, as a fraction of its largest fall; 0 where it has not."""
    loss = np.asarray(loss, dtype=float)
    largest = loss[0] - loss.min()
    return np.clip((loss[0] - loss) / largest, 0.0, 1.0) if largest > 0 else np.zeros(len(loss))


def _why_not(found: Coefficient | None, of: str, t: list[float], values: list[float], chance: float) -> str:
    if found is None and of == "test_loss":
        return f"no peak: test_loss has not fallen below its first value, {values[0]:g}, within {t[-1]:g} epochs"
    if found is None:
        return f"no peak: test_accuracy has come to {max(values):g} within {t[-1]:g} epochs, chance being {chance:g}"
    if 0 in (found.c_argmax, found.c_within):
        why = f"{of} was best, or within the tolerance of it, before the first step: {values[0]:g}"
        return f"no peak: {why}; is chance={chance:g} right, and was the net untrained?"
    return f"no peak within {t[-1]:g} epochs: {of} may still get better; take a larger l2 or max_epochs"


def _is_over(t: list[float], accuracy, tolerance: float, chance: float, window: int) -> bool:
    run = peak(t, accuracy, horizon=t[-1], chance=chance, tolerance=tolerance)
    if run is None or run.censored:
        return False
    highest = time_to_peak(range(len(accuracy)), running_mean(accuracy, window), 0.0)  # counted in evaluations
    return len(accuracy) - 1 - highest >= max(highest, 2 * window)


def _check_training(optimizer, settings: dict[str, list[float]], epoch: float) -> None:
    for name, values in _settings(optimizer).items():
        if values != settings[name]:
            raise ValueError(
                f"{name} must stay constant while c is measured, but at epoch {epoch:g} it is {values} "
                f"instead of {settings[name]}"
            )
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    if not all(bool(parameter.detach().isfinite().all()) for parameter in parameters):
        raise ValueError(
            f"training diverged: a parameter is not finite at epoch {epoch:g}; take a smaller learning rate or l2"
        )


def _settings(optimizer) -> dict[str, list[float]]:
    return {name: [number(name, group.get(name, 0.0)) for group in optimizer.param_groups] for name in _CONSTANT}


def _shared(optimizer, name: str) -> float:
    values = _settings(optimizer)[name]
    if any(not math.isclose(value, values[0], rel_tol=1e-6) for value in values):  # 0.2 as a float32 Tensor is 0.2
        raise ValueError(f"{name} must be the same in all param groups of the optimizer, got {values}")
    return values[0]


def _measured(name: str, value: float | Tensor, epoch: float) -> float:
    try:
        value = number(name, value)
    except ValueError:
        got = f"{shown(value)} ({type(value).__name__})"
        raise ValueError(f"{name} must return a number or a Tensor of one element, got {got}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value} at epoch {epoch:g}; take a smaller learning rate or l2")
    if name == "test_accuracy" and not 0 <= value <= 1:
        raise ValueError(f"{name} must return a fraction between 0 and 1, got {value} at epoch {epoch:g}")
    return value
