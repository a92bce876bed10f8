"""measure_c: on scripted curves whose c is known by hand, against a stopping rule told anew, and in real training."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import l2dyn
from l2dyn.measures.coefficient import Coefficient, coefficient
from l2dyn.measures.peaks import peak
from l2dyn.optim.auto_l2 import AutoL2
from l2dyn.optim.measure_c import NoPeak, measure_c


def make_optimizer(kind=torch.optim.SGD, **settings):
    return kind([nn.Parameter(torch.ones(2))], **{"lr": 0.2, "momentum": 0.9, "weight_decay": 0.7} | settings)


class Scripted:
    """A training whose test accuracy is a function of the steps taken; `each` runs at every call of train."""

    def __init__(self, accuracy, optimizer=None, each=lambda: None):
        self.accuracy, self.each = accuracy, each
        self.optimizer = optimizer or make_optimizer()
        self.calls, self.evaluated, self.steps = [], [], 0

    def train(self, steps):
        groups = self.optimizer.param_groups
        self.calls.append((steps, [float(group["weight_decay"]) for group in groups]))
        self.steps += steps
        self.each()

    def test_accuracy(self):
        self.evaluated.append(self.steps)
        return self.accuracy(self.steps)

    def measure(self, **settings):
        settings = {"steps_per_epoch": 10, "interval": 0.1, "max_epochs": 20} | settings
        return measure_c(self.optimizer, self.train, self.test_accuracy, **settings)


def without_curve(c):
    """What measure_c found, as the Coefficient that `coefficient` reads off a curve."""
    return Coefficient(**{field.name: getattr(c, field.name) for field in dataclasses.fields(Coefficient)})


def tent(peak, height=0.8, slope=0.02):
    """Accuracy that rises in a straight line until step `peak` and falls likewise: its running mean peaks there too."""
    return lambda step: max(height - slope * abs(step - peak), 0.1)


def test_is_exported():
    assert l2dyn.measure_c is measure_c


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_c_of_a_tent(window, momentum):
    run = Scripted(tent(12), make_optimizer(momentum=momentum))
    c = run.measure(l2=0.03, window=window)
    assert run.evaluated == list(range(25))  # the peak at step 12 lies in the first half from step 24 on
    assert c.c_argmax == c.c_within == pytest.approx(0.03 * 1.2)
    assert (c.c_argmax_low, c.c_argmax_high) == pytest.approx((0.03 * 1.1, 0.03 * 1.3))
    assert c.C_argmax == pytest.approx(0.2 * 10 * 0.036 / (1 - momentum))
    assert not c.censored
    assert c.seeds == 1


def test_the_numbers_of_the_paper():
    """WRN-28-10 at batch 1024: the peak at 0.66 epochs is seen within 2, and gives c ≈ 0.0066 and C ≈ 0.64."""
    run = Scripted(tent(32, slope=0.01))
    c = run.measure(steps_per_epoch=48.8, interval=0.04)
    assert {steps for steps, _ in run.calls} == {2}
    assert run.steps == 64 < 2 * 48.8
    assert c.c_argmax == pytest.approx(0.0066, rel=0.01)
    assert c.C_argmax == pytest.approx(0.64, rel=0.01)


@pytest.mark.parametrize(("window", "stop"), [(1, 6), (3, 9), (5, 13)])
def test_an_early_peak_is_watched_for_two_windows(window, stop):
    run = Scripted(tent(3))
    run.measure(window=window)
    assert run.steps == stop


def test_an_early_dip_is_not_the_end():
    def accuracy(step):
        return {1: 0.5, 2: 0.1, 3: 0.1, 4: 0.1}.get(step, tent(20)(step))

    run = Scripted(accuracy)
    assert run.measure().c_argmax == pytest.approx(0.01 * 2.0)
    assert run.steps == 40


def test_t_star_in_the_first_half_does_not_suffice():
    run = Scripted(lambda step: 0.1 + 0.12 * min(step, 5) + 0.0001 * min(step, 40))  # 0.7 at once, 0.7035 in time
    c = run.measure(window=1)
    assert run.steps == 80
    assert c.c_within == pytest.approx(0.01 * 0.5)
    assert c.c_argmax == pytest.approx(0.01 * 4)


def test_a_curve_that_rises_until_max_epochs_has_no_peak_but_is_handed_over():
    run = Scripted(lambda step: 0.1 + 0.005 * step)
    with pytest.raises(NoPeak, match=r"within 3 epochs.*larger l2 or max_epochs") as refusal:
        run.measure(max_epochs=3)
    assert run.steps == 30
    np.testing.assert_allclose(refusal.value.t, np.arange(31) / 10)
    np.testing.assert_allclose(refusal.value.values, 0.1 + 0.005 * np.arange(31))


def test_no_peak_where_chance_is_never_beaten_by_10_points():
    run = Scripted(tent(5, height=0.59))
    with pytest.raises(NoPeak, match=r"come to 0.59 .* chance being 0.5"):
        run.measure(chance=0.5, max_epochs=3)
    assert run.steps == 30
    assert Scripted(tent(5, height=0.61)).measure(chance=0.5, max_epochs=3).c_argmax > 0


@pytest.mark.parametrize(
    "accuracy",
    [
        lambda step: 0.5,  # two classes, and the net never learns
        lambda step: 0.9 - 0.01 * step,  # the net comes trained
        lambda step: 0.897 + 0.003 * (step == 4) - 0.01 * max(step - 4, 0),  # so it does, to within the tolerance
    ],
)
def test_no_peak_where_test_accuracy_was_best_before_the_first_step(accuracy):
    run = Scripted(accuracy)
    with pytest.raises(NoPeak, match=r"before the first step.* is chance=0\.1 right") as refusal:
        run.measure(max_epochs=3)
    assert refusal.value.values[:2].tolist() == [accuracy(0), accuracy(1)]


@pytest.mark.parametrize("dampening", [0.0, 0.5, 0.9])
def test_dampening_takes_its_part_of_the_constant(dampening):
    c = Scripted(tent(12), make_optimizer(dampening=dampening)).measure(l2=0.03)
    assert c.C_argmax == pytest.approx(0.2 * (1 - dampening) * 10 * 0.036 / 0.1)
    plain = Scripted(tent(12), make_optimizer(momentum=0.0, dampening=dampening)).measure(l2=0.03)
    assert plain.C_argmax == pytest.approx(0.2 * 10 * 0.036)  # SGD makes no use of it without momentum


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_a_loss_that_falls_and_rises_gives_the_c_of_its_lowest_point(scale):
    """No accuracy is needed: the tent upside down, in whatever unit a loss has."""
    upright, run = Scripted(tent(12)), Scripted(lambda step: scale * (3 - tent(12)(step)))
    by_accuracy = upright.measure(l2=0.03)
    by_loss = measure_c(
        run.optimizer, run.train, test_loss=run.test_accuracy, steps_per_epoch=10, interval=0.1, max_epochs=20, l2=0.03
    )
    assert by_loss.of == "test loss"
    assert by_loss.c_argmax == by_accuracy.c_argmax
    assert by_loss.values[12] == pytest.approx(scale * 2.2)


def test_a_loss_that_never_falls_has_no_peak():
    run = Scripted(lambda step: 1 + 0.1 * step)
    with pytest.raises(NoPeak, match="test_loss has not fallen"):
        measure_c(run.optimizer, run.train, test_loss=run.test_accuracy, steps_per_epoch=10, interval=0.1, max_epochs=2)


def test_the_curve_comes_with_c_and_can_be_drawn():
    import matplotlib

    matplotlib.use("agg")
    run = Scripted(tent(12))
    c = run.measure(l2=0.03)
    np.testing.assert_allclose(c.t, np.arange(25) / 10)
    np.testing.assert_allclose(c.values, [tent(12)(step) for step in range(25)])
    ax = c.plot()
    curve = ax.get_lines()[0]
    np.testing.assert_allclose(curve.get_xdata()[curve.get_ydata().argmax()], c.c_argmax)
    assert "0.03" in ax.get_xlabel()
    assert c.plot(ax) is ax


def test_a_group_that_is_exempt_stays_exempt():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [a], "weight_decay": 0.2}, {"params": [b], "weight_decay": 0.0}], lr=0.1)
    seen = []
    run = Scripted(tent(12), optimizer)
    train = run.train
    run.train = lambda steps: (seen.append([g["weight_decay"] for g in optimizer.param_groups]), train(steps))
    run.measure(l2=0.03)
    assert {tuple(one) for one in seen} == {(0.03, 0.0)}
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0.0]


@pytest.mark.parametrize(
    ("steps_per_epoch", "interval", "max_epochs", "calls"),
    [
        (100, 0.1, 0.39, [10, 10, 10]),
        (100, 0.01, 0.29, [1] * 29),  # 0.29 · 100 is a little less than 29 in binary
        (7.5, 0.04, 0.4, [1, 1, 1]),
        (48.8, 0.04, 0.1, [2, 2]),
        (0.5, 2, 4, [1, 1]),
    ],
)
def test_the_interval_in_whole_steps(steps_per_epoch, interval, max_epochs, calls):
    run = Scripted(lambda step: 0.3 + 0.001 * step)
    with pytest.raises(NoPeak) as rising:
        run.measure(steps_per_epoch=steps_per_epoch, interval=interval, max_epochs=max_epochs, window=1, tolerance=0)
    assert [steps for steps, _ in run.calls] == calls
    assert rising.value.t[-1] == pytest.approx(sum(calls) / steps_per_epoch)


def stopping_evaluation(curve, window, tolerance, chance):
    """The rule told anew: the last evaluation, counted from 0, or None where it goes on; `peak` is tested elsewhere."""
    for now in range(1, len(curve)):
        seen = curve[: now + 1]
        best = max(seen)
        if best < chance + Fraction(1, 10):
            continue
        half = (window - 1) // 2
        means = []
        for i in range(now + 1):
            h = min(half, i, now - i)
            means.append(sum(seen[i - h : i + h + 1]) / (2 * h + 1))
        top = means.index(max(means))
        over = not peak(range(now + 1), list(map(float, seen)), now, float(chance), float(tolerance)).censored
        if over and 2 * top <= now and now - top >= 2 * window:
            return now
    return None


@given(
    thousandths=st.lists(st.integers(190, 230), min_size=2, max_size=40),
    window=st.sampled_from([1, 3, 5]),
    tolerance=st.sampled_from([0, 5, 20]),
)
def test_stops_where_the_rule_says_and_reads_c_off_the_curve(thousandths, window, tolerance):
    curve = [Fraction(a, 1000) for a in thousandths]
    stop = stopping_evaluation(curve, window, Fraction(tolerance, 1000), Fraction(1, 10))
    run = Scripted(lambda step: thousandths[step // 3] / 1000)
    last = len(curve) - 1
    try:
        c = without_curve(run.measure(interval=0.3, max_epochs=0.3 * last, window=window, tolerance=tolerance / 1000))
    except NoPeak:
        c = None
    assert run.evaluated == [3 * k for k in range((last if stop is None else stop) + 1)]
    t, accuracy = [s / 10 for s in run.evaluated], [run.accuracy(s) for s in run.evaluated]
    read = coefficient(t, accuracy, 0.01, 0.2, 10, momentum=0.9, tolerance=tolerance / 1000, window=window)
    refused = read is None or read.censored or 0 in (read.c_argmax, read.c_within)
    assert c == (None if refused else read)
    assert stop is None or c is not None or 0 in (read.c_argmax, read.c_within)


# real training


@pytest.mark.parametrize("tensors", [False, True])
def test_a_small_net_is_trained_with_the_penalty_and_c_is_that_of_its_curve(tensors):
    """Against gradient descent by hand on L + (λ/2)‖θ‖², biases included."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + 0.5 * torch.randn(300, generator=generator, dtype=torch.float64) > 0).long()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    hand = [p.detach().clone().requires_grad_() for p in net.parameters()]
    lr = torch.tensor(0.25) if tensors else 0.25
    decay = torch.tensor(0.5) if tensors else 0.5
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.75, weight_decay=decay)
    curve, total = [], 0

    def train(steps):
        nonlocal total
        total += steps
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[:60]), y[:60]).backward()
            optimizer.step()

    def test_accuracy():
        with torch.no_grad():
            curve.append((net(x[60:]).argmax(1) == y[60:]).double().mean())
        return curve[-1]

    l2 = 0.125  # exact in float32
    c = measure_c(optimizer, train, test_accuracy, steps_per_epoch=4, l2=l2, interval=0.5, max_epochs=15, chance=0.5)
    velocities = [torch.zeros_like(p) for p in hand]
    for _ in range(total):
        w1, b1, w2, b2 = hand
        loss = nn.functional.cross_entropy(torch.relu(x[:60] @ w1.T + b1) @ w2.T + b2, y[:60])
        gradients = torch.autograd.grad(loss + l2 / 2 * sum(p.square().sum() for p in hand), hand)
        velocities = [0.75 * v + g for v, g in zip(velocities, gradients, strict=True)]
        hand = [(p - 0.25 * v).detach().requires_grad_() for p, v in zip(hand, velocities, strict=True)]
    for p, q in zip(net.parameters(), hand, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-9, atol=1e-12)
    t = [0.5 * k for k in range(len(curve))]
    assert total == 2 * (len(curve) - 1)
    assert without_curve(c) == coefficient(t, torch.stack(curve).numpy(), l2, 0.25, 4, momentum=0.75, chance=0.5)
    assert c.C_argmax == pytest.approx(0.25 * 4 * c.c_argmax / 0.25)
    assert c.c_argmax > 0
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_takes_other_coupled_optimizers(kind):
    run = Scripted(tent(12), kind([nn.Parameter(torch.ones(2))], lr=0.2))
    assert run.measure().C_argmax == pytest.approx(0.2 * 10 * 0.01 * 1.2)


