"""results.md: every plotted number with its interval, and what of each experiment is there."""

import pytest

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import Part
from l2dyn.tables.claims import judge, read_claims, write_claims
from l2dyn.tables.csv_files import write_csv
from l2dyn.tables.remarks import remarks_on
from l2dyn.tables.results import write_results
from l2dyn.tables.summary import write_summary

COLUMNS = ("panel", "series", "kind", "x", "y", "low", "high")
FIG2 = [
    ("a", "slope", "number", None, -0.98765, -1.2, -0.8),
    ("b", "R² | all", "number", None, 0.5, None, None),
    ("b", "curve", "line", 1.0, 123.0, None, None),
]


@pytest.fixture
def page(tiny, plan_of, tmp_path):
    """The page of a scale with two figures, of which one has no numbers."""
    write_csv(tmp_path / "fig2.csv", COLUMNS, FIG2)
    write_csv(tmp_path / "fig5.csv", COLUMNS, FIG2[2:])
    a, b, c = ({"run_id": name, "device": device} for name, device in (("a", "cpu"), ("b", "gpu"), ("c", None)))
    first = [a | {"status": "finished"}, a | {"status": "finished"}, b | {"status": "short"}, c | {"status": "missing"}]
    write_summary(tmp_path / "first" / "summary.csv", first)
    write_summary(tmp_path / "budget" / "summary.csv", [b | {"status": "diverged"}])
    claims = read_claims()
    judged = judge(claims, Evidence("tiny", plan_of(tiny).scale, {}, {}, {}))
    c8 = Part("8 epochs", "reproduced", "tuned over predicted λ", 1.5, 1.0, 2.0, seeds=3, run_ids=("a", "b"))
    write_claims(claims, judged | {"C8": [c8]}, tmp_path / "claims.csv", tmp_path / "claim_parts.csv")
    write_results(plan_of(tiny), tmp_path, tmp_path / "results.md")
    return (tmp_path / "results.md").read_text()


def test_claims_come_first_with_verdicts_and_the_papers_numbers(page):
    assert page.index("## Claims") < page.index("## The paper's numbers and ours") < page.index("## fig2")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| C")]
    verdicts = {row[0].removeprefix("| "): row[2:4] for row in rows if len(row) == 5}
    assert verdicts["C8"] == ["reproduced", "3"]
    assert verdicts["C1"] == ["not run at this scale", "0"]
    assert "| C8 | within a factor 10 | tuned over predicted λ: 8 epochs: 1.5 [1, 2] |" in page
    assert "| C9 | c = 0.0066 epochs, which is C = 1.29 | not measured at this scale |" in page


def test_where_no_claim_is_judged_a_figures_number_stands_beside_the_papers(tiny, plan_of, tmp_path, page):
    write_csv(tmp_path / "fig4.csv", COLUMNS, [("a", "C_argmax", "number", None, 1.23456, None, None)])
    write_results(plan_of(tiny), tmp_path, tmp_path / "results.md")
    said = "not judged at this scale; C_argmax in fig4: 1.235"
    assert f"| C9 | c = 0.0066 epochs, which is C = 1.29 | {said} |" in (tmp_path / "results.md").read_text()


def test_numbers_stand_below_their_figure(page):
    """To four digits, with an interval where there is one; lines are not numbers, and bars do not break the table."""
    assert "| a | slope | -0.9877 | -1.2 to -0.8 |\n| b | R² \\| all | 0.5 |  |\n" in page
    assert page.index("## fig2") < page.index("λ, η and c are in PyTorch's units.") < page.index("slope")
    assert page.index("slope") < page.index("## Runs")
    assert page.count("fig5") == 3  # a heading and its picture
    assert "123" not in page


def test_every_experiment_that_a_figure_shows_has_a_row(page):
    """Runs count once, whatever horizons they have rows at."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    head, first, budget = (row for row in rows if len(row) == 10 and row[0] != "---")
    found = [dict(zip(head, row, strict=True)) for row in (first, budget)]
    assert [row["experiment"] for row in found] == ["first", "budget"]
    assert [row["shows"] for row in found] == ["a grid", "a fixed budget"]
    assert [row["units"] for row in found] == ["PyTorch's", "PyTorch's"]
    counted = ("runs", "seeds", "finished", "diverged", "missing or short")
    assert [[int(row[name]) for name in counted] for row in found] == [[3, 1, 1, 0, 2], [1, 2, 0, 1, 0]]
    assert [row["device"] for row in found] == ["cpu, gpu", "gpu"]


def test_runs_whose_l2_is_not_measured_are_pending(tiny, plan_of, tmp_path, page):
    write_summary(tmp_path / "budget" / "summary.csv", [{"run_id": None, "status": "missing"}])
    write_results(plan_of(tiny), tmp_path, tmp_path / "results.md")
    (row,) = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| budget |")]
    assert [cell.strip() for cell in row.split("|")[5:10]] == ["pending", "2", "0", "0", ""]
    assert "| budget |" in page


def test_a_figure_without_any_run_has_no_picture(tiny, plan_of, tmp_path, page):
    for name in ("first", "budget"):
        write_summary(tmp_path / name / "summary.csv", [{"run_id": "a", "status": "missing"}])
    write_results(plan_of(tiny), tmp_path, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert "## fig2\n\nNone of its runs is there yet." in text
    assert "![fig5](fig5.png)" in text  # of theory alone
    assert "![fig2]" in page


def test_what_was_not_run_has_no_remark_but_one_of_its_scale(tiny, plan_of, tmp_path, page, monkeypatch):
    assert remarks_on("tiny")["C1"]
    assert remarks_on("tiny")["C1"] not in page
    said = {"C1": "why it is not run here"}
    monkeypatch.setattr("l2dyn.tables.results.remarks_on", lambda scale, everywhere=True: {} if everywhere else said)
    write_results(plan_of(tiny), tmp_path, tmp_path / "results.md")
    assert "| not run at this scale | 0 | why it is not run here |" in (tmp_path / "results.md").read_text()


def test_the_page_says_whose_results_it_holds(page):
    assert page.startswith("# Results of the scale tiny\n\nFor tests. ")
