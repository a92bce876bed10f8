"""Records of runs as Parquet files: one file holds one run (the cache) or many (a bundle).

A file's metadata holds, for each run, its spec, status, numerics version, provenance and a SHA-256 over metadata and
columns, which every load verifies: no common format notices a flipped bit by itself.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from l2dyn.errors import UserError
from l2dyn.files import cannot_be_read, write_atomically
from l2dyn.specs.base import canonical_json, to_dict
from l2dyn.specs.run import RunSpec

COLUMNS = (
    "step",
    "epoch",
    "lr",
    "l2",
    "train_loss",  # mean over samples, without the penalty
    "train_error",  # fraction
    "test_loss",
    "test_accuracy",  # fraction
    "param_norm",  # ‖θ‖ over all parameters
)
# on the spec's kernel_samples: ‖Θ‖, Frobenius, and how far it has turned, 1 − ⟨Θ, Θ₀⟩/(‖Θ‖·‖Θ₀‖), NaN where ‖Θ‖ = 0
KERNEL = ("kernel_norm", "kernel_rotation")
FORMAT = 1
_KEY = b"l2dyn"


def columns_of(spec: RunSpec) -> tuple[str, ...]:
    """The columns of a run's record."""
    return (*COLUMNS, *KERNEL) if spec.kernel_samples else COLUMNS


class DamagedRecord(UserError):
    """A record that is not what was written."""

    def __init__(self, path: Path, run_id: str | None, reason: str, remedy: str = ""):
        self.path, self.run_id, self.reason = Path(path), run_id, reason
        whose = f" of run {run_id}" if run_id else ""
        super().__init__(f"{path}: damaged record{whose} ({reason})" + (f"; {remedy}" if remedy else ""))


class NoBundle(DamagedRecord):
    """A file that holds no records, or whose header is damaged."""


@dataclass(frozen=True)
class Record:
    """One trained run. `columns` maps each of columns_of(spec) to an array [evaluations]; `steps` were trained."""

    spec: RunSpec
    status: str  # "finished" or "diverged"
    steps: int
    numerics_version: int
    columns: dict[str, np.ndarray]
    provenance: dict = field(default_factory=dict)  # git revision, package versions, device, wall_s

    @property
    def run_id(self) -> str:
        """The spec's id."""
        return self.spec.run_id

    def serves(self, steps: int) -> bool:
        """Whether this record answers for a horizon of `steps` (a diverged run answers for any)."""
        return self.status == "diverged" or self.steps >= steps

    @property
    def reach(self) -> tuple[bool, int]:
        """What to compare two records of one run by: the greater one serves more horizons."""
        return self.status == "diverged", self.steps

    def status_at(self, steps: int) -> str:
        """The status at a horizon: finished (also where it diverged only later), diverged, or short of it."""
        if not self.serves(steps):
            return "short"
        return "diverged" if self.status == "diverged" and self.steps <= steps else "finished"

    def measured_at(self, steps: Iterable[int]) -> bool:
        """Whether it was measured at all of these steps, or diverged before those at which it was not."""
        lacking = set(steps) - set(self.columns["step"].tolist())
        return not lacking or (self.status == "diverged" and min(lacking) >= self.steps)

    def prefix(self, steps: int, at: Iterable[int] | None = None) -> dict[str, np.ndarray]:
        """The columns up to and including `steps`.

        at: as if only these steps had been measured, so that runs which other experiments measure more often compare
        fairly; for a step that was not, the last evaluation before it.
        """
        count = int(np.searchsorted(self.columns["step"], steps, side="right"))
        chosen = np.arange(count)
        if at is not None:
            chosen = np.unique(np.searchsorted(self.columns["step"][:count], list(at), side="right") - 1)
            chosen = chosen[chosen >= 0]
        return {name: values[:count][chosen] for name, values in self.columns.items()}


@dataclass(frozen=True)
class RecordHeader:
    """What can be known of a record without reading its columns."""

    run_id: str
    file: str
    status: str
    steps: int
    numerics_version: int
    sha256: str
    wall_s: float = 0.0

    def serves(self, steps: int) -> bool:
        """As Record.serves."""
        return self.status == "diverged" or self.steps >= steps

    @property
    def reach(self) -> tuple[bool, int]:
        """As Record.reach."""
        return self.status == "diverged", self.steps


