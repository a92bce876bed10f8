"""AutoL2 against a reference written from the paper's words, and inside real training."""

import copy
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from l2dyn.optim.auto_l2 import AutoL2


def make_optimizer(kind=torch.optim.SGD, **settings):
    return kind([nn.Parameter(torch.ones(2, 2))], **{"lr": 0.1} | settings)


def weight_decays(optimizer):
    return [float(group["weight_decay"]) for group in optimizer.param_groups]


def risen(losses, errors, init_l2, factor, cooldown, min_l2, trigger, **_):
    """λ after each measurement by the rule "risen", told from the whole history rather than from a state."""
    history, decays = [], []
    l2 = init_l2
    for t in range(len(losses)):
        rises = []
        if trigger in ("either", "loss") and t > 0:
            rises.append(losses[t] > losses[t - 1])
        if trigger in ("either", "error") and errors[t] is not None:
            before = [e for e in errors[:t] if e is not None]
            rises.append(bool(before) and errors[t] > before[-1])
        refractory = bool(decays) and t - decays[-1] <= cooldown
        if any(rises) and not refractory and l2 > min_l2:
            l2 = l2 * factor if l2 * factor > min_l2 else min_l2
            decays.append(t)
        history.append(l2)
    return history, decays


def no_better(losses, errors, init_l2, factor, min_l2, trigger, interval, refractory, **_):
    """The same by the authors' rule, for lr 0.1 and momentum 0.5: a decay strikes the measurement before it out."""
    history, decays, struck, rests_until = [], [], {"loss": set(), "error": set()}, -1
    l2 = init_l2
    for t in range(len(losses)):
        says = []
        for name, values in (("loss", losses), ("error", errors)):
            seen = [i for i in range(t + 1) if values[i] is not None]
            if values[t] is None or trigger not in ("either", name) or len(seen) < 3:
                continue
            best = [values[i] for i in seen[:-2] if i not in struck[name]]
            says.append(bool(best) and values[seen[-1]] >= min(best) and values[seen[-2]] >= min(best))
        if any(says) and t * interval > rests_until and l2 > min_l2:
            l2 = l2 * factor if l2 * factor > min_l2 else min_l2
            decays.append(t)
            rests_until = t * interval + refractory * 0.5 / (0.1 * l2) * (1 + 1e-9)  # 5 steps are not 4.99…
            for name, values in (("loss", losses), ("error", errors)):
                seen = [i for i in range(t) if values[i] is not None]
                if seen and values[t] is not None:
                    struck[name].add(seen[-1])
        history.append(l2)
    return history, decays


REFERENCES = {"risen": risen, "no_better": no_better}
LEVELS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that equal measurements occur
SETTINGS = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(["risen", "no_better"]),
        "init_l2": st.sampled_from([0.1, 0.02, 3.0]),
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "interval": st.integers(1, 10),
        "refractory": st.sampled_from([0.0, 0.01, 0.4]),
        "cooldown": st.integers(0, 4),
        "min_l2": st.sampled_from([0.0, 1e-3, 0.015]),
        "trigger": st.sampled_from(["either", "loss"]),
    }
)


@given(st.lists(st.tuples(LEVELS, st.none() | LEVELS), max_size=40), SETTINGS)
def test_equals_the_reference(measurements, settings):
    losses, errors = [m[0] for m in measurements], [m[1] for m in measurements]
    optimizer = make_optimizer(momentum=0.5)
    auto_l2 = AutoL2(optimizer, **settings)
    history, decays = REFERENCES[settings["rule"]](losses, errors, **settings)
    for t, (loss, error) in enumerate(measurements):
        assert auto_l2.step(loss, error) == (t in decays)
        assert auto_l2.get_last_l2() == auto_l2.l2 == optimizer.param_groups[0]["weight_decay"] == history[t]


