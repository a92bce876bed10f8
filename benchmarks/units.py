"""Which reading of the paper's learning rates trains its fully-connected net: PyTorch's units, or the authors'?

    python benchmarks/units.py --data mnist --width 2048 --steps 200 --output units.json

The paper's FC grid goes up to η = 50. Each η is trained as it stands (lr = η) and as the authors' Wide ResNet code
would read it (lr = η/10, l2dyn.specs.units), without L2, on 512 samples as one batch: whether it diverges, and how
much of the training set the net fits within the steps. `fits`: its training error falls below 0.5 %. How weights are
parameterized is a third unknown: the library that the authors used scales them in the forward pass (ntk).
"""

import math

import side_by_side as common

from l2dyn.data import arrays
from l2dyn.data.samples import samples
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.specs.run import RunSpec
from l2dyn.specs.units import to_torch
from l2dyn.training.stacked import StackedTrainer

RATES = (0.15, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0)  # the upper part of the paper's grid
FITS = 0.005


def main() -> None:
    """Train every η in both readings and print what became of it."""
    parser = common.parser(__doc__.splitlines()[0], "10 minutes on a CPU core; seconds with --width 64")
    parser.add_argument("--data", default="mnist", help="mnist (set L2DYN_DATA) or digits")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--parameterization", choices=["standard", "ntk"], default="standard")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--arrays", type=common.Path, help="prepared data (default: below the results folder)")
    options = parser.parse_args()
    common.prepare(options)
    data = DataSpec(name=options.data, train_samples=options.samples, test_samples=100)
    net = FullyConnectedSpec(hidden_layers=3, width=options.width, parameterization=options.parameterization)
    lrs = sorted({to_torch(units, 10, lr=eta)[0] for eta in options.rates for units in ("torch", "authors")})
    specs = {lr: RunSpec(net=net, data=data, lr=lr, l2=0.0) for lr in lrs}
    grid = EvaluationGrid(every_epochs=max(1.0, options.steps // 20))
    tasks = [Task(spec, options.steps, (options.steps,), grid) for spec in specs.values()]
    seen = samples(data, arrays.load(options.data, options.arrays))
    ended = {end.task.spec.lr: end for end in StackedTrainer(tasks, seen, options.device).train()}
    rows = []
    for eta in options.rates:
        row = {"η": eta}
        for units in ("torch", "authors"):
            end = ended[to_torch(units, 10, lr=eta)[0]]
            error = float(end.columns["train_error"].min())
            row[f"{units}: lr"] = end.task.spec.lr
            row[f"{units}: smallest training error"] = error
            row[f"{units}: outcome"] = (
                end.status if end.status == "diverged" else "fits" if error < FITS else "does not fit"
            )
        rows.append(row)
    assert all(math.isfinite(row["torch: smallest training error"]) for row in rows)
    common.finish("units", options, rows)


if __name__ == "__main__":
    common.call(main)
