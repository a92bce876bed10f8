"""The run store: records on two shelves, so that a run found on either is never trained again.

`results/runs/<run_id>.parquet` is written by training. `paper_results/runs/` ships with the project and is read-only:
bundles, listed in its manifest.json. An older numerics version counts as missing in `results/` and as present on the
shipped shelf.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.runs.files import results_folder, set_aside, shipped_folder, write_atomically
from l2dyn.runs.records import DamagedRecord, Entry, Record, read_entries, read_record, read_records, write_records
from l2dyn.runs.spec import NUMERICS_VERSION

MANIFEST = "manifest.json"


class RunStore:
    """Where records are looked for and put.

    reuse: whether the shipped shelf counts.
    """

    def __init__(self, results: Path | None = None, shipped: Path | None = None, reuse: bool = True):
        self.results = Path(results) if results is not None else results_folder()
        self.shipped = Path(shipped) if shipped is not None else shipped_folder()
        self.reuse = reuse
        self._manifest: dict[str, Entry] | None = None

    def path(self, run_id: str) -> Path:
        """Where training puts a run's record."""
        return self.results / "runs" / f"{run_id}.parquet"

    def trained(self, run_id: str) -> bool:
        """Whether `results/` holds a file for this run; looks at the name only."""
        return self.path(run_id).exists()

    def shipped_entries(self) -> dict[str, Entry]:
        """The shipped shelf's runs by id; empty when it is not to be reused. Raises UserError for a bad manifest."""
        if not self.reuse:
            return {}
        if self._manifest is None:
            self._manifest = read_manifest(self.shipped / "runs")
        return self._manifest

    def entry(self, run_id: str) -> Entry | None:
        """The best that either shelf has of a run: the one that serves more, of two equal ones that of `results/`.

        Raises DamagedRecord for an unreadable file.
        """
        own = None
        if self.trained(run_id):
            own = read_entries(self.path(run_id)).get(run_id)
            if own is None:
                raise DamagedRecord(self.path(run_id), run_id, "the file holds another run")
            if own.numerics_version < NUMERICS_VERSION:
                read_record(self.path(run_id), run_id)  # so that a flipped bit does not make it look old
                own = None
        shipped = self.shipped_entries().get(run_id)
        if own is None or shipped is None:
            return own or shipped
        return shipped if shipped.reaches() > own.reaches() else own

    def has(self, run_id: str, steps: int) -> bool:
        """Whether either shelf serves a horizon of `steps`. A damaged file is handled as load does."""
        try:
            entry = self.entry(run_id)
        except DamagedRecord as damage:
            raise self._dealt_with(damage, run_id) from None
        return entry is not None and entry.serves(steps)

    def load(self, run_id: str) -> Record | None:
        """The verified record of a run, None when there is none.

        A damaged file in `results/` is set aside, and the markers that list the run are removed, so that the next
        call trains it. Raises DamagedRecord then, and for a damaged shipped file, which is never moved.
        """
        try:
            entry = self.entry(run_id)
            if entry is None:
                return None
            if not self.on_shipped_shelf(entry):
                return read_record(self.path(run_id), run_id)
            return self._shipped_record(entry)
        except DamagedRecord as damage:
            raise self._dealt_with(damage, run_id) from None

    def on_shipped_shelf(self, entry: Entry) -> bool:
        """Whether this entry is the shipped one."""
        return self.shipped_entries().get(entry.run_id) is entry

    def save(self, record: Record) -> bool:
        """Put a record on the shelf in `results/`, atomically; False where the one there serves more, which stays.

        A damaged one is replaced, and one of an older numerics version. Raises UserError when it cannot be written.
        """
        if self._holds_more(record):
            return False
        write_records(self.path(record.run_id), [record])
        return True

    def _holds_more(self, record: Record) -> bool:
        """Whether another job has meanwhile put a record into `results/` that serves more than this one."""
        if not self.trained(record.run_id):
            return False
        try:
            own = read_record(self.path(record.run_id), record.run_id)
        except UserError:
            return False
        return _worth(own) > _worth(record)

    def _shipped_record(self, entry: Entry) -> Record:
        path = self.shipped / "runs" / entry.file
        if not path.exists():
            raise DamagedRecord(path, entry.run_id, "the file is missing")
        if read_entries(path).get(entry.run_id) != entry:
            raise DamagedRecord(path, entry.run_id, f"it is not the record that {MANIFEST} lists")
        return read_record(path, entry.run_id)

    def _dealt_with(self, damage: DamagedRecord, run_id: str) -> DamagedRecord:
        if damage.path.parent == self.shipped / "runs":
            remedy = f"restore it with: git checkout -- {damage.path}"
        else:
            aside = set_aside(damage.path)
            remove_markers_listing(self.results, {run_id})
            remedy = f"set aside as {aside.name}, the next call trains it again"
        return DamagedRecord(damage.path, run_id, damage.reason, remedy)


def _worth(record: Record) -> tuple[int, bool, int]:
    """What to compare two records of one run by: the newer numerics version, then as Entry.reaches."""
    return record.numerics_version, record.status == "diverged", record.steps


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of a shelf of bundles by run id; empty when there is no manifest."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return {}
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        entries = {run_id: Entry(run_id, **values) for run_id, values in runs.items()}
        for entry in entries.values():
            for field in dataclasses.fields(Entry):
                if type(getattr(entry, field.name)) is not field.type:
                    raise TypeError(f"{field.name} of run {entry.run_id} is not of type {field.type.__name__}")
        return entries
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged manifest ({error}); restore it with: git checkout -- {path}") from None


def write_manifest(folder: Path) -> int:
    """Index every bundle of a shelf in its manifest.json, and return how many runs it lists.

    Where two bundles hold one run, the record that serves more counts. Verifies every record; raises DamagedRecord.
    """
    folder = Path(folder)
    runs: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.parquet")):
        read_records(path)
        for run_id, entry in read_entries(path).items():
            if run_id not in runs or entry.reaches() > runs[run_id].reaches():
                runs[run_id] = entry
    listed = {run_id: {k: v for k, v in vars(entry).items() if k != "run_id"} for run_id, entry in sorted(runs.items())}
    write_atomically(folder / MANIFEST, (json.dumps({"runs": listed}, indent=1) + "\n").encode())
    return len(runs)


def markers(results: Path) -> dict[Path, list[str]]:
    """Every slice marker below `results/` and the run ids that it lists; an unreadable one lists nothing."""
    return {path: marker_runs(path) for path in Path(results).glob("*/*/slices/*.done")}


def marker_runs(path: Path) -> list[str]:
    """The run ids that a marker lists; none when it is missing or unreadable."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return listed if isinstance(listed, list) and all(isinstance(run_id, str) for run_id in listed) else []


def remove_markers_listing(results: Path, run_ids: set[str]) -> int:
    """Remove the markers that list any of these runs, and return how many."""
    doomed = [path for path, listed in markers(results).items() if run_ids & set(listed)]
    for path in doomed:
        path.unlink(missing_ok=True)
    return len(doomed)


def remove_stale_markers(results: Path, present: Iterable[str]) -> int:
    """Remove the markers that list a run whose record is on neither shelf, and return how many.

    present: ids on the shipped shelf.
    """
    known = set(present) | {path.stem for path in (Path(results) / "runs").glob("*.parquet")}
    doomed = [path for path, listed in markers(results).items() if not listed or set(listed) - known]
    for path in doomed:
        path.unlink(missing_ok=True)
    return len(doomed)
