"""The tables behind figures 5, S-spectrum and S-linear."""

import csv

import numpy as np
import pytest

from l2dyn.config.loading import load_scale
from l2dyn.data.arrays import load
from l2dyn.data.samples import inputs, parity, samples
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.nets.ntk import as_drawn
from l2dyn.runs.plan import Plan
from l2dyn.tables.theory_curves import kernel_table, shipped_curve, write_curve
from l2dyn.theory import evolve, mode_evolution, relu_ntk


@pytest.fixture(scope="module")
def plan():
    """The smoke scale's curves, with fewer spectra at fewer λ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        scale = load_scale("smoke")
    spectrum = scale.theory.spectrum.model_copy(update={"points": 3, "powers": (0.25, 1.5)})
    theory = scale.theory.model_copy(update={"spectrum": spectrum})
    return Plan("smoke", scale.model_copy(update={"theory": theory}))


@pytest.fixture(scope="module")
def written(plan, arrays, tmp_path_factory):
    """Every curve as it stands in its CSV: rows by name."""
    folder = tmp_path_factory.mktemp("curves")
    for curve in ("modes", "kernel", "spectrum", "linear"):
        write_curve(curve, plan, folder / f"{curve}.csv", arrays)
    return {path.stem: list(csv.DictReader(path.open())) for path in folder.iterdir()}


def test_every_curve_is_whole(written):
    for name, rows in written.items():
        assert len(rows) > 10, name
        assert not any("np." in value or value == "nan" for row in rows for value in row.values()), name


def training_set(plan, experiment, arrays):
    """Inputs and targets ±1."""
    spec = plan.scale.experiments[experiment].data
    held = samples(spec, load("digits", arrays))
    return inputs(spec, held.train_images), parity(held.train_labels)[:, 0]


def test_modes_are_equation_3_for_either_k(plan, written):
    section = plan.scale.theory.modes
    rows = [{key: float(value) for key, value in row.items()} for row in written["modes"]]
    assert len(rows) == 2 * len(section.eigenvalues) * section.points
    assert {(row["k"], row["eigenvalue"]) for row in rows} == {(k, g) for k in (1, 2) for g in section.eigenvalues}
    assert max(row["t"] for row in rows) == pytest.approx(section.t_l2 / section.l2)
    for row in rows[:: len(rows) // 7]:
        assert row["f"] == mode_evolution(row["t"], row["eigenvalue"], row["l2"], row["k"], 1.0)


def test_the_kernels_loss_is_the_mean_over_random_starts(plan, arrays):
    """Against functions drawn from the NNGP and followed one by one, for each k; the horizon is the runs' own."""
    section = plan.scale.theory.kernel
    table = kernel_table(section, plan, lambda name: load(name, arrays))
    x, y = training_set(plan, section.experiment, arrays)
    nngp, ntk = relu_ntk(x, x)
    starts = np.random.default_rng(0).multivariate_normal(np.zeros(len(y)), nngp, size=4000, method="eigh").T
    config = plan.scale.experiments[section.experiment]
    for k in section.k:
        rows = np.flatnonzero(table["k"] == k)
        t = table["t"][rows]
        assert (t[0], t[-1]) == pytest.approx((config.lr[0], 3.0 / config.l2[0]))
        targets = np.tile(y[:, None], 4000)
        for i in (0, 25, -1):
            f = evolve(ntk, targets, config.l2[0], k, t[i], initial=starts, reduction="mean")
            losses = ((f - targets) ** 2).mean(axis=0) / 2
            assert abs(losses.mean() - table["loss"][rows[i]]) < 5 * losses.std() / np.sqrt(4000)


