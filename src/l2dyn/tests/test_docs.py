"""The code in the documentation runs and prints what stands there, and the page of the API explains every argument."""

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


@pytest.mark.skipif(not DOCS.exists(), reason="installed without the documentation")
def test_what_the_api_page_shows_explains_every_argument():
    """By `Args:` or `Attributes:` of its own, or by naming the function whose arguments they are."""
    griffe = pytest.importorskip("griffe")
    package = griffe.GriffeLoader(search_paths=[DOCS.parent / "src"]).load("l2dyn")
    shown = []
    for name in re.findall(r"^::: l2dyn\.(\S+)", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE):
        thing = package[name]
        shown += [thing[str(export)] for export in thing.exports] if thing.is_module else [thing]
    shown = [thing.final_target if thing.is_alias else thing for thing in shown]
    shown += [method for thing in shown if thing.is_class for name, method in thing.members.items() if name == "step"]
    assert len(shown) > 30
    missing = {thing.path: sorted(arguments(thing) - explained(thing)) for thing in shown}
    assert {path: names for path, names in missing.items() if names} == {}


def arguments(thing) -> set[str]:
    """The names of a function's arguments, or of those that make a class; nobody makes an error."""
    if thing.is_class and [str(base) for base in thing.bases] == ["ValueError"]:
        return set()
    made_by = thing.members["__init__"] if thing.is_class else thing
    return {parameter.name.lstrip("*") for parameter in made_by.parameters} - {"self"}


def explained(thing) -> set[str]:
    """The names that its docstring explains, with those of its base class and of the function that it refers to."""
    sections = thing.docstring.parse("google", warnings=False)
    entries = [entry for part in sections if part.kind.value in ("parameters", "attributes") for entry in part.value]
    names = {name.strip().lstrip("*") for entry in entries for name in entry.name.split(",")}
    referred = re.findall(r"those\s+of `(\w+)`", thing.docstring.value)
    others = thing.resolved_bases if thing.is_class else [thing.parent[name] for name in referred]
    return names.union(*(explained(other) for other in others))
