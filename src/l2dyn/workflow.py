"""All that the Snakefile asks: targets, inputs, params and resources of its rules, for one configured scale.

Parsing changes nothing on disk. The DAG's shape and params depend on the configuration, the shelf and the code only,
never on what is done; `resources` alone look at the cache. The exception are experiments with an l2 selection: their
runs are known once the checkpoint `select_l2` has written their l2.json, and they never change the slices of others.
"""

import functools
import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from l2dyn.config.loading import load_scale, parse_overrides
from l2dyn.config.scale import Overrides
from l2dyn.config.theory import CURVES
from l2dyn.errors import UserError
from l2dyn.files import ROOT, results_folder, shipped_folder
from l2dyn.runs.bundles import RECORDED, Finished, earlier_bundles
from l2dyn.runs.cache import Cache
from l2dyn.runs.calibrations import Calibration, calibration_for
from l2dyn.runs.code_keys import code_key
from l2dyn.runs.cost import readable, training_seconds
from l2dyn.runs.l2_selection import FILE as L2_FILE
from l2dyn.runs.plan import Plan, Slice, Task, selections_made
from l2dyn.runs.shelf import Shelf
from l2dyn.specs.base import canonical_json, to_dict
from l2dyn.specs.data_sets import DATA_SETS

log = logging.getLogger(__name__)
TABLES = ("claims.csv", "claim_parts.csv", "claims.html", "claims.md", "results.md")  # of a whole scale


