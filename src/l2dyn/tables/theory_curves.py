"""The theory curves of figures 5, S-spectrum and S-linear as tables, and how any curve's table is written.

Each table is a function of (its section of the configuration, the scale's plan, `arrays`) that returns columns of equal
length; arrays(name) gives the verified arrays of a data set. The section names its function.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from l2dyn.config.experiment import ExperimentConfig
from l2dyn.config.theory import KernelConfig, LinearConfig, ModesConfig, SpectrumConfig
from l2dyn.data.arrays import load
from l2dyn.data.samples import inputs, parity, samples
from l2dyn.errors import UserError
from l2dyn.files import shipped_folder, write_atomically
from l2dyn.runs.plan import Plan
from l2dyn.specs.base import imported
from l2dyn.tables.csv_files import write_csv
from l2dyn.theory import (
    evolve,
    linear_net_flow,
    mean_loss,
    mode_evolution,
    power_law_spectrum,
    relu_ntk,
    spectrum_minima,
    survival_width,
    two_layer_flow,
)

Arrays = Callable[[str], dict[str, np.ndarray]]


def write_curve(curve: str, plan: Plan, path: Path, arrays_path: Path | None = None, recorded: bool = False) -> None:
    """Write one table of theory curves as CSV.

    arrays_path: the prepared arrays of its data set. With `recorded` a curve that needs data is the shipped table,
    and so is another that ships because it takes long.

    Raises:
        UserError: when there is none.
    """
    section = plan.scale.theory.curve(curve)
    shipped = shipped_curve(plan.name, curve)
    if recorded and (section.needs or shipped.exists()):
        if not shipped.exists():
            raise UserError(f"{shipped}: no recorded theory curve for scale {plan.name}; train=true computes it")
        write_atomically(path, shipped.read_bytes())
        return
    table = imported(section.table)(section, plan, lambda name: load(name, arrays_path, plan.scale.data_dir))
    write_csv(path, list(table), zip(*table.values(), strict=True))


def shipped_curve(scale: str, curve: str) -> Path:
    """Where a recorded theory curve of a scale ships."""
    return shipped_folder() / "theory" / scale / f"{curve}.csv"


def modes_table(config: ModesConfig, plan: Plan, arrays: Arrays) -> dict[str, np.ndarray]:
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


def kernel_table(config: KernelConfig, plan: Plan, arrays: Arrays) -> dict[str, np.ndarray]:
    """Columns k, t, loss, survival_width, loss_<run id>: the infinitely wide net's training loss on the samples.

    survival_width: of nets with one hidden layer, the width above which f = 0 is stable; else empty. The loss is
    averaged exactly over random initial functions, whose covariance is the NNGP kernel: the finite nets start at random
    functions too. loss_<run id>: from the very function at which that run starts (claim C15), for each run of the scale
    that trains like the experiment but for its width. t = η·steps; the loss is the mean over samples, so eigenvalues
    are divided by N.
    """
    experiment = plan.scale.experiments[config.experiment]
    x, y = _training_set(experiment, arrays)
    net = experiment.net
    nngp, ntk = relu_ntk(x, x, net.hidden_layers, net.weight_std)
    lr, l2 = experiment.lr[0], experiment.l2[0]
    steps, _ = experiment.horizon.each()[-1].steps(lr, l2, 1)
    t = np.geomspace(lr, lr * steps, config.points)
    width = round(survival_width(x, y, l2, net.weight_std), 3) if net.hidden_layers == 1 and l2 > 0 else None
    losses = [mean_loss(t, ntk, y, l2, k, initial_covariance=nngp) for k in config.k]
    started = {}
    for run_id, initial in _initial_functions(experiment, plan, x).items():
        each = [evolve(ntk, y, l2, k, t, initial=initial, reduction="mean") for k in config.k]
        started[f"loss_{run_id}"] = np.concatenate([0.5 * ((f - y) ** 2).mean(axis=-1) for f in each])
    return {
        "k": np.repeat(config.k, len(t)),
        "t": np.tile(t, len(config.k)),
        "loss": np.concatenate(losses),
        "survival_width": [width] * (len(t) * len(losses)),
        **started,
    }


def _initial_functions(experiment: ExperimentConfig, plan: Plan, x: np.ndarray) -> dict[str, np.ndarray]:
    """f(0) on the inputs, [n], by run id, of all runs that differ from the experiment's in width and seed alone."""
    from l2dyn.nets.ntk import as_drawn  # PyTorch, which no other curve of this file needs

    found, drawn = {}, {}
    for name, other in plan.scale.experiments.items():
        if other.net.kind != experiment.net.kind:
            continue
        as_wide = other.model_copy(update={"net": other.net.model_copy(update={"width": experiment.net.width})})
        if as_wide.trains_like(experiment) is not None:
            continue
        for point in plan.experiments[name]:
            if point.spec.l2 == experiment.l2[0]:
                drawn_from = other.net.width, point.spec.init_seed
                if drawn_from not in drawn:
                    (start,), _ = as_drawn(other.net, 1, point.spec.init_seed, x)
                    drawn[drawn_from] = start[:, 0]
                found[point.run_id] = drawn[drawn_from]
    return found


