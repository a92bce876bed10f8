"""Markdown tables, for the pages that rules write."""

SHOWN = 4  # significant digits


def significant(value: float, digits: int = SHOWN) -> str:
    """A number in a few significant digits, "" for nan.

    >>> significant(0.123456), significant(1234567.0), significant(float("nan"))
    ('0.1235', '1.235e+06', '')
    """
    return "" if value != value else f"{value:.{digits}g}"


def table(head: tuple, rows: list[tuple]) -> str:
    """Rows below their head; bars in a cell are escaped."""
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells
    )
