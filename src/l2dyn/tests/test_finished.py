"""Where finished runs lie: the cache, the shelf, bundles; whole or absent, and every damage named."""

import errno
import json
import re
from unittest.mock import Mock

import pyarrow.parquet
import pytest

from l2dyn.errors import UserError
from l2dyn.runs import bundles as bundles_module
from l2dyn.runs import cache as cache_module
from l2dyn.runs.bundles import Bundles, Finished
from l2dyn.runs.cache import Cache
from l2dyn.runs.records import DamagedRecord, write_records
from l2dyn.runs.shelf import MANIFEST, Shelf, put_on_shelf, read_manifest, write_manifest
from l2dyn.specs.run import NUMERICS_VERSION


def ship(finished, *records, name="bundle") -> Finished:
    """Put records on the shelf, and look again."""
    write_records(finished.shelf.folder / f"{name}.parquet", records)
    write_manifest(finished.shelf.folder)
    return Finished(finished.cache, Shelf(finished.shelf.folder), finished._paths)


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)


HARMS = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
}


def test_nothing_is_finished_at_first(finished, make_spec):
    run_id = make_spec().run_id
    assert (finished.header(run_id), finished.load(run_id), finished.serves(run_id, 0)) == (None, None, False)


def test_the_cache_keeps_what_serves_most(finished, make_record, same_record):
    cache = finished.cache
    short, long, diverged = (
        make_record(steps=5),
        make_record(steps=9, seed=1),
        make_record(steps=2, status="diverged"),
    )
    for record, kept in ((short, short), (long, long), (short, long), (diverged, diverged), (long, diverged)):
        cache.save(record)
        assert same_record(cache.load(record.run_id), kept)
        assert finished.header(record.run_id).steps == kept.steps
    assert finished.serves(short.run_id, 10**9)


def test_an_older_numerics_version_counts_on_the_shelf_only(finished, make_record, same_record, monkeypatch):
    record = make_record()
    finished.cache.save(record)
    shipped = ship(finished, make_record(steps=5))
    for module in (cache_module, bundles_module):
        monkeypatch.setattr(module, "NUMERICS_VERSION", NUMERICS_VERSION + 1)
    assert finished.cache.load(record.run_id) is None
    assert finished.cache.header(record.run_id) is None
    assert shipped.load(record.run_id).steps == 5
    newer = make_record(steps=3, numerics_version=NUMERICS_VERSION + 1)
    finished.cache.save(newer)  # though it serves less
    assert same_record(finished.cache.load(record.run_id), newer)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_cache_record_is_set_aside_and_counts_as_absent(finished, make_record, harm, caplog):
    record = make_record()
    finished.cache.save(record)
    path = finished.cache.path(record.run_id)
    HARMS[harm](path)
    assert finished.load(record.run_id) is None
    assert not path.exists()
    assert path.with_name(path.name + ".corrupt").exists()
    (line,) = caplog.messages
    assert record.run_id in line
    finished.cache.save(record)
    assert finished.serves(record.run_id, record.steps)


def test_the_record_that_serves_most_counts_wherever_it_lies(finished, make_record, make_spec, tmp_path, same_record):
    specs = [make_spec(init_seed=s) for s in range(3)]
    in_cache, on_shelf, in_bundle = (
        [make_record(spec, steps=steps, seed=seed) for spec, steps in zip(specs, lengths, strict=True)]
        for seed, lengths in enumerate([(9, 5, 5), (5, 9, 5), (5, 5, 9)])
    )
    for record in in_cache:
        finished.cache.save(record)
    path = tmp_path / "earlier.parquet"
    write_records(path, in_bundle)
    everywhere = ship(Finished(finished.cache, finished.shelf, [path]), *on_shelf)
    for spec, best in zip(specs, (in_cache[0], on_shelf[1], in_bundle[2]), strict=True):
        assert same_record(everywhere.load(spec.run_id, 9), best)
        assert everywhere.header(spec.run_id).steps == 9
        assert everywhere.load(spec.run_id, 10) is None
    assert [everywhere.recorded(spec.run_id) for spec in specs] == [False, True, False]
    without = Finished(finished.cache, Shelf(finished.shelf.folder, reuse=False), [path])
    assert not without.serves(specs[1].run_id, 9)


