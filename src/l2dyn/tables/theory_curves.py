"""Floor 2: the theory curves of figures 5, S-spectrum, S-linear and S-constant as tables, from a configuration."""

import csv
import io
from pathlib import Path

import numpy as np

from l2dyn import data
from l2dyn.errors import UserError
from l2dyn.runs.config import ExperimentConfig, LinearConfig, ModesConfig, ScaleConfig
from l2dyn.runs.dag import shipped_curve
from l2dyn.runs.files import write_atomically
from l2dyn.runs.plan import Plan
from l2dyn.theory import (
    linear_net_flow,
    mean_loss,
    mode_evolution,
    power_law_spectrum,
    relu_ntk,
    spectrum_minima,
    survival_width,
    two_layer_flow,
)
from l2dyn.theory_of_runs import constant_table


def write_curve(curve: str, plan: Plan, path: Path, arrays_path: Path | None = None, recorded: bool = False) -> None:
    """Write one table of theory curves as CSV.

    "modes": f_a(t) of single modes (figures 5a, 5b). "kernel": the training loss of the infinitely wide net (figure
    5c). "spectrum": t_min against λ (figure S-spectrum). "linear": deep linear nets (figure S-linear). "constant":
    theory beside single runs (figure S-constant). With `recorded` those that need data are the shipped tables. Raises
    UserError when there is none.
    """
    config = plan.scale
    if recorded and config.theory.experiments_of(curve):
        shipped = shipped_curve(plan.name, curve)
        if not shipped.exists():
            raise UserError(f"{shipped}: no recorded theory curve for scale {plan.name}; train=true computes it")
        write_atomically(path, shipped.read_bytes())
        return
    if curve == "modes":
        table = modes_table(config.theory.modes)
    elif curve == "kernel":
        table = kernel_table(config, arrays_path)
    elif curve == "spectrum":
        table = spectrum_table(config, arrays_path)
    elif curve == "constant":
        table = constant_table(plan, arrays_path)
    else:
        table = linear_table(config.theory.linear)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(list(values) for values in table.values()), strict=True))
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
    """Columns k, t, loss, survival_width: the training loss of the infinitely wide net on the experiment's samples.

    survival_width: of nets with one hidden layer, the width above which f = 0 is stable; else empty. The loss is
    averaged exactly over random initial functions, whose covariance is the NNGP kernel: the finite nets start at random
    functions too. t = η·steps; the loss is the mean over samples, so eigenvalues are divided by N.
    """
    section = config.theory.kernel
    experiment = config.experiments[section.experiment]
    x, y = _training_set(experiment, config.data_dir, arrays_path)
    model = experiment.model
    nngp, ntk = relu_ntk(x, x, model.hidden_layers, model.weight_std)
    lr, l2 = experiment.lr[0], experiment.l2[0]
    steps, _ = experiment.horizon.horizons()[-1].steps(lr, l2, 1)
    t = np.geomspace(lr, lr * steps, section.points)
    width = round(survival_width(x, y, l2, model.weight_std), 3) if model.hidden_layers == 1 and l2 > 0 else ""
    losses = [mean_loss(t, ntk, y, l2, k, initial_covariance=nngp) for k in section.k]
    return {
        "k": np.repeat(section.k, len(t)),
        "t": np.tile(t, len(section.k)),
        "loss": np.concatenate(losses),
        "survival_width": [width] * (len(t) * len(losses)),
    }


def spectrum_table(config: ScaleConfig, arrays_path: Path | None = None) -> dict[str, np.ndarray]:
    """Columns spectrum, k, l2, t, C, slope, smallest: λ·t_min of power laws, a single mode and the experiment's kernel.

    f(0) = 0. t = η·steps for the mean over samples; `smallest`: the smallest eigenvalue of the spectrum above 1e-12 of
    its largest, below which the law ends. C and slope are empty where the loss has no interior minimum.
    """
    section = config.theory.spectrum
    spectra = {f"power {p:g}": power_law_spectrum(p, section.smallest, points=600) for p in section.powers}
    spectra["single mode"] = (np.ones(1), np.ones(1))
    experiment = config.experiments[section.experiment]
    x, y = _training_set(experiment, config.data_dir, arrays_path)
    _, ntk = relu_ntk(x, x, experiment.model.hidden_layers, experiment.model.weight_std)
    eigenvalues, modes = np.linalg.eigh(ntk / len(y))
    spectra["kernel"] = (np.maximum(eigenvalues, 0.0), (modes.T @ y) ** 2 / len(y))
    columns: dict[str, list] = {name: [] for name in ("spectrum", "k", "l2", "t", "C", "slope", "smallest")}
    for name, (gammas, weights) in spectra.items():
        found = spectrum_minima(gammas, weights, np.geomspace(*section.l2, section.points), section.k)
        size = len(found["l2"])
        columns["spectrum"] += [name] * size
        columns["k"] += [section.k] * size
        columns["smallest"] += [float(gammas[gammas > 1e-12 * gammas.max()].min())] * size
        for key, values in found.items():
            columns[key] += ["" if np.isnan(value) else float(value) for value in values]
    return columns


def linear_table(config: LinearConfig) -> dict[str, list]:
    """Columns panel, layers, width, seed, l2, t, f, kernel: deep linear nets on one sample with target 1 (S-linear).

    "flow": f and Θ of 2-layer nets by width, from f = 0 and Θ = 2, and at infinite width (width inf). "drawn": 3-layer
    nets, every weight integrated, from N(0, 1). "phase": f at the end, for each width and λ.
    """
    t = np.concatenate([[0.0], np.geomspace(1e-2, config.t_l2 / config.l2, config.points)])
    columns: dict[str, list] = {n: [] for n in ("panel", "layers", "width", "seed", "l2", "t", "f", "kernel")}

    def add(panel: str, layers: int, width: float, seed, l2: float, t, f, kernel) -> None:
        rows = zip(t, f, kernel, strict=True)
        for time, value, theta in rows:
            row = (panel, layers, width, seed, l2, float(time), float(value), float(theta))
            for name, entry in zip(columns, row, strict=True):
                columns[name].append(entry)

    for width in (*config.widths, np.inf):
        add("flow", 2, width, "", config.l2, t, *two_layer_flow(t, 1.0, config.l2, width))
    infinite = mode_evolution(t, 3.0, config.l2, 3, 1.0)
    add("drawn", 3, np.inf, "", config.l2, t, infinite, 3.0 * np.exp(-4 * config.l2 * t))
    for width in config.drawn_widths:
        for seed in config.seeds:
            generator = np.random.default_rng([seed, width])
            weights = [generator.standard_normal(shape) for shape in ((width, 1), (width, width), (1, width))]
            add("drawn", 3, width, seed, config.l2, t, *linear_net_flow(weights, [1.0], 1.0, config.l2, t))
    for width in config.phase_widths:
        for ratio in np.geomspace(0.25, 4.0, 9):  # of (y/λ)² to the width
            l2 = 1 / np.sqrt(ratio * width)
            f, kernel = two_layer_flow([0.0, 200 / l2], 1.0, l2, width)
            add("phase", 2, width, "", float(l2), [200 / l2], f[1:], kernel[1:])
    return columns


def _training_set(experiment: ExperimentConfig, data_dir: str | None, arrays_path: Path | None) -> tuple:
    """(inputs, targets ±1) of an experiment's training samples."""
    spec = experiment.data.spec()
    samples = data.samples(spec, data.load(spec.name, arrays_path, data_dir))
    return data.inputs(spec, samples.train_images), data.parity(samples.train_labels)[:, 0]