@given(st.lists(st.tuples(LEVELS, LEVELS), max_size=40), SETTINGS, st.integers(0, 39))
def test_resumed_anywhere_it_goes_on_the_same(measurements, settings, cut):
    """With the third trigger; the state goes through JSON, and the optimizer is a new one."""
    settings = settings | {"trigger": "error"}
    losses, errors = [m[0] for m in measurements], [m[1] for m in measurements]
    history, _ = REFERENCES[settings["rule"]](losses, errors, **settings)
    auto_l2 = AutoL2(make_optimizer(momentum=0.5), **settings)
    for t, measurement in enumerate(measurements):
        if t == cut:
            state = json.loads(json.dumps(auto_l2.state_dict()))
            optimizer = make_optimizer(momentum=0.5, weight_decay=0.7)
            auto_l2 = AutoL2(optimizer, **settings)
            auto_l2.load_state_dict(state)
            assert weight_decays(optimizer) == [state["l2"]]
        auto_l2.step(*measurement)
        assert auto_l2.l2 == history[t]


def test_the_authors_earliest_decays():
    """The first decay needs three measurements; then more than 2/weight_decay steps pass."""
    auto_l2 = AutoL2(make_optimizer(lr=0.02, momentum=0.9), init_l2=2.0)
    steps = [10 * call for call in range(1200) if auto_l2.step(1.0)]
    assert steps == [20, 40, 150, 1160, 11170]


def test_the_table_of_transitions():
    """The rows of the docstring that hold numbers."""
    assert decays([3, 2, 1, 1.5, 1.2]) == [False, False, False, False, True]
    assert decays([3, 2, 1, 1.5, 1.2], rule="risen") == [False, False, False, True, False]
    assert decays([2, 2, 2]) == [False, False, True]
    assert decays([2, 2, 2], rule="risen") == [False, False, False]


def test_the_staircase_looks_at_nothing():
    auto_l2 = AutoL2(make_optimizer(lr=0.02, momentum=0.9), init_l2=2.0, rule="staircase")
    assert [10 * call for call in range(200) if auto_l2.step(1.0 / (1 + call))] == [20, 40, 150, 1160]


def test_a_decay_strikes_the_measurement_before_it_out():
    """4 was no better than 3 and does not count later; without a decay a better one would."""
    assert decays([5, 3, 4, 3.5, 2.9, 2.8], refractory=0.0) == [False, False, False, True, False, False]
    assert decays([5, 3, 4, 2.9, 2.95, 2.9], refractory=0.0)[-1]


def decays(losses, **settings) -> list[bool]:
    auto_l2 = AutoL2(make_optimizer(), **settings)
    return [auto_l2.step(loss) for loss in losses]


def test_the_sequence_that_scripts_rely_on():
    auto_l2 = AutoL2(make_optimizer(), rule="risen")
    assert [auto_l2.step(loss) for loss in (3, 2, 1, 1.5)] == [False, False, False, True]
    assert auto_l2.l2 == pytest.approx(0.01)


@pytest.mark.parametrize("cooldown", [0, 1, 3])
def test_a_rise_within_the_cooldown_does_not_decay(cooldown):
    auto_l2 = AutoL2(make_optimizer(), rule="risen", cooldown=cooldown, min_l2=0.0)
    decayed = [auto_l2.step(loss) for loss in range(12)]
    assert [t for t, d in enumerate(decayed) if d] == list(range(1, 12, cooldown + 1))


def test_stays_at_min_l2():
    auto_l2 = AutoL2(make_optimizer(), rule="risen", min_l2=0.02, cooldown=0)
    assert [auto_l2.step(loss) for loss in range(5)] == [False, True, False, False, False]
    assert auto_l2.l2 == 0.02


