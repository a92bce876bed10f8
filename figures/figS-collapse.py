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
# # Figure S-collapse: the law at one glance
#
# Every net of figures 2 and 3, and the one with momentum, every η and λ at which it fits its training set, against the
# dimensionless time η·S·λ·t/(1−μ) (S steps an epoch, momentum μ). Left: test accuracy; in the middle: the norm of
# all parameters over its initial value. If t* ∝ 1/(ηλ), the peaks of a net lie above each other, whatever η and λ.
# Right: its value C at t* against λ, for all λ that train, those at which c is measured included: level where the law
# holds.

# %%
import numpy as np

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("figS-collapse")
names = notebook.config.figures["figS-collapse"].experiments
figure, axes = style.panels(3, rows=len(names), height=1.45, letters=False)

# %%
LOOKS = ((False, True, "o", None), (True, True, "o", "white"), (False, False, "+", None), (True, False, "+", None))
summaries = []
for number, name in enumerate(names):
    ax_accuracy, ax_norm, ax_constant = axes[3 * number : 3 * number + 3]
    summary = notebook.summary(name)
    summaries.append(summary)
    runs = summary[(summary["l2"] > 0) & (summary["status"] == "finished")]
    runs = runs[runs["min_train_error"] <= FITTED_ERROR]
    colors = style.learning_rate_colors(runs["l2"])
    for row in runs.sort_values("l2").itertuples():
        columns, spec = notebook.record(row), notebook.runs[row.run_id].spec
        C = spec.lr * spec.steps_per_epoch * spec.l2 * columns["epoch"] / (1 - spec.momentum)
        norm = columns["param_norm"] / columns["param_norm"][0]
        look = {"color": colors[row.l2], "linewidth": 0.6, "alpha": 0.8}
        kept = C > 0.01
        ax_accuracy.plot(C[kept], columns["test_accuracy"][kept], **look)
        ax_norm.plot(C[kept], norm[kept], **look)
        series = f"{name} lr={row.lr:g} l2={row.l2:g} seed={row.seed}"
        notebook.plot("accuracy", series, C[kept], columns["test_accuracy"][kept], row.run_id)
        notebook.plot("norm", series, C[kept], norm[kept], row.run_id)
    momentum = summary["momentum"].max()
    net = notebook.net(name) + (f", momentum {momentum:g}" if momentum else "")
    if runs.empty and (summary["status"] == "finished").any():
        for ax in (ax_accuracy, ax_norm):
            ax.text(0.5, 0.5, "none fits its training set", transform=ax.transAxes, ha="center", color=style.NEUTRAL)
    known = runs[(runs["C"] > 0) & ~runs["censored"]]
    if len(known):
        low, middle, high = np.exp(np.quantile(np.log(known["C"]), [0.1, 0.5, 0.9]))
        ax_accuracy.axvspan(low, high, color=style.ORANGE, alpha=0.15, linewidth=0)
        ids = " ".join(known["run_id"])
        notebook.number("accuracy", f"C of {net} (median, 10 % to 90 %)", middle, low, high, ids)
    for l2 in sorted({min(colors), max(colors)}) if colors else ():
        ax_accuracy.plot([], [], color=colors[l2], label=rf"$\lambda = {style.number(l2)}$")
    ax_accuracy.set(xscale="log", ylabel="test accuracy")
    ax_norm.set(xscale="log", yscale="log", ylabel=r"$\|\theta\| / \|\theta_0\|$")
    ax_accuracy.set_title(net, loc="left", fontsize=style.SMALL)
    ax_accuracy.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
    every = summary[(summary["l2"] > 0) & (summary["C"] > 0)]
    for lr, rows in every.groupby("lr"):
        for censored, fitted, marker, fill in LOOKS:
            shown = rows[(rows["censored"] == censored) & ((rows["min_train_error"] <= FITTED_ERROR) == fitted)]
            look = {"color": style.learning_rate_colors(every["lr"])[lr], "markerfacecolor": fill, "markersize": 3.5}
            ax_constant.plot(shown["l2"], shown["C"], marker, linestyle="none", **{k: v for k, v in look.items() if v})
        notebook.plot(
            "constant",
            f"{name} lr={lr:g}",
            rows["l2"],
            rows["C"],
            rows["run_id"].to_numpy(),
            censored=rows["censored"].to_numpy(),
        )
    if every["lr"].nunique() > 1:
        for lr, color in style.learning_rate_colors(every["lr"]).items():
            ax_constant.plot([], [], "o", color=color, markersize=3.5, label=rf"$\eta = {style.number(lr)}$")
        ax_constant.legend(loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.3)
    ax_constant.set(yscale="log", ylabel="$C$ of $t^*$")
    style.log_axis_of_l2(ax_constant, summary["units"].iloc[0])
    ax_constant.set(xlabel=style.with_units(r"$\lambda$", summary["units"].iloc[0]))
    if len(every):
        style.label_short_log_axis(ax_constant.yaxis)
for ax in axes[-3:-1]:
    ax.set(xlabel=r"$\eta S \lambda t / (1 - \mu)$")

# %%
note = f"seeds: {notebook.seeds(*names)}; band: 10 % to 90 % of the C at which runs that fit their data peak"
note += "; right, hollow: a lower bound, +: does not fit its training set"
style.small_print(figure, notebook.small_print(*summaries, note=note))
notebook.finish(figure)
