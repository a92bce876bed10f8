"""Records as files: exact round trips, and every damage is noticed."""

import os
import resource
import stat
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l2dyn.errors import UserError
from l2dyn.files import results_folder, shipped_folder, write_atomically
from l2dyn.runs.records import COLUMNS, DamagedRecord, read_headers, read_record, read_records, write_records

# Numbers that a careless format changes: NaNs of either sign and with a payload, zeros of either sign, subnormals.
AWKWARD = np.array(
    [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000123, 0x8000000000000000, 0, 1, 0x7FF << 52, 0xFFF << 52],
    dtype=np.uint64,
).view(np.float64)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shelf" / "run.parquet"


def test_round_trip_is_exact(path, make_record, same_record):
    record = make_record(steps=7, **{name: np.roll(AWKWARD, i) for i, name in enumerate(COLUMNS[4:])})
    write_records(path, [record])
    assert same_record(read_records(path)[0], record)
    assert same_record(read_record(path, record.run_id), record)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("evaluations", [0, 1, 5000])
def test_round_trip_of_any_length(path, make_record, same_record, evaluations):
    record = make_record(steps=5000, at=np.arange(evaluations), status="diverged")
    write_records(path, [record])
    assert same_record(read_records(path)[0], record)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_round_trip_of_other_types(path, make_record, same_record, dtype):
    record = make_record(test_loss=np.arange(12).astype(dtype))
    write_records(path, [record])
    assert same_record(read_records(path)[0], record)


def test_a_record_of_an_earlier_state_of_its_data_set_is_read(path, make_record, make_spec, same_record):
    """A configuration may not name another checksum than that of today's data; what is stored may."""
    record = make_record(make_spec(data={"checksum": "d" * 64}))
    write_records(path, [record])
    assert same_record(read_record(path, record.run_id), record)


def test_one_file_holds_many_runs(path, make_record, make_spec, same_record):
    records = [make_record(make_spec(init_seed=s), steps=3 + 5 * s, seed=s) for s in range(6)]
    write_records(path, records)
    assert all(same_record(a, b) for a, b in zip(read_records(path), records, strict=True))
    chosen = [records[4].run_id, records[1].run_id]
    assert [r.run_id for r in read_records(path, chosen)] == chosen
    assert same_record(read_record(path, records[2].run_id), records[2])
    entries = read_headers(path)
    assert list(entries) == [r.run_id for r in records]
    assert [e.steps for e in entries.values()] == [r.steps for r in records]
    assert {e.file for e in entries.values()} == {"run.parquet"}
    assert len({e.sha256 for e in entries.values()}) == 6
    with pytest.raises(KeyError):
        read_records(path, ["0" * 12])


@pytest.mark.parametrize("longer", [0, 1])
def test_runs_with_different_columns_in_one_file(path, make_record, make_spec, same_record, longer):
    """A spec may declare further columns: a bundle holds them exactly, or is refused before anything is written."""
    records = [make_record(make_spec(init_seed=s)) for s in range(2)]
    records[longer].columns["nuclear_norm"] = np.ones(12)
    try:
        write_records(path, records)
    except (UserError, ValueError):
        assert not path.exists()
        return
    assert all(same_record(a, b) for a, b in zip(read_records(path), records, strict=True))


def test_runs_with_different_types_in_one_file(path, make_record, make_spec, same_record):
    records = [make_record(make_spec(init_seed=0)), make_record(make_spec(init_seed=1), lr=np.ones(12, np.float32))]
    try:
        write_records(path, records)
    except (UserError, ValueError):
        assert not path.exists()
        return
    assert all(same_record(a, b) for a, b in zip(read_records(path), records, strict=True))


@pytest.mark.parametrize("folder", ["lr=0.1", "with blank", "ünïcode", "a:b", "100%"])
def test_folders_of_any_name(tmp_path, make_record, same_record, folder):
    """A Parquet reader may take `key=value` in a path for a column."""
    write_records(tmp_path / folder / "run.parquet", [make_record()])
    assert same_record(read_records(tmp_path / folder / "run.parquet")[0], make_record())


def test_prefix_and_serves(make_record):
    record = make_record(steps=100, at=[0, 1, 10, 50, 100])
    assert record.prefix(50)["step"].tolist() == [0, 1, 10, 50]
    assert record.prefix(49)["step"].tolist() == [0, 1, 10]
    assert record.prefix(1000)["step"].tolist() == [0, 1, 10, 50, 100]
    assert len(record.prefix(50)["train_loss"]) == 4
    assert (record.serves(100), record.serves(101)) == (True, False)
    assert make_record(steps=10, status="diverged").serves(10**9)


