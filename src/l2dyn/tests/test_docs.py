"""The code in the documentation's pages runs and prints what stands there."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="installed without the documentation")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("page", "least"), [("theory.md", 10), ("tools.md", 25)])
def test_the_code_of_a_page_runs(page, least):
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert failed == 0
    assert tried >= least
