"""Training the CNN of figure 3, with and without batch norm: l2dyn beside plain PyTorch with a DataLoader.

    python benchmarks/cnn_train.py                    # CPU: the quick scale's fixed-budget experiments, whole commands
    python benchmarks/cnn_train.py --device cuda      # GPU: img/s at the gpu scale's size

On a CPU see whole_commands.py. On a GPU ours is timed in stretches of an epoch's steps, without evaluations, beside
epochs of a DataLoader with pinned memory and workers.
"""

import tempfile
from pathlib import Path

import baseline
import side_by_side as common
import torch
import whole_commands
from torch import nn

from l2dyn.runs.cost import step_flops
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import ConvNetSpec
from l2dyn.specs.run import RunSpec
from l2dyn.training.calibration import random_samples
from l2dyn.training.precision import products_in
from l2dyn.training.single import SingleTrainer

EXPERIMENTS = ("fig3-plain-budget", "fig3-norm-budget")


def of_commands(options) -> tuple[list[dict], dict]:
    """Both sides on the CPU, experiment by experiment."""
    rows, more = [], {}
    for name in options.experiments:
        with tempfile.TemporaryDirectory(prefix="l2dyn-cnn-") as folder:
            experiment = whole_commands.Experiment(name, "convnet", options, Path(folder) / "work")
            sides = {side: experiment.train(side) for side in ("ours", "baseline")}
        ours, plain = sides["ours"], sides["baseline"]
        images = experiment.model_steps * experiment.spec.samples_a_step
        rows.append(
            {
                "experiment": name,
                "runs": len(experiment.tasks),
                "ours, s": ours.wall_s,
                "baseline, s": plain.wall_s,
                "ratio": plain.wall_s / ours.wall_s,
                "ours in loops, s": ours.in_loops_s,
                "baseline in loops, s": plain.in_loops_s,
                "ours, img/s a core": images / ours.in_loops_s,
                "mean best accuracy, ours": ours.mean_best_accuracy,
                "baseline": plain.mean_best_accuracy,
            }
        )
        more[name] = experiment.about() | {side: took.times() for side, took in sides.items()}
    return rows, more


def baseline_seconds(spec: RunSpec, x: torch.Tensor, y: torch.Tensor, options) -> list[float]:
    """Seconds of an epoch of the baseline."""
    written = spec.model_dump(mode="json")
    net = baseline.started(written, x[:2].to(options.device), spec.data.outputs)
    loss_function, optimizer = nn.CrossEntropyLoss(), baseline.sgd(written, net)
    how = {"num_workers": options.workers, "pin_memory": options.device == "cuda", "shuffle": True, "drop_last": True}
    how |= {"persistent_workers": options.workers > 0, "batch_size": spec.batch}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), **how)

    def epoch() -> None:
        for images, labels in loader:
            images, labels = (t.to(options.device, non_blocking=True) for t in (images, labels))
            optimizer.zero_grad()
            loss_function(net(images), labels).backward()
            optimizer.step()

    with products_in("tf32"):
        return common.seconds_a_call(epoch, options.device, options.window)


def rates(options) -> tuple[list[dict], dict]:
    """Images a second at the gpu scale's size, on random images; evaluations are left out on both sides."""
    rows, more = [], {}
    ceiling = common.matmul_rate(options.device, "bfloat16", options.window)
    for batch_norm in (False, True):
        net = ConvNetSpec(batch_norm=batch_norm, channels=(options.channels,) * 4)
        sizes = {"train_samples": options.train, "test_samples": options.batch}
        data = DataSpec(name="cifar10", checksum="random", **sizes)
        spec = RunSpec(net=net, data=data, lr=0.01, l2=0.01, batch=options.batch, precision="bfloat16")
        task = Task(spec, 10**6, (10**6,), EvaluationGrid(every_epochs=1000))
        samples = random_samples(data)
        with products_in(spec.precision):
            trainer = SingleTrainer([task], samples, options.device)
            trainer.advance(1)

            def epoch(trainer=trainer, steps=spec.steps_per_epoch) -> None:
                trainer.advance(steps)

            seconds = common.seconds_a_call(epoch, options.device, options.window)
        x = torch.from_numpy(samples.train_images).permute(0, 3, 1, 2).float().contiguous() / 255.0
        plain = baseline_seconds(spec, x, torch.from_numpy(samples.train_labels), options)
        images = spec.steps_per_epoch * options.batch
        ours, theirs = images / common.median(seconds), images / common.median(plain)
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
    parser = common.parser(__doc__.splitlines()[0], "about 5 minutes on 2 cores, and 1 on a GPU (the latter a guess)")
    whole_commands.add_options(parser)
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS)
    parser.add_argument("--train", type=int, default=10000, help="GPU: images of an epoch")
    parser.add_argument("--batch", type=int, default=128, help="GPU: images of a step")
    parser.add_argument("--channels", type=int, default=300, help="GPU: of each convolution")
    parser.add_argument("--workers", type=int, default=4, help="GPU: of the baseline's DataLoader")
    parser.add_argument("--rates", action="store_true", help="what --device cuda does, on any device")
    options = parser.parse_args()
    common.prepare(options)
    rows, more = rates(options) if options.rates or options.device == "cuda" else of_commands(options)
    common.finish("cnn_train", options, rows, **more)


if __name__ == "__main__":
    common.call(main)
