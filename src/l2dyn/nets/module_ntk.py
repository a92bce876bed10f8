"""The neural tangent kernel of any torch module, by automatic differentiation."""

import functools

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.modules.dropout import _DropoutNd


def module_ntk(net: nn.Module, x1: Tensor, x2: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """The empirical kernel Θ(x, x') = Σ_θ ∂f(x)/∂θ · ∂f(x')/∂θ over the parameters that require a gradient.

    The gradients of all samples are held, one output at a time: N times the memory of the parameters.

    Args:
        net: takes a batch of inputs to outputs [N] or [N, …]; left as it is, buffers included. Where samples depend on
            each other, as in batch normalization by batch statistics, Θ is that of this batch as a whole.
        x1: [N1, …], of any dtype that the net takes, whole numbers for an embedding.
        x2: [N2, …]; x1 where there is none.
        chunk: how many samples' backward passes run at once (all).

    Returns:
        [N1, N2] in the dtype of the parameters. With C outputs it is the mean of their C kernels: at infinite width
        Θ ⊗ 1 is the whole. For the theory with the loss as a mean over N samples divide by N (l2dyn.theory.evolve does
        so for reduction="mean").

    Raises:
        ValueError: for a net without trainable parameters, with dropout that is active (call `net.eval()` first; a
            function's own randomness is not seen), or that returns something else than a Tensor with an entry for each
            sample.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(3, 1)  # f = w·x + b, so Θ = x·x' + 1
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(module_ntk(net, x), x @ x.T + 1, atol=1e-6)
    True
    """
    parameters = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("net has no parameter that requires a gradient")
    for name, module in net.named_modules():
        if module.training and _dropout(module) > 0:
            raise ValueError(f"net has active dropout, {name or type(module).__name__}; call net.eval() first")
    fixed = {name: p.detach() for name, p in net.named_parameters() if not p.requires_grad}

    def outputs_of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        """f(x), [N, outputs]."""
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        f = functional_call(net, (parameters, fixed, buffers), (x,))
        if not isinstance(f, Tensor) or f.shape[:1] != (len(x),):
            got = f"shape {tuple(f.shape)}" if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(f"net must return a Tensor [N, …] for {len(x)} samples, got {got}")
        return f.reshape(len(x), -1)

    def gradients(x: Tensor, output: int) -> list[Tensor]:
        """∂f_output/∂θ of each parameter, [N, its size]."""

        def of(parameters: dict[str, Tensor]) -> Tensor:
            return outputs_of(parameters, x)[:, output]

        return [jacobian.flatten(1) for jacobian in jacrev(of, chunk_size=chunk)(parameters).values()]

    with torch.no_grad():
        outputs = outputs_of(parameters, x1[:2]).shape[1]
    dtype = functools.reduce(torch.promote_types, (p.dtype for p in parameters.values()))
    kernel = torch.zeros(len(x1), len(x1 if x2 is None else x2), dtype=dtype, device=x1.device)
    for output in range(outputs):
        first = gradients(x1, output)
        second = first if x2 is None else gradients(x2, output)
        for a, b in zip(first, second, strict=True):
            kernel += a @ b.mT
    return kernel / outputs


def _dropout(module: nn.Module) -> float:
    """The share that a layer drops of its own; recurrent and attention layers have it as `dropout`."""
    if isinstance(module, _DropoutNd):
        return module.p
    return module.dropout if isinstance(module, nn.RNNBase | nn.MultiheadAttention) else 0.0
