"""How every table is written: each number exactly, whoever computed it."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.tables.csv_files import write_csv


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.1, "0.1"), (np.float64(0.1), "0.1"), (np.float32(0.25), "0.25"), (1e-30, "1e-30"), (math.inf, "inf"),
        (3, "3"), (np.int64(3), "3"), (True, "true"), (np.bool_(False), "false"),
        (None, ""), (math.nan, ""), (np.float64("nan"), ""), ('a "quoted", text\nλ', 'a "quoted", text\nλ'),
    ],
)  # fmt: skip
def test_a_cell(tmp_path, value, cell):
    path = tmp_path / "deep" / "table.csv"
    write_csv(path, ["name", "value"], [["a", value]])
    with path.open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [["name", "value"], ["a", cell]]
    assert [held.name for held in path.parent.iterdir()] == ["table.csv"]


@settings(max_examples=15)
@given(values=st.lists(st.floats(allow_nan=False), min_size=1))
def test_floats_come_back_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "floats.csv"
    write_csv(path, ["x"], ([value] for value in np.array(values)))
    assert [float(line) for line in path.read_text().splitlines()[1:]] == values


def test_no_rows_leave_the_column_names(tmp_path):
    write_csv(tmp_path / "table.csv", ("a", "b"), [])
    assert (tmp_path / "table.csv").read_bytes() == b"a,b\n"
