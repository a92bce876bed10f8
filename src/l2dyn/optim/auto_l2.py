"""AutoL2, the L2 schedule of the paper's section 3, for any torch optimizer with coupled weight decay."""

import math

import torch
from torch import Tensor

TRIGGERS = ("either", "loss", "error")
_DECOUPLED_FLAGS = ("decoupled_weight_decay", "weight_decouple")
_DECOUPLED_NAMES = ("AdamW", "SGDW", "Adafactor", "Muon", "Lion")  # they set no flag, or not in every version
_STATE = ("l2", "cooldown_left", "previous_loss", "previous_error")


class AutoL2:
    """AutoL2 (section 3 of arXiv 2006.08643): start at a large λ, lower it whenever training gets worse.

    λ is the coefficient of the penalty (λ/2)·‖θ‖² over ALL parameters, which an optimizer with coupled weight decay
    (SGD, Adam, RMSprop, Adagrad, …) adds to the gradient as `weight_decay`. AutoL2 sets it in every param group, at
    construction and at every `step`, whatever the groups had before. After each interval of training, give `step` the
    empirical loss (without the penalty), a mean over that interval rather than one minibatch, and if you have it the
    training error. If one of them has risen since the previous measurement, λ ← factor·λ; then follows a refractory
    period in which λ cannot fall again.

    The paper fixes init_l2 and factor. It does not fix what "risen" means, the measurement interval or the length of
    the refractory period; here "risen" is strictly greater than the previous measurement, the interval is whatever
    lies between two calls of `step` (one epoch is our habit), and `cooldown` counts calls of `step`.

    A measurement that is not finite counts as +∞: going from a finite one to it is a rise, staying there is none, and
    coming back is a fall. So a diverged run neither stops the training loop nor drives λ to 0.

    AutoL2 is meant for a constant learning rate; with a learning-rate schedule the paper finds no gain.

    optimizer: its λ is ours from now on. Where a group's weight_decay is a Tensor it is filled in place, so that a
        captured CUDA graph or a compiled step goes on seeing it.
    init_l2: first λ (paper: 0.1).
    factor: what λ is multiplied by, in (0, 1) (paper: 0.1).
    cooldown: the number of `step` calls after a decay that cannot decay; they still become the previous measurement
        of the next call (ours: 1; 0 for no refractory period).
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
    >>> for mean_loss in [3, 2, 1, 1.5]:  # after each epoch of training
    ...     decayed = auto_l2.step(mean_loss)
    ...     print(decayed, round(auto_l2.get_last_l2(), 6))
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
        cooldown: int = 1,
        min_l2: float = 0.0,
        trigger: str = "either",
    ):
        check_optimizer(optimizer)
        if not 0 < init_l2 < math.inf:
            raise ValueError(f"init_l2 must be positive and finite, got {init_l2}")
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if isinstance(cooldown, bool) or not hasattr(cooldown, "__index__") or cooldown < 0:
            raise ValueError(f"cooldown must be a whole number of step calls, 0 or more, got {cooldown!r}")
        if not 0 <= min_l2 <= init_l2:
            raise ValueError(f"min_l2 must lie between 0 and init_l2 = {init_l2}, got {min_l2}")
        if trigger not in TRIGGERS:
            raise ValueError(f"trigger must be one of {', '.join(TRIGGERS)}, got {trigger!r}")
        self.optimizer = optimizer
        self.factor, self.cooldown, self.min_l2, self.trigger = float(factor), int(cooldown), float(min_l2), trigger
        self._l2 = float(init_l2)
        self._cooldown_left = 0
        self._previous_loss: float | None = None
        self._previous_error: float | None = None
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

        loss: the empirical loss, without the penalty. error: the training error; where a call leaves it out, the next
        one given is compared with the last one given. A Tensor of one element will do for either (reading one on a
        GPU waits for it, so call this once an interval, not once a minibatch).

        Raises ValueError where the trigger is "error" and no error is given.
        """
        if self.trigger == "error" and error is None:
            raise ValueError('error is required by trigger="error"')
        loss, error = _measurement(loss), None if error is None else _measurement(error)
        risen = (self.trigger != "error" and _rose(self._previous_loss, loss)) or (
            self.trigger != "loss" and _rose(self._previous_error, error)
        )
        self._previous_loss = loss
        self._previous_error = self._previous_error if error is None else error
        lowered = max(self.factor * self._l2, self.min_l2)
        decays = risen and self._cooldown_left == 0 and lowered < self._l2
        if decays:
            self._l2, self._cooldown_left = lowered, self.cooldown
        elif self._cooldown_left:
            self._cooldown_left -= 1
        self._write()  # every time: a param group may have been added
        return decays

    def state_dict(self) -> dict:
        """What `step` has accumulated, as plain numbers and None; the constructor's arguments are not part of it."""
        return {name: getattr(self, f"_{name}") for name in _STATE}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from a `state_dict`, with this object's own factor, cooldown, min_l2 and trigger.

        It also sets the optimizer's weight_decay. Raises ValueError, changing nothing, for a state_dict with other
        keys.
        """
        differing = sorted(set(state_dict) ^ set(_STATE))
        if differing:
            raise ValueError(f"state_dict is not one of AutoL2: key {differing[0]!r} is missing or unknown")
        for name in _STATE:
            setattr(self, f"_{name}", state_dict[name])
        self._write()

    def __repr__(self) -> str:
        settings = f"factor={self.factor}, cooldown={self.cooldown}, min_l2={self.min_l2}, trigger={self.trigger!r}"
        return f"AutoL2(l2={self._l2}, {settings})"

    def _write(self) -> None:
        for group in self.optimizer.param_groups:
            set_weight_decay(group, self._l2)


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


def _rose(previous: float | None, current: float | None) -> bool:
    return previous is not None and current is not None and current > previous
