"""Bundles: what the rules of the workflow hand on, and where a training job finds what is already trained."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder
from l2dyn.runs.cache import Cache
from l2dyn.runs.records import (
    DamagedRecord,
    Record,
    RecordHeader,
    read_headers,
    read_record,
    read_records,
    recorded_ids,
)
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.run import NUMERICS_VERSION

RECORDED = "recorded.parquet"  # the bundle that `rule recorded` writes


class Bundles(Mapping[str, Record]):
    """The records of some bundles by run id, a file read and verified when one of its runs is asked for.

    Where several hold a run, the record that serves more counts, the earlier file's of equals. Iterating and `header`
    look at the files' metadata only.

    Raises:
        DamagedRecord: which says what to delete.
        UserError: for a bundle that does not exist.
    """

    def __init__(self, paths: Iterable[Path]):
        self._held: dict[str, tuple[Path, RecordHeader]] = {}
        self._recorded: dict[Path, set[str]] = {}
        self._read: dict[Path, dict[str, Record]] = {}
        for path in map(Path, paths):
            with _remedy_named():
                headers = read_headers(path)
                self._recorded[path] = recorded_ids(path) if path.name == RECORDED else set()
            for run_id, header in headers.items():
                if run_id not in self._held or header.reach > self._held[run_id][1].reach:
                    self._held[run_id] = (path, header)

    def __getitem__(self, run_id: str) -> Record:
        path, _ = self._held[run_id]
        if path not in self._read:  # all that is held of it, since decoding the file is what takes time
            with _remedy_named():
                records = read_records(path, [i for i, (where, _) in self._held.items() if where == path])
            self._read[path] = {record.run_id: record for record in records}
        return self._read[path][run_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def header(self, run_id: str) -> RecordHeader | None:
        """What a run's record says of itself, None where there is none."""
        return self._held[run_id][1] if run_id in self._held else None

    def recorded(self, run_id: str) -> bool:
        """Whether it comes from the shelf."""
        return run_id in self._recorded[self._held[run_id][0]]


class Finished:
    """What is finished, wherever it lies: in the cache, on the shelf, in bundles (a damaged one counts as absent).

    bundles: paths. Where several have a run, the record that serves more counts; of equals the cache's, then the
    shelf's.
    """

    def __init__(self, cache: Cache | None = None, shelf: Shelf | None = None, bundles: Iterable[Path] = ()):
        self.cache, self.shelf = cache or Cache(), shelf or Shelf()
        self._paths = list(bundles)
        self._listed: dict[Path, dict[str, RecordHeader]] | None = None

    def header(self, run_id: str) -> RecordHeader | None:
        """Of the record that serves most, None where there is none."""
        return next((header for header, _ in self._held(run_id)), None)

    def serves(self, run_id: str, steps: int) -> bool:
        """Whether a record answers for a horizon of `steps`; reads no columns."""
        header = self.header(run_id)
        return header is not None and header.serves(steps)

    def load(self, run_id: str, steps: int = 0, measured: Iterable[int] = ()) -> Record | None:
        """The verified record that serves most, None where none serves `steps` and was measured at those asked for.

        Raises:
            DamagedRecord: for the shelf.
            UserError: for what cannot be read now.
        """
        measured = list(measured)
        if self.cache.header(run_id) is None:
            self.cache.load(run_id)  # which sets a damaged one aside
        for header, read in self._held(run_id):
            if header.serves(steps):
                record = read()
                if record is not None and record.serves(steps) and record.measured_at(measured):
                    return record
        return None

    def get(self, run_id: str) -> Record | None:
        """The record that serves most, as Bundles.get."""
        return self.load(run_id)

    def recorded(self, run_id: str) -> bool:
        """Whether it comes from the shelf."""
        return self.header(run_id) is not None and self.header(run_id) is self.shelf.headers.get(run_id)

    def _held(self, run_id: str) -> list[tuple[RecordHeader, Callable[[], Record | None]]]:
        """What there is of a run, and how to read it; what serves more comes first."""
        found = [(header, functools.partial(self._of_bundle, path, run_id)) for path, header in self._bundled(run_id)]
        if (header := self.shelf.headers.get(run_id)) is not None:
            found.insert(0, (header, functools.partial(self.shelf.load, run_id)))
        if (header := self.cache.header(run_id)) is not None:
            found.insert(0, (header, functools.partial(self.cache.load, run_id)))
        return sorted(found, key=lambda held: held[0].reach, reverse=True)  # stable

    def _bundled(self, run_id: str) -> list[tuple[Path, RecordHeader]]:
        return [(path, headers[run_id]) for path, headers in self._in_bundles().items() if run_id in headers]

    @staticmethod
    def _of_bundle(path: Path, run_id: str) -> Record | None:
        try:
            return read_record(path, run_id)
        except DamagedRecord:
            return None

    def _in_bundles(self) -> dict[Path, dict[str, RecordHeader]]:
        """Headers of the bundles' records that count, by path; a bundle is read once."""
        if self._listed is None:
            self._listed = {}
            for path in self._paths:
                try:
                    headers = read_headers(path)
                except UserError:
                    continue
                current = {i: h for i, h in headers.items() if h.numerics_version >= NUMERICS_VERSION}
                self._listed[path] = current
        return self._listed


def earlier_bundles(scale: str, experiment: str = "*") -> list[Path]:
    """The bundles that lie in an experiment's folder, or in those of all, whatever slices they are of."""
    found = (results_folder() / scale).glob(f"{experiment}/runs/*.parquet")
    return sorted(path for path in found if path.name != RECORDED)


@contextmanager
def _remedy_named() -> Iterator[None]:
    """Adds to the error of a damaged bundle what to do about it."""
    try:
        yield
    except DamagedRecord as damage:
        remedy = f"delete {damage.path} and call again; runs that the cache has are not trained again"
        raise DamagedRecord(damage.path, damage.run_id, damage.reason, remedy) from None
