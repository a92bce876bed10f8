"""Train a grid of fully-connected nets twice, side by side: with l2dyn, and the way a user would write it.

    python benchmarks/fc_sweep.py --output fc_sweep.json

- ours: `l2dyn train`, slice by slice, one process per core, one thread each.
- baseline: one process per run (`baseline_run` below), as many at a time, one thread each: `torch.nn.Sequential`,
  `torch.optim.SGD(weight_decay=λ)`, the same initial weights, the same evaluation steps, one CSV per run.
- the machine: the rate of plain `torch.mm` products, in as many processes at once.

Prints a table and the differences in the best test accuracy, and writes every timing to a JSON file. Nothing is
extrapolated and no timing is asserted. benchmarks/README.md says how to read it. `fc_sweep.py --device cuda …` is
`fc_steps.py --device cuda …`, which compares the steps alone.
"""

import argparse
import csv
import itertools
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

# Only the standard library up here: the baseline's processes run this file too and import no more than a user's would.

GUESSED_STEPS_PER_S = 500  # model-steps a core does in a second, ours or baseline; only for the estimate in --help
SQUARES = (64, 96, 128, 192, 256, 384, 512)
WINDOWS, WINDOW_S = 5, 0.1  # the best of this many timed windows of this length counts, for each shape
EARLY_STEP = 10  # up to here the two trajectories should differ by rounding only

# ---------------------------------------------------------------------------------------------------------------------
# The baseline: what a user would write. One process trains one run.


def baseline_run(task_file: str, output: str) -> None:
    """Train one run with torch.nn and torch.optim, write its CSV, print the seconds spent in the training loop."""
    import torch
    from torch import nn

    from l2dyn import data
    from l2dyn.runs.spec import DataSpec, from_dict

    torch.set_num_threads(1)
    task = json.loads(Path(task_file).read_text())

    spec = from_dict(DataSpec, task["data"])
    samples = data.samples(spec, data.load(spec.name, Path(task["arrays"])))
    x_train = torch.from_numpy(data.inputs(spec, samples.train_images)).float()
    x_test = torch.from_numpy(data.inputs(spec, samples.test_images)).float()
    y_train, y_test = torch.from_numpy(samples.train_labels), torch.from_numpy(samples.test_labels)

    generator = torch.Generator().manual_seed(task["seed"])
    widths = [x_train.shape[1], *[task["width"]] * task["hidden_layers"], samples.outputs]
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = nn.Linear(fan_in, fan_out, bias=task["bias"])
        std = task["weight_std"] / math.sqrt(fan_in)
        with torch.no_grad():
            layer.weight.copy_((torch.randn(fan_in, fan_out, generator=generator) * std).T)
            if task["bias"]:
                layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), task["lr"], momentum=task["momentum"], weight_decay=task["l2"])

    @torch.no_grad()
    def measured(x, y):
        outputs = net(x)
        return loss_function(outputs, y).item(), (outputs.argmax(dim=1) != y).float().mean().item()

    evaluate_at = set(task["evaluations"])
    rows = []
    started = time.perf_counter()
    for step in range(task["steps"] + 1):
        if step in evaluate_at:
            (train_loss, train_error), (test_loss, test_error) = measured(x_train, y_train), measured(x_test, y_test)
            if not math.isfinite(train_loss):
                break
            rows.append([step, train_loss, train_error, test_loss, 1.0 - test_error])
        if step < task["steps"]:
            optimizer.zero_grad()
            loss_function(net(x_train), y_train).backward()
            optimizer.step()
    seconds = time.perf_counter() - started

    with open(output, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "train_loss", "train_error", "test_loss", "test_accuracy"])
        writer.writerows(rows)
    print(seconds)


# ---------------------------------------------------------------------------------------------------------------------
# The machine: how fast plain matrix products are.


