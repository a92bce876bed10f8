"""Two shelves: what counts as present, and what happens to a damaged record."""

import json

import numpy as np
import pytest
from l2dyn.runs.spec import NUMERICS_VERSION
from l2dyn.runs.store import (
    RunStore,
    markers,
    read_manifest,
    remove_markers_listing,
    remove_stale_markers,
    write_manifest,
)

from l2dyn.errors import UserError
from l2dyn.runs.records import DamagedRecord, write_records

OLD = NUMERICS_VERSION - 1


def ship(store, *records, name="bundle"):
    """Put records on the shipped shelf, and index it."""
    write_records(store.shipped / "runs" / f"{name}.parquet", records)
    write_manifest(store.shipped / "runs")


def again(store, **options):
    """The same store as another process sees it."""
    return RunStore(store.results, store.shipped, **options)


def test_an_empty_store(store, make_spec):
    run_id = make_spec().run_id
    assert store.load(run_id) is None
    assert store.entry(run_id) is None
    assert not store.has(run_id, 1)
    assert not store.trained(run_id)
    assert not store.results.exists()  # looking makes no folder


def test_save_and_load(store, make_record, same_record):
    record = make_record(steps=11)
    store.save(record)
    assert store.path(record.run_id) == store.results / "runs" / f"{record.run_id}.parquet"
    assert same_record(store.load(record.run_id), record)
    assert store.trained(record.run_id)
    assert (store.has(record.run_id, 11), store.has(record.run_id, 12)) == (True, False)
    assert not store.on_shipped_shelf(store.entry(record.run_id))
    longer = make_record(steps=20, seed=1)
    store.save(longer)
    assert same_record(store.load(record.run_id), longer)
    assert len(list((store.results / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("there", "comes", "kept"),
    [
        ({"steps": 20}, {"steps": 11}, True),
        ({"steps": 11}, {"steps": 20}, False),
        ({"steps": 11}, {"steps": 11}, False),
        ({"steps": 5, "status": "diverged"}, {"steps": 20}, True),  # it answers for any horizon
        ({"steps": 20}, {"steps": 5, "status": "diverged"}, False),
        ({"steps": 20, "numerics_version": OLD}, {"steps": 11}, False),
        ({"steps": 11}, {"steps": 20, "numerics_version": OLD}, True),
    ],
    ids=str,
)
def test_a_record_gives_way_only_to_one_that_serves_as_much(store, make_record, same_record, there, comes, kept):
    """Of two jobs that train one run for different horizons, the one that ends last may be the shorter."""
    first, second = make_record(seed=1, **there), make_record(seed=2, **comes)
    assert store.save(first)
    assert again(store).save(second) is not kept
    assert same_record(store.load(first.run_id), first if kept else second)


def test_the_shipped_shelf_counts(store, make_record, make_spec, same_record):
    records = [make_record(make_spec(init_seed=s), steps=5 + s) for s in range(4)]
    ship(store, *records[:2], name="a")
    ship(store, *records[2:], name="b")
    for record in records:
        assert same_record(store.load(record.run_id), record)
        assert store.has(record.run_id, record.steps)
        assert not store.has(record.run_id, record.steps + 1)
        assert not store.trained(record.run_id)
        assert store.on_shipped_shelf(store.entry(record.run_id))
    assert set(store.shipped_entries()) == {r.run_id for r in records}


def test_reuse_false_ignores_the_shipped_shelf(store, make_record):
    record = make_record()
    ship(store, record)
    ignoring = again(store, reuse=False)
    assert ignoring.load(record.run_id) is None
    assert not ignoring.has(record.run_id, 1)
    assert ignoring.shipped_entries() == {}
    (store.shipped / "runs" / "manifest.json").write_text("not JSON")
    assert again(store, reuse=False).load(record.run_id) is None


def test_an_older_numerics_version(store, make_record, make_spec, same_record):
    own, shipped = make_record(numerics_version=OLD), make_record(make_spec(lr=0.7), numerics_version=OLD)
    store.save(own)
    ship(store, shipped)
    assert store.load(own.run_id) is None
    assert not store.has(own.run_id, 1)
    assert same_record(store.load(shipped.run_id), shipped)
    assert store.has(shipped.run_id, shipped.steps)


def test_an_older_own_record_gives_way_to_a_shipped_one(store, make_record, same_record):
    own, shipped = make_record(steps=50, numerics_version=OLD), make_record(steps=11, numerics_version=OLD, seed=1)
    store.save(own)
    ship(store, shipped)
    assert same_record(store.load(own.run_id), shipped)


@pytest.mark.parametrize(("own", "shipped", "best"), [(10, 20, 20), (20, 10, 20)])
def test_the_longer_of_two(store, make_record, same_record, own, shipped, best):
    records = {steps: make_record(steps=steps, seed=steps) for steps in (own, shipped)}
    store.save(records[own])
    ship(store, records[shipped])
    run_id = records[own].run_id
    assert same_record(store.load(run_id), records[best])
    assert store.has(run_id, best)
    assert store.on_shipped_shelf(store.entry(run_id)) == (best == shipped)


def test_of_two_equally_long_ones_the_own(store, make_record, same_record):
    own, shipped = make_record(seed=1), make_record(seed=2)
    store.save(own)
    ship(store, shipped)
    assert same_record(store.load(own.run_id), own)


@pytest.mark.parametrize("where", ["own", "shipped"])
def test_a_diverged_run_answers_for_any_horizon(store, make_record, where):
    """Though the other shelf holds a longer record of the time before: or it is trained again at every call."""
    diverged, finished = make_record(steps=5, status="diverged"), make_record(steps=11)
    store.save(diverged if where == "own" else finished)
    ship(store, finished if where == "own" else diverged)
    assert again(store).has(diverged.run_id, 1000)
    assert again(store).load(diverged.run_id).status == "diverged"


def test_two_bundles_with_one_run(store, make_record, same_record):
    short, long = make_record(steps=5), make_record(steps=9)
    ship(store, long, name="a")
    ship(store, short, name="b")
    assert same_record(again(store).load(long.run_id), long)


def test_has_keeps_no_record_in_memory_that_changed(store, make_record):
    """The store of a long job sees what other jobs write meanwhile."""
    assert not store.has(make_record().run_id, 5)
    again(store).save(make_record())
    assert store.has(make_record().run_id, 5)


# --- damage ---------------------------------------------------------------------------------------


def damage_columns(path):
    """Flip a bit in the first column's data, which no metadata reader sees."""
    content = bytearray(path.read_bytes())
    content[40] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage_columns, truncate, empty])
