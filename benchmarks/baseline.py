"""The baseline of the whole commands: one run, trained the way a user of plain PyTorch would write it.

    python benchmarks/baseline.py TASK.json INPUTS.npz CURVE.csv

whole_commands.py writes the task and the inputs. Imports no more than such a user would, so nothing of l2dyn.
"""

import csv
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

COLUMNS = ("step", "train_loss", "train_error", "test_loss", "test_accuracy")


def fully_connected(spec: dict, inputs: int, outputs: int) -> nn.Sequential:
    """Linear layers and ReLU, with the weights that l2dyn starts from."""
    net = spec["net"]
    generator = torch.Generator().manual_seed(spec["init_seed"])
    layers = []
    for fan_in, fan_out in itertools.pairwise([inputs, *[net["width"]] * net["hidden_layers"], outputs]):
        layer = nn.Linear(fan_in, fan_out, bias=net["bias"])
        std = net["weight_std"] / math.sqrt(fan_in)
        with torch.no_grad():
            layer.weight.copy_((torch.randn(fan_in, fan_out, generator=generator) * std).T)
            if net["bias"]:
                layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_net(spec: dict, channels: int, outputs: int) -> nn.Sequential:
    """The CNN of figure 3; its lazy layer gets its size from the first images."""
    net = spec["net"]

    def activation(norm: nn.Module) -> list[nn.Module]:
        return [norm, nn.ReLU()] if net["batch_norm"] else [nn.ReLU()]

    layers, fan_in = [], channels
    for same, valid in (net["channels"][:2], net["channels"][2:]):
        layers += [nn.Conv2d(fan_in, same, 3, padding=1), *activation(nn.BatchNorm2d(same))]
        layers += [nn.Conv2d(same, valid, 3), *activation(nn.BatchNorm2d(valid))]
        layers += [nn.MaxPool2d(net["pool"], net["pool_stride"])]
        fan_in = valid
    dense = [nn.Flatten(), nn.LazyLinear(net["dense"]), *activation(nn.BatchNorm1d(net["dense"]))]
    return nn.Sequential(*layers, *dense, nn.Linear(net["dense"], outputs))


def started(spec: dict, x: Tensor, outputs: int) -> nn.Sequential:
    """The net of a spec on x's device, ready to train."""
    if spec["net"]["kind"] == "fc":
        return fully_connected(spec, x.shape[1], outputs).to(x.device)
    torch.manual_seed(spec["init_seed"])
    net = conv_net(spec, x.shape[1], outputs).to(x.device)
    net(x[:2])
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):  # PyTorch's own start does not train at this η
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    return net


def sgd(spec: dict, net: nn.Module) -> torch.optim.SGD:
    """PyTorch's optimizer with its default settings."""
    momentum = spec["optimizer"]["momentum"]
    return torch.optim.SGD(net.parameters(), spec["lr"], momentum=momentum, weight_decay=spec["l2"])


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch; size 0: all samples."""
    if not size:
        yield from itertools.repeat((x, y))
    loader = DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def main(task_file: str, inputs_file: str, output: str) -> None:
    """Train one run, write its curve, print the seconds in the training loop."""
    torch.set_num_threads(1)
    with open(task_file) as stream:
        task = json.load(stream)
    spec, held = task["spec"], np.load(inputs_file)
    x_train, y_train, x_test, y_test = (
        torch.from_numpy(held[name]) for name in ("x_train", "y_train", "x_test", "y_test")
    )
    net = started(spec, x_train, task["outputs"])
    optimizer, loss_function = sgd(spec, net), nn.CrossEntropyLoss()

    @torch.no_grad()
    def measured(x: Tensor, y: Tensor) -> tuple[float, float]:
        at_once = 256 if x.dim() == 4 else len(x)
        outputs = torch.cat([net(part) for part in x.split(at_once)])
        return loss_function(outputs, y).item(), (outputs.argmax(dim=1) != y).float().mean().item()

    feed, evaluate_at, rows = batches(x_train, y_train, spec["batch"]), set(task["evaluations"]), []
    subset = slice(task["train_subset"] or None)
    begin = time.perf_counter()
    for step in range(task["steps"] + 1):
        if step in evaluate_at:
            net.eval()
            train_loss, train_error = measured(x_train[subset], y_train[subset])
            test_loss, test_error = measured(x_test, y_test)
            if not math.isfinite(train_loss):
                break
            rows.append([step, train_loss, train_error, test_loss, 1.0 - test_error])
            net.train()
        if step < task["steps"]:
            images, labels = next(feed)
            optimizer.zero_grad()
            loss_function(net(images), labels).backward()
            optimizer.step()
    seconds = time.perf_counter() - begin

    with open(output, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