class Workflow:
    """The workflow of one scale.

    config: Snakemake's mapping of `--config`.

    Raises:
        UserError: for a bad configuration or an unusable results folder.
    """

    def __init__(self, config: dict):
        self.overrides: Overrides = parse_overrides(dict(config))
        self.scale = self.overrides.scale
        given = self.overrides.model_dump(exclude={"scale"}, exclude_none=True)
        self.config = load_scale(self.scale, **given)
        self.results = results_folder()
        _check_usable(self.results)
        self.out = str(self.results / self.scale)
        self.data = str(self.results / "data")
        self.threads = self.config.threads
        self.cache, self.shelf = Cache(self.results), Shelf(reuse=self.config.reuse)
        self.plan: Plan | None = None
        self._read_selections()
        self._tell_of_missing_notebooks()

    # what the rules' text holds

    def environment(self) -> dict[str, str]:
        """What every job's command needs from its surrounding: this interpreter, this package, this configuration.

        Environment and not text or params: on which device a run trains, or from where its data come, makes no other
        result, and a path is quoted rightly however it is spelt.
        """
        source = str(ROOT / "src")
        paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != source]
        found = {
            "L2DYN_PYTHON": sys.executable,
            "L2DYN_ROOT": str(ROOT),
            "L2DYN_OPTIONS": f"--scale {self.scale}" + ("" if self.config.reuse else " --no-reuse"),
            "PYTHONPATH": os.pathsep.join([source, *paths]),
        }
        if self.overrides.device:
            found["L2DYN_DEVICE"] = self.overrides.device
        if self.config.data_dir:
            found["L2DYN_DATA"] = self.config.data_dir
        return found

    @property
    def conda(self) -> str:
        """The conda environment of every rule. Snakemake fills wildcards into its path, so braces are doubled."""
        return str(ROOT / "environment.yml").replace("{", "{{").replace("}", "}}")

    def patterns(self) -> dict[str, str]:
        """Regular expressions of the wildcards."""
        return {
            "experiment": _any_of(self.config.experiments),
            "figure": _any_of(self.config.figures),
            "curve": _any_of(CURVES),
            "slice": r"\d+",
            "slices": r"\d+",
            "key": r"[0-9a-f]+",
            "dataset": _any_of(DATA_SETS),
        }

    def selected_pattern(self) -> str:
        """The regular expression of experiments with an l2 selection."""
        return _any_of(self.config.selected)

    # inputs

    def targets(self, supplement: bool = True) -> list[str]:
        """Every published figure, or those of the main text, and what each is made from, as far as it is known.

        Not the figures alone: Snakemake makes a lost intermediate file anew only where it is asked for itself.
        """
        files = {}
        for name in self._figures(supplement):
            section = self.config.figures[name]
            for experiment in section.experiments:
                selected = experiment in self.config.selected
                known = [self._l2_file(experiment)] if selected else self.bundles(experiment)
                files |= dict.fromkeys(
                    [*known, *(f"{self.out}/{experiment}/summary.{kind}" for kind in ("csv", "html"))]
                )
            files |= dict.fromkeys(f"{self.out}/theory/{curve}.csv" for curve in section.theory)
            files |= dict.fromkeys(f"{self.out}/{name}.{kind}" for kind in ("pdf", "png", "csv"))
            files |= dict.fromkeys(f"figures/{name}.{kind}" for kind in ("pdf", "png"))
        return [*files, *(f"{self.out}/{name}" for name in TABLES if supplement)]

    def late_targets(self, checkpoints, supplement: bool = True) -> list[str]:
        """The bundles of experiments with an l2 selection: known once their l2.json is there."""
        shown = {name for figure in self._figures(supplement) for name in self.config.figures[figure].experiments}
        return [path for name in self.config.selected if name in shown for path in self.bundles(name, checkpoints)]

    def figure_inputs(self, figure: str, checkpoints) -> dict[str, list[str]]:
        """Named inputs of a figure: summaries, l2.json, theory curves, and the bundles of its experiments.

        Its notebook only where there is none, so that Snakemake says what is missing; `figure_key` stands for it else.
        """
        section, notebook = self.config.figures[figure], _notebook(figure)
        bundles = [path for name in section.experiments for path in self.bundles(name, checkpoints)]
        return {
            "summaries": [f"{self.out}/{name}/summary.csv" for name in section.experiments],
            "l2": [self._l2_file(name) for name in section.experiments if name in self.config.selected],
            "curves": [f"{self.out}/theory/{name}.csv" for name in section.theory],
            "runs": list(dict.fromkeys(bundles)),
            "notebook": [] if notebook.is_file() else [str(notebook)],
        }

    def claims_inputs(self, checkpoints) -> dict[str, list[str]]:
        """Named inputs of the claims: all that figures show, from which claims are judged."""
        names = dict.fromkeys(name for section in self.config.figures.values() for name in section.experiments)
        bundles = dict.fromkeys(path for name in names for path in self.bundles(name, checkpoints))
        curves = dict.fromkeys(curve for section in self.config.figures.values() for curve in section.theory)
        return {
            "summaries": self.summaries(),
            "curves": [f"{self.out}/theory/{curve}.csv" for curve in curves],
            "runs": list(bundles),
        }

    def numbers(self) -> list[str]:
        """The figures' CSV files, from which results.md is written."""
        return [f"{self.out}/{name}.csv" for name in self.config.figures]

    def summaries(self) -> list[str]:
        """The summaries of every experiment that a figure shows."""
        names = dict.fromkeys(name for section in self.config.figures.values() for name in section.experiments)
        return [f"{self.out}/{name}/summary.csv" for name in names]

    def bundles(self, experiment: str, checkpoints=None) -> list[str]:
        """The bundles that hold an experiment's runs, whoever trains them; its l2 selection comes first."""
        self._wait_for_selection(experiment, checkpoints)
        run_ids = {point.run_id for point in self.plan.experiments[experiment]}
        held = [] if not self.config.train else self._bundles_of(self.plan.owners(experiment, run_ids), run_ids)
        recorded = not self.config.train or run_ids & set(self.shelf.headers)
        return [*held, *([f"{self.out}/{experiment}/runs/{RECORDED}"] if recorded else [])]

    def source_bundles(self, experiment: str, checkpoints) -> list[str]:
        """The bundles of the experiment on which this one's λ are measured."""
        return self.bundles(self.config.experiments[experiment].l2.source, checkpoints)

    def earlier_bundles(self, experiment: str, checkpoints) -> list[str]:
        """Bundles of others that may hold runs of an experiment with an l2 selection: of listed ones, of earlier ones.

        Waiting for them, no run is trained twice, not even at the same time.
        """
        if experiment not in self.config.selected:
            return []
        self._wait_for_selection(experiment, checkpoints)
        like = self.config.experiments[experiment].trains_like
        before = self.config.selected[: self.config.selected.index(experiment)]
        earlier = [name for name in before if like(self.config.experiments[name]) is None]
        for name in earlier:
            self._wait_for_selection(name, checkpoints)
        run_ids = {point.run_id for point in self.plan.experiments[experiment]}
        listed = dict.fromkeys(filter(None, map(self.plan.listed_owner, sorted(run_ids))))
        return self._bundles_of([*listed, *earlier], run_ids)

    def selection(self, experiment: str, checkpoints) -> list[str]:
        """The l2.json of an experiment that has one, which its jobs wait for."""
        self._wait_for_selection(experiment, checkpoints)
        return [self._l2_file(experiment)] if experiment in self.config.selected else []

    def arrays_of_experiment(self, experiment: str) -> list[str]:
        """The prepared data files of an experiment and of those that it trains for."""
        together = (experiment, *self.config.train_together.get(experiment, ()))
        return sorted({self._arrays(self.config.experiments[name].data.name) for name in together})

    def arrays_of_curve(self, curve: str) -> list[str]:
        """The prepared data file that a theory curve needs; none where it is taken from the shipped ones."""
        needed = self.config.theory.curve(curve).needs if self.config.train else ()
        return sorted({self._arrays(self.config.experiments[name].data.name) for name in needed})

    # params: whatever else a result depends on

    def recorded_key(self, experiment: str) -> str:
        """Hash of the records that `rule recorded` finds: on the shelf, and where nothing is trained anywhere."""
        run_ids = [point.run_id for point in self.plan.experiments[experiment]]
        if self.config.train:
            return self.shelf.key(run_ids)
        # of all experiments: a run that several list lies in the bundle of one of them
        finished = Finished(self.cache, self.shelf, earlier_bundles(self.scale))
        headers = [finished.header(run_id) for run_id in run_ids]
        return _hash([[h.run_id, h.steps, h.sha256] for h in headers if h is not None])

    def summary_key(self, experiment: str) -> str:
        """Of a summary besides its bundles: which runs, up to where, in which units, and how they are measured."""
        config = self.config.experiments[experiment]
        read = [config.units, to_dict(config.evaluation)]
        return _hash([self.plan.key(experiment), read, code_key("l2dyn.tables.summary")])

    def selection_key(self, experiment: str) -> str:
        """Of an l2 selection besides its bundles: which λ are asked for, the source's runs, how they are measured."""
        config = self.config.experiments[experiment]
        wanted = config.model_dump(mode="json", include={"l2", "lr", "lr_schedule", "units"})
        source = config.l2.source
        read = [self.plan.key(source), to_dict(self.config.experiments[source].evaluation)]
        return _hash([wanted, config.horizon.fixed, read, code_key("l2dyn.tables.l2_selection")])

    def theory_key(self, curve: str) -> str:
        """Of a theory curve: its section, its code, what ships of it, and all experiments with a net as it needs.

        A table may hold columns for runs of other experiments, those of another width, say.
        """
        section = self.config.theory.curve(curve)
        parts = [to_dict(section), self.config.train, code_key(section.table.partition(":")[0])]
        parts.append("" if self.config.train else _content(f"theory/{self.scale}/{curve}.csv"))
        experiments = self.config.experiments
        kinds = {experiments[name].net.kind for name in section.needs}
        return _hash(parts + [to_dict(one) for one in experiments.values() if one.net.kind in kinds])

    def figure_key(self, figure: str) -> str:
        """Of a figure besides its inputs: the experiments' configuration, its notebook and all that it imports."""
        section = self.config.figures[figure]
        parts = [to_dict(self.config.experiments[name]) for name in section.experiments]
        return _hash([*parts, list(section.experiments), code_key(_notebook(figure))])

    def claims_key(self) -> str:
        """Of the claims besides their inputs: what the paper claims, how that is judged, the experiments."""
        experiments = {name: to_dict(experiment) for name, experiment in self.config.experiments.items()}
        return _hash([_content("claims.yaml"), experiments, code_key("l2dyn.tables.claims")])

    def results_key(self) -> str:
        """Of results.md besides its inputs: what is said of the scale, its experiments and the claims."""
        said = [self.config.about, {name: one.shows for name, one in self.config.experiments.items()}]
        return _hash([_content("remarks.yaml"), said, code_key("l2dyn.tables.results")])

    # the report

    def caption(self, figure: str) -> str:
        """What a figure shows, how to read it, and from which runs it is drawn, as reStructuredText."""
        section, text = self.config.figures[figure], _header(_notebook(figure))
        lines = []
        for name in section.experiments:
            config, points = self.config.experiments[name], self.plan.experiments[name]
            runs = f"{len({point.run_id for point in points})} runs" if points else "runs pending"
            lines.append(f"- *{name}*: {config.shows}; {config.describe()}; {runs}")
        return "\n".join([text, "", *lines])

    def figure_labels(self, figure: str) -> dict[str, str]:
        """Labels of a figure in the report: how many of its runs are finished, and their measured wall time."""
        finished = Finished(self.cache, self.shelf, earlier_bundles(self.scale))
        points = (self.plan.experiments[name] for name in self.config.figures[figure].experiments)
        run_ids = {point.run_id for of_one in points for point in of_one}
        headers = [header for header in map(finished.header, run_ids) if header]
        spent = readable(sum(header.wall_s for header in headers))
        done = f"{len(headers)} of {len(run_ids)}" if run_ids else "none: theory"
        return {"figure": figure, "scale": self.scale, "finished runs": done, "training time": spent}

    # resources

    def priority(self, experiment: str) -> int:
        """Higher for what others wait for: an experiment on which λ are measured, or that trains for one."""
        sources = (self.config.experiments[name].l2.source for name in self.config.selected)
        return int(experiment in map(self.config.trainer, sources))

    def gpus(self, experiment: str, slice: str, slices: str, key: str) -> int:
        """How many GPUs a training job asks for: none where nothing is missing, or on the CPU."""
        return int(self.config.device == "cuda" and bool(self._missing(experiment, f"{slice}of{slices}-{key}")))

    def runtime_minutes(self, experiment: str, slice: str, slices: str, key: str) -> int:
        """The time limit of a training job: twice its estimate, between five minutes and the configured limit."""
        missing = self._missing(experiment, f"{slice}of{slices}-{key}")
        seconds = training_seconds(missing, self.config.device, self.threads, self._calibration)
        return int(min(self.config.runtime_minutes, max(5, 2 * seconds / 60)))

    @functools.cached_property
    def _calibration(self) -> Calibration | None:
        return calibration_for(self.config.device, self.threads)

    def _read_selections(self) -> None:
        """Take up what the l2.json files say now."""
        made = selections_made(self.scale, self.config)
        if self.plan is not None and made == self.plan.selections:
            return
        self.plan = plan = Plan(self.scale, self.config, made)
        # a slice that the shelf serves whole needs no job: `rule recorded` has its runs
        self._slices: dict[str, dict[str, Slice]] = {
            name: {
                slice_.name: slice_
                for slice_ in plan.slices(name)
                if not all(self.shelf.serves(task.run_id, task.steps) for task in slice_.tasks)
            }
            for name in plan.experiments
        }

    def _tell_of_missing_notebooks(self) -> None:
        """A line for each; no error, since whoever writes a notebook wants the experiments that it shows first."""
        for name, path in ((name, _notebook(name)) for name in self.config.figures):
            if not path.is_file():
                where = f"config/{self.scale}.yaml or config/figures.yaml: figures.{name}"
                log.warning("l2dyn: %s: there is no %s yet, so this figure cannot be drawn", where, path)

    def _figures(self, supplement: bool) -> list[str]:
        return [name for name in self.config.figures if supplement or not name.startswith("figS")]

    def _wait_for_selection(self, experiment: str, checkpoints) -> None:
        if experiment in self.config.selected:
            checkpoints.select_l2.get(experiment=experiment)  # until it has run this raises, which means "not yet"
            self._read_selections()

    def _bundles_of(self, owners: list[str], run_ids: set[str]) -> list[str]:
        """The bundles of these experiments' own slices that hold any of the runs."""
        return [
            f"{self.out}/{owner}/runs/{name}.parquet"
            for owner in owners
            for name, slice_ in self._slices[owner].items()
            if any(task.run_id in run_ids for task in slice_.tasks)
        ]

    def _l2_file(self, experiment: str) -> str:
        return f"{self.out}/{experiment}/{L2_FILE}"

    def _arrays(self, name: str) -> str:
        return f"{self.data}/{name}-{DATA_SETS[name].checksum[:10]}.npz"

    def _missing(self, experiment: str, name: str) -> list[Task]:
        slice_ = self._slices[experiment].get(name)
        finished = Finished(self.cache, self.shelf)
        return [task for task in (slice_.tasks if slice_ else ()) if not finished.serves(task.run_id, task.steps)]


