"""Steps of many fully-connected nets on one device: each fast path of the stacked trainer beside the plain steps.

    python benchmarks/fc_steps.py --device cuda --members 64 --width 2048 --precisions float32 tf32 bfloat16

`members` nets of three hidden layers train on the full batch of `samples`:
- plain: the stack by autograd; written out: by the net's own backward pass, without short cuts;
- + span, + blocks (CPU), + graphs (GPU): written out with that short cut alone; all: what training takes;
- torch.func.vmap: stack_module_state, vmap(grad(…)) and torch.optim.SGD;
- eager loop: nn.Sequential and torch.optim.SGD, one net after the other.
The last two with TF32 on where the device has it. The ceiling is the matmul rate of the same device and precision.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable

import side_by_side as common
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from l2dyn.runs.cost import step_flops
from l2dyn.runs.plan import Task
from l2dyn.specs.base import to_dict
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.specs.run import RunSpec
from l2dyn.training.calibration import random_samples
from l2dyn.training.precision import products_in
from l2dyn.training.stacked import StackedTrainer
from l2dyn.training.stacked_steps import AutogradSteps, StackedSteps, WrittenOutSteps

LR, L2 = 0.01, 0.01
STEPS = 32  # of a call that is timed


def ways(device: str) -> dict[str, Callable[[], StackedSteps]]:
    """The stacked trainer's ways to compute steps that differ on this device."""
    off = {"span": False, "blocks": False, "graphs": False}
    device_only = "graphs" if device == "cuda" else "blocks"
    some = {f"+ {name}": functools.partial(WrittenOutSteps, **off | {name: True}) for name in ("span", device_only)}
    return {
        "plain": AutogradSteps,
        "written out": functools.partial(WrittenOutSteps, **off),
        **some,
        "all": WrittenOutSteps,
    }


def task(width: int, samples: int, seed: int, precision: str) -> Task:
    """A run of the paper's net on random digits."""
    data = DataSpec(name="mnist", checksum="random", train_samples=samples, test_samples=16)
    net = FullyConnectedSpec(hidden_layers=3, width=width)
    spec = RunSpec(net=net, data=data, lr=LR, l2=L2, init_seed=seed, precision=precision)
    return Task(spec, 10**6, (10**6,), EvaluationGrid())


def stack_seconds(
    tasks: list[Task], device: str, window_s: float, steps: StackedSteps | str = "fast", at_once: int = STEPS
) -> list[float]:
    """Seconds of a step of these runs as one stack; so many steps a call."""
    with products_in(tasks[0].spec.precision):
        trainer = StackedTrainer(tasks, random_samples(tasks[0].spec.data), device, steps)
        calls = common.seconds_a_call(lambda: trainer.advance(at_once), device, window_s)
        assert math.isfinite(float(trainer.measure()[0, 4])), "the nets diverged: their speed means nothing"
    return [seconds / at_once for seconds in calls]


def plain_net(width: int) -> nn.Sequential:
    """The same net as a user would write it."""
    layers = []
    for fan_in, fan_out in itertools.pairwise(FullyConnectedSpec(hidden_layers=3, width=width).widths(784, 10)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def random_batch(samples: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(samples, 784, device=device), torch.randint(10, (samples,), device=device)


def eager_seconds(width: int, samples: int, device: str, window_s: float) -> list[float]:
    """Seconds of a step of one net."""
    net = plain_net(width).to(device)
    optimizer = torch.optim.SGD(net.parameters(), LR, weight_decay=L2)
    x, y = random_batch(samples, device)

    def steps():
        for _ in range(STEPS):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()

    with products_in("tf32"):
        return [seconds / STEPS for seconds in common.seconds_a_call(steps, device, window_s)]


def vmap_seconds(members: int, width: int, samples: int, device: str, window_s: float) -> list[float]:
    """Seconds of a step of so many nets, stacked as PyTorch's documentation has it."""
    nets = [plain_net(width).to(device) for _ in range(members)]
    parameters = {name: stacked.detach() for name, stacked in stack_module_state(nets)[0].items()}
    skeleton = copy.deepcopy(nets[0]).to("meta")
    optimizer = torch.optim.SGD(parameters.values(), LR, weight_decay=L2)
    x, y = random_batch(samples, device)

    def loss(of_one: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(skeleton, of_one, (x,)), y)

    gradients_of = vmap(grad(loss), in_dims=(0, None, None))

    def steps():
        for _ in range(STEPS):
            for name, gradient in gradients_of(parameters, x, y).items():
                parameters[name].grad = gradient
            optimizer.step()

    with products_in("tf32"):
        return [seconds / STEPS for seconds in common.seconds_a_call(steps, device, window_s)]


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 1 minute for each precision")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="float32, tf32, bfloat16")
    options = parser.parse_args()
    common.prepare(options)
    shape, measured = (options.width, options.samples), (options.device, options.window)
    products = "tf32" if options.device == "cuda" else "float32"
    timings = {}  # by precision and way: seconds of a model-step
    for precision in options.precisions:
        tasks = [task(*shape, seed, precision) for seed in range(options.members)]
        for name, steps in ways(options.device).items():
            timings[precision, name] = stack_seconds(tasks, *measured, steps())
    timings[products, "torch.func.vmap"] = vmap_seconds(options.members, *shape, *measured)
    timings = {key: [seconds / options.members for seconds in found] for key, found in timings.items()}
    timings[products, "eager loop"] = eager_seconds(*shape, *measured)

    flops, rows = step_flops(tasks[0]), []
    needed = dict.fromkeys(precision for precision, _ in timings)
    ceilings = {precision: common.matmul_rate(options.device, precision, options.window) for precision in needed}
    for (precision, name), seconds in timings.items():
        rate = 1 / common.median(seconds)
        plain = timings.get((precision, "plain"), timings[options.precisions[0], "plain"])
        rows.append(
            {
                "steps": name,
                "products": precision,
                "model-steps/s": rate,
                "gain over plain": rate * common.median(plain),
                "plain products, TFLOP/s": rate * flops / 1e12,
                "of the matmul rate": rate * flops / ceilings[precision],
            }
        )
    kept = {f"{name}, {precision}": seconds for (precision, name), seconds in timings.items()}
    common.finish("fc_steps", options, rows, seconds_a_model_step=kept, spec=to_dict(tasks[0].spec))


if __name__ == "__main__":
    common.call(main)
