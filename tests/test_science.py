"""The paper's law on a fresh run: t* against λ and η for the quick scale's fully-connected nets."""

import pytest

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.measures.power_laws import fit_power_law


@pytest.mark.slow
def test_the_time_to_the_peak_follows_the_law_on_a_fresh_run(fresh):
    """Claims C1 and C2: exponents of λ and η within −1 ± 0.15, over runs that fit their data, censored ones bounds."""
    fresh.scale = "quick"
    fresh.snakemake("results/quick/fig2ab/summary.csv")
    rows = [row for row in fresh.summary("fig2ab") if row["t_star"] and float(row["t_star"]) > 0]
    fitted = [row for row in rows if float(row["l2"]) > 0 and float(row["min_train_error"]) <= FITTED_ERROR]
    stable = [row for row in fitted if float(row["lr"]) < 0.5]  # at 0.5 rounding decides what a run does
    columns = [[float(row[name]) for row in stable] for name in ("t_star", "l2", "lr")]
    law = fit_power_law(*columns, censored=[row["censored"] == "true" for row in stable])
    assert law.points >= 8
    assert law.decades[0] >= 1
    assert all(-1.15 < slope < -0.85 for slope in law.slopes), law
