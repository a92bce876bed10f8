"""l2.json: what was measured comes back, and a damaged file is named in one line."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.errors import UserError
from l2dyn.runs.l2_selection import L2Selection, read_l2_selection, write_l2_selection

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(
    values=st.dictionaries(st.tuples(POSITIVE, POSITIVE), POSITIVE, max_size=3),
    reason=st.text(max_size=8),
    evidence=st.dictionaries(st.text(max_size=8), POSITIVE, max_size=3),
)
@settings(max_examples=15)
def test_the_file_gives_back_what_was_written(tmp_path_factory, values, reason, evidence):
    path = tmp_path_factory.getbasetemp() / "round-trip" / "l2.json"
    selection = L2Selection(values, reason, evidence)
    write_l2_selection(path, selection)
    assert read_l2_selection(path) == selection
    assert [p.name for p in path.parent.iterdir()] == ["l2.json"]


def test_no_file_is_no_value(tmp_path):
    (tmp_path / "a file").touch()
    assert read_l2_selection(tmp_path / "nowhere" / "l2.json") is None
    assert read_l2_selection(tmp_path / "a file" / "l2.json") is None


ROW = {"lr": 0.1, "epochs": 10.0, "l2": 0.02}
WHOLE = {"l2": [ROW], "reason": "", "evidence": {}}
DAMAGED = [
    "", json.dumps(WHOLE)[:-20], "l2: 0.01\n", b'{"l2": "\xff"}', "[]", "5", "null",
    *(json.dumps({k: v for k, v in WHOLE.items() if k != lost}) for lost in WHOLE),
    *(json.dumps(WHOLE | {"l2": l2}) for l2 in (5, None, [[0.1, 10, 0.02]], [{"lr": 0.1, "l2": 0.02}])),
    *(json.dumps(WHOLE | {"l2": [ROW | {"l2": l2}]}) for l2 in ("big", None, 0, -0.01, math.nan, math.inf)),
    json.dumps(WHOLE).replace("0.02", "1e999"),
]  # fmt: skip


def test_a_damaged_file_is_one_line_that_says_what_to_delete(tmp_path):
    path = tmp_path / "l2.json"
    for text in DAMAGED:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError, match=r"l2.json: damaged .*delete") as caught:
            read_l2_selection(path)
        assert "\n" not in str(caught.value)


def test_it_answers_when_nothing_is_left_to_be_measured():
    """A λ for every pair, or a reason why there is none; further ones do not matter."""
    made = L2Selection({(lr, budget): 0.01 for lr in (0.1, 0.2) for budget in (10.0, 40.0)})
    assert made.answers([0.1, 0.2], [10, 40])
    assert made.answers([0.2], [10])
    assert not made.answers([0.1, 0.3], [10])
    assert not made.answers([0.1], [10, 80])
    assert L2Selection({}, "no peak").answers([0.1], [10])
    assert not L2Selection({}).answers([0.1], [10])