def spectrum_table(config: SpectrumConfig, plan: Plan, arrays: Arrays) -> dict[str, np.ndarray]:
    """Columns spectrum, k, l2, t, C, slope, smallest, loss_share: λ·t_min of power laws, a single mode, the kernel.

    The kernel is that of the experiment's net and samples; f(0) = 0. t = η·steps for the mean over samples; `smallest`:
    the smallest eigenvalue of the spectrum above 1e-12 of its largest, below which the law ends. loss_share: the
    smallest loss over that of f = 0. It, t, C and slope are empty where the loss has no interior minimum.
    """
    spectra = {f"power {p:g}": power_law_spectrum(p, config.smallest, points=600) for p in config.powers}
    spectra["single mode"] = (np.ones(1), np.ones(1))
    experiment = plan.scale.experiments[config.experiment]
    x, y = _training_set(experiment, arrays)
    _, ntk = relu_ntk(x, x, experiment.net.hidden_layers, experiment.net.weight_std)
    eigenvalues, modes = np.linalg.eigh(ntk / len(y))
    spectra["kernel"] = (np.maximum(eigenvalues, 0.0), (modes.T @ y) ** 2 / len(y))
    columns: dict[str, list] = {
        name: [] for name in ("spectrum", "k", "l2", "t", "C", "slope", "smallest", "loss_share")
    }
    for name, (gammas, weights) in spectra.items():
        found = spectrum_minima(gammas, weights, np.geomspace(*config.l2, config.points), config.k)
        size = len(found["l2"])
        columns["spectrum"] += [name] * size
        columns["k"] += [config.k] * size
        columns["smallest"] += [float(gammas[gammas > 1e-12 * gammas.max()].min())] * size
        columns["loss_share"] += list(found.pop("loss") / (0.5 * weights.sum()))
        for key, values in found.items():
            columns[key] += list(values)
    return columns


def linear_table(config: LinearConfig, plan: Plan, arrays: Arrays) -> dict[str, list]:
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
        add("flow", 2, width, None, config.l2, t, *two_layer_flow(t, 1.0, config.l2, width))
    infinite = mode_evolution(t, 3.0, config.l2, 3, 1.0)
    add("drawn", 3, np.inf, None, config.l2, t, infinite, 3.0 * np.exp(-4 * config.l2 * t))
    for width in config.drawn_widths:
        for seed in config.seeds:
            generator = np.random.default_rng([seed, width])
            weights = [generator.standard_normal(shape) for shape in ((width, 1), (width, width), (1, width))]
            add("drawn", 3, width, seed, config.l2, t, *linear_net_flow(weights, [1.0], 1.0, config.l2, t))
    for width in config.phase_widths:
        for ratio in np.geomspace(0.25, 4.0, 9):  # of (y/λ)² to the width
            l2 = 1 / np.sqrt(ratio * width)
            f, kernel = two_layer_flow([0.0, 200 / l2], 1.0, l2, width)
            add("phase", 2, width, None, float(l2), [200 / l2], f[1:], kernel[1:])
    return columns


def _training_set(experiment: ExperimentConfig, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [n, pixels], targets ±1 [n]) of an experiment's training samples."""
    held = samples(experiment.data, arrays(experiment.data.name))
    return inputs(held.spec, held.train_images), parity(held.train_labels)[:, 0]
