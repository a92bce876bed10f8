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
# dimensionless time C = η·S·λ·t/(1−μ) (S steps an epoch, momentum μ). Left: test accuracy; right: the norm of all
# parameters over its initial value. If t* ∝ 1/(ηλ), the peaks of a net lie above each other, whatever η and λ.

# %%
import numpy as np

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("figS-collapse")
names = notebook.config.figures["figS-collapse"].experiments
figure, axes = style.panels(2, rows=len(names), height=1.45, letters=False)

# %%
summaries = []
for number, name in enumerate(names):
    ax_accuracy, ax_norm = axes[2 * number : 2 * number + 2]
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
    known = runs[(runs["C"] > 0) & ~runs["censored"]]
    if len(known):
        low, middle, high = np.exp(np.quantile(np.log(known["C"]), [0.1, 0.5, 0.9]))
        ax_accuracy.axvspan(low, high, color=style.ORANGE, alpha=0.15, linewidth=0)
        ids = " ".join(known["run_id"])
        notebook.number("accuracy", f"C of {net} (median, 10 % to 90 %)", middle, low, high, ids)
    for l2 in (min(colors), max(colors)) if colors else ():
        ax_accuracy.plot([], [], color=colors[l2], label=rf"$\lambda = {style.number(l2)}$")
    ax_accuracy.set(xscale="log", ylabel="test accuracy")
    ax_norm.set(xscale="log", yscale="log", ylabel=r"$\|\theta\| / \|\theta_0\|$")
    ax_accuracy.set_title(net, loc="left", fontsize=style.SMALL)
    ax_accuracy.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
for ax in axes[-2:]:
    ax.set(xlabel=r"$C = \eta S \lambda t / (1 - \mu)$")

# %%
note = f"seeds: {notebook.seeds(*names)}; band: 10 % to 90 % of the C at which runs that fit their data peak"
style.small_print(figure, notebook.small_print(*summaries, note=note))
notebook.finish(figure)
