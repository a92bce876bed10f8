"""What AutoL2 costs: a training step of a small net without it and with a measurement at every step, and `step` alone.

    python benchmarks/auto_l2.py --output auto_l2.json

A measurement at every step is ten times as often as the authors take one. Floats or the Tensors that the loss function
returned are handed over; on a GPU reading a Tensor waits for the step.
"""

import side_by_side as common
import torch
from torch import nn

from l2dyn import AutoL2


def training(device: str, width: int, how: str | None):
    """A function that takes a step of a net, and hands its loss over in this way."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(128, 784, device=device), torch.randint(10, (128,), device=device)
    auto_l2 = AutoL2(optimizer, interval=1)

    def step():
        outputs = net(x)
        loss = nn.functional.cross_entropy(outputs, y)
        if how == "Tensor":
            auto_l2.step(loss, (outputs.argmax(1) != y).float().mean())
        elif how == "float":
            auto_l2.step(1.0, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, auto_l2


def main() -> None:
    """Print and keep the medians."""
    parser = common.parser(__doc__.splitlines()[0], "half a minute")
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    common.prepare(options)
    ways = {"without AutoL2": None, "with floats": "float", "with Tensors": "Tensor"}
    calls = {f"step {name}": training(options.device, options.width, how)[0] for name, how in ways.items()}
    alone = training(options.device, options.width, None)[1]
    calls["AutoL2.step alone"] = lambda: alone.step(1.0, 0.5)
    rows = []
    for name, call in calls.items():
        seconds = common.seconds_a_call(call, options.device, options.window)
        rows.append({"what": name, "microseconds": 1e6 * common.median(seconds), "fastest": 1e6 * min(seconds)})
    common.finish("auto_l2", options, rows)


if __name__ == "__main__":
    common.call(main)
