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
# # Figure S-constant: does theory predict the constant in t* = c/λ?
#
# Theory follows the function from each net's own f(0) (equations 1 to 3), and is read as the runs are. Times are
# gradient-flow times t = η·steps, so that λt is dimensionless. In c, runs that do not fit their training set are
# plus signs, as in figure 2, and no part of the medians.
#
# - **a** when the training loss is smallest, bias-free 2-layer nets trained on squared loss at a small learning rate;
# - **b** when the test accuracy is within 0.5 points of its maximum, the same nets;
# - **c** the same for the net of figure 2a-c, which theory is not made for: it has biases, cross-entropy and a finite
#   width, and η is not small.

# %%

import numpy as np
import pandas as pd

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_points

notebook = FigureNotebook.start("figS-constant")
*homogeneous, biased = notebook.config.figures["figS-constant"].experiments
theory = notebook.curve("constant").set_index("run_id").add_suffix("_theory")
figure, (ax_loss, ax_accuracy, ax_biased) = style.panels(3)


def compared(experiment: str) -> pd.DataFrame:
    """The runs with λ > 0 that were measured, with λt as measured and in theory."""
    runs = notebook.summary(experiment)
    runs = runs[(runs["l2"] > 0) & runs["status"].isin(["finished", "short"])]
    runs = runs.join(theory, on="run_id")
    scale = runs["lr"] * runs["l2"]
    for name in ("t_star", "t_min_train_loss"):
        runs[f"C_{name}"], runs[f"C_{name}_theory"] = scale * runs[name], scale * runs[f"{name}_theory"]
    inside = (runs["t_min_train_loss"] > 0) & (runs["t_min_train_loss"] < runs["horizon_epochs"])
    runs.loc[~inside, "C_t_min_train_loss"] = np.nan
    # pandas reads a column of true and false with gaps as objects
    runs["fits"] = (runs["min_train_error"] <= FITTED_ERROR) | (experiment != biased)
    runs["bound"] = runs["censored"] | (runs["censored_theory"].astype(str).str.lower() == "true")
    return runs


def draw(ax, panel: str, label: str, runs: pd.DataFrame, name: str, color, bound: bool) -> str:
    """Measured points and theory's dashed line for one net; the median of measured over theory, in words."""
    kept = runs.dropna(subset=[name, f"{name}_theory"]).assign(bound=lambda r: r["bound"] & bound)
    unfit, kept = kept[~kept["fits"]], kept[kept["fits"]]
    if len(unfit):
        ax.plot(unfit["l2"], unfit[name], "+", color=color, zorder=5)
        notebook.plot(panel, f"{label} not fitting", unfit["l2"], unfit[name], unfit["run_id"].to_numpy())
    if not len(kept):
        return ""
    draw_points(notebook, ax, panel, label, kept, name, color, label, mean=geometric_mean)
    of_theory = kept.groupby("l2")[f"{name}_theory"].agg([geometric_mean, "min", "max"])
    ax.plot(of_theory.index, of_theory["geometric_mean"], "--", color=color, linewidth=0.9, zorder=1)
    ax.fill_between(of_theory.index, of_theory["min"], of_theory["max"], color=color, alpha=0.12, linewidth=0)
    extra = {"low": of_theory["min"].to_numpy(), "high": of_theory["max"].to_numpy()}
    notebook.plot(panel, f"{label} theory", of_theory.index, of_theory["geometric_mean"], **extra)
    ratios = (kept[name] / kept[f"{name}_theory"])[~kept["bound"]]
    if not len(ratios):
        return ""
    middle, low, high = ratios.median(), ratios.min(), ratios.max()
    plain = label.replace("$", "").replace(r"\eta", "η").replace(" ", "\N{NO-BREAK SPACE}")
    notebook.number(panel, f"{plain}: measured over theory (median, range)", middle, low, high, runs=len(ratios))
    return f"{middle:.2f}\N{NO-BREAK SPACE}({plain})"


def geometric_mean(values) -> float:
    """Of positive values."""
    return float(np.exp(np.log(values).mean()))


# %% [markdown]
# ## a, b: bias-free nets on squared loss

# %%
tables = {name: compared(name) for name in homogeneous}
widths = {name: notebook.config.experiments[name].net.width for name in homogeneous}
colors = style.learning_rate_colors(sorted(widths.values()))
words: dict[str, list[str]] = {"a": [], "b": [], "c": []}
for name in sorted(homogeneous, key=widths.get):
    label, color = f"width {widths[name]}", colors[widths[name]]
    words["a"].append(draw(ax_loss, "a", label, tables[name], "C_t_min_train_loss", color, bound=False))
    words["b"].append(draw(ax_accuracy, "b", label, tables[name], "C_t_star", color, bound=True))

# %% [markdown]
# ## c: the net of figure 2

# %%
runs = compared(biased)
for lr, color in style.learning_rate_colors(runs["lr"]).items():
    label = rf"$\eta = {style.number(lr)}$"
    words["c"].append(draw(ax_biased, "c", label, runs[runs["lr"] == lr], "C_t_star", color, bound=True))

# %%
titles = (ax_loss, "smallest loss"), (ax_accuracy, "$t^*$ of the accuracy"), (ax_biased, "$t^*$, figure 2's net")
for ax, name in titles:
    style.log_axis_of_l2(ax)
    ax.set(yscale="log", ylabel=r"$C = \lambda t$")
    ax.set_title(name, loc="right", fontsize=style.SMALL)
    ax.plot([], [], "--", color=style.NEUTRAL, linewidth=0.9, label="theory")
    style.make_room(ax, above=0.75)
    style.label_short_log_axis(ax.yaxis)
    style.label_short_log_axis(ax.xaxis)
    ax.legend(loc="upper left", ncols=2 if ax is ax_biased else 1)

# %%
first = notebook.config.experiments[homogeneous[0]]
seeds = style.plural(len(first.seeds), "seed")
note = f"a, b: {first.data.train_samples} samples, even/odd labels, η = {first.lr[0]:g}, {seeds}"
note += f"; c: {notebook.net(biased)}; bars and bands: range over seeds; hollow: censored"
note += ", + in c: does not fit its training set"
said = [f"{panel}\N{NO-BREAK SPACE}{', '.join(filter(None, found))}" for panel, found in words.items() if any(found)]
note += "; median of measured over theory: " + "; ".join(said) if said else ""
style.small_print(figure, notebook.small_print(*tables.values(), runs, note=note))
notebook.finish(figure)