def net_products(widths: list[int], samples: int) -> dict[str, dict]:
    """The products of one training step of one net, by name; `times` says how often a step computes that shape.

    No product is listed for the gradient with respect to the inputs: nobody computes it.
    """
    shapes: Counter = Counter()
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        shapes["forward", samples, fan_in, fan_out] += 1
        shapes["weight gradient", fan_in, samples, fan_out] += 1
        if layer > 0:
            shapes["back", samples, fan_out, fan_in] += 1
    return {
        f"{kind} {m}x{k}x{n}": {"kind": kind, "m": m, "k": k, "n": n, "times": times}
        for (kind, m, k, n), times in shapes.items()
    }


def rate_run(shapes_file: str) -> None:
    """Print the best FLOP/s of torch.mm at each shape, one thread; starts when a line arrives on standard input."""
    import torch

    torch.set_num_threads(1)
    shapes = json.loads(Path(shapes_file).read_text())
    print("ready", flush=True)
    sys.stdin.readline()
    rates = {}
    for name, shape in shapes.items():
        m, k, n = shape["m"], shape["k"], shape["n"]
        # The operands lie in memory as training has them: hᵀ and Wᵀ are transposed views.
        left = torch.randn(k, m).T if shape["kind"] == "weight gradient" else torch.randn(m, k)
        right = torch.randn(n, k).T if shape["kind"] == "back" else torch.randn(k, n)
        out = torch.empty(m, n)
        flops = 2.0 * m * k * n
        calls = max(1, int(1e7 / flops))  # between two looks at the clock
        best = 0.0
        for _ in range(WINDOWS):
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < WINDOW_S or not done:
                for _ in range(calls):
                    torch.mm(left, right, out=out)
                done += calls
            best = max(best, done * flops / elapsed)
        rates[name] = best
    print(json.dumps({"rates": rates, "torch": torch.__version__, "simd": torch.backends.cpu.get_cpu_capability()}))


def measured_machine(grid: "Grid", processes: int, folder: Path) -> dict:
    """The matmul rates with `processes` processes at work at once, summed over them, in GFLOP/s."""
    shapes = {f"square {n}": {"kind": "square", "m": n, "k": n, "n": n} for n in SQUARES}
    products = net_products(grid.widths, grid.spec.data.train)
    file = folder / "shapes.json"
    file.write_text(json.dumps(shapes | products))
    command = [sys.executable, __file__, "--rate-run", str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, env=grid.environment, **pipes) for _ in range(processes)]
    for worker in workers:
        worker.stdout.readline()  # "ready": torch is imported, so that all of them measure at the same time
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("fc_sweep: the matmul measurement failed, see above")
    answers = [json.loads(answer) for answer in answers]
    rates = {name: sum(a["rates"][name] for a in answers) / 1e9 for name in shapes | products}
    # All products of a step one after another: total work over total time.
    work = {name: 2.0 * p["m"] * p["k"] * p["n"] * p["times"] for name, p in products.items()}
    net = sum(work.values()) / sum(work[name] / rates[name] for name in products)
    best = max(rates, key=rates.get)
    return {
        "processes": processes,
        "shapes_gflops": rates,
        "best_shape": best,
        "best_gflops": rates[best],
        "net_gflops": net,
        "torch": answers[0]["torch"],
        "simd": answers[0]["simd"],
    }


# ---------------------------------------------------------------------------------------------------------------------
# The grid, cut to what the options ask for; both sides read it from the same temporary configuration.