def test_errors_left_out_are_skipped():
    auto_l2 = AutoL2(make_optimizer(), rule="risen")
    assert not auto_l2.step(3, 0.5)
    assert not auto_l2.step(2)
    assert auto_l2.step(1, 0.6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_counts_as_infinite(bad):
    auto_l2 = AutoL2(make_optimizer(), rule="risen", cooldown=0)
    assert [auto_l2.step(loss) for loss in (bad, 1, bad, bad, math.nan, 1, 2)] == [0, 0, 1, 0, 0, 0, 1]
    auto_l2 = AutoL2(make_optimizer(), rule="risen", cooldown=0, trigger="error")
    assert [auto_l2.step(1, error) for error in (0.5, bad, bad)] == [0, 1, 0]


def test_a_diverged_run_does_not_drive_it_to_nothing():
    assert sum(decays([3, 2, 1, *[math.nan] * 50], refractory=0.0)) <= 1


@pytest.mark.parametrize("lr", [0.0, 1e-9])
def test_a_decay_without_a_learning_rate_rests_until_there_is_one(lr):
    """As at the end of a cycle; from then on for one refractory period of the new learning rate."""
    optimizer = make_optimizer(lr=lr)
    auto_l2 = AutoL2(optimizer)
    assert sum(auto_l2.step(1.0) for _ in range(50)) == 1
    optimizer.param_groups[0]["lr"] = 0.1
    state = json.loads(json.dumps(auto_l2.state_dict()))
    auto_l2 = AutoL2(optimizer)
    auto_l2.load_state_dict(state)
    decayed = [auto_l2.step(1.0) for _ in range(500)]
    assert decayed.index(True) == 41  # 0.4/(0.1·0.01) = 400 steps, the 40 calls after the first


def test_a_learning_rate_that_falls_leaves_the_refractory_period_alone():
    optimizer = make_optimizer(lr=0.1)
    auto_l2 = AutoL2(optimizer)
    decayed = []
    for call in range(60):
        decayed.append(auto_l2.step(1.0))
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + call)
    plain = AutoL2(make_optimizer(lr=0.1 / 2))  # what it was at the decay, in the third call
    assert decayed == [plain.step(1.0) for _ in range(60)]


def test_dampening_makes_the_refractory_period_longer():
    def first_two(**settings):
        auto_l2 = AutoL2(make_optimizer(**settings))
        return [call for call in range(1000) if auto_l2.step(1.0)][:2]

    assert first_two(momentum=0.9) == [2, 7]  # 0.4·0.1/(0.1·0.01) = 40 steps after the first
    assert first_two(momentum=0.9, dampening=0.9) == [2, 43]
    assert first_two(dampening=0.9) == first_two() == [2, 43]  # without momentum it counts for nothing


@pytest.mark.filterwarnings("error")
def test_takes_tensors():
    auto_l2 = AutoL2(make_optimizer(), rule="risen")
    weight = torch.tensor(1.0, requires_grad=True)
    assert not auto_l2.step(weight * 2, torch.tensor([0.5]))
    assert auto_l2.step(weight * 3, torch.tensor(0.5)) is True
    assert all(isinstance(v, int | float | list | None) for v in auto_l2.state_dict().values())


def grouped(*weight_decays):
    """An optimizer with a group for each of these; None for PyTorch's default."""
    groups = [{"params": [nn.Parameter(torch.ones(2))], "weight_decay": wd} for wd in weight_decays]
    return torch.optim.SGD([{k: v for k, v in group.items() if v is not None} for group in groups], lr=0.1)


def one_more(**settings):
    return {"params": [nn.Parameter(torch.ones(2))], **settings}


def test_where_no_group_has_a_weight_decay_all_get_it_also_one_added_later():
    optimizer = grouped(None, 0.0)
    auto_l2 = AutoL2(optimizer, init_l2=0.2)
    assert weight_decays(optimizer) == [0.2, 0.2]
    optimizer.add_param_group(one_more())
    auto_l2.step(1.0)
    assert weight_decays(optimizer) == [0.2, 0.2, 0.2]


def test_groups_keep_their_ratios_and_what_is_exempt_stays_exempt():
    optimizer = grouped(5e-4, 0.0, 1e-3)
    auto_l2 = AutoL2(optimizer, init_l2=0.2)
    assert weight_decays(optimizer) == pytest.approx([0.1, 0.0, 0.2])
    for group in (one_more(), one_more(weight_decay=2e-3)):  # a later group of biases, and one of twice the largest
        optimizer.add_param_group(group)
    auto_l2.step(1.0)
    assert weight_decays(optimizer) == pytest.approx([0.1, 0.0, 0.2, 0.0, 0.4])
    auto_l2.load_state_dict(auto_l2.state_dict() | {"l2": 0.02})
    assert weight_decays(optimizer) == pytest.approx([0.01, 0.0, 0.02, 0.0, 0.04])