def test_the_kernels_table_has_each_runs_own_theory(plan, arrays, written):
    """Runs that differ from the experiment's in width and seed alone, from the function that each draws."""
    section = plan.scale.theory.kernel
    x, y = training_set(plan, section.experiment, arrays)
    alike = ("fig5c", "fig5c-narrow", "figS-kernel-medium", "figS-kernel-wide")
    specs = {point.run_id: point.spec for name in alike for point in plan.experiments[name]}
    rows = [row for row in written["kernel"] if row["k"] == "2.0"]
    assert {name for name in rows[0] if name.startswith("loss_")} == {f"loss_{run_id}" for run_id in specs}
    for run_id, spec in specs.items():
        (start,), _ = as_drawn(spec.net, 1, spec.init_seed, x)
        for row in (rows[0], rows[len(rows) // 2], rows[-1]):
            f = evolve(relu_ntk(x, x)[1], y, spec.l2, 2.0, float(row["t"]), initial=start[:, 0], reduction="mean")
            assert float(row[f"loss_{run_id}"]) == pytest.approx(0.5 * ((f - y) ** 2).mean())


def test_a_recorded_curve_is_the_shipped_table(plan, tmp_path, monkeypatch):
    """Where it needs data; what needs none is computed."""
    (tmp_path / "paper_results").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no recorded theory curve for scale smoke"):
        write_curve("kernel", plan, tmp_path / "kernel.csv", recorded=True)
    shipped = shipped_curve("smoke", "kernel")
    shipped.parent.mkdir(parents=True)
    shipped.write_text("k,t\n")
    write_curve("kernel", plan, tmp_path / "kernel.csv", recorded=True)
    assert (tmp_path / "kernel.csv").read_text() == "k,t\n"
    write_curve("modes", plan, tmp_path / "modes.csv", recorded=True)
    assert (tmp_path / "modes.csv").read_text().startswith("k,eigenvalue,l2,t,f\n")


def test_spectrum_of_the_real_kernel_is_where_the_loss_is_least(plan, arrays, written):
    """Its t_min against the loss of every mode on a fine grid, mode by mode."""
    names = {row["spectrum"] for row in written["spectrum"]}
    assert names == {"power 0.25", "power 1.5", "single mode", "kernel"}
    x, y = training_set(plan, "fig5c", arrays)
    eigenvalues, modes = np.linalg.eigh(relu_ntk(x, x)[1] / len(y))
    rows = [row for row in written["spectrum"] if row["spectrum"] == "kernel"]
    for row in (rows[0], rows[-1]):
        l2, found = float(row["l2"]), float(row["t"])
        t = np.geomspace(found / 3, found * 3, 2001)
        components = modes.T @ y
        residuals = mode_evolution(t[:, None], eigenvalues, l2, 2, components) - components
        best = t[(residuals**2).sum(axis=1).argmin()]
        assert found == pytest.approx(best, rel=5e-3)
        assert float(row["C"]) == pytest.approx(l2 * best, rel=5e-3)
        assert float(row["smallest"]) == pytest.approx(eigenvalues[0])
        least = (residuals**2).sum(axis=1).min() / (components**2).sum()
        assert float(row["loss_share"]) == pytest.approx(least, rel=1e-3)


def test_linear_nets_live_on_below_the_line_only(plan, written):
    words = {"panel", "seed"}
    rows = [{k: v if k in words else float(v) for k, v in row.items()} for row in written["linear"]]
    phase = [row for row in rows if row["panel"] == "phase"]
    assert len(phase) == 9 * len(plan.scale.theory.linear.phase_widths)
    for row in phase:
        ratio = row["l2"] ** -2
        if not 0.99 < ratio / row["width"] < 1.01:  # on the line itself f falls as a power of t
            assert (row["f"] > 1e-3) == (row["width"] < ratio), row
            assert row["f"] == pytest.approx(max(0.0, 1 - row["l2"] * np.sqrt(row["width"])), abs=1e-6)
    infinite = [row for row in rows if row["panel"] == "flow" and row["width"] == np.inf]
    expected = mode_evolution([r["t"] for r in infinite], 2.0, plan.scale.theory.linear.l2, 2, 1.0)
    np.testing.assert_allclose([r["f"] for r in infinite], expected, atol=1e-7)
    assert {row["width"] for row in rows if row["panel"] == "drawn"} == {4, np.inf}
