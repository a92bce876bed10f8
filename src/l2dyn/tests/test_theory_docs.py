"""The code in docs/theory.md runs and prints what stands there."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "theory.md"


@pytest.mark.skipif(not PAGE.exists(), reason="installed without the documentation")
def test_the_theory_page_runs():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0
    assert tried >= 10
