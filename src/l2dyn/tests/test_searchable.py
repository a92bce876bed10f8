"""Pages of tables: what stands in them; tests/test_report.py searches one in a browser."""

from html.parser import HTMLParser

from l2dyn.tables.searchable import write_searchable


class Cells(HTMLParser):
    """The text of every cell, by row."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        """A row or a cell begins."""
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        """A cell ends."""
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        """Text of a cell."""
        if self.inside:
            self.rows[-1][-1] += data


def test_every_cell_stands_in_the_page_as_it_was(tmp_path):
    ids = " ".join(["0123456789ab"] * 20)
    odd = [["a<b & {c}", '"quoted"', ""], [ids, "λ = 1e-3", "<script>alert(1)</script>"]]
    write_searchable(tmp_path / "page.html", "A title & more", [("First", ["x", "y", "z"], odd), ("Second", ["w"], [])])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = Cells()
    found.feed(text)
    assert found.rows == [["x", "y", "z"], *odd, ["w"]]
    assert f'title="{ids}"' in text
    assert "<h1>A title &amp; more</h1>" in text
    assert "http" not in text


def test_numbers_are_rounded_and_whole_in_their_title(tmp_path):
    rows = [["-0.9640445730298378", "12345678e901", "0.5", "0123456789ab", "nan"]]
    write_searchable(tmp_path / "page.html", "numbers", [("", list("vwxyz"), rows)])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = [
        'title="-0.9640445730298378">-0.964045<',
        ">12345678e901<",
        ">0.5<",
        ">0123456789ab<",
        ">nan<",
    ]
    assert [one for one in shown if one not in text] == []
