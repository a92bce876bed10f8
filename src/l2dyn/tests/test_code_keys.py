"""What a file imports, as code keys follow it, against Python's own syntax tree."""

import ast
from pathlib import Path

import pytest

from l2dyn.files import ROOT
from l2dyn.runs.code_keys import _imported, _source

FILES = [*sorted((ROOT / "src" / "l2dyn").rglob("*.py")), *sorted((ROOT / "figures").glob("*.py"))]


def by_syntax_tree(path: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {p for p in (_source(name) for name in names if name.split(".")[0] == "l2dyn") if p}


def test_every_file_imports_what_its_syntax_tree_says():
    assert len(FILES) > 100
    for path in FILES:
        expected, found = by_syntax_tree(path), set(_imported(path))
        assert expected <= found, path
        assert expected == found or "tests" in path.parts, path  # whose strings hold code


@pytest.mark.parametrize(
    "text",
    [
        "import l2dyn.errors",
        "import numpy as np, l2dyn.errors as e",
        "def late():\n    from l2dyn.errors import UserError",
        "from l2dyn import errors",
        "from l2dyn import (  # the package's\n    config,\n    errors as e,\n)",
    ],
)
def test_a_module_is_found_however_it_is_imported(text, tmp_path):
    path = tmp_path / "imports.py"
    path.write_text(text)
    assert ROOT / "src" / "l2dyn" / "errors.py" in _imported(path)
    assert by_syntax_tree(path) == set(_imported(path))
