"""Training the CNN of figure 3, with and without batch norm: l2dyn beside plain PyTorch with a DataLoader.

    python benchmarks/cnn_train.py                    # CPU: the quick scale's fixed-budget experiments, whole commands
    python benchmarks/cnn_train.py --device cuda      # GPU: img/s at the gpu scale's size

On a CPU both sides train every run of `fig3-plain-budget` and `fig3-norm-budget`, two processes at a time with one
thread each: ours as slices of `l2dyn train`, the baseline as one process per run (`baseline_run` below), with
`nn.Sequential`, `DataLoader(shuffle=True)`, `torch.optim.SGD(weight_decay=λ)` and an evaluation at the same epochs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXPERIMENTS = ("fig3-plain-budget", "fig3-norm-budget")


def baseline_net(model, shape: tuple[int, int, int], outputs: int):
    """The CNN as a user would write it."""
    from torch import nn

    def activation(norm):
        return [norm, nn.ReLU()] if model.batch_norm else [nn.ReLU()]

    layers, fan_in = [], shape[2]
    for same, valid in (model.channels[:2], model.channels[2:]):
        layers += [nn.Conv2d(fan_in, same, 3, padding=1), *activation(nn.BatchNorm2d(same))]
        layers += [nn.Conv2d(same, valid, 3), *activation(nn.BatchNorm2d(valid))]
        layers += [nn.MaxPool2d(model.pool, model.pool_stride)]
        fan_in = valid
    dense = [nn.Flatten(), nn.LazyLinear(model.dense), *activation(nn.BatchNorm1d(model.dense))]
    return nn.Sequential(*layers, *dense, nn.Linear(model.dense, outputs))


def baseline_loop(spec, x_train, y_train, device: str, workers: int):
    """(net, a function that trains an epoch and returns the images seen)."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    height, width, channels = x_train.shape[2], x_train.shape[3], x_train.shape[1]
    net = baseline_net(spec.model, (height, width, channels), 10).to(device)
    net(x_train[:2].to(device))  # gives the lazy layer its size
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):  # PyTorch's own start does not train at this η
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), spec.lr, momentum=spec.momentum, weight_decay=spec.l2)
    how = {"num_workers": workers, "pin_memory": device == "cuda", "persistent_workers": workers > 0}
    loader = DataLoader(TensorDataset(x_train, y_train), batch_size=spec.batch, shuffle=True, drop_last=True, **how)

    def epoch() -> int:
        net.train()
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss_function(net(images), labels).backward()
            optimizer.step()
        return len(loader) * spec.batch

    return net, epoch


def baseline_run(task_file: str) -> None:
    """Train one run of the quick scale; print the seconds in the loop and the best test accuracy."""
    import torch

    from l2dyn import data
    from l2dyn.runs.spec import RunSpec, from_dict

    torch.set_num_threads(1)
    task = json.loads(Path(task_file).read_text())
    spec = from_dict(RunSpec, task["spec"])
    samples = data.samples(spec.data, data.load(spec.data.name, Path(task["arrays"])))
    side = 28 // spec.data.pool

    def tensors(images, labels):
        x = torch.from_numpy(data.inputs(spec.data, images)).float()
        return x.reshape(-1, 1, side, side), torch.from_numpy(labels)

    train, test = (
        tensors(*pair)
        for pair in ((samples.train_images, samples.train_labels), (samples.test_images, samples.test_labels))
    )
    torch.manual_seed(spec.init_seed)
    net, epoch = baseline_loop(spec, *train, "cpu", workers=0)

    @torch.no_grad()
    def measured(x, y) -> tuple[float, float]:
        net.eval()
        outputs = torch.cat([net(part) for part in x.split(256)])
        return torch.nn.functional.cross_entropy(outputs, y).item(), (outputs.argmax(1) == y).float().mean().item()

    started, best = time.perf_counter(), 0.0
    for number in range(task["epochs"] + 1):
        if number in task["evaluations"]:
            measured(train[0][: task["train_samples"]], train[1][: task["train_samples"]])
            best = max(best, measured(*test)[1])
        if number < task["epochs"]:
            epoch()
    print(json.dumps({"loop_s": time.perf_counter() - started, "best": best}))


