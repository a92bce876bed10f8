"""One training job: look what is missing, resume what has a checkpoint, train the rest, save each run as it ends."""

import contextlib
import logging
import platform
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

import l2dyn
from l2dyn.data import arrays
from l2dyn.data.samples import Samples, samples
from l2dyn.files import git_revision, sha256
from l2dyn.runs.bundles import Finished
from l2dyn.runs.checkpoint_header import SUFFIX, Header, resumable
from l2dyn.runs.plan import Task, stacks
from l2dyn.runs.records import Record
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.run import NUMERICS_VERSION
from l2dyn.training.checkpoint import CheckpointTimer, headers, read_checkpoint, write_checkpoint
from l2dyn.training.devices import NoDevice, chosen_device, limit_threads, taken_device
from l2dyn.training.dispatch import trainer_for
from l2dyn.training.precision import products_in
from l2dyn.training.progress import Progress, progress
from l2dyn.training.trainer import Ended, Trainer

log = logging.getLogger(__name__)


MARGIN_S = 2.0  # kept before a time limit at least


@dataclass
class Deadline:
    """When to stop with a checkpoint: before a time limit, or when the process is asked to terminate.

    limit_s: seconds from `started` on, None for no limit. longest_s: the longest time between two looks at the clock.
    checkpoint_s: the cost of the dearest checkpoint.
    """

    limit_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    asked: bool = False
    longest_s: float = 0.0
    checkpoint_s: float = 0.0
    _looked: float | None = None

    def reached(self) -> bool:
        """Look at the clock: whether to stop now."""
        now = time.monotonic()
        if self._looked is not None:
            self.longest_s = max(self.longest_s, now - self._looked)
        self._looked = now
        return self.asked or (self.limit_s is not None and now - self.started >= self.limit_s - self.margin_s)

    @property
    def margin_s(self) -> float:
        """Seconds before the limit at which to stop: for what may come before the next look, and for a checkpoint."""
        least = MARGIN_S if self.limit_s is None else min(MARGIN_S, 0.2 * self.limit_s)
        return max(least, 1.5 * self.longest_s + 10 * self.checkpoint_s)

    @contextlib.contextmanager
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
    finished: Finished,
    device: str = "cpu",
    threads: int = 1,
    deadline: Deadline | None = None,
    data_dir: str | None = None,
    bar: bool = False,
    micro_batch: int = 0,
) -> Outcome:
    """Train what is not finished yet, saving each run in `finished.cache` as it ends.

    deadline: when to stop with a checkpoint; a time limit counts after the first stretch of steps, so that every call
    gets on. Checkpoints that nobody will go on with are removed, whosever they are.

    device: "cpu", "cuda" or "auto". threads: of a CPU. data_dir: a folder of real data, None to download them. bar:
    show the progress on a terminal. micro_batch: see SingleTrainer.

    Raises:
        UserError: for missing data, a full disk, an absent GPU, a batch-norm group that does not fit into memory, a
            checkpoint that cannot be read now.
    """
    deadline = deadline or Deadline()
    device = chosen_device(device)
    limit_threads(threads)
    # loaded, not looked up: a record whose header is whole may be damaged further on, or was measured elsewhere
    missing = [task for task in tasks if finished.load(task.run_id, task.steps, task.evaluations()) is None]
    found = len(tasks) - len(missing)
    log.info("%d runs, %d found, %d to train on %s", len(tasks), found, len(missing), device)
    with deadline.listening():
        try:
            with (
                taken_device(device if missing else "cpu", deadline.reached) as device,
                progress(missing, bar and bool(missing)) as shown,
            ):
                job = _Job(finished, device, deadline, data_dir, shown, micro_batch)
                for trainer, path in job.trainers(tasks, missing):
                    if job.stop() or not job.train(trainer, path):
                        break
        except NoDevice:
            return Outcome(0, 0, found, stopped=True)
    return Outcome(job.trained, job.diverged, found, stopped=bool(job.missing))