@pytest.mark.filterwarnings("error")
def test_takes_tensors():
    accuracy = tent(12)
    run = Scripted(
        lambda step: torch.tensor([accuracy(step)], dtype=torch.float64, requires_grad=True),
        make_optimizer(lr=torch.tensor(0.25)),
    )
    c = without_curve(run.measure(l2=0.03))
    assert c == without_curve(Scripted(accuracy, make_optimizer(lr=0.25)).measure(l2=0.03))
    assert all(isinstance(value, float | bool | int) for value in vars(c).values())


def two_groups(first, second):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(2))], **own} for own in (first, second)], lr=0.2)


def test_l2_is_in_force_where_there_was_some_and_what_was_there_comes_back():
    live = torch.tensor(0.25)
    optimizer = two_groups({"weight_decay": 0}, {"weight_decay": live})
    run = Scripted(tent(12), optimizer)
    run.measure(l2=0.125)
    assert [decays for _, decays in run.calls] == [[0.0, 0.125]] * 24
    assert optimizer.param_groups[0]["weight_decay"] == 0
    assert optimizer.param_groups[1]["weight_decay"] is live
    assert live.item() == 0.25


class Stop(BaseException):
    """As KeyboardInterrupt, but nobody's."""


@pytest.mark.parametrize("when", ["train", "test_accuracy"])
def test_weight_decay_comes_back_after_an_error(when):
    live = torch.tensor(0.25)
    optimizer = two_groups({"weight_decay": 0.5}, {"weight_decay": live})
    run = Scripted(tent(12), optimizer)
    calls = []

    def fails(*_):
        calls.append([float(group["weight_decay"]) for group in optimizer.param_groups])
        raise Stop

    setattr(run, when, fails)
    with pytest.raises(Stop):
        run.measure(l2=0.125)
    assert calls == [[0.125, 0.0625]]
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert optimizer.param_groups[1]["weight_decay"] is live
    assert live.item() == 0.25


