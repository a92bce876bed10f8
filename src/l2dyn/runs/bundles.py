"""Bundles: what the rules of the workflow hand on, and where a training job finds what is already trained."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder
from l2dyn.runs.cache import Cache
from l2dyn.runs.records import DamagedRecord, Record, RecordHeader, read_headers, read_record
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.run import NUMERICS_VERSION

RECORDED = "recorded.parquet"  # the bundle that `rule recorded` writes


class Bundles(Mapping[str, Record]):
    """The records of some bundles by run id, read and verified when they are asked for.

    Where several hold a run, the record that serves more counts, the earlier file's of equals. Iterating and
    `header` look at the files' metadata only. Raises DamagedRecord, which says what to delete, UserError for a
    bundle that does not exist.
    """

    def __init__(self, paths: Iterable[Path]):
        self._held: dict[str, tuple[Path, RecordHeader]] = {}
        for path in map(Path, paths):
            with _remedy_named():
                headers = read_headers(path)
            for run_id, header in headers.items():
                if run_id not in self._held or header.reach > self._held[run_id][1].reach:
                    self._held[run_id] = (path, header)

    def __getitem__(self, run_id: str) -> Record:
        path, _ = self._held[run_id]
        with _remedy_named():
            return read_record(path, run_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def header(self, run_id: str) -> RecordHeader | None:
        """What a run's record says of itself, None where there is none."""
        return self._held[run_id][1] if run_id in self._held else None

    def recorded(self, run_id: str) -> bool:
        """Whether it comes from the shelf."""
        return self._held[run_id][0].name == RECORDED


class Finished:
    """What is finished, wherever it lies: in the cache, on the shelf, in bundles (a damaged one counts as absent).

    bundles: paths, looked at only where the others have nothing.
    """

    def __init__(self, cache: Cache | None = None, shelf: Shelf | None = None, bundles: Iterable[Path] = ()):
        self.cache, self.shelf = cache or Cache(), shelf or Shelf()
        self._paths = list(bundles)
        self._listed: dict[Path, dict[str, RecordHeader]] | None = None

    def header(self, run_id: str) -> RecordHeader | None:
        """Of the record that serves most, of equals the cache's; None where there is none."""
        found = [self.cache.header(run_id), self.shelf.headers.get(run_id)]
        found += [headers[run_id] for headers in self._in_bundles().values() if run_id in headers]
        return max(filter(None, found), key=lambda header: header.reach, default=None)

    def serves(self, run_id: str, steps: int) -> bool:
        """Whether a record answers for a horizon of `steps`; reads no columns."""
        header = self.header(run_id)
        return header is not None and header.serves(steps)

    def load(self, run_id: str, steps: int = 0) -> Record | None:
        """The verified record that serves most, None where none serves `steps`. Raises DamagedRecord for the shelf."""
        found = [self.cache.load(run_id), self.shelf.load(run_id)]
        if not any(record is not None and record.serves(max(steps, 1)) for record in found):
            for path in (path for path, headers in self._in_bundles().items() if run_id in headers):
                try:
                    found.append(read_record(path, run_id))
                except DamagedRecord:
                    continue
        serving = [record for record in found if record is not None and record.serves(steps)]
        return max(serving, key=lambda record: record.reach, default=None)

    def get(self, run_id: str) -> Record | None:
        """The record that serves most, as Bundles.get."""
        return self.load(run_id)

    def recorded(self, run_id: str) -> bool:
        """Whether it comes from the shelf."""
        return self.header(run_id) is not None and self.header(run_id) is self.shelf.headers.get(run_id)

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
