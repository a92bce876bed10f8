"""The committed pages are what the recorded runs come to: made anew from the shelf alone, and compared."""

import re

import pytest
from checkout import ROOT, Checkout

pytestmark = pytest.mark.slow

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\.png)")


@pytest.fixture(scope="module")
def made(pristine, tmp_path_factory) -> Checkout:
    """A copy in which the recorded scale is drawn and judged, and the pages are written; nothing is trained."""
    copy = Checkout(pristine.copy_to(tmp_path_factory.mktemp("shelf") / "copy").path, "desktop")
    assert copy.snakemake("all").trained == 0
    copy.l2dyn("pages")
    return copy


def parts(text: str) -> tuple[list[str], list[float]]:
    """What stands between the numbers of a page, and the numbers."""
    return NUMBER.split(text), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("page", ["docs/results.md", "README.md"])
def test_a_committed_page_is_what_the_recorded_runs_come_to(made, page):
    """But for the last digits of numbers, which differ between processors."""
    (words, numbers), (committed, before) = parts((made.path / page).read_text()), parts((ROOT / page).read_text())
    assert words == committed
    assert numbers == pytest.approx(before, rel=5e-3, abs=1e-9)
