"""How wide is wide enough for figure 5c, and how small a learning rate: not speed, but how far the curve still moves.

    python benchmarks/fig5c_convergence.py --widths 512 1024 2048 4096 8192 16384 --seeds 16

The scale's own experiment fig5c, with the width doubled from row to row and, at one width, the learning rate halved.
Curves are the mean over initializations of the training loss, compared at equal gradient-flow times t = η·steps up to
twice the time of theory's smallest loss. What makes single nets differ is their initial function, and theory knows its
part: the mean is taken of each net's loss minus theory's from that net's own f(0), plus theory's mean over all f(0).
That is exact: its mean depends on the covariance of f(0) alone, which with one hidden layer is the NNGP at any width.
Single kernels scatter as 1/√width, so half the width gets twice the seeds, up to eight times as many.
"""

import numpy as np
import side_by_side as common

from l2dyn.config.loading import load_scale
from l2dyn.data import arrays
from l2dyn.data.samples import Samples, inputs, parity, samples
from l2dyn.runs.plan import Task
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.run import RunSpec
from l2dyn.theory import mean_loss, mode_residual_response, relu_ntk
from l2dyn.training.stacked import StackedTrainer

MOST_UNITS = 16384  # hidden units of nets that train together
MOST_TIMES = 8  # as many seeds as the widest nets have


class Theory:
    """Equation (3), k = 2, on the experiment's samples: the loss from any initial function, and its mean."""

    def __init__(self, x: np.ndarray, y: np.ndarray, l2: float, weight_std: float):
        self.y, self.l2 = y, l2
        self.nngp, self.kernel = relu_ntk(x, x, 1, weight_std)
        self.eigenvalues, self.modes = np.linalg.eigh(self.kernel / len(y))

    def mean(self, t: np.ndarray) -> np.ndarray:
        """Over initial functions, [T]."""
        return mean_loss(t, self.kernel, self.y, self.l2, 2, initial_covariance=self.nngp)

    def of(self, t: np.ndarray, initial: np.ndarray) -> np.ndarray:
        """From each initial function [seeds, N], [seeds, T]."""
        of_initial, of_target = mode_residual_response(t[:, None], self.eigenvalues, self.l2, 2)
        residuals = of_initial * (initial @ self.modes)[:, None, :] + of_target * (self.y @ self.modes)
        return (residuals**2).sum(axis=-1) / (2 * len(self.y))


def descents(specs: list[RunSpec], seen: Samples, steps: np.ndarray, device: str) -> tuple:
    """(f(0) [seeds, N], losses [seeds, T]) of gradient descent at increasing steps."""
    end = int(steps[-1])
    trainer = StackedTrainer([Task(spec, end, (end,), EvaluationGrid()) for spec in specs], seen, device)
    starts = trainer.stack.net.forward_on_span()[-1][..., 0].cpu().numpy().astype(float)
    losses = []
    for step in steps:
        trainer.advance(int(step) - trainer.step)
        losses.append(trainer.measure()[:, 0].cpu().numpy())
    return starts, np.stack(losses, axis=1)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "40 minutes on a CPU core")
    parser.add_argument("--scale", default="quick")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--seeds", type=int, default=16, help="of the widest nets; narrower ones have more")
    parser.add_argument("--halve", type=int, default=4096, help="the width at which the learning rate is halved, too")
    parser.add_argument("--lr", type=float, help="another learning rate than the experiment's")
    options = parser.parse_args()
    common.prepare(options)

    config = load_scale(options.scale)
    experiment = config.experiments["fig5c"]
    lr, l2 = options.lr or experiment.lr[0], experiment.l2[0]
    wanted = experiment.data.model_copy(update={"test_samples": 1})
    seen = samples(wanted, arrays.load(wanted.name, data_dir=config.data_dir))
    x, y = inputs(wanted, seen.train_images), parity(seen.train_labels)[:, 0]
    theory = Theory(x, y, l2, experiment.net.weight_std)

    fine = np.geomspace(1, 4 / l2, 2000)
    t_min = fine[theory.mean(fine).argmin()]
    steps = np.unique(np.geomspace(1, 2 * t_min / lr, 60).astype(int))
    t, expected = lr * steps, theory.mean(lr * steps)
    print(f"theory: the smallest loss is {expected.min():.4f} at t = {t_min:.1f}; curves up to t = {t[-1]:.0f}")

    def count(width: int) -> int:
        return options.seeds * min(MOST_TIMES, max(1, max(options.widths) // width))

    def curve(width: int, divisor: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The mean loss and its standard error, [T] each."""
        net = experiment.net.model_copy(update={"width": width})
        run = {"net": net, "data": wanted, "lr": lr / divisor, "l2": l2, "loss": experiment.loss}
        specs, gaps = [RunSpec(**run, init_seed=seed) for seed in range(count(width))], []
        together = max(1, MOST_UNITS // width)
        for first in range(0, len(specs), together):
            part = specs[first : first + together]
            starts, losses = descents(part, seen, divisor * steps, options.device)
            gaps.append(losses - theory.of(t, starts))
        gaps = np.concatenate(gaps)
        return expected + gaps.mean(axis=0), gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))

    def largest(change: np.ndarray) -> float:
        return float(100 * abs(change).max())

    rows, curves = [], {}
    for width in options.widths:
        mean, error = curves[width] = curve(width)
        half = curves.get(width // 2)
        row = {
            "width": width,
            "seeds": count(width),
            "t of the smallest loss": float(t[mean.argmin()]),
            "smallest loss": float(mean.min()),
            "standard error, %": largest(error / mean),
            "moved, %": largest(mean / half[0] - 1) if half else None,
            "from theory, %": largest(mean / expected - 1),
            "up to t_min, %": largest((mean / expected - 1)[t <= t_min]),
        }
        common.show([row])
        rows.append(row)
    whole = curves.get(options.halve) or curve(options.halve)
    moved = largest(curve(options.halve, 2)[0] / whole[0] - 1)
    print(f"η = {lr:g} halved at width {options.halve}: the mean moves by at most {moved:.2f} %")
    kept = {str(width): mean.tolist() for width, (mean, _) in curves.items()}
    common.finish("fig5c_convergence", options, rows, halved_moves_percent=moved, t=t.tolist(), curves=kept)


if __name__ == "__main__":
    common.call(main)