def test_header_and_load_speak_of_one_record(finished, make_record, tmp_path, same_record):
    """Also where a bundle reaches further than the cache."""
    cached, bundled = make_record(steps=4), make_record(steps=10, seed=1)
    finished.cache.save(cached)
    write_records(tmp_path / "earlier.parquet", [bundled])
    both = Finished(finished.cache, finished.shelf, [tmp_path / "earlier.parquet"])
    assert both.header(cached.run_id).steps == 10
    assert same_record(both.load(cached.run_id), bundled)
    HARMS["truncated"](tmp_path / "earlier.parquet")
    again = Finished(finished.cache, finished.shelf, [tmp_path / "earlier.parquet"])
    assert same_record(again.load(cached.run_id), cached)


def test_a_record_serves_only_where_it_was_measured(finished, make_record, same_record):
    sparse = make_record(steps=100, at=[0, 40, 80, 100])
    finished.cache.save(sparse)
    run_id = sparse.run_id
    assert same_record(finished.load(run_id, 80, [0, 80]), sparse)
    assert finished.load(run_id, 50, [0, 50]) is None
    denser = make_record(steps=100, at=[0, 40, 50, 100], seed=1)
    assert finished.cache.save(denser)
    assert not finished.cache.save(make_record(steps=100, at=[0, 50, 100], seed=2))
    assert same_record(finished.load(run_id, 50, [0, 50]), denser)
    diverged = make_record(steps=60, at=[0, 40], status="diverged")
    assert diverged.measured_at([0, 40, 60, 80])  # nothing was left to be measured there
    assert not diverged.measured_at([0, 30, 40])


def test_what_cannot_be_read_now_is_not_taken_for_damaged(finished, make_record, monkeypatch):
    """Too many open files, or too little memory, say nothing about a record: it stays, and the job says why."""
    record = make_record()
    finished.cache.save(record)
    path = finished.cache.path(record.run_id)
    for error in (OSError(errno.EMFILE, "Too many open files"), MemoryError()):
        with monkeypatch.context() as patched:
            patched.setattr(pyarrow.parquet, "read_metadata", Mock(side_effect=error))
            with pytest.raises(UserError, match=f"{path}: cannot be read now"):
                finished.load(record.run_id)
    assert path.exists()
    assert finished.load(record.run_id) is not None


def test_a_damaged_earlier_bundle_counts_as_absent(finished, make_record, tmp_path):
    path = tmp_path / "earlier.parquet"
    write_records(path, [make_record()])
    HARMS["truncated"](path)
    looked_at = Finished(finished.cache, finished.shelf, [path, tmp_path / "none.parquet"])
    assert looked_at.load(make_record().run_id) is None


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_shelf_is_never_touched_and_says_how_to_restore_it(finished, make_record, harm):
    shipped = ship(finished, make_record())
    path = shipped.shelf.folder / "bundle.parquet"
    HARMS[harm](path)
    with pytest.raises(DamagedRecord, match=r"git checkout -- .*bundle\.parquet"):
        shipped.load(make_record().run_id)
    assert path.exists()
    path.unlink()
    with pytest.raises(DamagedRecord, match="the file is missing"):
        shipped.load(make_record().run_id)


def test_the_manifest(finished, make_record, make_spec):
    records = [make_record(make_spec(init_seed=s), steps=3 + s) for s in range(3)]
    shipped = ship(finished, *records)
    ship(shipped, make_record(make_spec(init_seed=1), steps=99), name="another")
    headers = read_manifest(shipped.shelf.folder)
    assert [headers[r.run_id].steps for r in records] == [3, 99, 5]
    assert headers[records[1].run_id].file == "another.parquet"
    shelf = Shelf(shipped.shelf.folder)
    assert shelf.key([records[0].run_id]) != shelf.key([records[1].run_id])
    assert Shelf(shipped.shelf.folder, reuse=False).headers == {}
    flip(shipped.shelf.folder / "bundle.parquet")
    with pytest.raises(DamagedRecord):
        write_manifest(shipped.shelf.folder)  # a damaged bundle is not indexed


def test_the_manifest_says_what_a_run_was_made_with(finished, make_record, make_spec):
    spec = make_spec(init_seed=4)
    shipped = ship(finished, make_record(spec))
    entry = json.loads((shipped.shelf.folder / MANIFEST).read_text())["runs"][spec.run_id]
    assert entry["seeds"] == [4, spec.order_seed]
    assert entry["made_with"] == {"revision": "abc", "device": "cpu (x86_64)"}
    assert entry["wall_s"] == 1.25


