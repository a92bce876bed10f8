"""The cache: `results/cache/`, one record for each finished run, stored the moment it finishes, and checkpoints.

It saves work and decides nothing: whoever deletes it loses time only. A record of an older numerics version counts as
missing; a damaged one is set aside and trained again.
"""

import logging
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder, set_aside
from l2dyn.runs.records import DamagedRecord, Record, RecordHeader, read_headers, read_record, write_records
from l2dyn.specs.run import NUMERICS_VERSION

log = logging.getLogger(__name__)


class Cache:
    """Records by run id below `results`, the results folder."""

    def __init__(self, results: Path | None = None):
        self.folder = (Path(results) if results is not None else results_folder()) / "cache"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def path(self, run_id: str) -> Path:
        """Where a run's record lies."""
        return self.folder / "runs" / f"{run_id}.parquet"

    def header(self, run_id: str) -> RecordHeader | None:
        """What the record says of itself, None where there is none that counts."""
        if not self.path(run_id).exists():
            return None
        try:
            header = read_headers(self.path(run_id)).get(run_id)
        except UserError:
            return None  # `load` says so and sets it aside
        return header if header is not None and header.numerics_version >= NUMERICS_VERSION else None

    def load(self, run_id: str) -> Record | None:
        """The verified record, None where there is none that counts; a damaged one is set aside with a warning.

        Raises:
            UserError: where it cannot be read now, or was written in another format.
        """
        path = self.path(run_id)
        if not path.exists():
            return None
        try:
            record = read_record(path, run_id)
        except DamagedRecord as damage:
            aside = set_aside(path)
            log.warning("l2dyn: %s; set aside as %s, the run is trained again", damage, aside.name)
            return None
        return record if record.numerics_version >= NUMERICS_VERSION else None

    def save(self, record: Record) -> bool:
        """Store a record, atomically; False where the one there is of a newer numerics version or answers for more.

        It answers for more where it reaches as far and was measured wherever this one was.

        Raises:
            UserError: when it cannot be written.
        """
        held = self.load(record.run_id)
        if held is not None and (record.numerics_version, record.reach) <= (held.numerics_version, held.reach):
            newer = held.numerics_version > record.numerics_version
            if newer or held.measured_at(record.columns["step"].tolist()):
                return False
        write_records(self.path(record.run_id), [record])
        return True
