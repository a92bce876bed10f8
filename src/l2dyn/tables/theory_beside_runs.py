"""What the theory says of single runs, to be held against what was measured on them (figure S-constant).

Gradient flow in function space, equations (1) to (3), from the very function at which the run's net starts, read at
the run's own evaluations by the run's own rules. k is the number of layers. The kernel is that of infinite width where
there is one, for bias-free nets in NTK parameterization; else the one that the drawn net starts with, though biases
make the net inhomogeneous, and a narrow net's kernel does not only shrink.
"""

from collections.abc import Callable

import numpy as np

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.theory import ConstantConfig
from l2dyn.data.samples import inputs, parity, samples
from l2dyn.measures.peaks import peak
from l2dyn.nets.ntk import as_drawn
from l2dyn.runs.plan import Plan, Point
from l2dyn.specs.run import RunSpec
from l2dyn.theory import evolve, integrate, loss_minimum, relu_ntk

COLUMNS = (
    "experiment",
    "run_id",
    "lr",
    "l2",
    "seed",
    "kernel",  # infinite (width) or initial (the drawn net's own)
    "t_star",  # epochs, as in summary.csv
    "censored",
    "max_test_accuracy",
    "t_min_train_loss",  # epochs; empty where the loss has no interior minimum
    "min_train_loss",
)


def constant_table(
    config: ConstantConfig, plan: Plan, arrays: Callable[[str], dict[str, np.ndarray]]
) -> dict[str, list]:
    """COLUMNS for every run with λ > 0 of the experiments that the scale's theory.constant names."""
    rows: list[dict] = []
    for name in config.experiments:
        experiment = plan.scale.experiments[name]
        for seed in experiment.seeds:
            drawn = _DrawnNet(experiment, seed, arrays(experiment.data.name))
            for point in plan.experiments[name]:
                if point.spec.l2 > 0 and point.spec.init_seed == seed:
                    rows.append({"experiment": name, **drawn.row(point)})
    return {column: [row.get(column) for row in rows] for column in COLUMNS}


class _DrawnNet:
    """Samples, targets, kernels and f(0) of one net as it is drawn."""

    def __init__(self, experiment: ExperimentConfig, seed: int, arrays: dict[str, np.ndarray]):
        spec, net = experiment.data, experiment.net
        held = samples(spec, arrays)
        x, x_test = inputs(spec, held.train_images), inputs(spec, held.test_images)
        self.grid, self.chance = experiment.evaluation, spec.chance
        self.y, self.y_test = (
            parity(labels) if spec.labels == "parity" else np.eye(spec.outputs)[labels]
            for labels in (held.train_labels, held.test_labels)
        )
        self.k = net.hidden_layers + 1
        (self.initial, self.initial_test), kernel = as_drawn(net, spec.outputs, seed, x, x_test)
        if net.parameterization == "ntk" and not net.bias:
            self.kind = "infinite"
            shape = (net.hidden_layers, net.weight_std)
            self.kernel, self.kernel_test = (relu_ntk(points, x, *shape)[1] for points in (x, x_test))
        else:
            self.kind = "initial"
            self.kernel, self.kernel_test = kernel(0, 0), kernel(1, 0)

    def row(self, run: Point) -> dict:
        """What the theory says of one run, by COLUMNS."""
        spec = run.spec
        epochs = np.array(self.grid.steps(run.steps, spec.steps_per_epoch), dtype=float)
        loss, accuracy = self.curves(spec, spec.lr * epochs)
        minimum = int(loss.argmin())
        row = {
            "run_id": run.run_id,
            "lr": spec.lr,
            "l2": spec.l2,
            "seed": spec.init_seed,
            "kernel": self.kind,
            "max_test_accuracy": float(accuracy.max()),
            "min_train_loss": float(loss[minimum]),
        }
        if 0 < minimum < len(loss) - 1:
            row["t_min_train_loss"] = float(epochs[minimum])
        if spec.loss == "half_mse" and (exact := self.loss_minimum(spec.l2)) is not None:
            row |= {"t_min_train_loss": exact.t / spec.lr, "min_train_loss": exact.value}
        found = peak(epochs, accuracy, run.steps, self.chance)
        if found is not None:
            row |= {"t_star": found.t_star, "censored": found.censored}
        return row

    def curves(self, spec: RunSpec, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Training loss and test accuracy at gradient-flow times t, [T] each."""
        starts = {"kernel_test": self.kernel_test, "initial": self.initial, "initial_test": self.initial_test}
        how = {**starts, "reduction": "mean"}
        if spec.loss == "half_mse":
            train, test = evolve(self.kernel, self.y, spec.l2, self.k, t, **how)
            loss = 0.5 * ((train - self.y) ** 2).sum(axis=-1).mean(axis=-1)
        else:
            how |= {"rtol": 1e-6, "method": "RK45"}
            train, test = integrate(self.kernel, self.y, spec.loss, spec.l2, self.k, t, **how)
            loss = (np.logaddexp.reduce(train, axis=-1) - (train * self.y).sum(axis=-1)).mean(axis=-1)
        if self.y.shape[1] == 1:
            return loss, (np.sign(test) == np.sign(self.y_test)).mean(axis=(1, 2))
        return loss, (test.argmax(axis=-1) == self.y_test.argmax(axis=-1)).mean(axis=-1)

    def loss_minimum(self, l2: float):
        """The exact minimum of the squared loss, which `curves` brackets."""
        eigenvalues, modes = np.linalg.eigh(self.kernel / len(self.y))
        outputs = self.y.shape[1]
        target, initial = ((modes.T @ f).T.ravel() for f in (self.y, self.initial))
        repeated = np.tile(np.maximum(eigenvalues, 0.0), outputs)
        return loss_minimum(repeated, target, l2, self.k, initial, np.full(len(target), 1 / len(self.y)))