class Grid:
    """The runs of one experiment, alone in a temporary working folder with its own config/ and prepared data."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        import yaml

        import l2dyn
        from l2dyn.errors import UserError
        from l2dyn.runs.config import ScaleConfig, load_scale
        from l2dyn.runs.cost import training_flops
        from l2dyn.runs.datasets import DATASETS
        from l2dyn.runs.plan import Plan
        from l2dyn.runs.spec import layer_widths

        self.scale, self.experiment, self.folder = options.scale, options.experiment, folder
        # Two relative paths would lose their meaning in the temporary folder: that of the package and that of the data.
        self.environment = os.environ | {"PYTHONPATH": str(Path(l2dyn.__file__).resolve().parents[1])}
        if self.environment.get("L2DYN_DATA"):
            self.environment["L2DYN_DATA"] = str(Path(self.environment["L2DYN_DATA"]).resolve())

        whole = load_scale(self.scale).model_dump(mode="json")
        if self.experiment not in whole["experiments"]:
            known = ", ".join(whole["experiments"])
            raise UserError(f"--experiment {self.experiment}: not in config/{self.scale}.yaml; known there: {known}")
        cut = _cut(whole["experiments"][self.experiment], options)
        alone = whole | {"experiments": {self.experiment: cut}, "figures": {}, "theory": {}}
        if alone["data_dir"]:
            alone["data_dir"] = str(Path(alone["data_dir"]).resolve())
        (folder / "config").mkdir()
        (folder / "config" / f"{self.scale}.yaml").write_text(yaml.safe_dump(alone))

        self.plan = Plan(self.scale, ScaleConfig.model_validate(alone))
        self.tasks = self.plan.tasks(self.experiment)
        self.spec = self.tasks[0].spec
        _check_plain(self.spec, self.experiment)
        info = DATASETS[self.spec.data.name]
        self.widths = layer_widths(self.spec.model, math.prod(info.shape), info.classes)
        self.model_steps = sum(task.steps for task in self.tasks)
        self.product_flops = sum(map(training_flops, self.tasks))
        self.span_flops = sum(map(self._span_flops, self.tasks))

    def slices(self):
        """What `l2dyn train --slice i/n` is called with: the non-empty slices."""
        return self.plan.slices(self.experiment)

    def prepare_data(self) -> Path:
        """Write the verified arrays once, before anything is timed; returns the folder that holds them."""
        prepared = self.folder / "prepared"
        command = [sys.executable, "-m", "l2dyn", "data", self.spec.data.name]
        directory = self.plan.scale.data_dir
        command += ["--data-dir", directory] if directory else []
        _finished(command, cwd=self.folder, env=self.environment | {"L2DYN_RESULTS": str(prepared)})
        return prepared / "data"

    def minutes(self, processes: int) -> float:
        """A guess of how long one repeat takes: the grid trained twice at GUESSED_STEPS_PER_S."""
        return 2 * self.model_steps / (GUESSED_STEPS_PER_S * processes) / 60

    def _span_flops(self, task) -> float:
        """The products that ours computes: where the first layer is held in the span of the samples, it takes fewer."""
        from l2dyn.runs.cost import training_flops

        data, (inputs, width) = task.spec.data, self.widths[:2]
        saved = 2.0 * data.train * width * max(0, 2 * inputs - data.train)
        return training_flops(task) - task.steps * saved


def _cut(experiment: dict, options: argparse.Namespace) -> dict:
    """The experiment with its grid and horizon restricted as --runs, --steps-cap and --slices say."""
    horizon = dict(experiment["horizon"])
    if options.steps_cap:
        batch = experiment["batch"]
        cap = options.steps_cap / (experiment["data"]["train"] // batch if batch else 1)
        horizon |= {"cap_epochs": min(cap, horizon["cap_epochs"] or cap), "beyond_cap": "cut"}
    cut = experiment | {"horizon": horizon, "slices": options.slices or experiment["slices"]}
    return cut | (_first_runs(experiment, options.runs) if options.runs else {})


def _first_runs(experiment: dict, count: int) -> dict:
    """The lists lr, l2 and seeds whose product is the first `count` runs of the grid (seeds vary fastest)."""
    from l2dyn.errors import UserError

    lrs, l2s, seeds = experiment["lr"], experiment["l2"], experiment["seeds"]
    grids = {n: (lrs[:1], l2s[:1], seeds[:n]) for n in range(1, len(seeds) + 1)}
    grids |= {n * len(seeds): (lrs[:1], l2s[:n], seeds) for n in range(1, len(l2s) + 1)}
    grids |= {n * len(l2s) * len(seeds): (lrs[:n], l2s, seeds) for n in range(1, len(lrs) + 1)}
    if count not in grids:
        possible = ", ".join(map(str, sorted(grids)))
        raise UserError(f"--runs {count}: the first {count} runs are no grid of lr, l2 and seeds; possible: {possible}")
    return dict(zip(("lr", "l2", "seeds"), grids[count], strict=True))


def _check_plain(spec, experiment: str) -> None:
    """Raise UserError for what the baseline is not written for."""
    from l2dyn.errors import UserError

    wanted = {
        "model.kind": (spec.model.kind, "fc"),
        "model.parameterization": (spec.model.parameterization, "standard"),
        "data.labels": (spec.data.labels, "class"),
        "loss": (spec.loss, "cross_entropy"),
        "batch": (spec.batch, 0),
        "precision": (spec.precision, "float32"),
    }
    for key, (found, needed) in wanted.items():
        if found != needed:
            raise UserError(f"--experiment {experiment}: {key} is {found}; the baseline is written for {needed} only")


# ---------------------------------------------------------------------------------------------------------------------
# Timing the two sides.


def timed(commands: dict[str, list[str]], processes: int, **how) -> dict:
    """Run every command, `processes` at a time: wall and CPU seconds in all, and each command's own times."""
    started, cpu = time.perf_counter(), _children_cpu()

    def one(item: tuple[str, list[str]]) -> dict:
        name, command = item
        begin = time.perf_counter() - started
        printed = _finished(command, **how)
        return {"name": name, "start_s": begin, "wall_s": time.perf_counter() - started - begin, "printed": printed}

    with ThreadPoolExecutor(processes) as pool:
        try:
            each = list(pool.map(one, commands.items()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    wall = time.perf_counter() - started
    return {"wall_s": wall, "cpu_s": _children_cpu() - cpu, "processes": each}


def _finished(command: list[str], **how) -> str:
    """What a command printed; ends the benchmark with its last words when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    if done.returncode:
        raise SystemExit(f"fc_sweep: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train_ours(grid: Grid, arrays: Path, processes: int, folder: Path) -> tuple[dict, dict]:
    """Time `l2dyn train` over the slices in a fresh results folder; returns the timings and each run's columns."""
    from l2dyn.runs.store import RunStore

    shutil.copytree(arrays, folder / "data")
    train = [sys.executable, "-m", "l2dyn", "train", "--scale", grid.scale, "--experiment", grid.experiment]
    train += ["--threads", "1", "--device", "cpu", "--no-reuse"]
    commands = {f"slice {s.index}/{s.count}": [*train, "--slice", f"{s.index}/{s.count}"] for s in grid.slices()}
    times = timed(commands, processes, cwd=grid.folder, env=grid.environment | {"L2DYN_RESULTS": str(folder)})
    for process in times["processes"]:
        process.pop("printed")
    store = RunStore(folder, reuse=False)
    records = {task.run_id: store.load(task.run_id) for task in grid.tasks}
    times["training_s"] = sum(record.provenance["wall_s"] for record in records.values())
    return times, {run_id: record.columns for run_id, record in records.items()}


def train_baseline(grid: Grid, arrays: Path, processes: int, folder: Path) -> tuple[dict, dict]:
    """Time one `baseline_run` process per run; returns the timings and each run's columns."""
    import numpy as np

    from l2dyn.data import prepared_path
    from l2dyn.runs.spec import to_dict

    shutil.copytree(arrays, folder / "data")
    commands = {}
    for task in grid.tasks:
        spec, model = task.spec, task.spec.model
        described = {
            "data": to_dict(spec.data),
            "arrays": str(prepared_path(spec.data.name, folder)),
            "hidden_layers": model.hidden_layers,
            "width": model.width,
            "bias": model.bias,
            "weight_std": model.weight_std,
            "seed": spec.init_seed,
            "lr": spec.lr,
            "l2": spec.l2,
            "momentum": spec.momentum,
            "steps": task.steps,
            "evaluations": task.evaluations(),
        }
        file = folder / f"{task.run_id}.json"
        file.write_text(json.dumps(described))
        output = str(file.with_suffix(".csv"))
        commands[task.run_id] = [sys.executable, __file__, "--baseline-run", str(file), output]
    times = timed(commands, processes, cwd=grid.folder, env=grid.environment)
    times["training_s"] = 0.0
    for process in times["processes"]:
        process["training_s"] = float(process.pop("printed"))
        times["training_s"] += process["training_s"]
    tables = {run_id: np.genfromtxt(folder / f"{run_id}.csv", delimiter=",", names=True) for run_id in commands}
    return times, {
        run_id: {name: np.atleast_1d(table[name]) for name in table.dtype.names} for run_id, table in tables.items()
    }


def compared(grid: Grid, ours: dict, baseline: dict) -> list[dict]:
    """Run by run: the best test accuracy on both sides, and how far the training losses agree early on."""
    rows = []
    for task in grid.tasks:
        a, b = ours[task.run_id], baseline[task.run_id]
        early = min((a["step"] <= EARLY_STEP).sum(), (b["step"] <= EARLY_STEP).sum())
        gap = abs(a["train_loss"][:early] / b["train_loss"][:early] - 1.0)
        best = float(a["test_accuracy"].max()), float(b["test_accuracy"].max())
        rows.append(
            {
                "run_id": task.run_id,
                "lr": task.spec.lr,
                "l2": task.spec.l2,
                "seed": task.spec.init_seed,
                "steps": task.steps,
                "measured_ours": len(a["step"]),
                "measured_baseline": len(b["step"]),
                "max_test_accuracy_ours": best[0],
                "max_test_accuracy_baseline": best[1],
                "difference": abs(best[0] - best[1]),
                "early_train_loss_difference": float(gap.max()),
            }
        )
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# What is reported.


def figures_of(grid: Grid, repeats: list[dict], machine: dict) -> dict:
    """For each side, each reported quantity as a list over the repeats; and the ratios baseline / ours."""
    out = {}
    for side in ("ours", "baseline"):
        times = [repeat[side] for repeat in repeats]
        done = [grid.product_flops / t["wall_s"] / 1e9 for t in times]
        computed = [(grid.span_flops if side == "ours" else grid.product_flops) / t["wall_s"] / 1e9 for t in times]
        out[side] = {
            "wall_s": [t["wall_s"] for t in times],
            "cpu_s": [t["cpu_s"] for t in times],
            "in_loop_s": [t["training_s"] for t in times],
            "model_steps_per_s": [grid.model_steps / t["wall_s"] for t in times],
            "product_gflops": done,
            "product_fraction_of_best": [rate / machine["best_gflops"] for rate in done],
            "product_fraction_of_net": [rate / machine["net_gflops"] for rate in done],
            "computed_gflops": computed,
            "computed_fraction_of_best": [rate / machine["best_gflops"] for rate in computed],
        }
    pairs = {key: zip(out["baseline"][key], out["ours"][key], strict=True) for key in ("wall_s", "cpu_s", "in_loop_s")}
    out["ratio"] = {key: [b / a for b, a in values] for key, values in pairs.items()}
    return out


ROWS = {
    "wall_s": ("wall time, s", "{:.1f}"),
    "cpu_s": ("CPU time of all processes, s", "{:.1f}"),
    "in_loop_s": ("in the training loops, s (summed)", "{:.1f}"),
    "model_steps_per_s": ("model-steps per second", "{:,.0f}"),
    "product_gflops": ("GFLOP/s, plain products", "{:.1f}"),
    "product_fraction_of_best": ("  of the best matmul rate", "{:.1%}"),
    "product_fraction_of_net": ("  of the rate at the net's shapes", "{:.1%}"),
    "computed_gflops": ("GFLOP/s, products computed", "{:.1f}"),
    "computed_fraction_of_best": ("  of the best matmul rate", "{:.1%}"),
}


def print_table(figures: dict, machine: dict) -> None:
    """The table: median and, from two repeats on, the range."""
    table = [["", "ours", "baseline", "baseline/ours"]]
    for key, (title, form) in ROWS.items():
        ratios = figures["ratio"].get(key)
        table.append(
            [title]
            + [_median_range(figures[side][key], form) for side in ("ours", "baseline")]
            + [_median_range(ratios, "{:.2f}") if ratios else ""]
        )
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    print()
    for row in table:
        print("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]))
    print(
        f"\ntorch.mm, {machine['processes']} processes at once, 1 thread each, float32, summed: best "
        f"{machine['best_gflops']:.1f} GFLOP/s ({machine['best_shape']}); the net's own products, one after another, "
        f"{machine['net_gflops']:.1f} GFLOP/s."
    )


def print_comparison(rows: list[dict]) -> None:
    """Run by run the best test accuracy of both sides (of the last repeat)."""
    print(f"\n{'η':>8}{'λ':>10}{'seed':>6}{'steps':>8}   best test accuracy: ours   baseline   |difference|")
    for row in rows:
        print(
            f"{row['lr']:>8g}{row['l2']:>10g}{row['seed']:>6}{row['steps']:>8,}"
            f"{row['max_test_accuracy_ours']:>27.5f}{row['max_test_accuracy_baseline']:>11.5f}{row['difference']:>15.5f}"
        )
    early = max(row["early_train_loss_difference"] for row in rows)
    print(f"largest difference in the best test accuracy: {max(row['difference'] for row in rows):.5f}")
    print(f"largest relative difference of a training loss up to step {EARLY_STEP}: {early:.1e}")


def _median_range(values: list[float], form: str) -> str:
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))} – {form.format(max(values))})"


