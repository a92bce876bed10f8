"""Fully-connected ReLU nets of one shape, E of them as stacked parameters, with their backward pass written out.

The backward pass hands out each layer's factors instead of a gradient, so that the optimizer can accumulate their
product straight into the parameters or the velocity: one batched matrix product a layer, and no gradient buffer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from l2dyn.nets.fully_connected import draw_parameters, layer_multipliers
from l2dyn.specs.nets import FullyConnectedSpec


@dataclass
class Span:
    """The first layer of E nets, held in the span of the N samples that all of them train on, the full batch.

    Gradient descent moves W only along xᵀ, and L2 shrinks it: W = scale·W₀ + m·xᵀ·coefficients throughout, m being the
    layer's multiplier. A step then needs one product with the [N, N] Gram matrix instead of two with x.
    """

    x: Tensor  # [N, inputs]
    gram: Tensor  # m²·x·xᵀ, [N, N]
    origin: Tensor  # W₀, [E, inputs, width]
    start: Tensor  # m·x·W₀, [E, N, width]
    scale: Tensor  # [E, 1, 1]
    coefficients: Tensor  # [E, N, width]

    def members(self, chosen: slice | Tensor) -> "Span":
        """These members: views for a slice."""
        of_members = (self.origin, self.start, self.scale, self.coefficients)
        return Span(self.x, self.gram, *(tensor[chosen] for tensor in of_members))


class StackedFullyConnected:
    """E nets `inputs → width × hidden_layers → outputs`.

    weights[l]: [E, fan_in, fan_out], multiplied by multipliers[l] in the forward pass (1, or weight_std/√fan_in in NTK
    parameterization). biases[l]: [E, 1, fan_out]; the list is empty for a bias-free net. product_dtype: what both
    operands of every product are rounded to; None leaves them as they are.
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        multipliers: list[float],
        product_dtype: torch.dtype | None = None,
        span: Span | None = None,
    ):
        self.weights, self.biases, self.multipliers = weights, biases, multipliers
        self.product_dtype, self.span = product_dtype, span

    @classmethod
    def initialized(
        cls,
        spec: FullyConnectedSpec,
        inputs: int,
        outputs: int,
        seeds: list[int],
        dtype: torch.dtype,
        device: str,
        product_dtype: torch.dtype | None = None,
    ) -> "StackedFullyConnected":
        """Member e drawn from seeds[e], whatever its company, precision or device."""
        drawn = {seed: draw_parameters(spec, inputs, outputs, seed) for seed in set(seeds)}
        layers = spec.hidden_layers + 1
        weights = [torch.stack([drawn[s][layer] for s in seeds]).to(device, dtype) for layer in range(layers)]
        biases = []
        if spec.bias:
            fans_out = [w.shape[2] for w in weights]
            biases = [torch.zeros(len(seeds), 1, fan_out, dtype=dtype, device=device) for fan_out in fans_out]
        return cls(weights, biases, layer_multipliers(spec, inputs), product_dtype)

    @property
    def parameters(self) -> list[Tensor]:
        """Weights, then biases. With a span, the first weights are those of the last `materialize`."""
        return [*self.weights, *self.biases]

    @property
    def trained(self) -> list[Tensor]:
        """What training changes and a checkpoint holds: `parameters`, or with a span its tensors for the first ones."""
        if self.span is None:
            return self.parameters
        return [self.span.scale, self.span.coefficients, *self.weights[1:], *self.biases]

    def __len__(self) -> int:
        return self.weights[0].shape[0]

    def hold_in_span(self, x: Tensor) -> None:
        """From now on train on all of x [N, inputs] at once, with the first layer as a `Span`."""
        multiplier, origin = self.multipliers[0], self.weights[0].clone()
        start = torch.matmul(x, origin).mul_(multiplier)
        scale = torch.ones_like(origin[:, :1, :1])
        self.span = Span(x, multiplier**2 * (x @ x.T), origin, start, scale, torch.zeros_like(start))

    def materialize(self) -> None:
        """Bring weights[0] up to date with the span."""
        if (span := self.span) is not None:
            torch.mul(span.origin, span.scale, out=self.weights[0])
            self.accumulate(self.weights[0], span.x.T, span.coefficients, self.multipliers[0])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Activations of every layer, the last [E, N, outputs], for inputs x [N, inputs] (shared) or [E, N, inputs]."""
        return [x, *self._above(0, x)]

    def forward_on_span(self) -> list[Tensor | None]:
        """`forward` on the samples of the span, from what is trained; None stands for the inputs."""
        span = self.span
        first = torch.addcmul(self.biases[0], span.start, span.scale) if self.biases else span.start * span.scale
        self.accumulate(first, span.gram, span.coefficients)
        if len(self.weights) > 1:
            first.relu_()
        return [None, first, *self._above(1, first)]

    def backward(
        self, activations: list[Tensor | None], delta: Tensor
    ) -> Iterator[tuple[int, Tensor | None, Tensor | None, float]]:
        """From ∂L/∂output `delta` [E, N, outputs], yield (i, left, right, m): trained[i] has the gradient m·left·right.

        left None: it is m·right itself; right None: it is zero. Weights are handed out from the last layer down, each
        once δ of the layer below is computed, so the caller may update them at once.
        """
        last = len(self.weights) - 1
        spanned = int(self.span is not None)  # where a span puts two tensors into the place of one
        for layer in reversed(range(last + 1)):
            below = None
            if layer > 0:
                below = self._product(delta, self.weights[layer].mT)
                if self.multipliers[layer] != 1.0:
                    below.mul_(self.multipliers[layer])
                torch.ops.aten.threshold_backward.grad_input(below, activations[layer], 0, grad_input=below)
            if layer == 0 and self.span is not None:
                yield 0, None, None, 0.0
                yield 1, None, delta, 1.0
            else:
                yield layer + spanned, activations[layer].mT, delta, self.multipliers[layer]
            if self.biases:
                yield last + 1 + spanned + layer, None, delta.sum(dim=1, keepdim=True), 1.0
            delta = below

    def accumulate(self, held: Tensor, left: Tensor | None, right: Tensor | None, multiplier: float = 1.0) -> None:
        """Add multiplier·left·right to `held`, with `left` and `right` as `backward` hands them out."""
        if right is None:
            return
        if left is None:
            held.add_(right, alpha=multiplier)
        elif self.product_dtype is None:
            held.baddbmm_(self._stacked(left), right, alpha=multiplier)
        else:
            held.add_(self._product(left, right), alpha=multiplier)

    def norms(self) -> Tensor:
        """‖θ‖ of each member, [E], in float64."""
        squares = sum(p.to(torch.float64).square().sum(dim=(1, 2)) for p in self.parameters)
        return squares.sqrt()

    def members(self, chosen: slice | Tensor) -> "StackedFullyConnected":
        """The net of these members only: its tensors are views for a slice, copies for indices."""
        weights, biases = ([tensor[chosen] for tensor in held] for held in (self.weights, self.biases))
        span = self.span.members(chosen) if self.span else None
        return StackedFullyConnected(weights, biases, self.multipliers, self.product_dtype, span)

    def _above(self, first: int, hidden: Tensor) -> Iterator[Tensor]:
        """Activations of layers `first` and above, from those below."""
        last = len(self.weights) - 1
        for layer in range(first, last + 1):
            weight, multiplier = self.weights[layer], self.multipliers[layer]
            if self.biases and self.product_dtype is None:
                hidden = torch.baddbmm(self.biases[layer], self._stacked(hidden), weight, alpha=multiplier)
            else:
                hidden = self._product(hidden, weight).mul_(multiplier)
                if self.biases:
                    hidden.add_(self.biases[layer])
            if layer < last:
                hidden = hidden.relu_()
            yield hidden

    def _stacked(self, left: Tensor) -> Tensor:
        """An operand that the members share, once for each (without a copy)."""
        return left.expand(len(self), *left.shape) if left.dim() == 2 else left

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """left·right for each member, in the parameters' dtype, of operands rounded to product_dtype."""
        if self.product_dtype is None:
            return torch.bmm(self._stacked(left), right)
        left, rounded = self._stacked(left.to(self.product_dtype)), right.to(self.product_dtype)
        if right.is_cuda:
            return torch.bmm(left, rounded, out_dtype=right.dtype)
        return torch.bmm(left.to(right.dtype), rounded.to(right.dtype))  # the same products and sums


