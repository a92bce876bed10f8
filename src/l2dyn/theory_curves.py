"""Floor 2: the theory curves of figure 5 as tables, from a scale's configuration."""

import csv
import io
from pathlib import Path

import numpy as np

from l2dyn import data
from l2dyn.errors import UserError
from l2dyn.runs.config import ModesConfig, ScaleConfig
from l2dyn.runs.dag import shipped_curve
from l2dyn.runs.files import write_atomically
from l2dyn.runs.plan import Plan
from l2dyn.theory import mean_loss, mode_evolution, relu_ntk


def write_curve(curve: str, plan: Plan, path: Path, arrays_path: Path | None = None, recorded: bool = False) -> None:
    """Write one table of theory curves as CSV.

    "modes": f_a(t) of single modes (figures 5a, 5b). "kernel": the training loss of the infinitely wide net
    (figure 5c), or with `recorded` the shipped table. Raises UserError when there is none.
    """
    config = plan.scale
    if curve == "modes":
        table = modes_table(config.theory.modes)
    elif not recorded:
        table = kernel_table(config, arrays_path)
    else:
        shipped = shipped_curve(plan.name, curve)
        if not shipped.exists():
            raise UserError(f"{shipped}: no recorded theory curve for scale {plan.name}; train=true computes it")
        write_atomically(path, shipped.read_bytes())
        return
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))
    write_atomically(path, stream.getvalue().encode())


def modes_table(config: ModesConfig) -> dict[str, np.ndarray]:
    """Columns k, eigenvalue, l2, t, f: modes of label 1 that start at 0, for k = 2 (5a) and k = 1 (5b)."""
    t = np.geomspace(1e-2 / max(config.eigenvalues), config.t_l2 / config.l2, config.points)
    rows = [(k, gamma) for k in (2.0, 1.0) for gamma in config.eigenvalues]
    return {
        "k": np.repeat([k for k, _ in rows], len(t)),
        "eigenvalue": np.repeat([gamma for _, gamma in rows], len(t)),
        "l2": np.full(len(rows) * len(t), config.l2),
        "t": np.tile(t, len(rows)),
        "f": np.concatenate([mode_evolution(t, gamma, config.l2, k, 1.0) for k, gamma in rows]),
    }


def kernel_table(config: ScaleConfig, arrays_path: Path | None = None) -> dict[str, np.ndarray]:
    """Columns k, t, loss: the training loss of the infinitely wide net on the experiment's samples.

    Averaged exactly over random initial functions, whose covariance is the NNGP kernel: the finite nets start at
    random functions too. t = η·steps; the loss is the mean over samples, so eigenvalues are divided by N.
    """
    section = config.theory.kernel
    experiment = config.experiments[section.experiment]
    spec = experiment.data.spec()
    samples = data.samples(spec, data.load(spec.name, arrays_path, config.data_dir))
    x, y = data.inputs(spec, samples.train_images), data.parity(samples.train_labels)[:, 0]
    nngp, ntk = relu_ntk(x, x, experiment.model.hidden_layers, experiment.model.weight_std)
    lr, l2 = experiment.lr[0], experiment.l2[0]
    steps, _ = experiment.horizon.horizons()[-1].steps(lr, l2, 1)
    t = np.geomspace(lr, lr * steps, section.points)
    losses = [mean_loss(t, ntk, y, l2, k, initial_covariance=nngp) for k in section.k]
    return {
        "k": np.repeat(section.k, len(t)),
        "t": np.tile(t, len(section.k)),
        "loss": np.concatenate(losses),
    }