@pytest.mark.parametrize("decays", [(5e-4, 0.0), (0.0, 0.0)])
def test_a_group_that_is_added_after_a_resume_gets_what_it_would_have_got(decays):
    def make():
        groups = [{"params": [nn.Parameter(torch.ones(1))], "weight_decay": decay} for decay in decays]
        return torch.optim.SGD(groups, lr=0.1)

    def added(optimizer, auto_l2):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "weight_decay": decays[0]})
        auto_l2.step(1.0)
        return weight_decays(optimizer)

    first, second = make(), make()
    auto_l2 = AutoL2(first, init_l2=0.1)
    second.load_state_dict(first.state_dict())  # which holds λ
    resumed = AutoL2(second, init_l2=0.1)
    resumed.load_state_dict(auto_l2.state_dict())
    expected = [0.1, 0.0, 0.1] if decays[0] else [0.1, 0.1, 0.1]
    assert added(first, auto_l2) == added(second, resumed) == pytest.approx(expected)


def test_a_state_of_an_earlier_version_is_taken():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    auto_l2 = AutoL2(optimizer, init_l2=0.1)
    state = {name: value for name, value in auto_l2.state_dict().items() if name != "largest"} | {"l2": 0.01}
    auto_l2.load_state_dict(state)
    assert weight_decays(optimizer) == pytest.approx([0.01])


@pytest.mark.parametrize("name", ["decoupled", "keep_ratios", "distributed"])
def test_text_is_no_truth_value(name):
    with pytest.raises(ValueError, match=f"{name} must be one of True, False.*'no'"):
        AutoL2(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), **{name: "no"})


@pytest.mark.parametrize("state", [None, 3, [1.0]])
def test_what_is_no_state_dict_is_named(state):
    with pytest.raises(ValueError, match="state_dict must be a dictionary"):
        AutoL2(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)).load_state_dict(state)


def test_the_ratios_can_be_overridden():
    optimizer = grouped(5e-4, 0.0)
    AutoL2(optimizer, init_l2=0.2, keep_ratios=False)
    assert weight_decays(optimizer) == [0.2, 0.2]


def test_fills_a_tensor_in_place():
    live, parameter = torch.tensor(0.0), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, weight_decay=live)
    auto_l2 = AutoL2(optimizer, rule="risen", cooldown=0)
    assert optimizer.param_groups[0]["weight_decay"] is live
    assert live.item() == pytest.approx(0.1)
    auto_l2.step(1)
    auto_l2.step(2)
    assert optimizer.param_groups[0]["weight_decay"] is live
    assert live.item() == pytest.approx(0.01)
    auto_l2.load_state_dict(auto_l2.state_dict() | {"l2": 0.5})
    assert optimizer.param_groups[0]["weight_decay"] is live
    assert live.item() == 0.5
    parameter.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_equals_a_penalty_in_the_loss(momentum):
    """SGD with AutoL2 against gradient descent by hand on L + (λ/2)‖θ‖², biases included."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (24,), generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    hand = [p.detach().clone().requires_grad_() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=momentum)
    auto_l2 = AutoL2(optimizer, init_l2=0.3, factor=0.2, rule="risen", cooldown=2)

    def by_hand():
        w1, b1, w2, b2 = hand
        return nn.functional.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)

    l2, previous, wait, decays = 0.3, math.inf, 0, 0
    velocities = [torch.zeros_like(p) for p in hand]
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        auto_l2.step(loss)

        mine = by_hand()
        penalty = l2 / 2 * sum(p.square().sum() for p in hand)
        gradients = torch.autograd.grad(mine + penalty, hand)
        velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
        hand = [(p - 0.3 * v).detach().requires_grad_() for p, v in zip(hand, velocities, strict=True)]
        if wait:
            wait -= 1
        elif mine.item() > previous:
            l2, wait, decays = l2 * 0.2, 2, decays + 1
        previous = mine.item()
    assert decays >= 1
    assert auto_l2.l2 == pytest.approx(l2, rel=1e-12)
    for p, q in zip(net.parameters(), hand, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam"])
def test_accepts_coupled_optimizers(name):
    """The first step has the gradient λθ: that of an optimizer without weight decay on the penalty alone."""
    optimizer = make_optimizer(getattr(torch.optim, name))
    other = make_optimizer(getattr(torch.optim, name))
    AutoL2(optimizer, init_l2=0.25)
    parameter, twin = optimizer.param_groups[0]["params"][0], other.param_groups[0]["params"][0]
    parameter.grad, twin.grad = torch.zeros(2, 2), 0.25 * twin.detach()
    optimizer.step()
    other.step()
    assert torch.equal(parameter, twin)


class AdamWOfSomebody(torch.optim.SGD):
    pass


class Flagged(torch.optim.SGD):
    """An optimizer of somebody else's that says by a flag of its own what its weight decay does."""

    def __init__(self, params, lr=0.1, **flags):
        super().__init__(params, lr)
        self.defaults |= flags


