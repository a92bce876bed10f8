"""One training job: ask the store what is missing, resume what was begun, train the rest, store each run as it ends."""

import logging
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

import l2dyn
from l2dyn import data
from l2dyn.runs.files import git_revision, sha256
from l2dyn.runs.plan import Task, batches
from l2dyn.runs.records import Record
from l2dyn.runs.spec import NUMERICS_VERSION, FullyConnectedSpec
from l2dyn.runs.store import RunStore
from l2dyn.training.checkpoint import (
    SUFFIX,
    CheckpointTimer,
    Header,
    headers,
    read_checkpoint,
    write_checkpoint,
)
from l2dyn.training.devices import NoDevice, chosen_device, limit_threads, taken_device
from l2dyn.training.ensemble import Ensemble
from l2dyn.training.finished import Finished
from l2dyn.training.precision import products_in
from l2dyn.training.progress import Progress, progress
from l2dyn.training.single_net import SingleNet

log = logging.getLogger(__name__)


@dataclass
class Deadline:
    """When to stop with a checkpoint: at a time limit, or when the process is asked to terminate."""

    limit_s: float | None = None
    margin_s: float = 2.0  # for the last checkpoint; grows to ten times the dearest one seen
    started: float = field(default_factory=time.monotonic)
    asked: bool = False

    def reached(self) -> bool:
        """Whether to stop now."""
        if self.asked:
            return True
        return self.limit_s is not None and time.monotonic() - self.started >= self.limit_s - self.margin_s

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let SIGTERM ask for a stop (only the main thread may listen)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Outcome:
    """What a job did."""

    trained: int
    diverged: int
    found: int
    stopped: bool  # before everything was trained


def train(
    tasks: list[Task],
    store: RunStore,
    device: str = "cpu",
    threads: int = 1,
    deadline: Deadline | None = None,
    data_dir: str | None = None,
    keep_final_state: bool = False,
    bar: bool = False,
) -> Outcome:
    """Train what neither shelf holds; `bar` shows the progress on a terminal.

    Raises UserError for missing data, a full disk, an absent GPU.
    """
    deadline = deadline or Deadline()
    device = chosen_device(device)
    limit_threads(threads)
    missing = [t for t in tasks if not store.has(t.run_id, t.steps)]
    found = len(tasks) - len(missing)
    log.info("%d runs, %d on the shelves, %d to train on %s", len(tasks), found, len(missing), device)
    with deadline.listening():
        try:
            with (
                taken_device(device if missing else "cpu", deadline.reached) as device,
                progress(missing, bar and bool(missing)) as shown,
            ):
                job = _Job(store, device, deadline, data_dir, keep_final_state, shown)
                for begun in job.ensembles(tasks, missing):
                    if deadline.reached() or not job.train(begun):
                        break
        except NoDevice:
            return Outcome(0, 0, found, stopped=True)
    return Outcome(job.trained, job.diverged, found, stopped=bool(job.missing))