def test_a_damaged_own_record_is_set_aside(store, make_record, make_spec, write_marker, harm):
    record, other = make_record(), make_record(make_spec(lr=0.7))
    store.save(record)
    store.save(other)
    listing = write_marker(store.results, "1of2-aa", [other.run_id, record.run_id])
    elsewhere = write_marker(store.results, "2of2-bb", [other.run_id])
    path = store.path(record.run_id)
    harm(path)
    harmed = path.read_bytes()
    with pytest.raises(DamagedRecord) as caught:
        store.load(record.run_id)
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in (str(path), record.run_id, f"{path.name}.corrupt")), line
    assert not path.exists()
    assert path.with_name(path.name + ".corrupt").read_bytes() == harmed
    assert (listing.exists(), elsewhere.exists()) == (False, True)
    assert store.load(record.run_id) is None
    assert not store.has(record.run_id, 1)
    assert store.load(other.run_id) is not None
    store.save(record)
    assert store.load(record.run_id) is not None


@pytest.mark.parametrize("harm", [damage_columns, truncate, empty])
def test_a_damaged_record_gives_way_to_a_shorter_one(store, make_record, same_record, harm):
    store.save(make_record(steps=20))
    harm(store.path(make_record().run_id))
    whole = make_record(steps=11)
    assert store.save(whole)
    assert same_record(store.load(whole.run_id), whole)


def test_has_sets_an_unreadable_record_aside(store, make_record, write_marker):
    record = make_record()
    store.save(record)
    marker = write_marker(store.results, "1of1-aa", [record.run_id])
    truncate(store.path(record.run_id))
    with pytest.raises(DamagedRecord, match="corrupt"):
        store.has(record.run_id, 1)
    assert not marker.exists()
    assert not store.has(record.run_id, 1)


def test_another_runs_file_under_a_runs_name(store, make_record, make_spec):
    record, other = make_record(), make_spec(lr=0.7)
    store.save(record)
    store.path(record.run_id).rename(store.path(other.run_id))
    with pytest.raises(DamagedRecord, match=f"{other.run_id}.*another run"):
        store.load(other.run_id)
    assert store.load(other.run_id) is None


def test_a_flipped_numerics_version_is_noticed(store, make_record):
    """The version is looked at before the digest: an own record must not vanish in silence by one bit."""
    record = make_record()
    store.save(record)
    path = store.path(record.run_id)
    field = b'"numerics_version": '
    assert path.read_bytes().count(field) == 1
    path.write_bytes(path.read_bytes().replace(field + b"%d" % NUMERICS_VERSION, field + b"%d" % OLD))
    with pytest.raises(DamagedRecord):
        store.load(record.run_id)


def test_any_flipped_bit_is_noticed_by_the_store(store, make_record, same_record):
    record = make_record()
    store.save(record)
    path = store.path(record.run_id)
    good = path.read_bytes()
    for bit in np.random.default_rng(1).choice(8 * len(good), 150, replace=False):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            loaded, line = store.load(record.run_id), ""
        except UserError as error:
            loaded, line = None, str(error)
        assert record.run_id in line if loaded is None else same_record(loaded, record), bit


@pytest.mark.parametrize("harm", [damage_columns, truncate, empty])
def test_a_damaged_shipped_file_is_not_moved(store, make_record, write_marker, harm):
    record = make_record()
    ship(store, record)
    marker = write_marker(store.results, "1of1-aa", [record.run_id])
    path = store.shipped / "runs" / "bundle.parquet"
    harm(path)
    harmed = path.read_bytes()
    for _ in range(2):
        with pytest.raises(DamagedRecord) as caught:
            again(store).load(record.run_id)
        assert f"git checkout -- {path}" in str(caught.value)
        assert record.run_id in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == harmed
    assert marker.exists()
    assert sorted(p.name for p in path.parent.iterdir()) == ["bundle.parquet", "manifest.json"]