def whole_commands(options) -> tuple[list[dict], dict]:
    """Both sides on the CPU, experiment by experiment."""
    from l2dyn.data import prepared_path
    from l2dyn.runs.config import load_scale
    from l2dyn.runs.plan import planned
    from l2dyn.runs.spec import to_dict
    from l2dyn.runs.store import RunStore

    plan = planned(options.scale, load_scale(options.scale))
    rows, more = [], {}
    for name in options.experiments:
        tasks = plan.tasks(name)[: options.runs]
        with tempfile.TemporaryDirectory(prefix="l2dyn-cnn-") as folder:
            results = Path(folder)
            source = str(Path(__import__("l2dyn").__file__).resolve().parents[1])
            environment = os.environ | {"L2DYN_RESULTS": folder, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
            environment.pop("L2DYN_DEVICE", None)
            ours = [sys.executable, "-m", "l2dyn"]
            _run([*ours, "data", tasks[0].spec.data.name], environment)
            train = [*ours, "train", "--scale", options.scale, "--experiment", name, "--device", "cpu", "--no-reuse"]
            ours_s, _ = _timed(
                [[*train, "--slice", f"{i}/{options.slices}"] for i in range(1, options.slices + 1)], environment
            )
            store = RunStore(results, reuse=False)
            records = [store.load(task.run_id) for task in plan.tasks(name)]
            commands = []
            for task in tasks:
                described = {
                    "spec": to_dict(task.spec),
                    "arrays": str(prepared_path(task.spec.data.name, results)),
                    "epochs": task.steps // task.spec.steps_per_epoch,
                    "evaluations": [s / task.spec.steps_per_epoch for s in task.evaluations()],
                    "train_samples": task.grid.train_samples,
                }
                file = results / f"{task.run_id}.json"
                file.write_text(json.dumps(described))
                commands.append([sys.executable, __file__, "--baseline-run", str(file)])
            baseline_s, printed = _timed(commands, environment)
        theirs = [json.loads(line) for line in printed]
        images = sum(t.steps * t.spec.batch for t in tasks)
        loops = sum(r.provenance["wall_s"] for r in records), sum(t["loop_s"] for t in theirs)
        best = [sum(float(r.columns["test_accuracy"].max()) for r in records) / len(records)]
        best.append(sum(t["best"] for t in theirs) / len(theirs))
        whole = len(tasks) == len(records)
        rows.append(
            {
                "experiment": name if whole else f"{name}, baseline cut to {len(tasks)} runs",
                "runs": len(tasks),
                "ours, s": ours_s,
                "baseline, s": baseline_s,
                "ratio": baseline_s / ours_s if whole else float("nan"),
                "ours in loops, s": loops[0],
                "baseline in loops, s": loops[1],
                "ratio in loops": loops[1] / loops[0] if whole else float("nan"),
                "ours, img/s a core": images / loops[0] if whole else float("nan"),
                "mean best accuracy, ours": best[0],
                "baseline": best[1],
            }
        )
        more[name] = theirs
    return rows, more


def _timed(commands: list[list[str]], environment: dict) -> tuple[float, list[str]]:
    """Seconds for all of them, two at a time, and what they printed."""
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(lambda command: _run(command, environment), commands))
    return time.perf_counter() - started, printed


def _run(command: list[str], environment: dict) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def rates(options) -> tuple[list[dict], dict]:
    """Images a second at the gpu scale's size, on random images; evaluations are left out on both sides."""
    import side_by_side as common
    import torch

    from l2dyn.runs.cost import step_flops
    from l2dyn.runs.horizons import EvaluationGrid
    from l2dyn.runs.plan import Task
    from l2dyn.runs.spec import ConvNetSpec, DataSpec, RunSpec
    from l2dyn.training.calibration import random_samples
    from l2dyn.training.precision import products_in
    from l2dyn.training.single_net import SingleNet

    rows, more = [], {}
    for batch_norm in (False, True):
        model = ConvNetSpec(batch_norm=batch_norm, **({"channels": (options.channels,) * 4}))
        where = DataSpec(name="cifar10", checksum="random", train=options.train, test=options.batch)
        spec = RunSpec(model=model, data=where, lr=0.01, l2=0.01, batch=options.batch, precision="bfloat16")
        task = Task(spec, 10**6, (10**6,), EvaluationGrid(every_epochs=1000))
        samples = random_samples(where)
        with products_in("bfloat16"):
            net = SingleNet([task], samples, options.device)
            net.advance(1)
            steps = spec.steps_per_epoch
            seconds = common.seconds_a_call(
                lambda net=net, steps=steps: net.advance(steps), options.device, options.window
            )
        with products_in("tf32"):
            x = torch.from_numpy(samples.train_images).permute(0, 3, 1, 2).float().contiguous() / 255.0
            _, epoch = baseline_loop(spec, x, torch.from_numpy(samples.train_labels), options.device, options.workers)
            plain = common.seconds_a_call(epoch, options.device, options.window)
        images = spec.steps_per_epoch * options.batch
        ours, theirs = images / common.median(seconds), images / common.median(plain)
        ceiling = common.matmul_rate(options.device, "bfloat16", options.window)
        rows.append(
            {
                "batch norm": batch_norm,
                "ours, img/s": ours,
                "baseline, img/s": theirs,
                "ratio": ours / theirs,
                "fraction of bf16 matmul": ours * step_flops(task) / options.batch / ceiling,
            }
        )
        more[f"batch norm {batch_norm}"] = {"ours_s": seconds, "baseline_s": plain}
    return rows, more


def main() -> None:
    import side_by_side as common

    parser = common.parser(__doc__.splitlines()[0], "about 3 minutes on 2 cores, and 1 on a GPU (the latter a guess)")
    parser.add_argument("--scale", default="quick", help="CPU: of the experiments")
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS)
    parser.add_argument("--slices", type=int, default=6, help="CPU: jobs of ours")
    parser.add_argument("--runs", type=int, help="CPU: only so many baseline runs, to see whether it works")
    parser.add_argument("--train", type=int, default=10000, help="GPU: images of an epoch")
    parser.add_argument("--batch", type=int, default=128, help="GPU: images of a step")
    parser.add_argument("--channels", type=int, default=300, help="GPU: of each convolution")
    parser.add_argument("--workers", type=int, default=4, help="GPU: of the baseline's DataLoader")
    parser.add_argument("--rates", action="store_true", help="what --device cuda does, on any device")
    options = parser.parse_args()
    common.prepare(options.device)
    rows, more = rates(options) if options.rates or options.device == "cuda" else whole_commands(options)
    common.finish("cnn_train", options, rows, **more)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--baseline-run"]:
        baseline_run(*sys.argv[2:])
    else:
        sys.exit(main())
