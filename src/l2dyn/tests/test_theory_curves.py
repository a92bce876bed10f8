"""The tables behind figures 5, S-spectrum and S-linear."""

import csv

import numpy as np
import pytest
from l2dyn.runs.config import load_scale
from l2dyn.theory_curves import write_curve

from l2dyn import data
from l2dyn.runs.plan import planned
from l2dyn.theory import mode_evolution, relu_ntk


@pytest.fixture(scope="module")
def plan():
    return planned("smoke", load_scale("smoke"))


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


def test_spectrum_of_the_real_kernel_is_where_the_loss_is_least(plan, arrays, written):
    """Its t_min against the loss of every mode on a fine grid, mode by mode."""
    names = {row["spectrum"] for row in written["spectrum"]}
    assert names == {*(f"power {p:g}" for p in (0.25, 0.5, 1, 1.5)), "single mode", "kernel"}
    experiment = plan.scale.experiments["fig5c"]
    spec = experiment.data.spec()
    samples = data.samples(spec, data.load("digits", arrays))
    x, y = data.inputs(spec, samples.train_images), data.parity(samples.train_labels)[:, 0]
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
