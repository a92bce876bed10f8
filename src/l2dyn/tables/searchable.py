"""Tables as one HTML page that needs nothing else: rows can be searched and sorted, in the report and by themselves."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from l2dyn.files import write_atomically

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 13px system-ui, sans-serif; margin: 1em; }}
table {{ border-collapse: collapse; }}
th {{ position: sticky; top: 0; background: #eee; cursor: pointer; text-align: left; }}
td, th {{ padding: 2px 8px; border-bottom: 1px solid #ddd; vertical-align: top; }}
td {{ max-width: 32em; overflow-wrap: break-word; }}
td.long {{ max-width: 12em; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
</style></head><body><h1>{title}</h1>
<p><input id="search" type="search" placeholder="all of these words" size="40">
<span id="count"></span></p>
{tables}
<script>
const rows = [...document.querySelectorAll("tbody tr")], search = document.getElementById("search");
function show() {{
  const words = search.value.toLowerCase().split(/\\s+/);
  for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  const shown = rows.filter(row => !row.hidden).length;
  document.getElementById("count").textContent = shown + " of " + rows.length + " rows";
}}
function order(head) {{
  const at = [...head.parentNode.children].indexOf(head), body = head.closest("table").tBodies[0];
  const way = head.dataset.way = head.dataset.way === "1" ? "-1" : "1";
  const cell = row => row.children[at].textContent, number = text => text === "" ? NaN : Number(text);
  const compare = (a, b) => isNaN(number(a) - number(b)) ? a.localeCompare(b) : number(a) - number(b);
  body.append(...[...body.rows].sort((a, b) => way * compare(cell(a), cell(b))));
}}
search.addEventListener("input", show);
document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => order(head)));
show();
</script></body></html>
"""
_LONG = 120  # characters: longer cells, lists of runs, are cut on the screen, the whole stands in their title
_DIGITS = 6  # of a number, likewise


def write_searchable(
    path: Path, title: str, tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]
) -> None:
    """Write a page of tables, each of (caption, column names, rows of cells as text)."""
    page = _PAGE.format(title=escape(title), tables="\n".join(_table(*table) for table in tables))
    write_atomically(path, page.encode())


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heading = f"<h2>{escape(caption)}</h2>\n" if caption else ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"{heading}<table><thead><tr>{names}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(text: str) -> str:
    number = re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text)  # with a point: a run's id may look like a number, too
    shown = f"{float(text):.{_DIGITS}g}" if number else text
    kind = ' class="long"' if len(shown) > _LONG and " " in shown else ""
    title = f' title="{escape(text)}"' if kind or shown != text else ""
    return f"<td{kind}{title}>{escape(shown)}</td>"