class Wrapper:
    """What Accelerate hands back: another object with the same groups."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups


def fused(self, parameters, **how):
    """As the constructors of fused Adams, whose mode is no part of the defaults."""
    torch.optim.SGD.__init__(self, parameters, **how)
    self.adam_w_mode = 1


DECOUPLED = [
    (torch.optim.AdamW, {}),
    (torch.optim.Adam, {"decoupled_weight_decay": True}),
    (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    (torch.optim.RAdam, {"decoupled_weight_decay": True}),
    (torch.optim.Muon, {}),
    (torch.optim.Adafactor, {}),
    (AdamWOfSomebody, {}),
    *[
        (Flagged, {flag: True})
        for flag in ("weight_decouple", "decouple", "decouple_decay", "decoupled_decay", "decoupled")
    ],
    *[(type(name, (torch.optim.SGD,), {}), {}) for name in ("Lamb", "AdamP", "SGDP", "Adan", "LaProp", "SOAP", "LARS")],
    *[(type(name, (torch.optim.SGD,), {}), {}) for name in ("Lion", "Lars")],
    (type("FusedAdam", (torch.optim.SGD,), {"__init__": fused}), {}),
]


@pytest.mark.parametrize(("kind", "settings"), DECOUPLED)
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, Wrapper])
def test_decoupled_weight_decay_is_scheduled_with_one_warning(kind, settings, wrap):
    optimizer = wrap(make_optimizer(kind, **settings))
    with pytest.warns(UserWarning, match="decoupled weight decay") as warned:
        lowered(optimizer)
    assert len(warned) == 1
    assert weight_decays(optimizer) == pytest.approx([0.01])


@pytest.mark.filterwarnings("error")
def test_what_is_coupled_is_not_warned_of():
    for kind, settings in ((torch.optim.Adam, {}), (Flagged, {"decouple": False}), (torch.optim.SGD, {})):
        AutoL2(make_optimizer(kind, **settings))
    AutoL2(make_optimizer(AdamWOfSomebody), decoupled=False)  # its user knows better
    with pytest.raises(UserWarning):
        AutoL2(make_optimizer(), decoupled=True)


def test_adamw_takes_its_weight_decay_off_the_parameters():
    """θ ← (1 − η·λ)·θ where the gradient is 0."""
    parameter = nn.Parameter(torch.full((2,), 3.0))
    optimizer = torch.optim.AdamW([parameter], lr=0.5)
    with pytest.warns(UserWarning, match="AdamW"):
        AutoL2(optimizer, init_l2=0.25)
    parameter.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 3.0 * (1 - 0.5 * 0.25)))


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Rprop, torch.optim.SparseAdam])
def test_refuses_an_optimizer_without_weight_decay(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} has no weight_decay"):
        AutoL2(make_optimizer(kind))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("init_l2", v) for v in (0, -1, math.nan, math.inf, "1e-2", None, True, [0.1], torch.ones(2))],
        *[("factor", v) for v in (0, 1, -0.1, 2, math.nan, "0.1")],
        *[("rule", v) for v in ("rose", None)],
        *[("interval", v) for v in (0, -1, 1.0, True, None)],
        *[("refractory", v) for v in (-0.1, math.nan, math.inf)],
        *[("cooldown", v) for v in (-1, 1.0, True, None)],
        *[("min_l2", v) for v in (-1e-9, 0.2, math.nan, "0")],
        *[("trigger", v) for v in ("accuracy", None)],
        *[("units", v) for v in ("paper", None)],
        ("classes", 10),  # in PyTorch's units λ has no classes
    ],
)
def test_refuses_bad_arguments_and_leaves_the_optimizer_alone(name, value):
    optimizer = make_optimizer(weight_decay=0.7)
    with pytest.raises(ValueError, match=f"^{name} must"):
        AutoL2(optimizer, **{name: value})
    assert weight_decays(optimizer) == [0.7]


def test_refuses_what_is_no_optimizer():
    with pytest.raises(ValueError, match=r"^optimizer must"):
        AutoL2(nn.Linear(1, 1))


def test_the_error_trigger_requires_an_error():
    auto_l2 = AutoL2(make_optimizer(), trigger="error")
    before = auto_l2.state_dict()
    with pytest.raises(ValueError, match=r"^error is required"):
        auto_l2.step(1.0)
    assert auto_l2.state_dict() == before


@pytest.mark.parametrize("change", [{"factor": 0.5}, None])
def test_refuses_a_foreign_state(change):
    auto_l2 = AutoL2(make_optimizer())
    before = auto_l2.state_dict()
    state = dict(before) | change if change else {k: v for k, v in before.items() if k != "l2"}
    with pytest.raises(ValueError, match="'factor'" if change else "'l2'"):
        auto_l2.load_state_dict(state)
    assert auto_l2.state_dict() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("l2", v) for v in (math.nan, -1.0, math.inf, "0.1", None)],
        *[("calls", v) for v in ("x", -1, 1.5, None, True)],
        *[("resting_until", v) for v in (math.nan, "x", None, -2.0)],
        *[
            ("ratios", v)
            for v in ([1.0], [1.0, 0.0, 1.0], [0.0, 1.0], [1.0, 1.0], "ab", None, [math.nan, 0.0], [-1.0, 0.0])
        ],
        *[(key, v) for key in ("previous_loss", "best_error") for v in ("x", math.nan, [1.0])],
    ],
)
def test_refuses_a_state_with_other_values_and_changes_nothing(key, value):
    optimizer = grouped(0.5, 0.0)
    auto_l2 = AutoL2(optimizer)
    for loss in (3.0, 2.0, 1.0):
        auto_l2.step(loss, loss)
    before = auto_l2.state_dict()
    good = before | {"l2": 0.05, "calls": 7, "previous_loss": 0.5}
    with pytest.raises(ValueError, match=rf"^state_dict\['{key}'\]"):
        auto_l2.load_state_dict(good | {key: value})
    assert auto_l2.state_dict() == before
    assert weight_decays(optimizer) == [0.1, 0.0]
    auto_l2.load_state_dict(good)
    assert weight_decays(optimizer) == [0.05, 0.0]


def test_a_state_of_groups_in_another_order_is_refused():
    """Weights would go unregularized, biases penalized, without a word."""
    state = AutoL2(grouped(0.5, 0.0)).state_dict()
    other = grouped(0.0, 0.5)
    with pytest.raises(ValueError, match="are the groups in another order"):
        AutoL2(other).load_state_dict(state)
    assert weight_decays(other) == [0.0, 0.1]


def test_refuses_a_weight_decay_that_is_no_number():
    with pytest.raises(ValueError, match=r"^weight_decay of the optimizer's param group 1 must be a number, got None"):
        AutoL2(torch.optim.SGD([one_more(), one_more(weight_decay=None)], lr=0.1))


@pytest.mark.parametrize("classes", [None, 0, 2.0, True])
def test_the_authors_units_need_a_number_of_classes(classes):
    with pytest.raises(ValueError, match=r"^classes must"):
        AutoL2(make_optimizer(), units="authors", classes=classes)


def test_the_authors_units():
    """Their first λ, 0.1, is a weight_decay of 2.0 with 10 classes; the refractory period is that of the same setup."""
    theirs, ours = make_optimizer(lr=0.02, momentum=0.9), make_optimizer(lr=0.02, momentum=0.9)
    auto, plain = AutoL2(theirs, init_l2=0.1, units="authors", classes=10), AutoL2(ours, init_l2=2.0)
    assert weight_decays(theirs) == [2.0]
    for loss in [3.0, 2.0, 1.0, *([1.0] * 40)]:
        assert auto.step(loss) == plain.step(loss)
        assert weight_decays(theirs) == pytest.approx(weight_decays(ours), rel=1e-12)
    assert auto.get_last_l2() == pytest.approx(plain.get_last_l2() / 20)
    assert auto.get_last_l2() < 0.1


def test_once_a_minibatch_for_long_leaves_a_floor():
    auto_l2 = AutoL2(make_optimizer(), rule="risen", cooldown=0)
    for loss in range(5000):
        auto_l2.step(float(loss))
    assert auto_l2.get_last_l2() == pytest.approx(1e-9)
    assert AutoL2(make_optimizer(), min_l2=0.0).min_l2 == 0


@pytest.mark.parametrize("loss", [None, "1.0", True, [1.0], torch.ones(2), 1j, torch.tensor(1j), np.ones(2)])
@pytest.mark.parametrize("which", ["loss", "error"])
def test_a_measurement_that_is_no_number_names_itself_and_changes_nothing(loss, which):
    if which == "error" and loss is None:
        return  # that one is allowed
    auto_l2 = AutoL2(make_optimizer())
    for value in (3.0, 2.0, 1.0):
        auto_l2.step(value, 0.5)
    before = auto_l2.state_dict()
    with pytest.raises(ValueError, match=f"^{which} must be"):
        auto_l2.step(**{"loss": 1.0, "error": 0.5} | {which: loss})
    assert auto_l2.state_dict() == before


def lowered(optimizer):
    """An AutoL2 whose λ has fallen once."""
    auto_l2 = AutoL2(optimizer, rule="risen", cooldown=0)
    auto_l2.step(1.0)
    assert auto_l2.step(2.0)
    return auto_l2


@pytest.mark.parametrize("optimizer_first", [True, False])
def test_states_may_be_loaded_in_either_order(optimizer_first, tmp_path):
    optimizer = grouped(1e-3, 0.0)
    stale = copy.deepcopy(optimizer.state_dict())  # holds the weight decay of before AutoL2
    torch.save({"optimizer": stale, "auto_l2": lowered(optimizer).state_dict()}, tmp_path / "x.pt")
    read = torch.load(tmp_path / "x.pt", weights_only=True)
    other = grouped(1e-3, 0.0)
    auto_l2 = AutoL2(other, rule="risen", cooldown=0)
    loads = [lambda: other.load_state_dict(read["optimizer"]), lambda: auto_l2.load_state_dict(read["auto_l2"])]
    for load in loads if optimizer_first else loads[::-1]:
        load()
    assert weight_decays(other) == pytest.approx([0.01, 0.0])
    assert auto_l2.state_dict() == read["auto_l2"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_goes_on_by_itself(copied):
    auto_l2 = lowered(grouped(1e-3, 0.0))
    twin = copied(auto_l2)
    assert twin.state_dict() == auto_l2.state_dict()
    assert twin.step(3.0)
    assert weight_decays(twin.optimizer) == pytest.approx([0.001, 0.0])
    assert weight_decays(auto_l2.optimizer) == pytest.approx([0.01, 0.0])
    twin.optimizer.load_state_dict(auto_l2.optimizer.state_dict())  # an older λ is in there
    assert weight_decays(twin.optimizer) == pytest.approx([0.001, 0.0])


def test_gradient_accumulation_and_a_scheduler_leave_it_alone():
    optimizer = make_optimizer(lr=0.1)
    auto_l2 = AutoL2(optimizer, init_l2=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    (parameter,) = optimizer.param_groups[0]["params"]
    for loss in (3.0, 2.0, 1.0):
        for _ in range(2):
            (parameter.sum() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        auto_l2.step(loss)
    assert weight_decays(optimizer) == [0.3]


def test_a_compiled_step_sees_the_tensor():
    live, parameter = torch.tensor(0.0), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, weight_decay=live)
    auto_l2 = lowered(optimizer)
    step = torch.compile(optimizer.step, backend="eager")
    parameter.grad = torch.zeros(2)
    for l2 in (0.01, 0.001):
        before = parameter.detach().clone()
        step()
        torch.testing.assert_close(parameter.detach(), before * (1 - 0.1 * l2))
        auto_l2.step(5.0 / l2)


AVERAGED = """
import os, sys, torch, torch.distributed as dist
from l2dyn.optim.auto_l2 import AutoL2
child = os.fork()  # torch is loaded once
rank = 0 if child else 1
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
auto_l2 = AutoL2(optimizer, rule="risen", cooldown=0, distributed=True)
losses = [[1.0, 3.0, 9.0], [3.0, 2.0, 1.0]][rank]  # their means: 2, 2.5, 5
os.write(1, f"{[auto_l2.step(loss) for loss in losses]} {auto_l2.get_last_l2():.6f}\\n".encode())
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_processes_that_train_together_agree(tmp_path):
    command = [sys.executable, "-c", AVERAGED, str(tmp_path / "meet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["[False, True, True] 0.001000"] * 2, done.stderr


def test_distributed_needs_a_process_group():
    with pytest.raises(ValueError, match=r"torch\.distributed"):
        AutoL2(make_optimizer(), distributed=True).step(1.0)


@pytest.mark.parametrize("how", [{"fused": True}, {"foreach": True}, {"fused": True, "momentum": 0.9}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_fused_and_foreach_steps_see_every_change(kind, how):
    """Against the plain loop of the same optimizer."""
    if kind is torch.optim.Adam:
        how = {key: value for key, value in how.items() if key != "momentum"}
    plain = {key: value for key, value in how.items() if key == "momentum"} | {"foreach": False}
    twins = [make_optimizer(kind, **settings) for settings in (how, plain)]
    schedules = [AutoL2(one, init_l2=0.5, rule="risen", cooldown=0) for one in twins]
    for loss in (1.0, 2.0, 1.5, 3.0):
        for optimizer, auto_l2 in zip(twins, schedules, strict=True):
            (parameter,) = optimizer.param_groups[0]["params"]
            parameter.grad = torch.full_like(parameter, 0.25)
            optimizer.step()
            auto_l2.step(loss)
    one, other = (optimizer.param_groups[0]["params"][0] for optimizer in twins)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert schedules[0].l2 == schedules[1].l2 == pytest.approx(0.005)


def test_mixed_precision_leaves_it_alone():
    """A loss in bfloat16 is a number like others; the scaler skips a step that overflows, and λ stays."""
    optimizer = make_optimizer(lr=0.1)
    auto_l2 = AutoL2(optimizer, init_l2=0.25)
    scaler = torch.amp.GradScaler("cpu")
    (parameter,) = optimizer.param_groups[0]["params"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = (parameter @ parameter).sum()
    scaler.scale(loss.float()).backward()
    parameter.grad[0, 0] = math.inf
    before = parameter.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(parameter, before)
    assert auto_l2.step(loss) is False
    assert weight_decays(optimizer) == [0.25]
