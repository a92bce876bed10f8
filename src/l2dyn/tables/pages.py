"""The committed pages: docs/results.md and README's table of verdicts, from what the shelf's scales have come to."""

import re
from pathlib import Path

import pandas as pd

from l2dyn.claims.verdicts import NOT_RUN
from l2dyn.errors import UserError
from l2dyn.files import write_atomically
from l2dyn.tables.claims import read_claims
from l2dyn.tables.markdown import table

BY_VALUE = ("paper", "gpu", "desktop")  # the first of these that is on the shelf is README's
BEGIN, END = "<!-- verdicts: l2dyn pages writes this -->", "<!-- end of verdicts -->"


def shelf_scales(runs: Path) -> list[str]:
    """The scales with bundles on the shelf, those that say most first."""
    shipped = {path.name.partition("-")[0] for path in Path(runs).glob("*.parquet")}
    return [scale for scale in BY_VALUE if scale in shipped]


def write_pages(scales: list[str], results: Path, page: Path, readme: Path) -> None:
    """Write both pages from results/<scale>/results.md and claims.csv of these scales.

    The pictures go into gallery/<scale>/ beside the page. Raises UserError where one has not been made, or README has
    no place for the table.
    """
    texts = [_page(results / scale, page.parent / "gallery" / scale) for scale in scales]
    best = scales[0]
    verdicts = verdict_table(_made(results / best / "claims.csv", best), best)
    text = readme.read_text(encoding="utf-8")
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise UserError(f"{readme}: no lines {BEGIN!r} and {END!r}, between which the table goes")
    write_atomically(page, ("\n\n".join(texts) + "\n").encode())
    write_atomically(readme, f"{before}{BEGIN}\n\n{verdicts}\n\n{END}{after}".encode())


def verdict_table(path: Path, scale: str) -> str:
    """A row for each claim that a scale's claims.csv judges, what the paper says and the verdict; the others' ids."""
    verdicts = pd.read_csv(path, dtype=str).fillna("").set_index("claim")["verdict"]
    judged = [claim for claim in read_claims() if verdicts[claim.id] != NOT_RUN]
    others = ", ".join(claim.id for claim in read_claims() if verdicts[claim.id] == NOT_RUN)
    rows = [(claim.id, claim.claim, verdicts[claim.id]) for claim in judged]
    text = table(("claim", "the paper says", f"verdict, scale {scale}"), rows)
    return f"{text}\n\nNot run at this scale: {others}." if others else text


def _page(made: Path, gallery: Path) -> str:
    """results.md of a scale, its pictures copied to `gallery` and linked there."""
    text = _made(made / "results.md", made.name).read_text(encoding="utf-8").strip()
    for name in re.findall(r"!\[\w[\w-]*\]\(([\w-]+\.png)\)", text):
        write_atomically(gallery / name, _made(made / name, made.name).read_bytes())
        text = text.replace(f"]({name})", f"](gallery/{made.name}/{name})")
    return text


def _made(path: Path, scale: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: not made yet; run: snakemake --cores 2 all --config scale={scale}")
    return path
