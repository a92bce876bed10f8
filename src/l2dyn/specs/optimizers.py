"""The kinds of optimizer: a new one is a class here, named in OPTIMIZERS below."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from l2dyn.specs.base import Spec, one_of

Momentum = Annotated[float, Field(ge=0, lt=1, strict=True)]


class OptimizerSpec(Spec):
    """An optimizer; where nothing else is said its weight decay is coupled: λθ is added to the gradient.

    That is the penalty (λ/2)·‖θ‖² of the paper.

    optimizer: import path of its torch class, which is called with the parameters, lr, weight_decay and `arguments()`.
    stacks: whether the stacked trainer has its update, too. A field `momentum` is what C = η·S·λ·t/(1−μ) takes for μ.
    """

    optimizer: ClassVar[str]
    stacks: ClassVar[bool] = False

    kind: str

    def arguments(self) -> dict:
        """Keyword arguments of the torch class besides lr and weight_decay."""
        return {}

    def describe(self) -> str:
        """The optimizer in a few words, for figures."""
        return self.optimizer.rpartition(":")[2]


class SGDSpec(OptimizerSpec):
    """Stochastic gradient descent: v ← μv + g, θ ← θ − ηv, with momentum μ."""

    optimizer: ClassVar[str] = "torch.optim:SGD"
    stacks: ClassVar[bool] = True

    kind: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.0

    def arguments(self) -> dict:
        """See OptimizerSpec."""
        return {"momentum": self.momentum}

    def describe(self) -> str:
        """See OptimizerSpec."""
        return f"momentum {self.momentum:g}" if self.momentum else "plain SGD"


class AdamWSpec(OptimizerSpec):
    """AdamW: each step first takes η·λ·θ off the parameters. That decay is decoupled: λ is no coefficient of a penalty.

    beta1, beta2: of the running means of the gradient and of its square.
    """

    optimizer: ClassVar[str] = "torch.optim:AdamW"

    kind: Literal["adamw"] = "adamw"
    beta1: Momentum = 0.9
    beta2: Momentum = 0.999

    def arguments(self) -> dict:
        """See OptimizerSpec."""
        return {"betas": (self.beta1, self.beta2), "fused": True}  # torch's default takes longer on a CPU


OPTIMIZERS = (SGDSpec, AdamWSpec)
AnyOptimizerSpec = one_of(*OPTIMIZERS)
