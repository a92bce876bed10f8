"""The code in the documentation's pages runs and prints what stands there."""

import doctest
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="installed without the documentation")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("page", "least"), [("theory.md", 10), ("tools.md", 25)])
def test_the_code_of_a_page_runs(page, least):
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert failed == 0
    assert tried >= least


@pytest.mark.skipif(not DOCS.exists(), reason="installed without the documentation")
def test_the_recipe_for_hugging_face(monkeypatch):
    """With a stand-in for transformers that keeps what it is given; the callback is called as Trainer does."""
    names = ("Trainer", "TrainerCallback", "TrainingArguments", "ExportableState")
    stand_in = ModuleType("transformers")
    for name in names:
        setattr(stand_in, name, type(name, (SimpleNamespace,), {"__init__": keep}))
    for module in ("transformers", "transformers.trainer_callback"):
        monkeypatch.setitem(sys.modules, module, stand_in)
    (recipe,) = re.findall(r"```python\n(import torch\n.*?)```", (DOCS / "tools.md").read_text("utf-8"), re.DOTALL)
    scope = {"model": torch.nn.Linear(2, 1), "data": []}
    exec(recipe, scope)
    (callback,), (optimizer, _) = scope["trainer"].given["callbacks"], scope["trainer"].given["optimizers"]
    callback.on_train_begin(None, None, None, optimizer=optimizer)
    history = [{"loss": loss} for loss in (3.0, 2.0, 2.0, 2.5)]
    for i, logs in enumerate(history):
        callback.on_log(None, SimpleNamespace(log_history=history[: i + 1]), None, logs=dict(logs))
    assert [entry["l2"] for entry in history] == pytest.approx([0.1, 0.1, 0.1, 0.01])  # a tie lowers nothing
    state = json.loads(json.dumps(callback.state()))
    resumed = type(callback)(**state["args"])
    for name, value in state["attributes"].items():
        setattr(resumed, name, value)
    resumed.on_train_begin(None, None, None, optimizer=torch.optim.SGD(scope["model"].parameters(), lr=0.1))
    assert resumed.auto.state_dict() == callback.auto.state_dict()


def keep(self, *_, **given):
    self.given = given
