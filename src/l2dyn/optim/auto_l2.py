"""AutoL2, the L2 schedule of the paper's section 3, for any torch optimizer with coupled weight decay."""

import math

import torch
from torch import Tensor

RULES = ("no_better", "risen", "staircase")
TRIGGERS = ("either", "loss", "error")
_DECOUPLED_FLAGS = ("decoupled_weight_decay", "weight_decouple")
_DECOUPLED_NAMES = ("AdamW", "SGDW", "Adafactor", "Muon", "Lion")  # they set no flag, or not in every version


class AutoL2:
    """AutoL2 (section 3 of arXiv 2006.08643): start at a large λ, lower it whenever training gets worse.

    λ is the coefficient of the penalty (λ/2)·‖θ‖² over ALL parameters, which an optimizer with coupled weight decay
    (SGD, Adam, RMSprop, Adagrad, …) adds to the gradient as `weight_decay`. AutoL2 sets it in every param group, at
    construction and at every `step`, whatever the groups had before. Give `step` one measurement every `interval`
    training steps: the empirical loss (without the penalty) and, if you have it, the training error. When either says
    so, λ ← factor·λ; then follows a refractory period in which λ cannot fall again.

    The main text leaves open what says so; two rules are at hand, both judged for loss and error apart:

    =====================  ================================================  =====================================
    rule                   "no_better", as in the authors' code              "risen", the main text's word
    =====================  ================================================  =====================================
    λ falls when           the last two measurements are both no better      the last measurement is worse than
                           than the best of all before them                  the one before it
    losses 3, 2, 1, 1.5    no: 1 was the best of all                         yes, at 1.5
    then 1.2               yes: 1.5 and 1.2 are no better than 1             no: it rests for `cooldown` calls
    losses 2, 2, 2         yes: a tie is no better                           no
    refractory period      refractory·(1−μ)/(η·λ) steps, with the new λ      cooldown calls of `step`
                           and momentum μ
    to be measured         the minibatch of the next update                  the mean over the interval
    =====================  ================================================  =====================================

    A third rule, "staircase", looks at no measurement: from the third one on λ falls after every refractory period of
    the authors' rule. It is what the others are to be compared with.

    In the authors' rule the best is over the whole training; a measurement becomes part of it one call later, unless
    that call lowers λ. Its refractory period grows as 1/λ, the time scale of the paper's law. Their settings are
    interval 10, refractory 0.4, and first λ 0.1 in their own units: a weight_decay of 2.0 with 10 classes (their
    learning rate 0.2 is lr = 0.02).

    A measurement that is not finite counts as +∞, and a pair of them lowers nothing: a diverged run neither stops the
    training loop nor drives λ to 0.

    AutoL2 is meant for a constant learning rate; with a learning-rate schedule the paper finds no gain.

    optimizer: its λ is ours from now on. Where a group's weight_decay is a Tensor it is filled in place, so that a
        captured CUDA graph or a compiled step goes on seeing it.
    init_l2: first λ (paper: 0.1).
    factor: what λ is multiplied by, in (0, 1) (paper: 0.1).
    rule: "no_better", "risen" or "staircase".
    interval: training steps between two calls of `step`; the refractory period in steps is counted by it.
    refractory: see the table; not used by "risen".
    cooldown: the number of `step` calls after a decay that cannot decay; they still become the previous measurement
        of the next call; used by "risen" (ours: 1; 0 for no refractory period).
    min_l2: λ never falls below it; once there it stays (ours: 0, no floor).
    trigger: "either" (paper: loss or error), "loss" or "error".

    Raises ValueError, naming the argument, for values out of range, and for an optimizer without weight_decay or with
    decoupled weight decay (AdamW, Adam(decoupled_weight_decay=True), …), which is no L2 penalty. An optimizer of
    somebody else's that decouples without saying so by flag or name is not recognized.

    >>> net = torch.nn.Linear(4, 2)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> auto_l2 = AutoL2(optimizer)
    >>> optimizer.param_groups[0]["weight_decay"]
    0.1
    >>> for loss in [3, 2, 1, 1.5, 1.2]:  # every 10 steps, of the minibatch at hand
    ...     decayed = auto_l2.step(loss)
    ...     print(decayed, round(auto_l2.get_last_l2(), 6))
    False 0.1
    False 0.1
    False 0.1
    False 0.1
    True 0.01
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        init_l2: float = 0.1,
        factor: float = 0.1,
        rule: str = "no_better",
        interval: int = 10,
        refractory: float = 0.4,
        cooldown: int = 1,
        min_l2: float = 0.0,
        trigger: str = "either",
    ):
        check_optimizer(optimizer)
        if not 0 < init_l2 < math.inf:
            raise ValueError(f"init_l2 must be positive and finite, got {init_l2}")
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        if not _whole(interval) or interval < 1:
            raise ValueError(f"interval must be a whole number of training steps, 1 or more, got {interval!r}")
        if not 0 <= refractory < math.inf:
            raise ValueError(f"refractory must be finite and not negative, got {refractory}")
        if not _whole(cooldown) or cooldown < 0:
            raise ValueError(f"cooldown must be a whole number of step calls, 0 or more, got {cooldown!r}")
        if not 0 <= min_l2 <= init_l2:
            raise ValueError(f"min_l2 must lie between 0 and init_l2 = {init_l2}, got {min_l2}")
        if trigger not in TRIGGERS:
            raise ValueError(f"trigger must be one of {', '.join(TRIGGERS)}, got {trigger!r}")
        self.optimizer, self.rule = optimizer, rule
        self.factor, self.min_l2, self.trigger = float(factor), float(min_l2), trigger
        self.interval, self.refractory, self.cooldown = int(interval), float(refractory), int(cooldown)
        self._l2 = float(init_l2)
        self._calls = 0
        self._resting_until = -1.0  # the step up to which λ cannot fall, or the call ("risen")
        self._loss, self._error = _Measurements(), _Measurements()
        self._write()

    @property
    def l2(self) -> float:
        """The λ in force."""
        return self._l2

    def get_last_l2(self) -> float:
        """The λ in force, as `get_last_lr` of a learning-rate scheduler."""
        return self._l2

    def step(self, loss: float | Tensor, error: float | Tensor | None = None) -> bool:
        """Take one measurement; True when λ has decayed.

        loss: the empirical loss, without the penalty. error: the training error; a call that leaves it out says nothing
        of it. A Tensor of one element will do for either (reading one on a GPU waits for it, so call this once an
        interval, not once a minibatch).

        Raises ValueError where the trigger is "error" and no error is given.
        """
        if self.trigger == "error" and error is None:
            raise ValueError('error is required by trigger="error"')
        loss, error = _measurement(loss), None if error is None else _measurement(error)
        judged = (self._loss, loss, self.trigger != "error"), (self._error, error, self.trigger != "loss")
        worse = any(counts and held.worse(value, self.rule) for held, value, counts in judged if value is not None)
        now = self._calls * (1 if self.rule == "risen" else self.interval)
        lowered = max(self.factor * self._l2, self.min_l2)
        decays = worse and now > self._resting_until and lowered < self._l2
        for held, value, _ in judged:
            if value is not None:
                held.take(value, forget=decays)
        self._calls += 1
        if decays:
            self._l2 = lowered
            self._resting_until = now + (self.cooldown if self.rule == "risen" else self._refractory_steps())
        self._write()  # every time: a param group may have been added
        return decays

    def state_dict(self) -> dict:
        """What `step` has accumulated, as plain numbers and None; the constructor's arguments are not part of it."""
        state = {"l2": self._l2, "calls": self._calls, "resting_until": self._resting_until}
        for name, held in (("loss", self._loss), ("error", self._error)):
            state |= {f"previous_{name}": held.previous, f"best_{name}": held.best}
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from a `state_dict`, with this object's own arguments.

        It also sets the optimizer's weight_decay. Raises ValueError, changing nothing, for a state_dict with other
        keys.
        """
        differing = sorted(set(state_dict) ^ set(self.state_dict()))
        if differing:
            raise ValueError(f"state_dict is not one of AutoL2: key {differing[0]!r} is missing or unknown")
        self._l2, self._calls = state_dict["l2"], state_dict["calls"]
        self._resting_until = state_dict["resting_until"]
        for name, held in (("loss", self._loss), ("error", self._error)):
            held.previous, held.best = state_dict[f"previous_{name}"], state_dict[f"best_{name}"]
        self._write()

    def __repr__(self) -> str:
        rests = f"cooldown={self.cooldown}" if self.rule == "risen" else f"refractory={self.refractory}"
        settings = f"rule={self.rule!r}, factor={self.factor}, interval={self.interval}, {rests}, min_l2={self.min_l2}"
        return f"AutoL2(l2={self._l2}, {settings}, trigger={self.trigger!r})"

    def _refractory_steps(self) -> float:
        """refractory·(1−μ)/(η·λ), with the largest η and μ of the param groups; infinite where η is 0."""
        groups = self.optimizer.param_groups
        rate = max(float(group["lr"]) for group in groups) * self._l2
        momentum = max(float(group.get("momentum", 0.0)) for group in groups)
        return self.refractory * (1 - momentum) / rate * (1 + 1e-9) if rate else math.inf  # 100 is not to be 99.99…

    def _write(self) -> None:
        for group in self.optimizer.param_groups:
            set_weight_decay(group, self._l2)


class _Measurements:
    """Of one quantity, lower being better: the previous measurement, and the best of those before it."""

    def __init__(self):
        self.previous: float | None = None
        self.best: float | None = None

    def worse(self, value: float, rule: str) -> bool:
        """Whether `value`, which comes next, says that λ is to fall."""
        if rule == "staircase":
            return self.best is not None
        if self.previous is None or value == self.previous == math.inf:
            return False
        if rule == "risen":
            return value > self.previous
        return self.best is not None and self.previous >= self.best and value >= self.best

    def take(self, value: float, forget: bool) -> None:
        """Make it the previous one, which itself joins the best unless it is to be forgotten."""
        if self.previous is not None and not forget:
            self.best = self.previous if self.best is None else min(self.best, self.previous)
        self.previous = value


@torch.no_grad()
def set_weight_decay(group: dict, l2: float) -> None:
    """Set the weight_decay of a param group; a Tensor is filled in place."""
    if isinstance(group["weight_decay"], Tensor):
        group["weight_decay"].fill_(l2)
    else:
        group["weight_decay"] = l2


def check_optimizer(optimizer) -> None:
    """Raise ValueError, naming the optimizer, for one that cannot apply an L2 penalty by its weight_decay."""
    name = type(optimizer).__name__
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise ValueError(f"optimizer must be a torch optimizer, got {name}")
    if any("weight_decay" not in group for group in groups):
        raise ValueError(f"optimizer {name} has no weight_decay, so it cannot apply an L2 penalty")
    settings = [getattr(optimizer, "defaults", {}), *groups]
    flagged = any(values.get(flag) for values in settings for flag in _DECOUPLED_FLAGS)
    named = any(word in base.__name__ for base in type(optimizer).__mro__ for word in _DECOUPLED_NAMES)
    if flagged or named:
        raise ValueError(
            f"optimizer {name} applies weight_decay decoupled from the gradient, which is not an L2 penalty; "
            "take one that adds it to the gradient, such as SGD or Adam"
        )


def _measurement(value: float | Tensor) -> float:
    value = float(value.detach() if isinstance(value, Tensor) else value)
    return value if math.isfinite(value) else math.inf


def _whole(value) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
