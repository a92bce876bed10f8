"""What a figure notebook reads and writes, whether a rule runs it or a person.

Under the rule the inputs and outputs are the rule's. In Jupyter, or with `jupytext --execute`, a notebook reads
`results/quick` (or the scale that it is given) and only shows the figure.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from l2dyn.errors import UserError
from l2dyn.plotting import style
from l2dyn.runs.config import ScaleConfig, load_scale
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.derived_l2 import FILE, DerivedL2, read_derived_l2
from l2dyn.runs.files import ROOT, git_revision, results_folder, write_atomically
from l2dyn.runs.records import Record
from l2dyn.runs.store import RunStore
from l2dyn.summary import outdated

log = logging.getLogger(__name__)


@dataclass
class FigureJob:
    """One figure of one scale.

    `plotted` collects the rows of the figure's CSV; call `plot` for every series that is drawn.
    """

    name: str
    scale: str
    config: ScaleConfig
    folder: Path  # results/<scale>
    outputs: dict[str, str] | None  # None: show the figure, write nothing
    plotted: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, snakemake=None, scale: str = "quick") -> "FigureJob":
        """`snakemake`: the object that the rule's `script:` puts into the notebook, None without a rule."""
        style.use_style()
        if snakemake is not None:
            folder = Path(snakemake.output.csv).parent
            config = load_scale(snakemake.params.scale, reuse=snakemake.params.reuse)
            return cls(name, snakemake.params.scale, config, folder, dict(snakemake.output))
        results = results_folder() if results_folder().is_dir() else ROOT / "results"
        return cls(name, scale, load_scale(scale), results / scale, None)

    def summary(self, experiment: str) -> pd.DataFrame:
        """The experiment's summary. Raises UserError when it has not been made."""
        path = self.folder / experiment / "summary.csv"
        self._require(path)
        table = pd.read_csv(path, dtype={"run_id": str, "censored": str, "capped": str})
        table["censored"] = table["censored"] == "true"
        table["capped"] = table["capped"] == "true"
        return table

    def curve(self, name: str) -> pd.DataFrame:
        """A table of theory curves. Raises UserError when it has not been made."""
        path = self.folder / "theory" / f"{name}.csv"
        self._require(path)
        return pd.read_csv(path)

    def record(self, run_id: str) -> Record | None:
        """The record of a run, None when it is missing."""
        return RunStore(self.folder.parent, reuse=self.config.reuse).load(run_id)

    def derived(self, experiment: str) -> DerivedL2:
        """The λ of an experiment that has them measured. Raises UserError when they have not been."""
        path = self.folder / experiment / FILE
        self._require(path)
        return read_derived_l2(path)

    def plot(self, panel: str, series: str, x, y, run_ids="", **more) -> None:
        """Note plotted points for the figure's CSV; `more` are further columns."""
        columns = {"panel": panel, "series": series, "x": np.asarray(x), "y": np.asarray(y), **more, "run_ids": run_ids}
        self.plotted.append(pd.DataFrame(columns))

    def describe_model(self, experiment: str) -> str:
        """An experiment's net in a few words."""
        model = self.config.experiments[experiment].model
        if model.kind == "fc":
            return f"FC of {model.hidden_layers} × {model.width}"
        if model.kind == "wrn":
            return f"WRN-{model.depth}-{model.width}"
        return "CNN, batch norm" if model.batch_norm else "CNN, no batch norm"

    def describe_augmentation(self, experiment: str) -> str:
        """How an experiment changes its training images, in a few words."""
        used = self.config.experiments[experiment].augmentation
        parts = ["flip"] * used.flip + [f"crop {used.crop}"] * bool(used.crop)
        parts += [f"mixup {used.mixup:g}"] * bool(used.mixup)
        return ", ".join(parts) or "no augmentation"

    def seeds(self, *experiments: str) -> str:
        """How many seeds each experiment has, as "1, 3"."""
        return ", ".join(str(len(self.config.experiments[name].seeds)) for name in experiments)

    def small_print(self, *summaries: pd.DataFrame, note: str = "") -> str:
        """Scale, data sets, what is missing or outdated, the code's revision, and a note of the figure's own."""
        rows = pd.concat(summaries) if summaries else pd.DataFrame()
        parts = [f"scale {self.scale}"]
        if len(rows):
            parts += [DATASETS[name].title for name in sorted(set(rows["dataset"]))]
            for status in ("missing", "short", "diverged"):
                count = int((rows["status"] == status).sum())
                if count:
                    parts.append(f"{style.plural(count, 'run')} {status}")
            old = outdated(rows.dropna(subset="numerics_version").to_dict("records"))
            if old:
                parts.append(f"{style.plural(old, 'run')} of an older numerics version")
        if note:
            parts.append(note)
        return " · ".join([*parts, f"revision {git_revision()}"])

    def finish(self, figure: Figure) -> Figure:
        """Write the figure and its CSV where the rule wants them; without a rule only return it."""
        if self.outputs is not None:
            style.save(figure, self.outputs["pdf"], self.outputs["png"])
            empty = pd.DataFrame(columns=["panel", "series", "x", "y", "run_ids"])
            table = pd.concat(self.plotted, ignore_index=True) if self.plotted else empty
            write_atomically(Path(self.outputs["csv"]), table.to_csv(index=False, lineterminator="\n").encode())
        return figure

    def _require(self, path: Path) -> None:
        if not path.exists():
            raise UserError(f"{path}: not made yet; run: snakemake --cores 2 --config scale={self.scale} {path}")