def test_what_is_put_on_the_shelf_takes_nothing_off_it(finished, make_record, make_spec, same_record):
    """A machine that has some of the runs, one of them shorter, adds the others'; what the plan has no longer goes."""
    folder, seeds = finished.shelf.folder, [make_spec(init_seed=s) for s in range(4)]
    planned = [spec.run_id for spec in seeds[:3]]
    first, second, old = (make_record(seeds[0], steps=9), make_record(seeds[1], steps=5), make_record(seeds[3]))
    write_records(folder / "bundle.parquet", [first, second, old])
    longer, new = make_record(seeds[1], steps=8, seed=7), make_record(seeds[2])
    assert put_on_shelf(folder, "bundle", [make_record(seeds[0], steps=4), longer, new], planned) == (3, 1)
    shelf = Shelf(folder)
    assert set(shelf.headers) == set(planned)
    for record in (first, longer, new):
        assert same_record(shelf.load(record.run_id), record)
    before = (folder / "bundle.parquet").read_bytes()
    assert put_on_shelf(folder, "bundle", [make_record(seeds[0], steps=9, seed=3)], planned) == (3, 0)
    assert (folder / "bundle.parquet").read_bytes() == before


@pytest.mark.parametrize("damaged", ["bundle", "another"])
def test_beside_a_damaged_bundle_nothing_is_put_on_the_shelf(finished, make_record, make_spec, damaged):
    shipped = ship(finished, make_record())
    ship(shipped, make_record(make_spec(init_seed=1)), name="another")
    folder = shipped.shelf.folder
    HARMS["truncated"](folder / f"{damaged}.parquet")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    new = make_record(make_spec(init_seed=2))
    with pytest.raises(DamagedRecord, match=f"git checkout -- .*{damaged}.parquet"):
        put_on_shelf(folder, "bundle", [new], [new.run_id])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


BROKEN = ["{", "[]", '{"runs": []}', '{"runs": {"a": {}}}', '{"runs": {"a": {"file": 1}}}']


@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_manifest_is_one_line(finished, text):
    (finished.shelf.folder / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json: damaged .*git checkout") as caught:
        _ = finished.shelf.headers
    assert "\n" not in str(caught.value)


def test_a_manifest_that_does_not_fit_its_bundle(finished, make_record):
    shipped = ship(finished, make_record())
    path = shipped.shelf.folder / MANIFEST
    values = json.loads(path.read_text())
    values["runs"][make_record().run_id]["sha256"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(DamagedRecord, match="it is not the record"):
        Shelf(shipped.shelf.folder).load(make_record().run_id)


def test_bundles_are_a_mapping_of_verified_records(tmp_path, make_record, make_spec, same_record):
    records = [make_record(make_spec(init_seed=s), steps=4, seed=s) for s in range(3)]
    longer = make_record(make_spec(init_seed=1), steps=8)
    paths = [tmp_path / "1of1-aa.parquet", tmp_path / "recorded.parquet"]
    write_records(paths[0], records)
    write_records(paths[1], [longer, make_record(make_spec(init_seed=5))], recorded=[longer.run_id])
    held = Bundles(paths)
    assert list(held) == [*(record.run_id for record in records), make_spec(init_seed=5).run_id]
    assert same_record(held[records[0].run_id], records[0])
    assert same_record(held[longer.run_id], longer)
    # `rule recorded` also hands on what was trained here: only what it marks has shipped
    assert [held.recorded(run_id) for run_id in held] == [False, True, False, False]
    assert held.get(make_spec(lr=9.0).run_id) is None
    assert len(Bundles([])) == 0


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_bundle_says_what_to_delete(tmp_path, make_record, harm):
    path = tmp_path / "1of1-aa.parquet"
    write_records(path, [make_record()])
    HARMS[harm](path)
    with pytest.raises(DamagedRecord, match=re.escape(f"delete {path} and call again")):
        _ = Bundles([path])[make_record().run_id]


def test_a_bundle_is_the_same_file_whenever_it_is_put_together(tmp_path, make_record, make_spec):
    records = [make_record(make_spec(init_seed=s), steps=4, seed=s) for s in range(3)]
    for name in ("a", "b"):
        write_records(tmp_path / name, records)
    write_records(tmp_path / "none", [])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(Bundles([tmp_path / "none"])) == 0


@pytest.mark.parametrize("where", ["below a file", "/sys"])
def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, make_record, where):
    (tmp_path / "file").write_text("x")
    results = tmp_path / "file" / "results" if where == "below a file" else "/sys/l2dyn-results"
    with pytest.raises(UserError, match="cannot be written") as caught:
        Cache(results).save(make_record())
    assert "\n" not in str(caught.value)
