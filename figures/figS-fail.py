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
# # Figure S-fail: where the relations do not hold
#
# The law is one of nets that can fit their training set. A net too narrow for that has no phase of slow decay after a
# fast fit: λ then only limits how well it learns.
#
# - **a** the time t* to the peak against λ for the net of figure 2 and for a narrow one; plus signs: runs that never
#   fit their training set; the dotted line is 1/λ through the wide net's points;
# - **b** the smallest training error of both; **c** the maximum test accuracy.

# %%
import numpy as np

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.measures.power_laws import fit_power_law
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_points, draw_times, told

notebook = FigureNotebook.start("figS-fail")
names = notebook.config.figures["figS-fail"].experiments
figure, (ax_time, ax_error, ax_best) = style.panels(3)

# %%
summaries = []
for name, color in zip(names, (style.BLUE, style.ORANGE), strict=True):
    summary = notebook.summary(name)
    summaries.append(summary)
    lr = notebook.config.experiments[names[-1]].lr[0]
    runs = summary[(summary["l2"] > 0) & (summary["lr"] == lr) & (summary["status"] == "finished")]
    label = notebook.net(name)
    timed = runs[runs["t_star"] > 0].assign(bound=lambda rows: rows["censored"])
    unfit = timed["min_train_error"] > FITTED_ERROR
    if unfit.any():  # without a point the axis would have no positive limits
        ax_time.plot(timed["l2"][unfit], timed["t_star"][unfit], "+", color=color, zorder=5)
    notebook.plot("a", f"{label} not fitting", timed["l2"][unfit], timed["t_star"][unfit], timed["run_id"][unfit])
    if (~unfit).any():
        draw_times(notebook, ax_time, "a", label, timed[~unfit], color)
    law = fit_power_law(timed["t_star"], timed["l2"], censored=timed["censored"]) if len(timed) else None
    if law is not None:
        ids, slope = " ".join(timed["run_id"]), (law.slopes[0], law.low[0], law.high[0])
        notebook.number("a", f"exponent of l2, {label}, all runs", *slope, ids, told(law))
    if name == names[0] and (~unfit).any():
        l2 = np.array([runs["l2"].min(), runs["l2"].max()])
        middle = float(np.exp(np.log(timed[~unfit]["t_star"] * timed[~unfit]["l2"]).mean()))
        ax_time.plot(l2, middle / l2, ":", color=style.NEUTRAL, linewidth=1.0, label=r"$\propto 1/\lambda$")
    errors = runs.assign(bound=False)
    draw_points(notebook, ax_error, "b", label, errors, "min_train_error", color, label)
    draw_points(notebook, ax_best, "c", label, errors.dropna(subset="max_test_accuracy"), "max_test_accuracy", color)

# %%
units = summaries[0]["units"].iloc[0]
for ax, text in ((ax_time, "epochs to peak $t^*$"), (ax_error, "min training error"), (ax_best, "max test accuracy")):
    style.log_axis_of_l2(ax, units)
    ax.set(ylabel=text)
ax_time.set(yscale="log")
ax_error.legend(loc="best")
ax_time.legend(loc="lower left")
note = f"η = {lr:g} (seeds: {notebook.seeds(*names)}); bars of t*: 90 % intervals, others: range over seeds"
note += "; +: does not fit its training set; hollow: censored (a), seeds are missing (b, c)"
style.small_print(figure, notebook.small_print(*summaries, note=note))
notebook.finish(figure)
