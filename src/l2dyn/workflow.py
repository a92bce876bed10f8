"""What the Snakefile asks: targets, inputs, params and resources of its rules, for one configured scale.

The DAG's shape and params depend on the configuration and the shipped shelf only, never on what is done; `resources`
alone look at `results/`. The one exception are experiments whose λ are measured: their runs are known once the
checkpoint `derive` has written their l2.json, and they never change the slices of the others.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.runs.config import Overrides, TheoryConfig, load_scale, parse_overrides
from l2dyn.runs.cost import calibration_for, training_seconds
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.derived_l2 import FILE
from l2dyn.runs.files import ROOT, results_folder, shipped_folder, write_atomically
from l2dyn.runs.plan import Plan, Slice, Task, planned
from l2dyn.runs.spec import canonical_json
from l2dyn.runs.store import RunStore, remove_stale_markers

LONG_AGO = 86400  # seconds; Snakemake takes 0 for "no time"


class Dag:
    """The workflow of one scale.

    main_process: whether this is the call that a person made, not one that Snakemake made for a job; only that one
    removes markers whose records are gone. Raises UserError for a bad configuration or an unwritable results folder.
    """

    def __init__(self, config: dict, main_process: bool = False):
        self.overrides: Overrides = parse_overrides(dict(config))
        self.scale = self.overrides.scale
        given = self.overrides.model_dump(exclude={"scale"}, exclude_none=True)
        self.config = load_scale(self.scale, **given)
        self.results = results_folder()
        self.out = str(self.results / self.scale)
        self.data = str(self.results / "data")
        self.store = RunStore(self.results, reuse=self.config.reuse)
        self.threads = self.config.threads
        self.figures = list(self.config.figures)
        self.plan: Plan | None = None
        self._main_process = main_process
        if main_process:
            self._check_writable()
            remove_stale_markers(self.results, self.store.shipped_entries())
        self._take_up(planned(self.scale, self.config))

    @property
    def options(self) -> str:
        """The command-line options that repeat this configuration for a job (`set_environment` carries the rest)."""
        return f"--scale {self.scale}" + ("" if self.config.reuse else " --no-reuse")

    @property
    def derived(self) -> list[str]:
        """The experiments whose λ are measured on another one's runs."""
        return [name for name, experiment in self.config.experiments.items() if experiment.derived]

    def derived_pattern(self) -> str:
        """The regular expression of their names; one that nothing matches where there are none."""
        return "|".join(self.derived) or "(?!)"

    def priority(self, experiment: str) -> int:
        """Higher for what others wait for: an experiment on which λ are measured."""
        return int(any(self.config.experiments[name].l2.source == experiment for name in self.derived))

    def summary_of_source(self, experiment: str) -> str:
        """What a derived experiment's λ are measured on; its summary changes whenever one of its records does."""
        return f"{self.out}/{self.config.experiments[experiment].l2.source}/summary.csv"

    def derivation_key(self, experiment: str) -> str:
        """What an experiment's λ depend on besides the summary: which are asked for, and the source's runs."""
        config = self.config.experiments[experiment]
        wanted = config.model_dump(mode="json", include={"l2", "lr", "lr_schedule"})
        parts = [wanted, config.horizon.fixed, self.plan.key(config.l2.source)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]

    def summary_inputs(self, experiment: str, checkpoints) -> list[str]:
        """The markers of an experiment; of a derived one first its λ, which Snakemake's checkpoint leaves behind."""
        if experiment not in self.derived:
            return self.markers(experiment)
        # until it has run this raises, which Snakemake takes for "not yet"
        checkpoints.derive.get(experiment=experiment)
        self._take_up(planned(self.scale, self.config))
        return [f"{self.out}/{experiment}/{FILE}", *self.markers(experiment)]

    def markers(self, experiment: str) -> list[str]:
        """The markers that say that every run of an experiment is on a shelf, whoever owns it."""
        listed = {run.run_id for run in self.plan.experiments[experiment]}
        return [
            f"{self.out}/{owner}/slices/{name}.done"
            for owner in self.plan.owners(experiment)
            for name, batch in self._slices[owner].items()
            if listed & {task.run_id for task in batch.tasks}
        ]

    def arrays_of_experiment(self, experiment: str) -> str:
        """The prepared data file of an experiment."""
        return self._arrays(self.config.experiments[experiment].data.name)

    def arrays_of_curve(self, curve: str) -> list[str]:
        """The prepared data file that a theory curve needs; none where it is taken from the shipped ones."""
        experiments = self.config.theory.experiments_of(curve) if self.config.train else []
        return sorted({self.arrays_of_experiment(experiment) for experiment in experiments})

    def summary_key(self, experiment: str) -> str:
        """What a summary depends on besides its markers.

        With train=false that includes the records found on both shelves: then, and only then, nothing else says that
        they changed.
        """
        runs = [run.run_id for run in self.plan.experiments[experiment]]
        shelf = self.store.shipped_entries()
        found = [[r, shelf[r].steps, shelf[r].sha256] for r in runs if r in shelf]
        if not self.config.train:
            for run_id in runs:
                try:
                    entry = self.store.entry(run_id)
                    found.append([run_id, entry.steps, entry.sha256] if entry else [run_id, "missing"])
                except UserError:
                    found.append([run_id, "damaged"])  # whoever loads it says so
        return hashlib.sha256(canonical_json([self.plan.key(experiment), found]).encode()).hexdigest()[:10]

    def theory_key(self, curve: str) -> str:
        """Hash of the configuration of a theory curve."""
        section = getattr(self.config.theory, curve)
        parts = [section.model_dump(), self.config.train]
        parts += [self.config.experiments[name].model_dump() for name in self.config.theory.experiments_of(curve)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]

    def figure_inputs(self, figure: str) -> dict[str, list[str]]:
        """Named inputs of the figure rule."""
        section = self.config.figures[figure]
        return {
            "summaries": [f"{self.out}/{name}/summary.csv" for name in section.experiments],
            "curves": [f"{self.out}/theory/{name}.csv" for name in section.theory],
        }

    def style_key(self) -> str:
        """Hash of the code that every figure shares; a change redraws them."""
        out = hashlib.sha256()
        for path in sorted((ROOT / "src" / "l2dyn" / "plotting").glob("*.py")):
            out.update(path.read_bytes())
        return out.hexdigest()[:10]

    def gpus(self, experiment: str, part: str, parts: str, key: str) -> int:
        """How many GPUs a slice job asks for: none where nothing is missing, or on the CPU."""
        return int(self.config.device == "cuda" and bool(self._missing(experiment, f"{part}of{parts}-{key}")))

    def runtime_minutes(self, experiment: str, part: str, parts: str, key: str) -> int:
        """The time limit of a slice job: twice its estimate, between five minutes and the configured limit."""
        missing = self._missing(experiment, f"{part}of{parts}-{key}")
        calibration = calibration_for(self.config.device, self.threads)
        seconds = training_seconds(missing, self.config.device, self.threads, calibration)
        return int(min(self.config.runtime_minutes, max(5, 2 * seconds / 60)))

    def targets(self, supplement: bool = True) -> list[str]:
        """Every published figure, or those of the main text, and what each is made from.

        Not the figures alone: Snakemake makes a lost intermediate file anew only where it is asked for itself.
        """
        files = {}
        for name in self.figures:
            if supplement or not name.startswith("figS"):
                inputs = self.figure_inputs(name)
                derived = [e for e in self.config.figures[name].experiments if e in self.derived]
                files |= dict.fromkeys(f"{self.out}/{e}/{FILE}" for e in derived)
                files |= dict.fromkeys([*inputs["summaries"], *inputs["curves"]])
                files |= dict.fromkeys(f"{self.out}/{name}.{kind}" for kind in ("pdf", "png", "csv"))
                files |= dict.fromkeys(f"figures/{name}.{kind}" for kind in ("pdf", "png"))
        return list(files)

    def patterns(self) -> dict[str, str]:
        """Regular expressions of the wildcards."""
        return {
            "experiment": "|".join(self.plan.experiments),
            "figure": "|".join(self.figures),
            "curve": "|".join(TheoryConfig.model_fields),
            "part": r"\d+",
            "parts": r"\d+",
            "key": r"[0-9a-f]+",
            "dataset": "|".join(DATASETS),
        }

    def _take_up(self, plan: Plan) -> None:
        """Use this plan, unless it is the one in use."""
        known = self.plan.derived if self.plan else {}
        changed = [name for name in plan.experiments if self.plan is None or plan.derived.get(name) != known.get(name)]
        if not changed:
            return
        self.plan = plan
        shipped = self.store.shipped_entries()
        self._slices: dict[str, dict[str, Slice]] = {name: {} for name in plan.experiments}
        if self.config.train:
            for name in plan.experiments:
                for batch in plan.slices(name):
                    if not all(t.run_id in shipped and shipped[t.run_id].serves(t.steps) for t in batch.tasks):
                        self._slices[name][batch.name] = batch
        if self._main_process:
            self._expire_missing_markers(changed)

    def _arrays(self, name: str) -> str:
        return f"{self.data}/{name}-{DATASETS[name].checksum[:10]}.npz"

    def _missing(self, experiment: str, name: str) -> list:
        tasks = self._slices[experiment][name].tasks if name in self._slices[experiment] else ()
        return [t for t in tasks if not self._served(t)]

    def _served(self, task: Task) -> bool:
        try:
            entry = self.store.entry(task.run_id)
        except UserError:
            return False  # whoever trains the run says so
        return entry is not None and entry.serves(task.steps)

    def _expire_missing_markers(self, experiments: list[str]) -> None:
        """Put an empty marker, older than any file, where one is missing though something was made here before.

        Snakemake leaves a lost file lost while what was made from it is up to date; an old one it makes anew.
        """
        if not Path(self.out).is_dir():
            return
        for experiment in experiments:
            for name in self._slices[experiment]:
                path = Path(self.out) / experiment / "slices" / f"{name}.done"
                if not path.exists():
                    write_atomically(path, b'{"runs": []}\n')
                    os.utime(path, (LONG_AGO, LONG_AGO))

    def _check_writable(self) -> None:
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            probe = self.results / f".writable-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.results}: the results folder cannot be written ({error.strerror}); "
                "set L2DYN_RESULTS to a writable folder"
            ) from None


def set_environment(dag: Dag) -> None:
    """What every job's command needs from its surrounding: this interpreter, this package, and where to work.

    Environment and not params: on which device a run trains, or from where its data come, makes no other result.
    """
    source = str(ROOT / "src")
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != source]
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *paths])
    interpreter = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != interpreter:
        os.environ["PATH"] = os.pathsep.join([interpreter, os.environ.get("PATH", "")])
    if dag.overrides.device:
        os.environ["L2DYN_DEVICE"] = dag.overrides.device
    if dag.config.data_dir:
        os.environ["L2DYN_DATA"] = dag.config.data_dir


def shipped_curve(scale: str, curve: str) -> Path:
    """Where a recorded theory curve of a scale ships."""
    return shipped_folder() / "theory" / scale / f"{curve}.csv"
