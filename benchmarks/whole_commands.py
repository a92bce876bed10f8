"""One experiment trained twice from nothing, by whole commands: with l2dyn, and the way a user would write it.

- ours: `l2dyn train` for each slice;
- baseline: `python baseline.py` for each run, evaluated at the same steps, one CSV each.

As many processes at a time on both sides, one thread each. Start-up and the writing of results count, data do not:
they are prepared before.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import l2dyn
from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.loading import load_scale
from l2dyn.config.scale import ScaleConfig
from l2dyn.data import arrays
from l2dyn.data.samples import inputs, samples
from l2dyn.errors import UserError
from l2dyn.runs.bundles import Bundles
from l2dyn.runs.plan import Plan
from l2dyn.specs.run import AugmentationSpec, RunSpec

BASELINE = Path(__file__).with_name("baseline.py")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def add_options(parser: argparse.ArgumentParser) -> None:
    """What says which runs are trained, and how many at a time."""
    parser.add_argument("--scale", default="quick", help="config/SCALE.yaml (default: quick)")
    parser.add_argument("--steps-cap", type=_count, metavar="N", help="no run is longer than this, on either side")
    parser.add_argument("--runs", type=_count, metavar="K", help="only the first K λ at the first η and seed")
    parser.add_argument("--slices", type=_count, metavar="N", help="jobs of ours (default: the experiment's slices)")
    parser.add_argument("--processes", type=_count, default=CORES, metavar="P", help="at a time (default: the cores)")


@dataclass(frozen=True)
class Side:
    """What one side took: wall and CPU seconds of all processes, and the seconds in training loops, summed."""

    wall_s: float
    cpu_s: float
    in_loops_s: float
    processes: list[dict]  # name, start_s and wall_s of each
    columns: dict[str, dict[str, np.ndarray]] = field(repr=False)  # of each run

    @property
    def mean_best_accuracy(self) -> float:
        """Over runs, of the best test accuracy."""
        return float(np.mean([columns["test_accuracy"].max() for columns in self.columns.values()]))

    def times(self) -> dict:
        """All but the curves."""
        return {name: value for name, value in asdict(self).items() if name != "columns"}


class Experiment:
    """An experiment in a working folder of its own: its configuration, cut as the options say, and its data.

    It stands there alone, so that no other experiment asks for longer runs. kind: of its nets. Raises UserError for an
    experiment that the baseline is not written for.
    """

    def __init__(self, name: str, kind: str, options: argparse.Namespace, folder: Path):
        self.name, self.folder, self.processes = name, folder, options.processes
        whole = load_scale(options.scale, device="cpu")
        if name not in whole.experiments:
            known = ", ".join(whole.experiments)
            raise UserError(f"{name}: no experiment of config/{options.scale}.yaml; known there: {known}")
        if whole.experiments[name].selected:
            raise UserError(f"{name}: its l2 is measured on other runs, which are not trained here")
        alone = {"experiments": {name: _cut(whole.experiments[name], options)}, "figures": {}, "theory": {}}
        alone |= {
            "data_dir": whole.data_dir and str(Path(whole.data_dir).resolve()),
            "templates": {},
            "train_together": {},
        }
        scale = ScaleConfig.model_validate(whole.model_dump(mode="json") | alone)
        (folder / "config").mkdir(parents=True)
        # JSON is YAML, too
        (folder / "config" / f"{options.scale}.yaml").write_text(scale.model_dump_json())
        self.plan = Plan(options.scale, scale)
        self.tasks = self.plan.tasks(name)
        self.slices = self.plan.slices(name)
        self.spec = self.tasks[0].spec
        self.whole = not (options.steps_cap or options.runs)
        _check(self.spec, kind, name)
        self._prepare_data(scale.data_dir)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("L2DYN_")}
        source = str(Path(l2dyn.__file__).resolve().parents[1])
        self._environment = kept | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}

    @property
    def model_steps(self) -> int:
        """Steps of all runs."""
        return sum(task.steps for task in self.tasks)

    def about(self) -> dict:
        """What is trained, for the JSON file."""
        return {
            "scale": self.plan.name,
            "experiment": self.name,
            "whole_grid": self.whole,
            "runs": len(self.tasks),
            "slices": len(self.slices),
            "model_steps": self.model_steps,
            "processes": self.processes,
        }

    def train(self, side: str, turn: int = 0) -> Side:
        """One side, "ours" or "baseline", in a results folder of its own."""
        results = self.folder / f"{side}-{turn}"
        results.mkdir()
        return {"ours": self._ours, "baseline": self._baseline}[side](results)

    def _ours(self, results: Path) -> Side:
        (results / "data").symlink_to(self._arrays.parent)
        train = [sys.executable, "-m", "l2dyn", "train", "--scale", self.plan.name, "--experiment", self.name]
        train += ["--threads", "1", "--device", "cpu", "--no-reuse"]
        commands = {
            str(results / f"{part.name}.parquet"): [*train, "--slice", f"{part.index}/{part.count}"]
            for part in self.slices
        }
        commands = {output: [*command, "--output", output] for output, command in commands.items()}
        times, _ = self._timed(commands, L2DYN_RESULTS=str(results))
        records = Bundles(commands)
        in_loops_s = sum(record.provenance["wall_s"] for record in records.values())
        return Side(**times, in_loops_s=in_loops_s, columns={i: r.columns for i, r in records.items()})

    def _baseline(self, results: Path) -> Side:
        commands = {}
        for task in self.tasks:
            described = {
                "spec": task.spec.model_dump(mode="json"),
                "steps": task.steps,
                "evaluations": task.evaluations(),
                "train_subset": task.grid.train_subset,
                "outputs": task.spec.data.outputs,
            }
            file, curve = results / f"{task.run_id}.json", results / f"{task.run_id}.csv"
            file.write_text(json.dumps(described))
            commands[task.run_id] = [sys.executable, str(BASELINE), str(file), str(self._inputs), str(curve)]
        times, printed = self._timed(commands)
        columns = {}
        for run_id in commands:
            table = np.genfromtxt(results / f"{run_id}.csv", delimiter=",", names=True)
            columns[run_id] = {name: np.atleast_1d(table[name]) for name in table.dtype.names}
        return Side(**times, in_loops_s=sum(map(float, printed)), columns=columns)

    def _prepare_data(self, data_dir: str | None) -> None:
        """The verified arrays where ours looks for them, and the baseline's ready-made inputs."""
        data = self.spec.data
        self._arrays = arrays.prepared_path(data.name, self.folder / "prepared")
        if arrays.prepared_path(data.name).exists():
            self._arrays.parent.mkdir(parents=True)
            self._arrays.symlink_to(arrays.prepared_path(data.name).resolve())
        seen = samples(data, arrays.load(data.name, self._arrays, data_dir))
        held = {"y_train": seen.train_labels, "y_test": seen.test_labels}
        for name, images in (("x_train", seen.train_images), ("x_test", seen.test_images)):
            held[name] = inputs(data, images).astype(np.float32)
            if self.spec.net.kind != "fc":
                planes = held[name].reshape(-1, *data.image_shape).transpose(0, 3, 1, 2)
                held[name] = np.ascontiguousarray(planes)
        self._inputs = self.folder / "inputs.npz"
        np.savez(self._inputs, **held)

    def _timed(self, commands: dict[str, list[str]], **environment: str) -> tuple[dict, list[str]]:
        """Times of all commands, `processes` at a time, as Side has them, and what they printed."""
        how = {"cwd": self.folder, "env": self._environment | environment}
        started, cpu = time.perf_counter(), _cpu_of_children()

        def one(name: str) -> tuple[dict, str]:
            begin = time.perf_counter()
            done = subprocess.run(commands[name], capture_output=True, text=True, check=False, **how)
            if done.returncode:
                ended = f"{' '.join(commands[name])} ended with {done.returncode}"
                raise SystemExit(f"{ended}:\n{done.stderr[-2000:]}")
            end = time.perf_counter()
            return {"name": Path(name).stem, "start_s": begin - started, "wall_s": end - begin}, done.stdout

        with ThreadPoolExecutor(self.processes) as pool:
            found = list(pool.map(one, commands))
        times = {"wall_s": time.perf_counter() - started, "cpu_s": _cpu_of_children() - cpu}
        return times | {"processes": [process for process, _ in found]}, [printed for _, printed in found]


