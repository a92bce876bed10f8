"""What a figure notebook reads and writes, whether a rule runs it or a person.

The rule calls it as plain Python with options that name its inputs and outputs. In Jupyter, or with `jupytext
--execute`, a notebook reads `results/quick` and only shows the figure.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from l2dyn.config.loading import load_scale
from l2dyn.config.scale import ScaleConfig
from l2dyn.errors import UserError
from l2dyn.files import ROOT, git_revision, results_folder
from l2dyn.plotting import style
from l2dyn.plotting.legends import make_room_for_legends
from l2dyn.runs.bundles import Bundles
from l2dyn.runs.l2_selection import FILE, L2Selection, read_l2_selection
from l2dyn.runs.summaries import read_summary
from l2dyn.specs.data_sets import DATA_SETS, DataSpec
from l2dyn.specs.run import NUMERICS_VERSION
from l2dyn.tables.csv_files import write_csv

COLUMNS = (
    "kind",
    "panel",
    "series",
    "x",
    "y",
    "low",
    "high",
)  # of a figure's CSV, then what a series adds, and run_ids


@dataclass
class FigureNotebook:
    """One figure of one scale.

    `plotted` collects the rows of the figure's CSV; call `plot` for every series that is drawn, `number` for every
    number that is read off it.
    """

    name: str
    scale: str
    config: ScaleConfig
    folder: Path  # results/<scale>
    runs: Bundles
    outputs: dict[str, Path] | None  # by kind; None: show the figure, write nothing
    plotted: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, scale: str = "quick") -> "FigureNotebook":
        """The notebook of a figure; options count where it runs as a script of that name."""
        style.use_style()
        if Path(sys.argv[0]).name == f"{name}.py" and len(sys.argv) > 1:
            return cls._from_options(name, sys.argv[1:])
        results = results_folder() if results_folder().is_dir() else ROOT / "results"
        paths = sorted((results / scale).glob("*/runs/*.parquet"))
        return cls(name, scale, load_scale(scale), results / scale, Bundles(paths), None)

    @classmethod
    def _from_options(cls, name: str, arguments: Sequence[str]) -> "FigureNotebook":
        parser = argparse.ArgumentParser(description=f"Draw {name}.")
        parser.add_argument("--scale", default="quick")
        for kind in ("pdf", "png", "csv"):
            parser.add_argument(f"--{kind}", type=Path, required=True, help="output")
        parser.add_argument("--log", type=Path, help="log file")
        parser.add_argument("--inputs", nargs="*", type=Path, default=[], metavar="FILE", help="bundles among them")
        options = parser.parse_args(arguments)
        _report_errors(options.log)
        outputs = {kind: getattr(options, kind) for kind in ("pdf", "png", "csv")}
        runs = Bundles(path for path in options.inputs if path.suffix == ".parquet")
        return cls(name, options.scale, load_scale(options.scale), options.csv.parent, runs, outputs)

    def summary(self, experiment: str) -> pd.DataFrame:
        """The experiment's summary.

        Raises:
            UserError: when it has not been made.
        """
        return read_summary(self._made(self.folder / experiment / "summary.csv"))

    def curve(self, name: str) -> pd.DataFrame:
        """A table of theory curves.

        Raises:
            UserError: when it has not been made.
        """
        return pd.read_csv(self._made(self.folder / "theory" / f"{name}.csv"))

    def record(self, row) -> dict[str, np.ndarray]:
        """The curves of a summary's row, up to its horizon.

        Raises:
            KeyError: for a run that no bundle holds.
        """
        return self.runs[row.run_id].prefix(row.horizon_steps)

    def l2_selection(self, experiment: str) -> L2Selection:
        """The λ of an experiment that has them measured.

        Raises:
            UserError: when they have not been.
        """
        return read_l2_selection(self._made(self.folder / experiment / FILE))

    def plot(self, panel: str, series: str, x, y, run_ids="", **more) -> None:
        """Note plotted points for the figure's CSV; `more` are further columns."""
        columns = {"kind": "points", "panel": panel, "series": series, "x": np.asarray(x), "y": np.asarray(y)}
        self.plotted.append(pd.DataFrame({**columns, **more, "run_ids": run_ids}))

    def number(self, panel: str, what: str, value, low=np.nan, high=np.nan, run_ids="", told=True, **more) -> None:
        """Note a number that is read off the figure, with its interval: a row of the CSV, and of results.md.

        told: whether the runs tell the number; where they do not, the interval alone is noted.
        """
        value = value if told else np.nan
        columns = {"kind": "number", "panel": panel, "series": what, "x": np.nan, "y": [value], "low": low}
        self.plotted.append(pd.DataFrame({**columns, "high": high, **more, "run_ids": run_ids}))

    def net(self, experiment: str) -> str:
        """An experiment's net in a few words."""
        return self.config.experiments[experiment].net.describe()

    def seeds(self, *experiments: str) -> str:
        """How many seeds the experiments have, as "1, 3": each number once, in their order."""
        return ", ".join(dict.fromkeys(str(len(self.config.experiments[name].seeds)) for name in experiments))

    def small_print(self, *summaries: pd.DataFrame, note: str = "") -> str:
        """Scale, data sets, what is missing or outdated, the code's revision, and a note of the figure's own."""
        rows = pd.concat(summaries) if summaries else pd.DataFrame()
        parts = [f"scale {self.scale}"]
        if len(rows):
            data = dict.fromkeys(self.config.experiments[name].data for name in rows["experiment"].unique())
            parts += dict.fromkeys(map(_said_of, data))
            for status in ("missing", "short", "diverged"):
                count = int((rows["status"] == status).sum())
                if count:
                    parts.append(f"{style.plural(count, 'run')} {status}")
            old = int((rows["numerics_version"] < NUMERICS_VERSION).sum())
            if old:
                parts.append(f"{style.plural(old, 'run')} of an older numerics version")
        if note:
            parts.append(note)
        return " · ".join([*parts, f"revision {git_revision()}"])

    def finish(self, figure: Figure) -> Figure:
        """Write the figure and its CSV where the rule wants them; without a rule only return it."""
        style.mark_empty(figure)
        make_room_for_legends(figure)
        if self.outputs is not None:
            style.save(figure, self.outputs["pdf"], self.outputs["png"])
            table = pd.concat(self.plotted, ignore_index=True) if self.plotted else pd.DataFrame()
            further = [name for name in table.columns if name not in (*COLUMNS, "run_ids")]
            table = table.reindex(columns=[*COLUMNS, *further, "run_ids"])
            write_csv(self.outputs["csv"], list(table.columns), table.itertuples(index=False))
        return figure

    def _made(self, path: Path) -> Path:
        if not path.exists():
            raise UserError(f"{path}: not made yet; run: snakemake --cores 2 {path} --config scale={self.scale}")
        return path


def _said_of(data: DataSpec) -> str:
    """A data set with its number of training images and their size."""
    height, width, _ = data.image_shape
    return f"{DATA_SETS[data.name].title}: {data.train_samples:,} of {height} × {width} pixels"


def _report_errors(path: Path | None) -> None:
    """A UserError ends the script as one line, on the terminal and in the log; Python's warnings go to the log."""
    handlers: list[logging.Handler] = []
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        logging.raiseExceptions = False  # as in l2dyn.cli.options
        handlers = [logging.FileHandler(path, mode="w", encoding="utf-8")]
    logging.basicConfig(handlers=handlers or None, level=logging.WARNING, force=True)
    logging.captureWarnings(True)

    def report(kind, error, trace):
        logging.error("l2dyn: %s", error, exc_info=None if issubclass(kind, UserError) else (kind, error, trace))
        if issubclass(kind, UserError):
            print(f"l2dyn: {error}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report