class _Job:
    def __init__(
        self,
        store: RunStore,
        device: str,
        deadline: Deadline,
        data_dir: str | None,
        keep_final_state: bool,
        progress: Progress,
    ):
        self.store, self.device, self.deadline, self.progress = store, device, deadline, progress
        self.data_dir, self.keep_final_state = data_dir, keep_final_state
        self.folder = store.results / "checkpoints"
        self.trained = self.diverged = 0
        self.missing: set[str] = set()
        self._samples: dict = {}
        self._provenance = {
            "revision": git_revision(),
            "l2dyn": l2dyn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})",
        }

    def ensembles(self, tasks: list[Task], missing: list[Task]) -> Iterator["_Begun"]:
        """Checkpointed ensembles first, with the members they had then, and new ones for what is left."""
        self.missing = {t.run_id for t in missing}
        known = {t.run_id: t for t in tasks}
        resumed: set[str] = set()
        for header in headers(self.folder):
            members = [known.get(run_id) for run_id in header.run_ids]
            # One with a member that is not this job's, or that is now wanted for longer, is not its to go on with.
            if None in members or [t.steps for t in members] != header.horizons:
                continue
            if not self.missing & set(header.run_ids):
                header.path.unlink(missing_ok=True)
                continue
            begun = self._resumed(header, members)
            if begun is not None:
                resumed |= set(header.run_ids)
                yield begun
        states = {t.run_id: self._final_state(t) for t in missing if t.run_id not in resumed}
        states = {run_id: state for run_id, state in states.items() if state}
        begun = {run_id: state["step"] for run_id, state in states.items()}
        left = [t for t in missing if t.run_id not in resumed]
        for group in batches(left, lambda task: begun.get(task.run_id, 0)):
            yield self._new(group, [states[t.run_id] for t in group if t.run_id in states])

    def train(self, begun: "_Begun") -> bool:
        """Train an ensemble to the end, storing members as they leave; False when stopped with a checkpoint."""
        with products_in(begun.ensemble.tasks[0].spec.precision):
            return self._train(begun)

    def _train(self, begun: "_Begun") -> bool:
        timer = CheckpointTimer()

        def pause(ensemble: Ensemble | SingleNet) -> bool:
            self.progress.advanced(ensemble)
            stop = self.deadline.reached()
            if stop or timer.due():
                cost = begun.checkpoint()
                timer.wrote(cost)
                self.deadline.margin_s = max(self.deadline.margin_s, 10 * cost)
            return stop

        self.progress.begin(begun.ensemble)
        for finished in begun.ensemble.train(pause):
            self._store(finished)
            self.progress.left(finished, begun.ensemble)
        if begun.ensemble.tasks:
            log.info(
                "stopped at step %d with %d runs left, checkpoint written",
                begun.ensemble.step,
                len(begun.ensemble.tasks),
            )
            return False
        begun.path.unlink(missing_ok=True)
        return True

    def _new(self, tasks: list[Task], states: list[dict]) -> "_Begun":
        """An ensemble from its beginning, or from the final states of runs that all ended at one step."""
        ensemble = self._trainer(tasks)
        if states:
            columns = [self.store.load(t.run_id).columns for t in tasks]
            ensemble.load_members(states[0]["step"], states, columns)
        log.info("ensemble of %d runs, %d to %d steps", len(tasks), ensemble.step, tasks[-1].steps)
        return _Begun(ensemble, self.folder)

    def _resumed(self, header: Header, tasks: list[Task]) -> "_Begun | None":
        read = read_checkpoint(header.path)
        if read is None:
            return None
        ensemble = self._trainer(tasks)
        ensemble.load_state_dict(read[1])
        log.info("resumed an ensemble of %d runs at step %d", len(tasks), header.step)
        return _Begun(ensemble, self.folder, header.path)

    def _trainer(self, tasks: list[Task]) -> Ensemble | SingleNet:
        """Fully-connected nets train as a stacked batch, a single one as an ensemble of one; others one by one."""
        kind = Ensemble if isinstance(tasks[0].spec.model, FullyConnectedSpec) else SingleNet
        return kind(tasks, self._samples_of(tasks[0]), self.device)

    def _samples_of(self, task: Task) -> data.Samples:
        spec = task.spec.data
        if spec not in self._samples:
            path = data.prepared_path(spec.name, self.store.results)
            self._samples[spec] = data.samples(spec, data.load(spec.name, path, self.data_dir))
        return self._samples[spec]

    def _store(self, finished: Finished) -> None:
        task = finished.task
        if task.run_id not in self.missing:
            return  # a resumed ensemble trains it again only to keep its company
        record = Record(
            spec=task.spec,
            status=finished.status,
            steps=finished.steps,
            numerics_version=NUMERICS_VERSION,
            columns=finished.columns,
            provenance={**self._provenance, "wall_s": round(finished.wall_s, 3)},
        )
        saved = self.store.save(record)  # not where another job has stored more of this run since
        self.missing.discard(task.run_id)
        if saved and self.keep_final_state and finished.status == "finished":
            state = {**finished.state, "step": finished.steps}
            write_checkpoint(self._final_path(task.run_id), [task.run_id], [finished.steps], state)
        self.trained += 1
        self.diverged += finished.status == "diverged"
        log.info("run %s %s after %d steps (%.1f s)", task.run_id, finished.status, finished.steps, finished.wall_s)

    def _final_path(self, run_id: str) -> Path:
        return self.folder / "final" / f"{run_id}{SUFFIX}"

    def _final_state(self, task: Task) -> dict | None:
        """The kept final state of a shorter finished run, from which it is lengthened; None: it starts anew."""
        entry = self.store.entry(task.run_id)
        if entry is None or self.store.on_shipped_shelf(entry):
            return None
        read = read_checkpoint(self._final_path(task.run_id))
        return read[1] if read and read[1]["step"] == entry.steps else None


class _Begun:
    """An ensemble and the checkpoint file that belongs to it."""

    def __init__(self, ensemble: Ensemble | SingleNet, folder: Path, path: Path | None = None):
        self.ensemble = ensemble
        name = sha256(" ".join(t.run_id for t in ensemble.tasks).encode())[:16]
        self.path = path or folder / f"{name}{SUFFIX}"

    def checkpoint(self) -> float:
        """Write it; returns the seconds it took."""
        run_ids = [t.run_id for t in self.ensemble.tasks]
        horizons = [t.steps for t in self.ensemble.tasks]
        return write_checkpoint(self.path, run_ids, horizons, self.ensemble.state_dict())
