"""Damaged files and mutated configurations, by hypothesis: each is found in one line, or changes nothing."""

import copy

import numpy as np
import pytest
import yaml
from checkout import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from l2dyn.config.loading import load_scale
from l2dyn.data import arrays
from l2dyn.errors import UserError
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import Record, read_records, write_records
from l2dyn.specs.data_sets import DATA_SETS
from l2dyn.tests.made_up import made_up_samples, make_task
from l2dyn.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

HARM = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("empty"), st.just(0.0)),
    st.tuples(st.just("other"), st.floats(0, 1)),
)
CASES = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def harmed(content: bytes, harm: tuple[str, float]) -> bytes:
    """Truncated, one bit flipped, emptied, or something else altogether in its place."""
    kind, where = harm
    at = int(where * len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << int(where * 1e6) % 8)]) + content[at + 1 :]
    return {"cut": content[:at], "empty": b"", "other": b"<html>not found</html>" * (1 + int(3 * where))}[kind]


def one_record() -> Record:
    spec = make_task(made_up_samples()).spec
    names = ("step", "epoch", "lr", "l2", "train_loss", "train_error", "test_loss", "test_accuracy", "param_norm")
    columns = {name: np.random.default_rng(i).random(30) for i, name in enumerate(names)}
    columns["step"] = np.arange(30)
    return Record(spec, "finished", 29, 2, columns, {"device": "cpu", "revision": "x", "wall_s": 1.0})


def outcome(call):
    """(what a call returns, None), or (None, what its UserError says)."""
    try:
        return call(), None
    except UserError as error:
        return None, str(error)


def same(a: Record, b: Record) -> bool:
    return a.spec == b.spec and all(np.array_equal(a.columns[name], b.columns[name]) for name in b.columns)


@CASES
@given(HARM)
def test_a_damaged_bundle_is_found_or_holds_what_was_written(tmp_path_factory, harm):
    path, record = tmp_path_factory.mktemp("bundle") / "1of1.parquet", one_record()
    write_records(path, [record])
    path.write_bytes(harmed(path.read_bytes(), harm))
    found, line = outcome(lambda: read_records(path))
    if line:
        assert str(path) in line
        assert "\n" not in line
    else:
        assert len(found) == 1
        assert same(found[0], record)


@CASES
@given(HARM)
def test_a_damaged_cache_record_is_set_aside(tmp_path_factory, harm):
    cache, record = Cache(tmp_path_factory.mktemp("cache")), one_record()
    cache.save(record)
    path = cache.path(record.run_id)
    path.write_bytes(harmed(path.read_bytes(), harm))
    found = cache.load(record.run_id)
    assert found is None or same(found, record)
    assert path.exists() == (found is not None)
    assert cache.save(record) == (found is None)
    assert same(cache.load(record.run_id), record)


@CASES
@given(HARM)
@example(("flip", 0.0078125))
def test_a_damaged_checkpoint_is_set_aside(tmp_path_factory, harm):
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / "x.ckpt"
    state = {"step": 7, "weights": torch.arange(50.0), "rows": [torch.eye(3)], "auto_l2": None}
    write_checkpoint(path, ["0123456789ab"], [100], state)
    path.write_bytes(harmed(path.read_bytes(), harm))
    read = read_checkpoint(path)
    if read is None:
        return
    header, found = read
    assert (header.run_ids, header.horizons, header.step) == (["0123456789ab"], [100], 7)
    assert torch.equal(found["weights"], state["weights"])


@CASES
@given(HARM)
def test_damaged_prepared_data_are_made_again(tmp_path_factory, monkeypatch_module, harm):
    folder = tmp_path_factory.mktemp("data")
    path, held = folder / "digits.npz", monkeypatch_module
    np.savez(path, **held)
    path.write_bytes(harmed(path.read_bytes(), harm))
    found = arrays.load("digits", path)
    for name in arrays.ARRAYS:
        np.testing.assert_array_equal(found[name], held[name])


@pytest.fixture(scope="module")
def monkeypatch_module():
    """A few digits as the data set "digits": its source gives them, its checksum is theirs."""
    generator = np.random.default_rng(0)
    held = {}
    for split, count in (("train", 12), ("test", 5)):
        images = generator.integers(0, 256, size=(count, 28, 28, 1)).astype(np.uint8)
        ordered = arrays.canonical_order(images, generator.integers(0, 10, size=count))
        held |= {f"{split}_images": ordered[0], f"{split}_labels": ordered[1]}
    info = DATA_SETS["digits"]
    patch = pytest.MonkeyPatch()
    patch.setitem(DATA_SETS, "digits", type(info)(**{**vars(info), "checksum": arrays.checksum(held)}))
    patch.setattr(arrays, "from_source", lambda name, data_dir=None: held)
    yield held
    patch.undo()


# --- configurations --------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["", "x", "1e-3", "cpu", [], {}, [1], ["a"], {"kind": "fc"}, {"epochs": 0}, 10**30, -0.0, 1e400]),
)


def places(values, path=()):
    """Every key and item of a nested configuration."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


TINY = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
PLACES = list(places({key: value for key, value in TINY.items() if key != "templates"}))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PLACES), st.sampled_from(["put", "remove", "rename"]), JUNK)
def test_a_mutated_configuration_is_valid_or_one_clear_line(tmp_path_factory, place, how, junk):
    values = copy.deepcopy(TINY)
    *path, last = place
    parent = values
    for key in path:
        parent = parent[key]
    if how == "remove" or (how == "rename" and isinstance(parent, list)):
        del parent[last]
    elif how == "rename":
        parent[f"{last}s"] = parent.pop(last)
    else:
        parent[last] = junk
    folder = tmp_path_factory.mktemp("config")
    (folder / "config").mkdir()
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "config" / "figures.yaml").write_text((ROOT / "config" / "figures.yaml").read_text())
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    try:
        _, line = outcome(lambda: Plan("tiny", load_scale("tiny")))
    finally:
        patch.undo()
    if line:
        assert "\n" not in line
        assert "tiny.yaml" in line
        assert len(line) < 600
