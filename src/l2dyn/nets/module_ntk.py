"""The neural tangent kernel of any torch module, by automatic differentiation."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev


def module_ntk(net: nn.Module, x1: Tensor, x2: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """The empirical kernel Θ(x, x') = Σ_θ ∂f(x)/∂θ · ∂f(x')/∂θ over the parameters that require a gradient.

    net: takes a batch of inputs to outputs [N, …]; left as it is, buffers included. Where samples depend on each other,
    as in batch normalization by batch statistics, Θ is that of this batch as a whole. x1: [N1, …], x2: [N2, …], x1
    where there is none. chunk: how many samples' backward passes run at once (all). The gradients of all samples are
    held, one output at a time: N times the memory of the parameters.

    Returns [N1, N2]. With C outputs it is the mean of their C kernels: at infinite width Θ ⊗ 1 is the whole. For the
    theory with the loss as a mean over N samples divide by N (l2dyn.theory.evolve does so for reduction="mean").

    Raises ValueError for a net without trainable parameters.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(3, 1)  # f = w·x + b, so Θ = x·x' + 1
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(module_ntk(net, x), x @ x.T + 1, atol=1e-6)
    True
    """
    parameters = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("net has no parameter that requires a gradient")
    fixed = {name: p.detach() for name, p in net.named_parameters() if not p.requires_grad}

    def gradients(x: Tensor, output: int) -> list[Tensor]:
        """∂f_output/∂θ of each parameter, [N, its size]."""

        def of(parameters: dict[str, Tensor]) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
            return functional_call(net, (parameters, fixed, buffers), (x,)).flatten(1)[:, output]

        return [jacobian.flatten(1) for jacobian in jacrev(of, chunk_size=chunk)(parameters).values()]

    with torch.no_grad():
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        outputs = functional_call(net, (parameters, fixed, buffers), (x1[:2],)).flatten(1).shape[1]
    kernel = torch.zeros(len(x1), len(x1 if x2 is None else x2), dtype=x1.dtype, device=x1.device)
    for output in range(outputs):
        first = gradients(x1, output)
        second = first if x2 is None else gradients(x2, output)
        for a, b in zip(first, second, strict=True):
            kernel += a @ b.mT
    return kernel / outputs