def test_any_flipped_bit_is_noticed(path, make_record, same_record):
    """Every load raises, or the bit lies where nobody reads."""
    record = make_record()
    write_records(path, [record])
    good = path.read_bytes()
    unread = 0
    for bit in np.random.default_rng(0).choice(8 * len(good), 500, replace=False):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            loaded, line = read_records(path)[0], None
        except UserError as error:
            loaded, line = None, str(error)
        if loaded is None:
            assert str(path) in line
            assert "\n" not in line
        else:
            assert same_record(loaded, record), bit
            unread += 1
    assert unread < 350


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_number_is_noticed_though_the_file_is_whole(path, make_record, column):
    write_records(path, [make_record()])
    table = pq.read_table(path)
    values = table.column(column).to_numpy().copy()
    values[3] = values[3] + 1
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values)), path)
    with pytest.raises(DamagedRecord, match="SHA-256"):
        read_records(path)


@pytest.mark.parametrize("change", [("finished", "diverged"), ('"lr": 0.1', '"lr": 0.2'), ("abc", "abd")])
def test_changed_metadata_is_noticed(path, make_record, change):
    write_records(path, [make_record()])
    table = pq.read_table(path)
    text = table.schema.metadata[b"l2dyn"].decode()
    assert change[0] in text
    pq.write_table(table.replace_schema_metadata({b"l2dyn": text.replace(*change)}), path)
    with pytest.raises(DamagedRecord):
        read_records(path)


@pytest.mark.parametrize("kept", [0, 1, 4, 100, 0.5, -1])
def test_a_truncated_file_is_noticed(path, make_record, kept):
    write_records(path, [make_record()])
    good = path.read_bytes()
    path.write_bytes(good[: int(kept * len(good)) if isinstance(kept, float) else kept])
    for read in (read_records, read_headers, lambda p: read_record(p, make_record().run_id)):
        with pytest.raises(DamagedRecord) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("metadata", [None, {b"l2dyn": b"{}"}, {b"l2dyn": b'{"format": 1, "runs": {"a": {}}}'}])
def test_a_file_of_somebody_else(path, metadata):
    path.parent.mkdir()
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), path)
    with pytest.raises(DamagedRecord):
        read_records(path)


def test_another_format_is_named(path):
    path.parent.mkdir()
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({b"l2dyn": b'{"format": 99, "runs": {}}'}), path)
    with pytest.raises(UserError, match="format 99"):
        read_records(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(UserError, match=r"run\.parquet"):
        read_records(path)


def test_another_runs_file(path, make_record, make_spec):
    write_records(path, [make_record()])
    with pytest.raises(DamagedRecord, match="another run"):
        read_record(path, make_spec(lr=9).run_id)


# --- write_atomically -----------------------------------------------------------------------------


def test_write_atomically(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_written_files_have_ordinary_permissions(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    """A real failure in the middle of writing: the process may not write files longer than 64 KiB."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(UserError) as caught:
            write_atomically(path, bytes(2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_rename_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        write_atomically(tmp_path / "file", b"x")
    assert os.listdir(tmp_path) == ["file"]
    assert os.listdir(tmp_path / "file") == []


# --- folders --------------------------------------------------------------------------------------


def test_folders(workplace, monkeypatch):
    assert results_folder() == workplace / "results"
    assert shipped_folder().resolve() == workplace / "paper_results"
    monkeypatch.setenv("L2DYN_RESULTS", "")
    assert results_folder().resolve() == workplace / "results"
    monkeypatch.chdir(workplace / "config")
    assert shipped_folder().is_absolute()
    assert shipped_folder() != workplace / "paper_results"


def test_jobs_read_and_write_records_without_pandas(tmp_path, make_record):
    """Which takes half a second to import."""
    write_records(tmp_path / "x.parquet", [make_record()])
    code = f"""
import sys
from pathlib import Path
from l2dyn.runs.records import read_records, write_records
path = Path({str(tmp_path / "x.parquet")!r})
write_records(path.with_name("y.parquet"), read_records(path))
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert (tmp_path / "y.parquet").read_bytes() == (tmp_path / "x.parquet").read_bytes()
