"""The table of how nearly the project's kinds of net are homogeneous in their parameters (section 4, Theorem 1)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from l2dyn.data.samples import Samples
from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.homogeneity import homogeneity
from l2dyn.runs.plan import Task
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec, NetSpec, WideResNetSpec
from l2dyn.specs.run import RunSpec
from l2dyn.training.inputs import Images
from l2dyn.training.single import SingleTrainer


def homogeneity_table(samples: Samples, steps: int = 300, seed: int = 0) -> dict[str, list]:
    """The report of every kind of net in the project, small ones, before and after training: columns for a CSV.

    Before training biases are drawn, N(0, 0.1²). "exact" rows have batch norm with ε = 0 and train the named parameters
    only. samples: images to train and measure on. steps: of training, at η = 0.05 and λ = 0.01.
    """
    fc = {"hidden_layers": 2, "width": 64}
    conv = {"channels": (8, 8, 16, 16), "dense": 32, "pool": 2, "pool_stride": 2}
    norm = ConvNetSpec(**conv, batch_norm=True)
    rows: list[dict] = []

    def add(title: str, spec: NetSpec, eps: float | None = None, trained: str = "") -> None:
        for when in ("before", "after"):
            net, images = _net(spec, samples, steps if when == "after" else 0, seed, eps)
            report = homogeneity(*_trained_part(net, trained), images)
            values = {"k": report.k, "residual": report.residual, "half": report.half, "double": report.double}
            rows.append({"model": title, "training": when, **values, "theorem_1": report.homogeneous})

    add("FC, 3 layers, without biases", FullyConnectedSpec(**fc, bias=False))
    add("FC, 3 layers", FullyConnectedSpec(**fc))
    add("CNN", ConvNetSpec(**conv))
    add("CNN with batch norm", norm)
    add("exact: CNN with batch norm, readout weights train", norm, eps=0.0, trained="readout")
    add("exact: CNN with batch norm, its scales and readout weights train", norm, eps=0.0, trained="affine")
    add("exact: CNN with batch norm, convolutions train", norm, eps=0.0, trained="convolutions")
    add("Wide ResNet", WideResNetSpec(depth=10, width=1))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _net(spec: NetSpec, samples: Samples, steps: int, seed: int, eps: float | None) -> tuple[nn.Module, Tensor]:
    """A net in float64, drawn or trained for so many steps, and the images that it is measured on."""
    run = RunSpec(
        net=spec,
        data=samples.spec,
        lr=0.05,
        l2=0.01,
        batch=0 if isinstance(spec, FullyConnectedSpec) else min(64, samples.spec.train_samples),
        init_seed=seed,
        precision="float64",
    )
    trainer = SingleTrainer([Task(run, max(steps, 1), (max(steps, 1),), EvaluationGrid())], samples)
    net = trainer.net.train()
    for module in net.modules():
        if isinstance(module, GroupedBatchNorm) and eps is not None:
            module.eps = eps
    trainer.advance(steps)
    if not steps:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in net.named_parameters():
            if "bias" in name:
                parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape, generator=generator).double()
    images = Images(samples.spec, samples.train_images[:64], torch.float64, "cpu").take()
    return net, images.movedim(-1, -3)


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
