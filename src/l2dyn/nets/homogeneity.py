"""How nearly a network is homogeneous in its parameters, f(aθ) = a^k f(θ), which Theorem 1 assumes (section 4).

With D = θ·∇, Euler's identity says Df = k f. k̂ = ⟨Df, f⟩/⟨f, f⟩ is the best k, and the residual what no k explains,
|Df - k̂f| over the larger of |Df| and |f| (for k = 0, Df is nothing but rounding). At zero biases a net with biases
satisfies the identity by accident, so they are drawn first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from l2dyn.data import Samples
from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.fully_connected import StackedFullyConnected
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.plan import Task
from l2dyn.runs.spec import ConvNetSpec, FullyConnectedSpec, RunSpec, WideResNetSpec
from l2dyn.training.ensemble import Ensemble
from l2dyn.training.inputs import Images
from l2dyn.training.single_net import SingleNet

EXACT = 1e-6  # a residual below this is rounding: Theorem 1 applies


@dataclass(frozen=True)
class HomogeneityReport:
    """k̂, the residual, and f(θ/2) and f(2θ) along f(θ), which are 2^-k and 2^k for a homogeneous net."""

    k: float
    residual: float
    half: float
    double: float

    @property
    def homogeneous(self) -> bool:
        """Whether Theorem 1 applies, to rounding."""
        return self.residual < EXACT


def homogeneity(
    function: Callable[[Mapping[str, Tensor], Tensor], Tensor], parameters: Mapping[str, Tensor], inputs: Tensor
) -> HomogeneityReport:
    """The report of f = function(parameters, inputs), over all outputs of all inputs; parameters are those that train.

    Best in float64. Raises ValueError where f is 0 everywhere.

    >>> linear = lambda p, x: x @ p["weight"]
    >>> report = homogeneity(linear, {"weight": torch.ones(3, 1)}, torch.ones(5, 3))
    >>> report.k, report.residual, report.half, report.double
    (1.0, 0.0, 0.5, 2.0)
    """
    parameters = dict(parameters)
    f, derivative = torch.func.jvp(lambda p: function(p, inputs), (parameters,), (parameters,))
    square = float((f * f).sum())
    if square == 0:
        raise ValueError("the function is 0 on all inputs")
    k = float((derivative * f).sum()) / square
    residual = float((derivative - k * f).norm()) / max(float(derivative.norm()), square**0.5)

    def along(scale: float) -> float:
        return float((function({n: scale * p for n, p in parameters.items()}, inputs) * f).sum()) / square

    return HomogeneityReport(k, residual, along(0.5), along(2.0))


def homogeneity_table(samples: Samples, steps: int = 300, seed: int = 0) -> dict[str, list]:
    """The report of every kind of model in the project, small ones, before and after training: columns for a CSV.

    Before training biases are drawn, N(0, 0.1²). "exact" rows have batch norm with ε = 0 and train the named parameters
    only. samples: images to train and measure on. steps: of training, at η = 0.05 and λ = 0.01.
    """
    fc = FullyConnectedSpec(hidden_layers=2, width=64, bias=False)
    conv = ConvNetSpec(channels=(8, 8, 16, 16), dense=32, pool=2, pool_stride=2)
    norm = replace(conv, batch_norm=True)
    rows: list[dict] = []

    def add(title: str, spec, **how) -> None:
        for when in ("before", "after"):
            net, images = _net(spec, samples, steps if when == "after" else 0, seed, how.get("eps"))
            report = homogeneity(*_trained_part(net, how.get("trained", "")), images)
            values = {"k": report.k, "residual": report.residual, "half": report.half, "double": report.double}
            rows.append({"model": title, "training": when, **values, "theorem_1": report.homogeneous})

    add("FC, 3 layers, without biases", fc)
    add("FC, 3 layers", replace(fc, bias=True))
    add("CNN", conv)
    add("CNN with batch norm", norm)
    add("exact: CNN with batch norm, readout weights train", norm, eps=0.0, trained="readout")
    add("exact: CNN with batch norm, its scales and readout weights train", norm, eps=0.0, trained="affine")
    add("exact: CNN with batch norm, convolutions train", norm, eps=0.0, trained="convolutions")
    add("Wide ResNet", WideResNetSpec(depth=10, width=1))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _net(spec, samples: Samples, steps: int, seed: int, eps: float | None) -> tuple[nn.Module, Tensor]:
    """A net in float64 and the images it is measured on: drawn, or trained through the project's own trainers."""
    run = RunSpec(
        model=spec,
        data=samples.spec,
        lr=0.05,
        l2=0.01,
        batch=0 if isinstance(spec, FullyConnectedSpec) else min(64, samples.spec.train),
        init_seed=seed,
        precision="float64",
    )
    task = Task(run, max(steps, 1), (max(steps, 1),), EvaluationGrid())
    images = Images(samples.spec, samples.train_images[:64], torch.float64, "cpu").take()
    if isinstance(spec, FullyConnectedSpec):
        trainer = Ensemble([task], samples)
        trainer.advance(steps)
        trainer.net.materialize()
        net, inputs = _Stacked(trainer.net), images.flatten(1)
    else:
        trainer = SingleNet([task], samples)
        net, inputs = trainer.net.train(), images.movedim(-1, -3)
        _set_eps(net, eps)
        trainer.advance(steps)
    if not steps:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in net.named_parameters():
            if "bias" in name:
                parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape, generator=generator).double()
    return net, inputs


def _set_eps(net: nn.Module, eps: float | None) -> None:
    for module in net.modules():
        if isinstance(module, GroupedBatchNorm) and eps is not None:
            module.eps = eps


def _trained_part(net: nn.Module, trained: str) -> tuple[Callable, dict[str, Tensor]]:
    """The net as a function of the parameters that train; the others stay as they are, a readout bias at 0."""
    everything = {name: parameter.detach() for name, parameter in net.named_parameters()}
    if not trained:
        return _call(net, {}), everything
    everything["readout.bias"] = torch.zeros_like(everything["readout.bias"])
    norms = {n for n, m in net.named_modules() if isinstance(m, GroupedBatchNorm)}
    convolutions = {n for n in everything if n.rsplit(".", 1)[0] not in norms and not n.startswith("readout")}
    chosen = {"readout": {"readout.weight"} | convolutions, "convolutions": convolutions}
    chosen["affine"] = set(everything) - {"readout.bias"}
    part = {n: p for n, p in everything.items() if n in chosen[trained]}
    return _call(net, {n: p for n, p in everything.items() if n not in part}), part


def _call(net: nn.Module, fixed: dict[str, Tensor]) -> Callable:
    return lambda parameters, inputs: torch.func.functional_call(net, {**fixed, **parameters}, (inputs,))


class _Stacked(nn.Module):
    """One member of a stacked net as a module."""

    def __init__(self, net: StackedFullyConnected):
        super().__init__()
        self.weights = nn.ParameterList([w.clone() for w in net.weights])
        self.biases = nn.ParameterList([b.clone() for b in net.biases])
        self.multipliers = net.multipliers

    def forward(self, x: Tensor) -> Tensor:
        return StackedFullyConnected(list(self.weights), list(self.biases), self.multipliers).forward(x)[-1][0]
