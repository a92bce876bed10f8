"""A grid of fully-connected nets, trained twice by whole commands: with l2dyn, and the way a user would write it.

    python benchmarks/fc_sweep.py --repeats 3 --output fc_sweep.json

Beside both (see whole_commands.py) stands the rate of plain matrix products in as many processes at once. Prints a
table and, run by run, the best test accuracies; nothing is extrapolated. benchmarks/README.md says how to read it.
"""

import tempfile
from pathlib import Path

import ceiling
import side_by_side as common
import whole_commands
from whole_commands import Experiment, Side

from l2dyn.errors import UserError
from l2dyn.runs.cost import training_flops
from l2dyn.runs.plan import Task

SIDES = ("ours", "baseline")
EARLY_STEP = 10  # up to here the two trajectories should differ by rounding only


def computed_flops(task: Task, widths: list[int]) -> float:
    """Products that ours computes: fewer than the plain ones, where the first layer is held in the samples' span."""
    samples, (inputs, width) = task.spec.data.train_samples, widths[:2]
    return training_flops(task) - task.steps * 2.0 * samples * width * max(0, 2 * inputs - samples)


def compared(experiment: Experiment, ours: Side, baseline: Side) -> list[dict]:
    """Run by run: the best test accuracies, and how far the training losses agree early on."""
    rows = []
    for task in experiment.tasks:
        a, b = ours.columns[task.run_id], baseline.columns[task.run_id]
        early = min((a["step"] <= EARLY_STEP).sum(), (b["step"] <= EARLY_STEP).sum())
        best = [float(side["test_accuracy"].max()) for side in (a, b)]
        rows.append(
            {
                "run": task.run_id,
                "lr": task.spec.lr,
                "l2": task.spec.l2,
                "seed": task.spec.init_seed,
                "steps": task.steps,
                "best accuracy, ours": best[0],
                "baseline": best[1],
                "difference": abs(best[0] - best[1]),
                f"loss to step {EARLY_STEP}, rel.": float(
                    abs(a["train_loss"][:early] / b["train_loss"][:early] - 1.0).max()
                ),
            }
        )
    return rows


def table(experiment: Experiment, widths: list[int], repeats: list[dict[str, Side]], rates: dict) -> list[dict]:
    """A row for each quantity: medians over the repeats, and how much better ours is."""
    plain = sum(map(training_flops, experiment.tasks)) / 1e9
    computed = {"ours": sum(computed_flops(task, widths) for task in experiment.tasks) / 1e9, "baseline": plain}

    def row(quantity: str, of, times: bool = False) -> dict:
        values = {name: [of(name, repeat[name]) for repeat in repeats] for name in SIDES}
        pairs = zip(values["ours"], values["baseline"], strict=True)
        gains = [b / a if times else a / b for a, b in pairs]
        return {
            "quantity": quantity,
            **{name: common.median(values[name]) for name in SIDES},
            "gain": common.median(gains),
            "smallest": min(gains),
            "largest": max(gains),
        }

    best, net = rates["best_gflops"], rates["net_gflops"]
    return [
        row("wall time, s", lambda name, side: side.wall_s, times=True),
        row("CPU time of all processes, s", lambda name, side: side.cpu_s, times=True),
        row("in the training loops, s (summed)", lambda name, side: side.in_loops_s, times=True),
        row("model-steps/s", lambda name, side: experiment.model_steps / side.wall_s),
        row("plain products, GFLOP/s", lambda name, side: plain / side.wall_s),
        row("  of the best matmul rate", lambda name, side: plain / side.wall_s / best),
        row("  of the rate at the net's shapes", lambda name, side: plain / side.wall_s / net),
        row("products computed, GFLOP/s", lambda name, side: computed[name] / side.wall_s),
        row("  those of the best matmul rate", lambda name, side: computed[name] / side.wall_s / best),
    ]


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 3 minutes a repeat on 2 cores")
    whole_commands.add_options(parser)
    parser.add_argument("--experiment", default="fig2ab", help="a full-batch experiment of the scale (default: fig2ab)")
    parser.add_argument("--repeats", type=int, default=1, help="the sides take turns in going first")
    options = parser.parse_args()
    common.prepare(options)
    if options.device != "cpu":
        raise UserError("--device cuda: this compares processes on a CPU; fc_steps.py compares the steps on a GPU")
    with tempfile.TemporaryDirectory(prefix="l2dyn-fc-sweep-") as temporary:
        folder = Path(temporary)
        experiment = Experiment(options.experiment, "fc", options, folder / "work")
        spec = experiment.spec
        if spec.batch:
            raise UserError(f"{options.experiment}: batch is {spec.batch}; this is for training on the full batch")
        height, width, channels = spec.data.image_shape
        widths = spec.net.widths(height * width * channels, spec.data.outputs)
        net = "-".join(map(str, widths))
        print(
            f"{len(experiment.tasks)} runs of the net {net} on {spec.data.train_samples} samples, "
            f"{experiment.model_steps:,} model-steps; {len(experiment.slices)} slices (ours), {options.processes} "
            f"processes at a time. Load average before: {common.LOAD_BEFORE[0]:.2f}"
        )
        products = ceiling.net_products(widths, spec.data.train_samples)
        rates = ceiling.measured(products, options.processes, options.window / 10, folder)
        repeats = []
        for turn in range(options.repeats):
            order = SIDES if turn % 2 == 0 else SIDES[::-1]
            repeats.append({side: experiment.train(side, turn) for side in order})
            print(", ".join(f"{side} {repeats[-1][side].wall_s:.1f} s" for side in order), flush=True)
    print(
        f"torch.mm, float32, {options.processes} processes at once: at best {rates['best_gflops']:.1f} GFLOP/s "
        f"({rates['best_shape']}), the net's products one after another {rates['net_gflops']:.1f} GFLOP/s"
    )
    runs = compared(experiment, **repeats[-1])
    common.show(runs)
    common.finish(
        "fc_sweep",
        options,
        table(experiment, widths, repeats, rates),
        experiment=experiment.about(),
        matmul=rates,
        repeats=[{side: took.times() for side, took in repeat.items()} for repeat in repeats],
        runs=runs,
    )


if __name__ == "__main__":
    common.call(main)