@pytest.mark.parametrize("name", ["lr", "momentum"])
def test_refuses_groups_that_differ(name):
    run = Scripted(tent(12), two_groups({name: 0.5}, {name: 0.4}))
    with pytest.raises(ValueError, match=rf"^{name} must be the same .*0\.5, 0\.4"):
        run.measure()
    assert not run.calls


def test_a_float32_tensor_is_the_same_learning_rate():
    run = Scripted(tent(12), two_groups({"lr": 0.2}, {"lr": torch.tensor(0.2)}))
    assert run.measure().C_argmax == pytest.approx(0.2 * 10 * 0.01 * 1.2)


def test_refuses_a_learning_rate_that_a_scheduler_changes():
    optimizer = make_optimizer()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    optimizer.step()  # so that torch does not warn of the order
    run = Scripted(tent(12), optimizer, each=scheduler.step)
    with pytest.raises(ValueError, match=r"^lr must stay constant .* at epoch 0\.3 it is \[0\.1\] instead of \[0\.2\]"):
        run.measure()
    assert run.steps == 3
    assert optimizer.param_groups[0]["weight_decay"] == 0.7


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lr", lambda optimizer: optimizer.param_groups[0]["lr"].mul_(0.99)),
        ("momentum", lambda optimizer: optimizer.param_groups[0].update(momentum=0.8)),
        ("weight_decay", AutoL2),
    ],
)
def test_refuses_what_changes_during_training(name, change):
    optimizer = make_optimizer(lr=torch.tensor(0.25))
    with pytest.raises(ValueError, match=f"^{name} must stay constant"):
        Scripted(tent(12), optimizer, each=lambda: change(optimizer)).measure()