def cross_entropy(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, error) of each member, [E]: softmax cross-entropy, mean over samples, and the fraction misclassified.

    outputs: [E, N, classes]; labels: class indices [N] or [E, N].
    """
    labels = labels.expand(outputs.shape[:2])
    chosen = outputs.gather(2, labels[..., None]).squeeze(2)
    loss = (outputs.logsumexp(dim=2) - chosen).mean(dim=1)
    return loss, (outputs.argmax(dim=2) != labels).to(outputs.dtype).mean(dim=1)


def cross_entropy_delta(outputs: Tensor, labels: Tensor) -> Tensor:
    """∂loss/∂outputs of `cross_entropy`, [E, N, classes]."""
    labels = labels.expand(outputs.shape[:2])
    delta = outputs.mT.softmax(dim=1).mT.contiguous()  # over an outer dimension it is vectorized
    delta.scatter_add_(2, labels[..., None], torch.full_like(delta[..., :1], -1.0))
    return delta.div_(outputs.shape[1])


def half_mse(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, error) of each member, [E]: ½·Σ_outputs (f − y)², mean over samples, and the fraction of wrong signs.

    outputs: [E, N, C]; targets: [N, C] or [E, N, C]. With several outputs the error is that of the largest one.
    """
    targets = targets.expand(outputs.shape)
    loss = 0.5 * (outputs - targets).square().sum(dim=2).mean(dim=1)
    if outputs.shape[2] == 1:
        wrong = outputs.sign() != targets.sign()
        return loss, wrong.squeeze(2).to(outputs.dtype).mean(dim=1)
    wrong = outputs.argmax(dim=2) != targets.argmax(dim=2)
    return loss, wrong.to(outputs.dtype).mean(dim=1)


def half_mse_delta(outputs: Tensor, targets: Tensor) -> Tensor:
    """∂loss/∂outputs of `half_mse`, [E, N, C]."""
    return (outputs - targets).div_(outputs.shape[1])
