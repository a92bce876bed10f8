"""Steps of many fully-connected nets on one device: the batched ensemble beside the eager loop over one net.

    python benchmarks/fc_steps.py --device cuda --members 64 --width 2048

- ours: `Ensemble.advance`, `members` nets of three hidden layers on 512 samples, in each precision;
- baseline: `nn.Sequential`, `torch.optim.SGD(weight_decay=λ)`, one net, TF32 on where the device has it;
- the ceiling: the matmul rate of the same device and precision, against the plain products of the steps done.
"""

import dataclasses
import itertools
import math
import sys

import side_by_side as common
import torch
from torch import nn

from l2dyn.runs.cost import step_flops
from l2dyn.runs.horizons import EvaluationGrid
from l2dyn.runs.plan import Task
from l2dyn.runs.spec import DataSpec, FullyConnectedSpec, RunSpec, layer_widths
from l2dyn.training.calibration import random_samples
from l2dyn.training.ensemble import Ensemble
from l2dyn.training.precision import products_in

LR, L2 = 0.01, 0.01
STEPS = 32  # of a call that is timed


def task(width: int, samples: int, seed: int, precision: str) -> Task:
    """A run of the paper's net on random digits."""
    data = DataSpec(name="mnist", checksum="random", train=samples, test=16)
    model = FullyConnectedSpec(hidden_layers=3, width=width)
    spec = RunSpec(model=model, data=data, lr=LR, l2=L2, init_seed=seed, precision=precision)
    return Task(spec, 10**6, (10**6,), EvaluationGrid())


def eager_seconds(width: int, samples: int, device: str, window_s: float) -> list[float]:
    """Seconds of a step the way a user would write it."""
    widths = layer_widths(FullyConnectedSpec(hidden_layers=3, width=width), 784, 10)
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).to(device)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), LR, weight_decay=L2)
    x, y = torch.randn(samples, 784, device=device), torch.randint(10, (samples,), device=device)

    def steps():
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_function(net(x), y).backward()
            optimizer.step()

    with products_in("tf32"):
        return [seconds / STEPS for seconds in common.seconds_a_call(steps, device, window_s)]


def ensemble_seconds(tasks: list[Task], device: str, window_s: float, steps: int = STEPS) -> list[float]:
    """Seconds of a step of these runs as one batch."""
    with products_in(tasks[0].spec.precision):
        ensemble = Ensemble(tasks, random_samples(tasks[0].spec.data), device)
        calls = common.seconds_a_call(lambda: ensemble.advance(steps), device, window_s)
    assert math.isfinite(float(ensemble.measure()[0, 4])), "the nets diverged: their speed means nothing"
    return [seconds / steps for seconds in calls]


def main() -> None:
    parser = common.parser("Model-steps a second: the batched ensemble beside an eager loop.", "1 to 2 minutes")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--precisions", nargs="+", default=["float32", "tf32", "bfloat16"])
    options = parser.parse_args()
    common.prepare(options.device)
    eager = eager_seconds(options.width, options.samples, options.device, options.window)
    rows, timings = [], {"baseline": eager}
    for precision in options.precisions:
        tasks = [task(options.width, options.samples, seed, precision) for seed in range(options.members)]
        seconds = timings[precision] = ensemble_seconds(tasks, options.device, options.window)
        ours = options.members / common.median(seconds)
        ceiling = common.matmul_rate(options.device, precision, options.window)
        rows.append(
            {
                "precision": precision,
                "ours, model-steps/s": ours,
                "baseline (TF32)": 1 / common.median(eager),
                "ratio": ours * common.median(eager),
                "ours, TFLOP/s": ours * step_flops(tasks[0]) / 1e12,
                "matmul, TFLOP/s": ceiling / 1e12,
                "fraction": ours * step_flops(tasks[0]) / ceiling,
            }
        )
    common.finish("fc_steps", options, rows, seconds_a_step=timings, spec=dataclasses.asdict(tasks[0].spec))


if __name__ == "__main__":
    sys.exit(main())