def _machine_and_versions(load: tuple, rates: dict) -> dict:
    import numpy

    import l2dyn
    from l2dyn.runs.files import git_revision

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "machine": {
            "cpu": model,
            "cores": os.cpu_count(),
            "cores_usable": _cores(),
            "simd": rates["simd"],
            "system": platform.platform(),
            "load_average_before": load,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": rates["torch"],
            "numpy": numpy.__version__,
            "l2dyn": l2dyn.__version__,
            "git": git_revision(),
        },
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# ---------------------------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Measure, print, write the JSON file."""
    from l2dyn.errors import UserError
    from l2dyn.runs.files import explained_os_errors, results_folder

    options = _parser().parse_args(argv)
    options.output = (options.output or results_folder() / "benchmarks" / "fc_sweep.json").resolve()
    try:
        with explained_os_errors(options.output):  # now, not after the measurement
            options.output.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(options.output.parent, os.W_OK):
            raise UserError(f"--output {options.output}: its folder cannot be written")
        with tempfile.TemporaryDirectory(prefix="l2dyn-fc-sweep-") as folder:
            _measure(options, argv, Path(folder))
    except UserError as error:
        print(f"fc_sweep: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(options: argparse.Namespace, argv: list[str], folder: Path) -> None:
    load, date = os.getloadavg(), datetime.now().astimezone().isoformat(timespec="seconds")
    processes = options.processes
    grid = Grid(options, folder)
    print(
        f"{grid.scale} {grid.experiment}: {len(grid.tasks)} runs, {grid.model_steps:,} model-steps, net "
        f"{'-'.join(map(str, grid.widths))}, {grid.spec.data.train} samples a step; {len(grid.slices())} slices "
        f"(ours), {processes} processes at a time, 1 thread each, {options.repeats} repeats.\n"
        f"Load average before: {load[0]:.2f}. Guessed time: {options.repeats * grid.minutes(processes):.1f} minutes."
    )
    arrays = grid.prepare_data()
    rates = measured_machine(grid, processes, folder)
    repeats = []
    sides = {"ours": train_ours, "baseline": train_baseline}
    for number in range(options.repeats):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        repeat, columns = {"order": order}, {}
        for side in order:
            results = folder / f"{side}-{number}"
            results.mkdir()
            repeat[side], columns[side] = sides[side](grid, arrays, processes, results)
        repeat["agreement"] = compared(grid, columns["ours"], columns["baseline"])
        repeats.append(repeat)
        seconds = ", ".join(f"{side} {repeat[side]['wall_s']:.1f} s" for side in order)
        print(f"repeat {number + 1} of {options.repeats}: {seconds}", flush=True)

    figures = figures_of(grid, repeats, rates)
    print_table(figures, rates)
    print_comparison(repeats[-1]["agreement"])
    about = {
        "benchmark": "fc_sweep",
        "date": date,
        "arguments": argv,
        **_machine_and_versions(load, rates),
        "grid": {
            "scale": grid.scale,
            "experiment": grid.experiment,
            "steps_cap": options.steps_cap,
            "whole_grid": not (options.steps_cap or options.runs),
            "runs": len(grid.tasks),
            "slices": len(grid.slices()),
            "model_steps": grid.model_steps,
            "product_flops": grid.product_flops,
            "computed_flops": grid.span_flops,
            "widths": grid.widths,
            "train_samples": grid.spec.data.train,
            "test_samples": grid.spec.data.test,
        },
        "processes_at_once": processes,
        "threads_per_process": 1,
        "matmul": rates,
        "median": {
            side: {key: statistics.median(values) for key, values in quantities.items()}
            for side, quantities in figures.items()
        },
        "figures": figures,
        "repeats": repeats,
    }
    options.output.write_text(json.dumps(about, indent=1) + "\n")
    print(f"\n{options.output} written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fc_sweep.py",
        description="Training time of a grid of fully-connected nets: l2dyn beside one torch process per run.",
        epilog=_how_long(),
    )
    parser.add_argument("--scale", default="quick", help="config/SCALE.yaml (default: quick)")
    parser.add_argument("--experiment", default="fig2ab", help="a full-batch FC experiment of it (default: fig2ab)")
    parser.add_argument("--steps-cap", type=_count, metavar="N", help="no run is longer than this, on either side")
    parser.add_argument("--runs", type=_count, metavar="K", help="only the first K runs of the grid, on both sides")
    parser.add_argument("--slices", type=_count, metavar="N", help="slices of ours (default: the experiment's)")
    parser.add_argument("--repeats", type=_count, default=1, metavar="R", help="median and range of R (default: 1)")
    parser.add_argument(
        "--processes", type=_count, default=_cores(), metavar="P", help="at a time, on both sides (default: the cores)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.json", help="default: results/benchmarks/fc_sweep.json (not in git)"
    )
    return parser


def _how_long() -> str:
    """The line of --help on how long the full run takes, from the default grid."""
    from l2dyn.errors import UserError

    defaults = argparse.Namespace(scale="quick", experiment="fig2ab", steps_cap=None, runs=None, slices=None)
    try:
        with tempfile.TemporaryDirectory() as folder:
            grid = Grid(defaults, Path(folder))
    except UserError as error:
        return f"(No estimate of the time: {error})"
    return (
        f"The full run, without --runs and --steps-cap, takes about {math.ceil(grid.minutes(2))} minutes a repeat on 2 "
        f"cores: {grid.model_steps:,} model-steps on each side, at a guessed {GUESSED_STEPS_PER_S} a second on each "
        f"core. A guess, not a measurement."
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--baseline-run"]:
        baseline_run(*sys.argv[2:])
    elif sys.argv[1:2] == ["--rate-run"]:
        rate_run(*sys.argv[2:])
    elif sys.argv[1:3] == ["--device", "cuda"]:  # there the steps are compared, in one process
        import fc_steps

        sys.exit(fc_steps.main())
    else:
        sys.exit(main(sys.argv[1:]))