def write_records(path: Path, records: Iterable[Record], recorded: Iterable[str] = ()) -> None:
    """Write the records into one file, atomically; a column that a run lacks is empty in its rows.

    recorded: the ids of those that come from the shelf, which the file notes (recorded_ids).

    Raises:
        UserError: when the file cannot be written.
        ValueError: for a column that has another type in another run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = list(records)
    table = {"run_id": _owners(records)}
    for name in dict.fromkeys(name for record in records for name in record.columns):
        kind = next(_array(r.columns[name]).type for r in records if name in r.columns)
        parts = []
        for record in records:
            held = name in record.columns
            parts.append(_array(record.columns[name]) if held else pa.nulls(len(record.columns["step"]), kind))
            if parts[-1].type != kind:
                raise ValueError(f"column {name} of run {record.run_id} is {parts[-1].type}, not {kind} as in others")
        table[name] = pa.concat_arrays(parts)
    meta = {r.run_id: _meta(r) for r in records}
    header = {"format": FORMAT, "runs": meta}
    if shipped := sorted(set(recorded) & set(meta)):
        header["recorded"] = shipped
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(table).replace_schema_metadata({_KEY: json.dumps(header)}), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_headers(path: Path) -> dict[str, RecordHeader]:
    """The headers of a file, from its metadata alone.

    Raises:
        DamagedRecord: where they are not what was written.
        UserError: where the file cannot be read now.
    """
    return {
        run_id: RecordHeader(
            run_id,
            Path(path).name,
            m["status"],
            m["steps"],
            m["numerics_version"],
            m["sha256"],
            float(m.get("provenance", {}).get("wall_s", 0.0)),
        )
        for run_id, m in _read_header(path)["runs"].items()
    }


def recorded_ids(path: Path) -> set[str]:
    """Which runs of a file came from the shelf, as it notes. Raises as read_headers does."""
    return set(_read_header(path).get("recorded", ()))


def read_records(path: Path, run_ids: Iterable[str] | None = None) -> list[Record]:
    """The verified records of a file, or those asked for.

    Raises:
        DamagedRecord: when the file cannot be decoded or a digest does not fit.
        UserError: when it cannot be read now.
        KeyError: for an id it does not hold.
    """
    import pyarrow.parquet as pq

    header = _read_header(path)
    try:
        with pq.ParquetFile(path) as file:  # read_table takes half a second to import what it needs
            table = file.read()
        owner = np.array(table.column("run_id").to_pylist(), dtype=str)
        held = {run_id: list(meta["columns"]) for run_id, meta in header["runs"].items()}
    except Exception as error:  # any failure to decode the file means the same: it is damaged
        _refuse_unreadable(path, error)
        raise DamagedRecord(path, _only(header["runs"]), _first_line(error)) from None
    wanted = list(header["runs"] if run_ids is None else run_ids)
    records = []
    for run_id in wanted:
        meta = header["runs"][run_id]
        rows = np.flatnonzero(owner == run_id)
        first, count = (int(rows[0]), len(rows)) if len(rows) else (0, 0)  # its rows stand together, or no digest fits
        try:
            columns = {name: _values(table.column(name).slice(first, count)) for name in held[run_id]}
        except KeyError as error:
            raise DamagedRecord(path, run_id, f"no column {error}") from None
        records.append(_verified(path, run_id, meta, columns))
    return records


def read_record(path: Path, run_id: str) -> Record:
    """The verified record of one run.

    Raises:
        DamagedRecord: where it is not what was written.
    """
    try:
        return read_records(path, [run_id])[0]
    except KeyError:
        raise DamagedRecord(path, run_id, "the file holds another run") from None


_NUMPY_NAMES = {"float": "float32", "double": "float64", "int32": "int32", "int64": "int64"}  # of Arrow's types


# pyarrow.array and to_numpy give the same as the next three, but import pandas, half a second in every job
def _owners(records: list[Record]):
    """The column run_id: each record's id, once for each of its rows."""
    import pyarrow as pa

    ids = [record.run_id for record in records]
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    names = pa.StringArray.from_buffers(len(ids), pa.py_buffer(ends), pa.py_buffer("".join(ids).encode()))
    rows = [len(record.columns["step"]) for record in records]
    return pa.DictionaryArray.from_arrays(_array(np.repeat(np.arange(len(ids), dtype=np.int32), rows)), names)


def _array(values: np.ndarray):
    """A column of numbers as an array of Arrow."""
    import pyarrow as pa

    if values.dtype.name not in _NUMPY_NAMES.values():
        return pa.array(values)
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _values(column) -> np.ndarray:
    """A column of a table as NumPy has it."""
    kind = _NUMPY_NAMES.get(str(column.type))
    if kind is None or column.null_count:
        return column.to_numpy()
    parts = [np.frombuffer(c.buffers()[1], kind)[c.offset : c.offset + len(c)] for c in column.chunks if len(c)]
    return np.concatenate([np.empty(0, kind), *parts])


def digest(meta: dict, columns: dict[str, np.ndarray]) -> str:
    """SHA-256 over a run's metadata (without its digest) and columns."""
    out = hashlib.sha256(canonical_json({k: v for k, v in meta.items() if k != "sha256"}).encode())
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        out.update(f"{name} {values.dtype.str} {len(values)}".encode())
        out.update(values.tobytes())
    return out.hexdigest()


def _meta(record: Record) -> dict:
    meta = {
        "spec": to_dict(record.spec),
        "status": record.status,
        "steps": int(record.steps),
        "numerics_version": record.numerics_version,
        "columns": list(record.columns),
        "provenance": record.provenance,
    }
    meta["sha256"] = digest(meta, record.columns)
    return meta


def _verified(path: Path, run_id: str, meta: dict, columns: dict[str, np.ndarray]) -> Record:
    if digest(meta, columns) != meta.get("sha256"):
        raise DamagedRecord(path, run_id, "its SHA-256 does not fit")
    try:
        spec = RunSpec.model_validate(meta["spec"])
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: run {run_id} was written by another version of l2dyn ({reason})") from None
    if spec.run_id != run_id:
        raise DamagedRecord(path, run_id, "its spec has another id")
    return Record(spec, meta["status"], meta["steps"], meta["numerics_version"], columns, meta["provenance"])


def _read_header(path: Path) -> dict:
    import pyarrow.parquet as pq

    try:
        header = json.loads(pq.read_metadata(path).metadata[_KEY])
        for meta in header["runs"].values():
            meta["status"], meta["steps"], meta["numerics_version"], meta["sha256"], meta["provenance"]
        version = header["format"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # whatever the decoder says: the file is not what was written
        _refuse_unreadable(path, error)
        raise NoBundle(path, None, _first_line(error)) from None
    if version != FORMAT:
        raise UserError(f"{path}: written in format {version}, this version of l2dyn reads {FORMAT}")
    return header


def _refuse_unreadable(path: Path, error: Exception) -> None:
    """Raise UserError for what says nothing about the file: too many open files, too little memory, a lost disk."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise cannot_be_read(path, error) from None


def _only(runs: dict) -> str | None:
    return next(iter(runs)) if len(runs) == 1 else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
