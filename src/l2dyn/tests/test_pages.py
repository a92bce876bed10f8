"""The committed pages: what is put where, and that nothing else of README changes."""

import re

import pytest

from l2dyn.claims.verdicts import NOT_RUN
from l2dyn.errors import UserError
from l2dyn.tables.claims import read_claims
from l2dyn.tables.pages import BEGIN, END, figures_page, shelf_scales, write_pages

README = f"# title\n\nbefore\n\n{BEGIN}\n\n| old |\n\n{END}\n\nafter\n"


@pytest.fixture
def made(tmp_path):
    """results/ of two scales and a README."""
    for scale, verdict in (("gpu", "reproduced"), ("desktop", "inconclusive")):
        folder = tmp_path / "results" / scale
        folder.mkdir(parents=True)
        (folder / "results.md").write_text(
            f"# Results of the scale {scale}\n\nnumbers of {scale}\n\n![fig1](fig1.png)\n"
        )
        (folder / "fig1.png").write_bytes(scale.encode())
        rows = [f"{claim.id},{verdict}" for claim in read_claims()]
        (folder / "claims.csv").write_text("\n".join(["claim,verdict", *rows]) + "\n")
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def write(made, scales):
    write_pages(scales, made / "results", made / "docs" / "results.md", made / "README.md")
    return (made / "docs" / "results.md").read_text(), (made / "README.md").read_text()


def test_both_scales_stand_on_the_page_and_the_best_ones_verdicts_in_readme(made):
    page, readme = write(made, ["gpu", "desktop"])
    assert page.index("numbers of gpu") < page.index("numbers of desktop")
    assert "![fig1](gallery/gpu/fig1.png)" in page
    assert (made / "docs" / "gallery" / "desktop" / "fig1.png").read_bytes() == b"desktop"
    assert len(re.findall(r"(?m)\| reproduced( \(this scale is .*\))? \|$", readme)) == len(read_claims())
    assert "inconclusive" not in readme
    assert "| old |" not in readme
    assert readme.startswith(f"# title\n\nbefore\n\n{BEGIN}\n\n| claim |")
    assert readme.endswith(f"|\n\n{END}\n\nafter\n")


def test_readme_names_the_claims_that_were_not_run_without_a_row_for_each(made):
    path = made / "results" / "desktop" / "claims.csv"
    text = path.read_text()
    for claim in ("C2", "C9", "O1"):
        text = text.replace(f"{claim},inconclusive", f"{claim},{NOT_RUN}")
    path.write_text(text)
    _, readme = write(made, ["desktop"])
    assert f"\n\nWithout runs yet: C2, O1. To be judged at other scales: C9.\n\n{END}" in readme
    assert readme.count("| inconclusive") == len(read_claims()) - 3
    assert "| inconclusive (this scale is too small to confirm) |" in readme
    assert "| verdict, scale desktop |" in readme


def test_written_again_they_are_the_same(made):
    once = write(made, ["desktop"])
    assert write(made, ["desktop"]) == once


@pytest.mark.parametrize("lost", [BEGIN, END])
def test_a_readme_without_a_place_for_the_table_is_left_alone(made, lost):
    path = made / "README.md"
    path.write_text(README.replace(lost, ""))
    with pytest.raises(UserError, match="no lines"):
        write(made, ["desktop"])
    assert path.read_text() == README.replace(lost, "")


@pytest.mark.parametrize("name", ["results.md", "claims.csv", "fig1.png"])
def test_what_has_not_been_made_is_named(made, name):
    (made / "results" / "desktop" / name).unlink()
    with pytest.raises(UserError, match=rf"desktop/{name}: not made yet"):
        write(made, ["desktop"])


def test_the_scales_of_the_shelf_come_in_order_of_value(tmp_path):
    for name in ("desktop-fig4a", "gpu-fig4a", "gpu-fig2ab", "mine-fig1"):
        (tmp_path / f"{name}.parquet").touch()
    assert shelf_scales(tmp_path) == ["gpu", "desktop"]


def test_a_figures_section_is_what_its_notebook_says(tmp_path):
    notebooks, gallery = tmp_path / "figures", tmp_path / "docs" / "gallery"
    notebooks.mkdir()
    gallery.mkdir(parents=True)
    for name in ("figS-x", "fig2"):
        cell = f"# # Title of {name}\n#\n# - **a** something;\n"
        (notebooks / f"{name}.py").write_text(f"# ---\n# jupyter: yes\n# ---\n\n# %% [markdown]\n{cell}\n# %%\nx = 1\n")
    (gallery / "fig2.png").touch()
    text = figures_page(notebooks, gallery, {"fig2": "It falls."})
    _, fig2, other = text.split("\n## ")
    assert (
        fig2 == "Title of fig2\n\n- **a** something;\n\n![fig2](gallery/fig2.png)\n\n*At the quick scale.* It falls.\n"
    )
    assert other == "Title of figS-x\n\n- **a** something;\n"