def _content(name: str) -> str:
    """Hash of a file in paper_results/, "" where there is none (its rule says so)."""
    path = shipped_folder() / name
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _notebook(figure: str) -> Path:
    """Where a figure's notebook lies."""
    return ROOT / "figures" / f"{figure}.py"


def _any_of(names: Iterable[str]) -> str:
    """A regular expression of these names; an empty one would match anything."""
    return "|".join(names) or "(?!)"


def _header(path: Path) -> str:
    """The first markdown cell of a notebook without its title: what the figure shows, panel by panel."""
    text = path.read_text(encoding="utf-8").partition("# %% [markdown]\n")[2].partition("\n\n")[0]
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("# ")).strip()


def _hash(parts) -> str:
    text = parts if isinstance(parts, str) else canonical_json(json.loads(json.dumps(parts)))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _check_usable(results: Path) -> None:
    """Refuse a results folder that cannot be written or whose name Snakemake cannot carry; changes nothing."""
    if not os.access(".", os.W_OK | os.X_OK):
        call = f"cd FOLDER && snakemake --snakefile '{ROOT / 'Snakefile'}' …"
        raise UserError(f"{Path.cwd()}: cannot be written; call from a folder that can: {call}")
    if set("{}") & set(str(results)):
        raise UserError(f"{results}: Snakemake cannot write to a path with braces; set L2DYN_RESULTS to another folder")
    held = next((path for path in (results, *results.absolute().parents) if path.exists()), Path("/"))
    if not held.is_dir() or not os.access(held, os.W_OK | os.X_OK):
        raise UserError(f"{results}: the results folder cannot be written; set L2DYN_RESULTS to a writable folder")
