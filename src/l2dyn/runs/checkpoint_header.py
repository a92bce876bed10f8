"""The first line of a checkpoint: JSON with a SHA-256 of its own; read without torch."""

import json

from l2dyn.files import sha256


def header_line(header: dict) -> bytes:
    """The line that holds a header.

    >>> read_header_line(header_line({"run_ids": ["a"], "step": 3}))
    {'run_ids': ['a'], 'step': 3}
    """
    text = json.dumps(header).encode()
    return text + b" " + sha256(text).encode() + b"\n"


def read_header_line(line: bytes) -> dict:
    """The header of such a line, verified. Raises ValueError for any other line."""
    text, _, digest = line.rstrip(b"\n").rpartition(b" ")
    if sha256(text).encode() != digest:
        raise ValueError("the SHA-256 of its header does not fit")
    return json.loads(text)
