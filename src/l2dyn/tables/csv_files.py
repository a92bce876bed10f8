"""How every table is written: CSV with floats in their shortest exact form, truth values as true and false."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from l2dyn.files import write_atomically


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write rows below a line of column names, atomically; None and NaN become empty cells."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(cells(row) for row in rows)
    write_atomically(path, stream.getvalue().encode())


def cells(row: Sequence) -> list[str]:
    """A row's values as they stand in a CSV file."""
    return [_cell(value) for value in row]


def _cell(value) -> str:
    value = value.item() if hasattr(value, "item") else value  # NumPy's numbers
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return "" if value is None else str(value)
