"""The tables behind figures 5, S-spectrum and S-linear."""

import csv

import numpy as np
import pytest

from l2dyn import data
from l2dyn.runs.config import load_scale
from l2dyn.runs.plan import planned
from l2dyn.theory import mode_evolution, relu_ntk
from l2dyn.theory_curves import linear_table, spectrum_table, write_curve


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    data.prepare("digits", path)
    return path


@pytest.fixture(scope="module")
def plan():
    return planned("smoke", load_scale("smoke"))


def test_spectrum_of_the_real_kernel_is_where_the_loss_is_least(plan, arrays):
    """Its t_min against the loss of every mode on a fine grid, mode by mode."""
    table = spectrum_table(plan.scale, arrays)
    assert set(table["spectrum"]) == {*(f"power {p:g}" for p in (0.25, 0.5, 1, 1.5)), "single mode", "kernel"}
    experiment = plan.scale.experiments["fig5c"]
    spec = experiment.data.spec()
    samples = data.samples(spec, data.load("digits", arrays))
    x, y = data.inputs(spec, samples.train_images), data.parity(samples.train_labels)[:, 0]
    eigenvalues, modes = np.linalg.eigh(relu_ntk(x, x)[1] / len(y))
    rows = [i for i, name in enumerate(table["spectrum"]) if name == "kernel"]
    for i in (rows[0], rows[-1]):
        l2 = table["l2"][i]
        t = np.geomspace(table["t"][i] / 3, table["t"][i] * 3, 2001)
        components = modes.T @ y
        residuals = mode_evolution(t[:, None], eigenvalues, l2, 2, components) - components
        best = t[(residuals**2).sum(axis=1).argmin()]
        assert table["t"][i] == pytest.approx(best, rel=5e-3)
        assert table["C"][i] == pytest.approx(l2 * best, rel=5e-3)
        assert table["smallest"][i] == pytest.approx(eigenvalues[0])


def test_linear_nets_live_on_below_the_line_only(plan):
    table = linear_table(plan.scale.theory.linear)
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
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


@pytest.mark.parametrize("curve", ["modes", "kernel", "spectrum", "linear"])
def test_every_curve_is_written_as_csv(plan, arrays, tmp_path, curve):
    write_curve(curve, plan, tmp_path / "curve.csv", arrays)
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert len(rows) > 10
    assert not any("np." in value or value == "nan" for row in rows for value in row.values())
