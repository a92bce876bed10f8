"""The worked examples, executed as notebooks."""

import json
import os
import subprocess
import sys

import pytest
from checkout import ROOT

pytestmark = pytest.mark.slow  # minutes each

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_a_notebook_and_says_what_it_found(name, tmp_path):
    notebook = tmp_path / "example.ipynb"
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute", "--output", str(notebook)]
    subprocess.run(
        [*command, str(ROOT / "examples" / name)], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
    )
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    said = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert "λ = " in said
    assert "AutoL2: best 0." in said
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
