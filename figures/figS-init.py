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
# # Figure S-init: the scale of the initialization
#
# Nets whose initial weights differ by a factor (weight_std σw of N(0, σw²/fan-in)); runs end at the same t·η·λ.
#
# - **a** the maximum test accuracy against λ: it should not depend on σw (claim C16);
# - **b** the time t* to the peak.

# %%
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_points, draw_times

notebook = FigureNotebook.start("figS-init")
names = notebook.config.figures["figS-init"].experiments
figure, (ax_best, ax_time) = style.panels(2)
scales = {name: notebook.config.experiments[name].net.weight_std for name in names}
colors = style.learning_rate_colors(sorted(set(scales.values())))

# %%
summaries = []
for name in sorted(names, key=scales.get):
    summary = notebook.summary(name)
    summaries.append(summary)
    runs = summary[(summary["l2"] > 0) & (summary["status"] == "finished")]
    label, color = rf"$\sigma_w = {scales[name]:.3g}$", colors[scales[name]]
    if runs.empty:
        continue
    best = runs.dropna(subset="max_test_accuracy").assign(bound=lambda rows: rows["censored"])
    draw_points(notebook, ax_best, "a", f"weight_std={scales[name]:.3g}", best, "max_test_accuracy", color, label)
    timed = runs[runs["t_star"] > 0].assign(bound=lambda rows: rows["censored"])
    if len(timed):
        draw_times(notebook, ax_time, "b", f"weight_std={scales[name]:.3g}", timed, color, label)

# %%
units = summaries[0]["units"].iloc[0]
style.log_axis_of_l2(ax_best, units)
style.log_axis_of_l2(ax_time, units)
ax_best.set(ylabel="max test accuracy")
ax_time.set(yscale="log", ylabel="epochs to peak $t^*$")
ax_best.legend(loc="best")
lr = notebook.config.experiments[names[0]].lr[0]
note = f"{notebook.net(names[0])}, η = {lr:g} (seeds: {notebook.seeds(*names)})"
note += "; bars: in a the range over seeds, in b 90 % intervals; hollow: censored, in a also: seeds are missing"
style.small_print(figure, notebook.small_print(*summaries, note=note))
notebook.finish(figure)
