"""The smoke scale's figures: every panel, every number with its run, fonts, notebooks in Jupyter, results by number."""

import sys

import pytest
from checkout import rows_of

pytestmark = pytest.mark.slow  # they need the whole smoke scale

PANELS = {
    "fig1": "abc",
    "fig2": "abcdef",
    "fig3": "abcdef",
    "fig4": "ab",
    "fig5": "abc",
    "figS-adamw": "abc",
    "figS-autol2": "abc",
    "figS-autol2-lr": "a",
    "figS-constant": "abc",
    "figS-fail": "abc",
    "figS-init": "ab",
    "figS-kernel": "abcd",
    "figS-linear": "abc",
    "figS-loss": "abc",
    "figS-momentum": "abc",
    "figS-spectrum": "ab",
}


@pytest.mark.parametrize("name", PANELS)
def test_a_figure_has_its_panels_and_the_runs_behind_every_number(finished, name):
    pdf = (finished.path / "figures" / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf  # fonts are embedded as TrueType
    assert b"/FontFile2" in pdf
    assert (finished.path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = rows_of(finished.out / f"{name}.csv")
    drawn = {row["panel"] for row in table}
    timed = {"figS-loss": "abc", "figS-init": "b", "figS-adamw": "ab"}.get(
        name, "a"
    )  # so short a run may have no time to draw
    assert set(PANELS[name]) - set(timed) <= drawn <= set(PANELS[name])
    assert {row["kind"] for row in table} <= {"points", "number"}
    listed = {run for row in table for run in row["run_ids"].split()}  # a number made of others has no run
    assert listed <= finished.records()
    assert listed or name in ("figS-constant", "figS-linear", "figS-spectrum")


def test_the_collapse_shows_every_net_on_one_time(finished):
    """C = η·S·λ·t/(1−μ) of each run's own record, accuracy and norm; and the C of each t*."""
    rows = [row for row in rows_of(finished.out / "figS-collapse.csv") if row["kind"] == "points"]
    assert {row["panel"] for row in rows} == {"accuracy", "norm", "constant"}
    names = ("fig2ab", "fig2de", "fig3-plain", "fig3-norm", "figS-momentum")
    runs = {row["run_id"]: row for name in names for row in finished.summary(name)}
    trained = {name: row for name, row in runs.items() if row["l2"] != "0.0"}
    drawn = {row["run_ids"] for row in rows if row["panel"] != "constant"}
    assert drawn == {name for name, row in trained.items() if float(row["min_train_error"]) <= 0.02} != set()
    for run_id in drawn:
        times = [float(row["x"]) for row in rows if row["run_ids"] == run_id and row["panel"] == "norm"]
        row = runs[run_id]
        steps, momentum = float(row["horizon_steps"]), float(row["momentum"])
        assert max(times) == pytest.approx(float(row["lr"]) * float(row["l2"]) * steps / (1 - momentum))
    constants = {row["run_ids"]: (float(row["x"]), float(row["y"])) for row in rows if row["panel"] == "constant"}
    known = {name: (float(row["l2"]), float(row["C"])) for name, row in trained.items() if float(row["C"] or 0) > 0}
    assert constants == known != {}


def test_every_claim_has_a_row_and_a_verdict(finished):
    rows = rows_of(finished.out / "claims.csv")
    assert [row["claim"] for row in rows] == [*(f"C{i}" for i in range(1, 21)), "O1", "O2"]
    known = {"reproduced", "not reproduced", "inconclusive", "not run at this scale"}
    assert {row["verdict"] for row in rows} <= known
    listed = {run for row in rows_of(finished.out / "claim_parts.csv") for run in row["run_ids"].split()}
    assert listed <= finished.records()
    page = (finished.out / "claims.md").read_text()
    assert all(f"\n## {row['claim']}: {row['verdict']}\n" in page for row in rows)
    assert all(f"| {row['claim']} |" in (finished.out / "results.md").read_text() for row in rows)


def test_summaries_have_a_row_for_every_run_and_budget(finished):
    assert len(finished.summary("fig2ab")) == 6
    assert len(finished.summary("fig1b-tuned")) == 9
    rows = [row for path in finished.out.glob("*/summary.csv") for row in rows_of(path)]
    assert {row["status"] for row in rows} <= {"finished", "diverged"}
    assert {row["source"] for row in rows} == {"trained"}


def test_l2_is_predicted_from_what_was_measured_and_trained(finished):
    """λ = c/T to two digits, c of figure 4a's own runs; every one of them trained, at its own budget."""
    import json

    selection = json.loads((finished.out / "fig1b-predicted" / "l2.json").read_text())
    (coefficient,) = selection["evidence"]["coefficients"]
    assert set(coefficient["run_ids"]) == {row["run_id"] for row in finished.summary("fig4a")}
    wanted = {row["epochs"]: float(f"{coefficient['c_argmax'] / row['epochs']:.1e}") for row in selection["l2"]}
    rows = finished.summary("fig1b-predicted")
    assert {float(row["horizon_epochs"]): float(row["l2"]) for row in rows} == wanted
    (scheduled,) = finished.summary("fig1a-predicted")
    assert float(scheduled["l2"]) == float(f"{coefficient['c_argmax'] / (0.3 * 16):.1e}")  # T1 = 0.3·T
    grid = [row for row in finished.summary("fig1b-tuned") if row["horizon_epochs"] == "32.0"]
    best = max(grid, key=lambda row: float(row["max_test_accuracy"]))
    assert {float(row["l2"]) for row in finished.summary("fig1c-tuned")} == {float(best["l2"])}


def test_results_by_number_are_those_of_the_figures(finished):
    page = (finished.out / "results.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    for name in PANELS:
        for row in rows_of(finished.out / f"{name}.csv"):
            if row["kind"] == "number":
                value = f"{float(row['y']):.4g}" if row["y"] else ""
                assert any(f"| {row['panel']} | {row['series']} | {value} |" in line for line in shown)
    assert "| fig2ab | t* and the best test accuracy" in page


def test_notebooks_run_in_jupyter(finished, tmp_path):
    """With jupytext --execute, without a rule; they read results/quick."""
    checkout = finished.copy_to(tmp_path / "notebooks")
    checkout.out.rename(checkout.path / "results" / "quick")
    (checkout.path / "config" / "smoke.yaml").replace(checkout.path / "config" / "quick.yaml")
    for name in ("fig1", "fig2", "fig5"):
        output = tmp_path / f"{name}.ipynb"
        arguments = ("--to", "ipynb", "--execute", f"figures/{name}.py", "-o", str(output))
        checkout.run(sys.executable, "-m", "jupytext", *arguments, PYTHONPATH=str(checkout.path / "src"))
        assert "image/png" in output.read_text()


def test_the_users_own_matplotlibrc_changes_nothing(finished, tmp_path):
    """LaTeX without LaTeX, another box, other fonts: our style alone decides."""
    checkout = finished.copy_to(tmp_path / "own")
    (checkout.path / "matplotlibrc").write_text("text.usetex: True\nsavefig.bbox: tight\nfont.size: 20\n")
    before = (checkout.out / "fig4.png").read_bytes()
    checkout.snakemake("results/smoke/fig4.png", "--forcerun", "results/smoke/fig4.png")
    assert (checkout.out / "fig4.png").read_bytes() == before


def test_a_notebook_that_lacks_its_runs_says_what_to_do(fresh):
    done = fresh.run(
        sys.executable,
        "-c",
        "import runpy; runpy.run_path('figures/fig2.py')",
        rc=1,
        PYTHONPATH=str(fresh.path / "src"),
    )
    assert "results/quick/fig2ab/summary.csv: not made yet; run: snakemake" in done.stderr
