"""The shelf: `paper_results/runs/`, the recorded runs that ship with the project, as bundles listed in a manifest.

It is read-only but for `l2dyn ship`. A record of an older numerics version counts here; figures name it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import shipped_folder, write_atomically
from l2dyn.runs.records import (
    DamagedRecord,
    Record,
    RecordHeader,
    read_headers,
    read_record,
    read_records,
    write_records,
)
from l2dyn.specs.base import canonical_json

MANIFEST = "manifest.json"
REMEDY = "restore it with: git checkout -- {}"


class Shelf:
    """The shipped records; an empty shelf where `reuse` is false. folder: that of the bundles."""

    def __init__(self, folder: Path | None = None, reuse: bool = True):
        self.folder = Path(folder) if folder is not None else shipped_folder() / "runs"
        self.reuse = reuse
        self._headers: dict[str, RecordHeader] | None = None
        self._read: dict[Path, dict[str, Record]] = {}

    @property
    def headers(self) -> dict[str, RecordHeader]:
        """What the manifest lists, by run id.

        Raises:
            UserError: for a damaged manifest.
        """
        if self._headers is None:
            self._headers = read_manifest(self.folder) if self.reuse else {}
        return self._headers

    def serves(self, run_id: str, steps: int) -> bool:
        """Whether it has the run up to a horizon."""
        return run_id in self.headers and self.headers[run_id].serves(steps)

    def recorded(self, run_id: str) -> bool:
        """Whether it is one of the shelf's, as Bundles.recorded."""
        return run_id in self.headers

    def load(self, run_id: str) -> Record | None:
        """The verified record, None where there is none.

        Raises:
            DamagedRecord: which names the remedy.
        """
        header = self.headers.get(run_id)
        if header is None:
            return None
        path = self.folder / header.file
        try:
            if not path.exists():
                raise DamagedRecord(path, run_id, "the file is missing")
            if path not in self._read:  # all of it, since decoding the file is what takes time
                self._read[path] = self._listed(path)
            if run_id in self._read[path]:
                return self._read[path][run_id]
            if read_headers(path).get(run_id) != header:
                raise DamagedRecord(path, run_id, f"it is not the record that {MANIFEST} lists")
            return read_record(path, run_id)
        except DamagedRecord as damage:
            raise DamagedRecord(path, run_id, damage.reason, REMEDY.format(path)) from None

    def _listed(self, path: Path) -> dict[str, Record]:
        """A file's records that the manifest lists as they are; none where one is damaged: then each is read alone."""
        listed = [run_id for run_id, header in read_headers(path).items() if self.headers.get(run_id) == header]
        try:
            return {record.run_id: record for record in read_records(path, listed)}
        except DamagedRecord:
            return {}

    def key(self, run_ids: Iterable[str]) -> str:
        """Hash of what the shelf holds of these runs."""
        held = [[i, self.headers[i].steps, self.headers[i].sha256] for i in run_ids if i in self.headers]
        return hashlib.sha256(canonical_json(held).encode()).hexdigest()[:10]


def read_manifest(folder: Path) -> dict[str, RecordHeader]:
    """The headers of a shelf's records by run id; empty when there is no manifest."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return {}
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        names = {field.name for field in dataclasses.fields(RecordHeader)}
        held = {run_id: {k: v for k, v in values.items() if k in names} for run_id, values in runs.items()}
        headers = {run_id: RecordHeader(run_id, **values) for run_id, values in held.items()}
        for header in headers.values():
            for field in dataclasses.fields(RecordHeader):
                if type(getattr(header, field.name)) is not field.type:
                    raise TypeError(f"{field.name} of run {header.run_id} is not of type {field.type.__name__}")
        return headers
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged manifest ({error}); restore it with: git checkout -- {path}") from None


def put_on_shelf(folder: Path, name: str, records: Iterable[Record], planned: Iterable[str]) -> tuple[int, int]:
    """Write an experiment's bundle with what it held before, then the manifest; (runs of the bundle, runs dropped).

    planned: the ids of the experiment's runs; what the bundle holds besides is dropped. Of two records of a run the
    one of the newer numerics version stays, then the one that serves more, then the older one.

    Raises:
        DamagedRecord: which names the remedy, before anything is written.
    """
    folder, path = Path(folder), Path(folder) / f"{name}.parquet"
    for other in sorted(set(folder.glob("*.parquet")) - {path}):
        _verified(other)
    held = {record.run_id: record for record in (_verified(path) if path.exists() else ())}
    planned, kept = set(planned), {}
    for record in [*held.values(), *records]:
        earlier = kept.get(record.run_id)
        worth = (record.numerics_version, record.reach)
        if record.run_id in planned and (earlier is None or worth > (earlier.numerics_version, earlier.reach)):
            kept[record.run_id] = record
    write_records(path, kept.values())
    write_manifest(folder)
    return len(kept), len(set(held) - planned)


def write_manifest(folder: Path) -> int:
    """Index every bundle of a shelf in its manifest.json, and return how many runs it lists.

    Beside the header of each run stand its seeds and what it was made with. Where two bundles hold one run, the record
    that serves more counts.

    Raises:
        DamagedRecord: which names the remedy; every record is verified.
    """
    folder = Path(folder)
    runs: dict[str, RecordHeader] = {}
    told: dict[str, dict] = {}
    for path in sorted(folder.glob("*.parquet")):
        records = {record.run_id: record for record in _verified(path)}
        for run_id, header in read_headers(path).items():
            if run_id not in runs or header.reach > runs[run_id].reach:
                spec, made_with = records[run_id].spec, dict(records[run_id].provenance)
                made_with.pop("wall_s", None)
                runs[run_id] = header
                told[run_id] = {"seeds": [spec.init_seed, spec.order_seed], "made_with": made_with}
    listed = {i: {k: v for k, v in vars(header).items() if k != "run_id"} for i, header in sorted(runs.items())}
    listed = {i: values | told[i] for i, values in listed.items()}
    write_atomically(folder / MANIFEST, (json.dumps({"runs": listed}, indent=1) + "\n").encode())
    return len(runs)


def _verified(path: Path) -> list[Record]:
    try:
        return read_records(path)
    except DamagedRecord as damage:
        raise DamagedRecord(path, damage.run_id, damage.reason, REMEDY.format(path)) from None
