"""Prose by hand: by scale and claim, by figure; a file of another form is one line."""

import pytest

from l2dyn.errors import UserError
from l2dyn.tables.remarks import findings_of_figures, remarks_on


def test_remarks_are_by_scale_and_claim(tmp_path):
    path = tmp_path / "remarks.yaml"
    path.write_text("all: {C1: everywhere, C2: everywhere}\ntiny: {C2: here}\n")
    assert remarks_on("tiny", path) == {"C1": "everywhere", "C2": "here"}
    assert remarks_on("quick", path) == {"C1": "everywhere", "C2": "everywhere"}
    for text, words in (("all: {C99: no}", "C99: no claim"), ("- a", "cannot be read"), ("all: [a]", "cannot be read")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            remarks_on("tiny", path)


def test_findings_of_another_form_are_one_line(tmp_path):
    path = tmp_path / "remarks.yaml"
    path.write_text("figures: {fig1: ' It falls. '}\n")
    assert findings_of_figures(path) == {"fig1": "It falls."}
    for text in ("- a", "figures: [a]"):
        path.write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            findings_of_figures(path)
