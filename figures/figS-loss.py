# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure S-loss: when the empirical loss is smallest
#
# - **a, b** the time of the smallest smoothed training loss (without the penalty) against λ, for each η, for the FC net
#   and the Wide ResNet (claim C19); hollow: the loss has not risen by the horizon's end, a lower bound;
# - **c** the last time at which the training error of the FC net is within half a point of its smallest.

# %%
import numpy as np
import pandas as pd

from l2dyn.claims.laws import loss_minima
from l2dyn.measures.power_laws import fit_power_law
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_times, law_in_words, told

notebook = FigureNotebook.start("figS-loss")
names = notebook.config.figures["figS-loss"].experiments
summaries = {name: notebook.summary(name) for name in names}
figure, axes = style.panels(3)


def last_fit(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows with t_star replaced by the last time within half a point of the smallest training error."""
    rows = []
    for row in summary.itertuples():
        columns = notebook.record(row)
        error = columns["train_error"]
        last = int(np.flatnonzero(error <= error.min() + 0.005)[-1])
        if last > 0:
            rows.append(row._asdict() | {"t_star": columns["epoch"][last], "censored": last == len(error) - 1})
    return pd.DataFrame(rows)


def draw(ax, panel: str, runs: pd.DataFrame) -> None:
    """Times against λ for each η, and the common exponent."""
    if not len(runs):
        return
    runs = runs.assign(bound=runs["censored"].astype(bool))
    colors = style.learning_rate_colors(runs["lr"])
    for lr, of_rate in runs.groupby("lr"):
        draw_times(notebook, ax, panel, f"lr={lr:g}", of_rate, colors[lr], rf"$\eta = {style.number(lr)}$")
    law = fit_power_law(runs["t_star"], runs["l2"], censored=runs["bound"], lines=runs["lr"])
    if law is not None:
        ids = " ".join(runs["run_id"])
        more = {"runs": law.points, "bounds": law.bounds}
        slope = law.slopes[0], law.low[0], law.high[0]
        notebook.number(panel, "exponent of l2 at fixed lr", *slope, ids, told(law), **more)
        ax.text(0.04, 0.04, law_in_words("", law), transform=ax.transAxes, fontsize=style.SMALL)


# %%
usable = {
    name: summary[(summary["l2"] > 0) & (summary["status"] == "finished") & (summary["min_train_error"] <= 0.02)]
    for name, summary in summaries.items()
}
for ax, panel, name in zip(axes, "ab", names, strict=False):
    draw(ax, panel, loss_minima(notebook.runs, usable[name]))
    ax.set(ylabel="epochs to smallest loss")
    ax.set_title(notebook.net(name), loc="right", fontsize=style.SMALL)
draw(axes[2], "c", last_fit(usable[names[0]]))
axes[2].set(ylabel="epochs to last small error")
axes[2].set_title(notebook.net(names[0]), loc="right", fontsize=style.SMALL)
for ax, name in zip(axes, (names[0], names[1], names[0]), strict=True):
    style.log_axis_of_l2(ax, summaries[name]["units"].iloc[0])
    ax.set(yscale="log")
    style.make_room(ax, below=0.3)
    style.make_room(ax, above=0.3)  # the exponent stands below
    ax.legend(loc="upper right")

# %%
note = f"seeds: {notebook.seeds(*names)}; exponents at fixed η with 90 % intervals; hollow: bounds, and taken as such"
style.small_print(figure, notebook.small_print(*summaries.values(), note=note))
notebook.finish(figure)
