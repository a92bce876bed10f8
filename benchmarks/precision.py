"""Does rounding products to TF32 or bfloat16 change what is measured, at late times and at tiny ηλ too?

    python benchmarks/precision.py --emulate        # on a CPU: TF32 by rounding both operands of every product
    python benchmarks/precision.py --device cuda

The same runs in float64, float32, tf32 and bfloat16, a few seeds each. What counts is the spread over seeds: a
precision agrees with float32 where the means over seeds differ by less than that.
"""

from contextlib import nullcontext

import numpy as np
import side_by_side as common
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from l2dyn.data import arrays
from l2dyn.data.samples import samples
from l2dyn.measures.peaks import time_to_peak
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import FullyConnectedSpec
from l2dyn.specs.run import RunSpec
from l2dyn.training.precision import products_in
from l2dyn.training.stacked import StackedTrainer

PRECISIONS = ("float64", "float32", "tf32", "bfloat16")
CASES = {
    "late": (0.1, 0.01, 2000),
    "later": (0.1, 2e-3, 10000),
    "tiny ηλ": (0.1, 1e-5, 4000),
    "tinier ηλ": (0.1, 1e-6, 4000),
}
PRODUCTS = {"aten::bmm": (0, 1), "aten::mm": (0, 1), "aten::baddbmm": (1, 2), "aten::baddbmm_": (1, 2)}


def to_tf32(values: torch.Tensor) -> torch.Tensor:
    """float32 rounded to 10 bits of mantissa, to the nearest, ties to even."""
    bits = values.contiguous().view(torch.int32)
    bits = bits + 0xFFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(torch.float32)


class EmulatedTf32(TorchDispatchMode):
    """Rounds both operands of every float32 product; sums stay in float32."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        places = PRODUCTS.get(func.name().split(".")[0], ())
        args = tuple(to_tf32(a) if i in places and a.dtype == torch.float32 else a for i, a in enumerate(args))
        return func(*args, **(kwargs or {}))


def trained(case: str, precision: str, options) -> list[dict]:
    """Each seed's t*, best accuracy, and loss and norm at the end."""
    lr, l2, steps = CASES[case]
    steps = min(steps, options.steps_cap or steps)
    where = DataSpec(name="digits", train_samples=512, test_samples=options.test)
    net = FullyConnectedSpec(hidden_layers=3, width=options.width)
    run = {"net": net, "data": where, "lr": lr, "l2": l2, "precision": precision}
    specs = [RunSpec(**run, init_seed=seed) for seed in range(options.seeds)]
    tasks = [Task(spec, steps, (steps,), EvaluationGrid()) for spec in specs]
    seen = samples(where, arrays.load("digits", options.arrays))
    emulated = EmulatedTf32() if precision == "tf32" and options.emulate else nullcontext()
    with products_in(precision):
        trainer = StackedTrainer(tasks, seen, options.device)
        with emulated:
            ended = list(trainer.train())
    found = []
    for run in ended:
        c = run.columns
        found.append(
            {
                "t*": float(time_to_peak(c["step"], c["test_accuracy"])),
                "best accuracy": float(c["test_accuracy"].max()),
                "loss at the end": float(c["train_loss"][-1]),
                "norm at the end": float(c["param_norm"][-1]),
            }
        )
    return found


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 5 minutes on a CPU core")
    parser.add_argument("--emulate", action="store_true", help="round operands to TF32 where the device does not")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--steps-cap", type=int)
    parser.add_argument("--arrays", type=common.Path, help="prepared digits (default: below the results folder)")
    options = parser.parse_args()
    common.prepare(options)
    rows, runs = [], {}
    for case in CASES:
        reference = None
        for precision in PRECISIONS:
            if precision == "tf32" and options.device == "cpu" and not options.emulate:
                continue  # it would be float32 again
            found = trained(case, precision, options)
            runs[f"{case} {precision}"] = found
            row = {
                "case": case,
                "products": precision + (" (emulated)" if precision == "tf32" and options.emulate else ""),
            }
            for name in found[0]:
                values = np.array([run[name] for run in found])
                row[name] = float(values.mean())
                row[f"± {name}"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            if reference is None:
                reference = found
            gaps = [abs(a["norm at the end"] / b["norm at the end"] - 1) for a, b in zip(found, reference, strict=True)]
            row["norm, largest gap to float64"] = float(max(gaps))
            rows.append(row)
    common.finish("precision", options, rows, runs=runs, cases=CASES)


if __name__ == "__main__":
    common.call(main)