def _cut(experiment: ExperimentConfig, options: argparse.Namespace) -> dict:
    """The experiment's configuration with its grid and horizon restricted as --runs, --steps-cap and --slices say."""
    values = experiment.model_dump(mode="json")
    values["slices"] = options.slices or experiment.slices
    if options.steps_cap:
        cap = options.steps_cap / (experiment.data.train_samples // (experiment.batch or experiment.data.train_samples))
        horizon = values["horizon"]
        for key in ("cap_epochs", *(["epochs_without_l2"] if horizon["epochs_without_l2"] else [])):
            horizon[key] = min(cap, horizon[key] or cap)
        horizon["beyond_cap"] = "cut"
    if options.runs:
        if options.runs > len(experiment.l2):
            raise UserError(f"--runs {options.runs}: at most {len(experiment.l2)}, one for each l2")
        values |= {"lr": experiment.lr[:1], "l2": experiment.l2[: options.runs], "seeds": experiment.seeds[:1]}
    return values


def _check(spec: RunSpec, kind: str, name: str) -> None:
    """Raise UserError for what the baseline is not written for."""
    plain = {
        "net.kind": (spec.net.kind, kind),
        "net.parameterization": (getattr(spec.net, "parameterization", "standard"), "standard"),
        "net.norm_group": (getattr(spec.net, "norm_group", 0), 0),
        "optimizer.kind": (spec.optimizer.kind, "sgd"),
        "data.labels": (spec.data.labels, "class"),
        "loss": (spec.loss, "cross_entropy"),
        "precision": (spec.precision, "float32"),
        "auto_l2": (spec.auto_l2, None),
        "lr_schedule": (spec.lr_decay_epochs, ()),
        "augmentation": (spec.augmentation, AugmentationSpec()),
    }
    for key, (found, needed) in plain.items():
        if found != needed:
            raise UserError(f"{name}: {key} is {found}; the baseline is written for {needed}")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