def test_refuses_a_group_that_is_added_without_l2():
    optimizer = make_optimizer()
    run = Scripted(
        tent(12), optimizer, each=lambda: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    )
    with pytest.raises(ValueError, match=r"^weight_decay must stay constant .*\[0\.01, 0\.7\]"):
        run.measure()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.7, 0.7]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_parameter_that_is_not_finite_is_no_peak(bad):
    optimizer = make_optimizer()
    run = Scripted(tent(5), optimizer)

    def diverge():
        if run.steps == 6:
            optimizer.param_groups[0]["params"][0].data[1] = bad

    run.each = diverge
    with pytest.raises(ValueError, match=r"training diverged: .* epoch 0\.6; take a smaller learning rate or l2"):
        run.measure()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_accuracy_that_is_not_finite(bad):
    run = Scripted(lambda step: bad if step == 3 else 0.5)
    with pytest.raises(ValueError, match=r"^test_accuracy is .*(nan|inf) at epoch 0\.3; take a smaller learning rate"):
        run.measure()


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [
        (None, "got None"),
        (torch.zeros(3), r"got tensor\(\["),
        ("0.5", r"got '0\.5' \(str\)"),
        (torch.tensor(True), r"got tensor\(True\)"),
        (93.1, r"between 0 and 1, got 93\.1"),
        (-0.1, r"between 0 and 1, got -0\.1"),
    ],
)
def test_refuses_an_accuracy_that_is_no_fraction(accuracy, message):
    run = Scripted(lambda step: accuracy)
    with pytest.raises(ValueError, match=rf"^test_accuracy must return .*{message}"):
        run.measure()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("steps_per_epoch", "l2", "interval", "max_epochs"), (0, -1.0, math.nan)),
        *[("tolerance", -1e-9), ("chance", 1), ("window", 4), ("window", 3.0)],
        ("max_epochs", 0.05),  # less than an interval
        *itertools.product(
            ("steps_per_epoch", "l2", "interval", "max_epochs", "chance", "tolerance"), ("0.1", None, True)
        ),
        ("tolerance", 0.5),  # percent
    ],
)
def test_refuses_bad_arguments_before_anything_is_trained(name, value):
    run = Scripted(tent(12))
    with pytest.raises(ValueError, match=f"^{name} must"):
        run.measure(**{name: value})
    assert not run.calls
    assert not run.evaluated
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.7


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (make_optimizer(lr=0.0), "^lr must"),
        (make_optimizer(momentum=1.0), "^momentum must"),
        (nn.Linear(1, 1), "^optimizer must"),
    ],
)
def test_refuses_an_optimizer_that_gives_no_c(optimizer, message):
    with pytest.raises(ValueError, match=message):
        measure_c(optimizer, lambda steps: None, lambda: 0.5, steps_per_epoch=10)


@pytest.mark.parametrize("name", ["train", "test_accuracy"])
def test_refuses_what_is_no_function(name):
    functions = {"train": lambda steps: None, "test_accuracy": lambda: 0.5} | {name: 0.9}
    with pytest.raises(ValueError, match=rf"^{name} must be a function, got float"):
        measure_c(make_optimizer(), **functions, steps_per_epoch=10)
