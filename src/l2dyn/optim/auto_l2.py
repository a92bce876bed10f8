"""AutoL2, the L2 schedule of the paper's section 3, for any torch optimizer."""

import math
import warnings

import torch
from torch import Tensor

from l2dyn.arguments import array, number, shown
from l2dyn.optim.weight_decay import GroupedWeightDecay, check_optimizer, damped_lr, is_decoupled

RULES = ("no_better", "risen", "staircase")
TRIGGERS = ("either", "loss", "error")
UNITS = ("torch", "authors")
FLOOR = 1e-8  # of the first λ: below, weight decay does nothing


class AutoL2:
    """AutoL2 (section 3 of arXiv 2006.08643): start at a large λ, lower it whenever training gets no better.

    λ is the coefficient of the penalty (λ/2)·‖θ‖², which an optimizer with coupled weight decay (SGD, Adam, RMSprop,
    Adagrad, …) adds to the gradient as `weight_decay`. AutoL2 sets it in the param groups, at construction and at every
    `step`: in all of them where none has a weight decay (the paper's penalty is over ALL parameters); otherwise each
    keeps its ratio to the largest, so that a group at 0 (biases, norms) stays there, groups added later included. Give
    `step` one measurement every `interval` training steps: the empirical loss (without the penalty) and, if you have
    it, the training error. When either says so, λ ← factor·λ; then follows a refractory period in which λ cannot fall
    again.

    With a decoupled optimizer (AdamW, SGDW, Muon, …) the same schedule drives its weight decay: each step takes
    η·λ·θ off the parameters, apart from the gradient and its preconditioning. That is no L2 penalty, and the paper says
    nothing of it; a warning tells it once.

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
    that call lowers λ. Its refractory period grows as 1/λ, the time scale of the paper's law (SGD's dampening d makes
    it longer by 1/(1−d)). It is counted with the learning rate at the decay; where that rises later, from 0 at the end
    of a cycle, say, it ends at the latest one period of the new learning rate afterwards. Their settings are interval
    10, refractory 0.4, and first λ 0.1 in their own units: a weight_decay of 2.0 with 10 classes (their learning rate
    0.2 is lr = 0.02).

    A measurement that is not finite counts as +∞, and a pair of them lowers nothing: a diverged run neither stops the
    training loop nor drives λ to 0.

    AutoL2 is meant for a constant learning rate; with a learning-rate schedule the paper finds no gain. With gradient
    accumulation a training step is one of the optimizer. In data-parallel training each process has a loss of its own,
    and their λ would drift apart: give every process the same numbers, or set distributed=True.

    Args:
        optimizer: its λ is ours from now on, also after its load_state_dict, in whatever order the two are loaded.
            Where a group's weight_decay is a Tensor it is filled in place, so that a captured CUDA graph or a compiled
            step goes on seeing it. One that is wrapped by another (Accelerate's) will do.
        init_l2: first λ, in `units` (paper: 0.1 in the authors', which is a weight_decay of 2 with 10 classes).
        factor: what λ is multiplied by, in (0, 1) (paper: 0.1).
        rule: "no_better", "risen" or "staircase".
        interval: training steps between two calls of `step`; the refractory period in steps is counted by it.
        refractory: see the table; not used by "risen".
        cooldown: the number of `step` calls after a decay that cannot decay; they still become the previous measurement
            of the next call; used by "risen" (ours: 1; 0 for no refractory period).
        min_l2: λ never falls below it; once there it stays (ours: 1e-8 of init_l2; 0 for no floor).
        trigger: "either" (paper: loss or error), "loss" or "error".
        decoupled: whether the optimizer's weight decay acts apart from the gradient; None asks its flags, its name and
            what it wraps.
        keep_ratios: False sets λ in every group alike, also in those at 0.
        units: "authors" takes init_l2 and min_l2 as the authors' code does, and shows λ so: weight_decay = 2·classes·λ.
        classes: how many the loss is averaged over, for units="authors".
        distributed: average loss and error over the processes of torch.distributed's default group before judging them.

    Raises:
        ValueError: naming the argument, for values out of range or of another type (a number that YAML read as text),
            and for an optimizer without weight_decay.

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
        min_l2: float | None = None,
        trigger: str = "either",
        *,
        decoupled: bool | None = None,
        keep_ratios: bool = True,
        units: str = "torch",
        classes: int | None = None,
        distributed: bool = False,
    ):
        check_optimizer(optimizer)
        init_l2, factor, refractory = (
            number("init_l2", init_l2),
            number("factor", factor),
            number("refractory", refractory),
        )
        min_l2 = FLOOR * init_l2 if min_l2 is None else number("min_l2", min_l2)
        if not 0 < init_l2 < math.inf:
            raise ValueError(f"init_l2 must be positive and finite, got {init_l2}")
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if not _whole(interval) or interval < 1:
            raise ValueError(f"interval must be a whole number of training steps, 1 or more, got {interval!r}")
        if not 0 <= refractory < math.inf:
            raise ValueError(f"refractory must be finite and not negative, got {refractory}")
        if not _whole(cooldown) or cooldown < 0:
            raise ValueError(f"cooldown must be a whole number of step calls, 0 or more, got {cooldown!r}")
        if not 0 <= min_l2 <= init_l2:
            raise ValueError(f"min_l2 must lie between 0 and init_l2 = {init_l2}, got {min_l2}")
        for name, value, known in (("rule", rule, RULES), ("trigger", trigger, TRIGGERS), ("units", units, UNITS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        _check_truth("decoupled", decoupled, (True, False, None))
        _check_truth("keep_ratios", keep_ratios, (True, False))
        _check_truth("distributed", distributed, (True, False))
        if (classes is None) != (units == "torch") or (classes is not None and (not _whole(classes) or classes < 1)):
            raise ValueError(f"classes must be a whole number with units='authors', and None without, got {classes!r}")
        self.optimizer, self.rule, self.units, self.distributed = optimizer, rule, units, distributed
        self.factor, self.min_l2, self.trigger = factor, min_l2, trigger
        self.interval, self.refractory, self.cooldown = int(interval), refractory, int(cooldown)
        self._in_torch = 1 if classes is None else 2 * int(classes)  # weight_decay of λ = 1
        self._l2 = init_l2
        self._calls = 0
        self._resting_until = -1.0  # the step up to which λ cannot fall, or the call ("risen")
        self._loss, self._error = _Measurements(), _Measurements()
        self._groups = GroupedWeightDecay(optimizer, keep_ratios)
        if is_decoupled(optimizer) if decoupled is None else decoupled:
            warnings.warn(
                f"AutoL2 schedules the decoupled weight decay of {type(optimizer).__name__}, which is no L2 penalty",
                stacklevel=2,
            )
        self._write()
        self._listen()

    @property
    def l2(self) -> float:
        """The λ in force."""
        return self._l2

    def get_last_l2(self) -> float:
        """The λ in force, as `get_last_lr` of a learning-rate scheduler."""
        return self._l2

    def step(self, loss: float | Tensor, error: float | Tensor | None = None) -> bool:
        """Take one measurement; True when λ has decayed.

        A Tensor of one element will do for either (reading one on a GPU waits for it, so call this once an interval,
        not once a minibatch).

        Args:
            loss: the empirical loss, without the penalty.
            error: the training error; a call that leaves it out says nothing of it.

        Raises:
            ValueError: naming the argument and changing nothing, for what is no number, and where the trigger is
                "error" and no error is given.
        """
        if self.trigger == "error" and error is None:
            raise ValueError('error is required by trigger="error"')
        loss, error = _measurement("loss", loss), None if error is None else _measurement("error", error)
        if self.distributed:
            loss, error = self._averaged(loss, error)
        judged = (self._loss, loss, self.trigger != "error"), (self._error, error, self.trigger != "loss")
        worse = any(counts and held.worse(value, self.rule) for held, value, counts in judged if value is not None)
        now = self._calls * (1 if self.rule == "risen" else self.interval)
        if self.rule != "risen":  # the learning rate may have risen, from 0 even, since λ fell
            self._resting_until = min(self._resting_until, now + self._refractory_steps())
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
        state |= {"ratios": list(self._groups.ratios), "largest": self._groups.largest}
        for name, held in (("loss", self._loss), ("error", self._error)):
            state |= {f"previous_{name}": held.previous, f"best_{name}": held.best}
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from a `state_dict`, with this object's own arguments.

        It also sets the optimizer's weight_decay; whether the optimizer's own state is loaded before or after makes no
        difference.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            ValueError: changing nothing, for what is no state_dict, for one with other keys or what is no number there,
                and for one of an optimizer with another number of param groups or other groups at 0.
        """
        if not isinstance(state_dict, dict):
            raise ValueError(f"state_dict must be a dictionary, got {shown(state_dict)}")
        state_dict = {"largest": self._groups.largest} | state_dict  # which states of earlier versions lack
        differing = sorted(set(state_dict) ^ set(self.state_dict()))
        if differing:
            raise ValueError(f"state_dict is not one of AutoL2: key {differing[0]!r} is missing or unknown")
        l2, resting_until = _stored(state_dict, "l2", least=0.0), _stored(state_dict, "resting_until", least=-1.0)
        calls = state_dict["calls"]
        if l2 == math.inf:
            raise ValueError("state_dict['l2'] must be finite, got inf")
        if not _whole(calls) or calls < 0:
            raise ValueError(f"state_dict['calls'] must be a whole number, 0 or more, got {calls!r}")
        ratios, largest = self._fitting(state_dict["ratios"]), _stored(state_dict, "largest", least=0.0)
        measured = [f"{which}_{name}" for name in ("loss", "error") for which in ("previous", "best")]
        found = {key: None if state_dict[key] is None else _stored(state_dict, key) for key in measured}
        self._l2, self._calls, self._resting_until = l2, int(calls), resting_until
        self._groups.ratios, self._groups.largest = ratios, largest
        for name, held in (("loss", self._loss), ("error", self._error)):
            held.previous, held.best = found[f"previous_{name}"], found[f"best_{name}"]
        self._write()

    def _fitting(self, stored) -> list[float]:
        """The stored ratios of weight decays; ValueError where they are those of other param groups."""
        ratios, own = array("state_dict['ratios']", stored), self._groups.current_ratios()
        if ratios.shape != (len(own),):
            raise ValueError(
                f"state_dict['ratios'] is of {ratios.size} param groups, but the optimizer has {len(own)}; "
                "add the same groups before loading"
            )
        if not ((ratios >= 0) & (ratios < math.inf)).all() or ((ratios == 0) != (array("ratios", own) == 0)).any():
            raise ValueError(
                f"state_dict['ratios'] = {ratios.tolist()} does not fit the optimizer, whose param groups have the "
                f"weight decays {own}, as parts of the largest: are the groups in another order?"
            )
        return ratios.tolist()

    def __repr__(self) -> str:
        rests = f"cooldown={self.cooldown}" if self.rule == "risen" else f"refractory={self.refractory}"
        settings = f"rule={self.rule!r}, factor={self.factor}, interval={self.interval}, {rests}, min_l2={self.min_l2}"
        return f"AutoL2(l2={self._l2}, {settings}, trigger={self.trigger!r})"

    def _refractory_steps(self) -> float:
        """refractory·(1−μ)/(η·(1−d)·λ), d being SGD's dampening; infinite where η is 0.

        The largest η·(1−d) and μ of the param groups count.
        """
        groups = self.optimizer.param_groups
        rate = max(damped_lr(group) for group in groups) * self._l2 * self._in_torch
        momentum = max(float(group.get("momentum", 0.0)) for group in groups)
        return self.refractory * (1 - momentum) / rate * (1 + 1e-9) if rate else math.inf  # 100 is not to be 99.99…

    def _write(self) -> None:
        self._groups.set(self._l2 * self._in_torch)

    def _listen(self) -> None:
        """Keep λ in force where the optimizer loads a state that holds an older one."""
        innermost = self.optimizer
        while isinstance(getattr(innermost, "optimizer", None), torch.optim.Optimizer):
            innermost = innermost.optimizer
        if isinstance(innermost, torch.optim.Optimizer):
            innermost.register_load_state_dict_post_hook(lambda optimizer: self._write())

    def __setstate__(self, state: dict) -> None:
        """A copy listens to its own optimizer, which comes without hooks."""
        self.__dict__.update(state)
        self._listen()

    def _averaged(self, loss: float, error: float | None) -> tuple[float, float | None]:
        """Both as means over the processes; not finite where it is so in one of them."""
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("distributed=True needs an initialized torch.distributed process group")
        device = self.optimizer.param_groups[0]["params"][0].device if dist.get_backend() == "nccl" else "cpu"
        both = torch.tensor([loss, 0.0 if error is None else error], dtype=torch.float64, device=device)
        dist.all_reduce(both)
        loss, mean_error = (both / dist.get_world_size()).tolist()
        return loss, None if error is None else mean_error


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


def _measurement(name: str, value: float | Tensor) -> float:
    value = number(name, value)
    return value if math.isfinite(value) else math.inf


def _stored(state_dict: dict, key: str, least: float = -math.inf) -> float:
    value = number(f"state_dict[{key!r}]", state_dict[key])
    if not value >= least:
        raise ValueError(f"state_dict[{key!r}] must be a number of at least {least:g}, got {value}")
    return value


def _check_truth(name: str, value, known: tuple) -> None:
    if not any(value is one for one in known):
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {shown(value)}")


def _whole(value) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