def test_a_missing_shipped_file_says_how_to_restore_it(store, make_record):
    ship(store, make_record())
    path = store.shipped / "runs" / "bundle.parquet"
    path.unlink()
    with pytest.raises(UserError) as caught:
        store.load(make_record().run_id)
    assert f"git checkout -- {path}" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"runs": []}',
        '{"runs": {"a": {}}}',
        '{"runs": {"a": 1}}',
        '{"runs": {"a": {"file": "b", "status": "finished", "steps": "5", "numerics_version": 1, "sha256": "c"}}}',
        '{"runs": {"a": {"file": "b", "status": "finished", "steps": null, "numerics_version": 1, "sha256": "c"}}}',
        "\xff",
    ],
)
def test_a_damaged_manifest(store, text):
    path = store.shipped / "runs" / "manifest.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        store.has("a", 3)
    assert f"git checkout -- {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_does_not_fit_its_bundle(store, make_record):
    """A bundle that was replaced by another, itself whole, is not what the project ships."""
    ship(store, make_record(seed=0))
    write_records(store.shipped / "runs" / "bundle.parquet", [make_record(seed=1)])
    with pytest.raises(UserError, match="git checkout --"):
        store.load(make_record().run_id)


def test_manifest_round_trip(store, make_record, make_spec):
    assert read_manifest(store.shipped / "runs") == {}
    records = [make_record(make_spec(init_seed=s), steps=5 + s) for s in range(3)]
    write_records(store.shipped / "runs" / "a.parquet", records)
    assert write_manifest(store.shipped / "runs") == 3
    first = (store.shipped / "runs" / "manifest.json").read_bytes()
    entries = read_manifest(store.shipped / "runs")
    assert {i: e.steps for i, e in entries.items()} == {r.run_id: r.steps for r in records}
    assert {e.file for e in entries.values()} == {"a.parquet"}
    write_manifest(store.shipped / "runs")
    assert (store.shipped / "runs" / "manifest.json").read_bytes() == first


def test_a_damaged_bundle_is_not_indexed(store, make_record):
    ship(store, make_record())
    before = (store.shipped / "runs" / "manifest.json").read_bytes()
    damage_columns(store.shipped / "runs" / "bundle.parquet")
    with pytest.raises(DamagedRecord):
        write_manifest(store.shipped / "runs")
    assert (store.shipped / "runs" / "manifest.json").read_bytes() == before


# --- markers --------------------------------------------------------------------------------------


def test_stale_markers_are_removed(store, make_record, make_spec, write_marker):
    own, shipped, absent = (make_record(make_spec(init_seed=s)) for s in range(3))
    store.save(own)
    ship(store, shipped)
    kept = [write_marker(store.results, "1of3-aa", [own.run_id, shipped.run_id])]
    stale = [
        write_marker(store.results, "2of3-bb", [own.run_id, absent.run_id]),
        write_marker(store.results, "3of3-cc", [absent.run_id]),
    ]
    assert len(markers(store.results)) == 3
    assert remove_stale_markers(store.results, store.shipped_entries()) == 2
    assert [p.exists() for p in kept + stale] == [True, False, False]
    assert remove_stale_markers(store.results, []) == 1  # without the shipped shelf
    assert remove_stale_markers(store.results / "nowhere", []) == 0


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", '{"runs": 5}', '{"runs": null}', '{"runs": [["a"]]}', '{"runs": [{}]}', "\xff"],
)
def test_an_unreadable_marker_is_stale(store, write_marker, text):
    path = write_marker(store.results, "1of1-aa", ["a"])
    path.write_text(text, encoding="latin-1")
    assert remove_markers_listing(store.results, {"b"}) == 0
    assert remove_stale_markers(store.results, ["a"]) == 1
    assert not path.exists()


def test_only_markers_are_touched(store, write_marker):
    path = write_marker(store.results, "1of1-aa", ["a"])
    other = path.with_suffix(".txt")
    other.write_text(json.dumps({"runs": ["a"]}))
    assert remove_markers_listing(store.results, {"a", "z"}) == 1
    assert (path.exists(), other.exists()) == (False, True)


# --- folders that cannot be written ---------------------------------------------------------------


@pytest.mark.parametrize("where", ["below a file", "/sys"])
def test_results_that_cannot_be_written(tmp_path, make_record, where):
    (tmp_path / "file").write_text("x")
    results = tmp_path / "file" / "results" if where == "below a file" else "/sys/l2dyn-results"
    store = RunStore(results, tmp_path / "paper_results")
    record = make_record()
    assert store.load(record.run_id) is None
    assert not store.has(record.run_id, 1)
    with pytest.raises(UserError) as caught:
        store.save(record)
    line = str(caught.value)
    assert "\n" not in line
    assert str(results) in line
    assert "L2DYN_RESULTS" in line
