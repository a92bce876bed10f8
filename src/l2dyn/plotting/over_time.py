"""Test accuracy over time with λ(t): AutoL2 beside a constant λ."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook


def draw_over_time(notebook: FigureNotebook, ax: Axes, panel: str, runs: Mapping[str, pd.DataFrame]) -> None:
    """Every finished or short run of some summaries, by label, with λ dotted on an axis of its own."""
    ax_l2 = ax.twinx()
    ax_l2.spines[["top", "left"]].set_visible(False)
    for (name, summary), color in zip(runs.items(), (style.GREEN, style.BLUE), strict=True):
        label = name
        for row in summary[summary["status"].isin(["finished", "short"])].itertuples():
            columns = notebook.record(row)
            l2 = columns["l2"] * (row.l2 / row.l2_torch)
            ax.plot(columns["epoch"], columns["test_accuracy"], color=color, linewidth=0.8, label=label)
            ax_l2.plot(columns["epoch"], l2, color=color, linewidth=0.8, linestyle=":")
            curve = (columns["epoch"], columns["test_accuracy"])
            notebook.plot(panel, f"{name} seed={row.seed}", *curve, row.run_id, l2=l2, l2_torch=columns["l2"])
            label = None
    first = next(iter(runs.values()))
    ax.set(xlabel="epochs", ylabel="test accuracy", xlim=(0, max(first["horizon_epochs"].max(), 1)))
    style.cut_early(ax)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
    label = style.with_units(r"$\lambda$, dotted", first["units"].iloc[0])
    ax_l2.set(yscale="log", ylabel=label)
    low, high = ax_l2.get_ylim()
    ax_l2.set_ylim(max(low, 1e-8) / 10, 3 * high)  # below that it does nothing; room for the accuracies
