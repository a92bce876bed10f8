"""The weight_decay of an optimizer's param groups: what kind it is, in which ratios, and how it is set."""

import torch
from torch import Tensor

from l2dyn.arguments import number

# what optimizers of PyTorch and of others call it; one that is False says that the decay is coupled
_FLAGS = (
    *("decoupled_weight_decay", "weight_decouple", "decouple", "decouple_decay", "decoupled_decay", "decoupled"),
    *("adam_w_mode", "adamw_mode"),  # of fused Adams, as attributes of the optimizer
)
# decay apart from the gradient, or of a gradient that is then normalized, and set no flag, or not in every version
_NAMES = (
    *("AdamW", "SGDW", "Adafactor", "Muon", "Lion", "Lamb", "LARS", "Lars", "AdamP", "SGDP", "Adan", "LaProp", "SOAP"),
    *("NAdamW", "RAdamW", "Sophia", "CAME", "Shampoo", "ScheduleFree", "AdEMAMix", "MARS", "Tiger"),
)


def check_optimizer(optimizer) -> None:
    """Raise ValueError, naming the optimizer, for what is no torch optimizer or has no number as weight_decay."""
    name = type(optimizer).__name__
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise ValueError(f"optimizer must be a torch optimizer, got {name}")
    if any("weight_decay" not in group for group in groups):
        raise ValueError(f"optimizer {name} has no weight_decay, so it cannot apply an L2 penalty")
    for i, group in enumerate(groups):
        number(f"weight_decay of the optimizer's param group {i}", group["weight_decay"])


def is_decoupled(optimizer) -> bool:
    """Whether weight_decay acts apart from the gradient, so that it is no L2 penalty.

    By the flag where the optimizer has one, else by its name or a base class's; an optimizer that is wrapped by another
    (Accelerate's has it as `optimizer`) is looked into.

    >>> import torch
    >>> theta = [torch.nn.Parameter(torch.zeros(1))]
    >>> is_decoupled(torch.optim.SGD(theta)), is_decoupled(torch.optim.AdamW(theta))
    (False, True)
    """
    seen = []
    while optimizer is not None and all(optimizer is not one for one in seen):
        seen.append(optimizer)
        optimizer = getattr(optimizer, "optimizer", None)
    for one in seen:
        for values in (getattr(one, "defaults", {}), *getattr(one, "param_groups", []), getattr(one, "__dict__", {})):
            flags = [bool(values[flag]) for flag in _FLAGS if values.get(flag) is not None]
            if flags:
                return any(flags)
    return any(word in base.__name__ for one in seen for base in type(one).__mro__ for word in _NAMES)


class GroupedWeightDecay:
    """One λ for an optimizer's param groups, each of which keeps its ratio to the largest weight_decay it came with.

    Where no group has a weight_decay, or with keep_ratios=False, all of them get λ. A group with 0 (biases, norms)
    stays at 0. A group that is added later gets λ in the ratio of its weight_decay to that largest one. A weight_decay
    that is a Tensor is filled in place, so that a captured CUDA graph or a compiled step goes on seeing it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, keep_ratios: bool = True):
        self.optimizer, self.keep_ratios = optimizer, keep_ratios
        self.largest = max((float(group["weight_decay"]) for group in optimizer.param_groups), default=0.0)
        self.ratios: list[float] = []
        self.current_ratios()

    def set(self, l2: float) -> None:
        """Set λ in every group, those added meanwhile included."""
        self.current_ratios()
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=False):
            set_weight_decay(group, ratio * l2)

    def current_ratios(self) -> list[float]:
        """The ratio of every group to the largest weight_decay; those of groups that are new are noted."""
        for group in self.optimizer.param_groups[len(self.ratios) :]:
            kept = self.keep_ratios and self.largest > 0
            self.ratios.append(float(group["weight_decay"]) / self.largest if kept else 1.0)
        return list(self.ratios)


def damped_lr(group: dict) -> float:
    """η·(1−d) of a param group: SGD's momentum takes up that part of each gradient, d being its dampening.

    Without momentum SGD makes no use of d.
    """
    lr, momentum, dampening = (float(group.get(name, 0.0)) for name in ("lr", "momentum", "dampening"))
    return lr * (1 - dampening) if momentum else lr


@torch.no_grad()
def set_weight_decay(group: dict, l2: float) -> None:
    """Set the weight_decay of a param group; a Tensor is filled in place."""
    if isinstance(group["weight_decay"], Tensor):
        group["weight_decay"].fill_(l2)
    else:
        group["weight_decay"] = l2