class _Job:
    def __init__(
        self,
        finished: Finished,
        device: str,
        deadline: Deadline,
        data_dir: str | None,
        progress: Progress,
        micro_batch: int,
    ):
        self.micro_batch = micro_batch
        self.cache, self.folder = finished.cache, finished.cache.checkpoints
        self.device, self.deadline, self.data_dir, self.progress = device, deadline, data_dir, progress
        self.trained = self.diverged = 0
        self.missing: set[str] = set()
        self._got_on = False
        self._samples: dict[DataSpec, Samples] = {}
        self._provenance = {
            "revision": git_revision(),
            "l2dyn": l2dyn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else _cpu(),
        }

    def trainers(self, tasks: list[Task], missing: list[Task]) -> Iterator[tuple[Trainer, Path]]:
        """Each with the path of its checkpoint: first what has one, with the members it had then, then the others."""
        self.missing = {task.run_id for task in missing}
        known = {task.run_id: task for task in tasks}
        resumed: set[str] = set()
        wanted = {(task.run_id, task.steps) for task in tasks}
        for header in resumable(self._useful(headers(self.folder), wanted), wanted):
            if not self.missing & set(header.run_ids):  # another stack has trained them meanwhile
                header.path.unlink(missing_ok=True)
                continue
            if self.stop():
                return
            trainer = self._resumed(header.path, [known[run_id] for run_id in header.run_ids])
            if trainer is not None:
                resumed |= set(header.run_ids)
                yield trainer, header.path
        for group in stacks(task for task in missing if task.run_id not in resumed):
            if self.stop():
                return
            log.info("%s, %d steps", _stack_of(group), group[-1].steps)
            name = sha256(" ".join(task.run_id for task in group).encode())[:16]
            yield self._trainer(group), self.folder / f"{name}{SUFFIX}"

    def stop(self) -> bool:
        """Look at the clock: whether to stop now. A time limit counts once this call has got on."""
        reached = self.deadline.reached()
        return reached and (self._got_on or self.deadline.asked)

    def train(self, trainer: Trainer, path: Path) -> bool:
        """Train to the end, saving members as they leave; False when stopped with a checkpoint."""
        timer, first = CheckpointTimer(), trainer.step

        def pause(trainer: Trainer) -> bool:
            self.progress.advanced(trainer)
            self._got_on |= trainer.step > first
            stop = self.stop()
            if stop or timer.due():
                run_ids, horizons = zip(*((task.run_id, task.steps) for task in trainer.tasks), strict=True)
                cost = write_checkpoint(path, list(run_ids), list(horizons), trainer.state_dict())
                timer.wrote(cost)
                self.deadline.checkpoint_s = max(self.deadline.checkpoint_s, cost)
            return stop

        self.progress.begin(trainer)
        with products_in(trainer.tasks[0].spec.precision):
            for ended in trainer.train(pause):
                self._got_on = True
                self._save(ended)
                self.progress.left(ended, trainer)
        if trainer.tasks:
            log.info("stopped at step %d with %d runs left, checkpoint written", trainer.step, len(trainer.tasks))
            return False
        path.unlink(missing_ok=True)
        return True

    def _useful(self, every: list[Header], wanted: set[tuple[str, int]]) -> list[Header]:
        """Remove checkpoints that nobody will go on with: of finished runs, or of an older numerics version."""

        def done(run_id: str, steps: int) -> bool:
            if run_id in self.missing or (run_id, steps) in wanted:
                return run_id not in self.missing
            held = self.cache.header(run_id)  # not the shelf's: another job may train without it
            return held is not None and held.serves(steps)

        useful = []
        for header in every:
            runs = zip(header.run_ids, header.horizons, strict=True)
            if header.numerics_version < NUMERICS_VERSION or all(done(*run) for run in runs):
                with contextlib.suppress(OSError):  # it may be another user's
                    header.path.unlink()
            else:
                useful.append(header)
        return useful

    def _resumed(self, path: Path, tasks: list[Task]) -> Trainer | None:
        read = read_checkpoint(path)
        if read is None:
            return None
        header, state = read
        trainer = self._trainer(tasks)
        trainer.load_state_dict(state)
        log.info("resumed a %s at step %d", _stack_of(tasks), header.step)
        return trainer

    def _trainer(self, tasks: list[Task]) -> Trainer:
        spec = tasks[0].spec.data
        if spec not in self._samples:
            self._samples[spec] = samples(spec, arrays.load(spec.name, data_dir=self.data_dir))
        return trainer_for(tasks, self._samples[spec], self.device, self.micro_batch)

    def _save(self, ended: Ended) -> None:
        task = ended.task
        if task.run_id not in self.missing:
            return  # it is trained again only because its stack continues
        record = Record(
            spec=task.spec,
            status=ended.status,
            steps=ended.steps,
            numerics_version=NUMERICS_VERSION,
            columns=ended.columns,
            provenance={**self._provenance, "wall_s": round(ended.wall_s, 3)},
        )
        self.cache.save(record)
        self.missing.discard(task.run_id)
        self.trained += 1
        self.diverged += ended.status == "diverged"
        log.info("run %s %s after %d steps (%.1f s)", task.run_id, ended.status, ended.steps, ended.wall_s)


def _stack_of(tasks: list[Task]) -> str:
    return f"stack of {len(tasks)} run{'s' if len(tasks) > 1 else ''}"


def _cpu() -> str:
    """The kind of processor and the vector instructions that torch uses on it, by which rounding differs."""
    return f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
