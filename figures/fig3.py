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
# # Figure 3: CNNs without and with batch norm
#
# The panels of figure 2 for a convolutional net at one learning rate. Top row: without batch norm; bottom row: with it.
#
# - **a, d** the time t* to the peak against λ; **b, e** the maximum test accuracy; **c, f** the same within a fixed
#   number of epochs.

# %%
from l2dyn.plotting import style
from l2dyn.plotting.job import FigureJob
from l2dyn.plotting.time_scales import draw_best, draw_budget, draw_time

job = FigureJob.start("fig3", globals().get("snakemake"))
figure, axes = style.panels(3, rows=2)

# %%
summaries = []
for panels, row, name in (("abc", axes[:3], "fig3-plain"), ("def", axes[3:], "fig3-norm")):
    grid, fixed = job.summary(name), job.summary(f"{name}-budget")
    draw_time(job, row[0], panels[0], grid)
    draw_best(job, row[1], panels[1], grid)
    draw_budget(job, row[2], panels[2], fixed, grid)
    summaries += [grid, fixed]

# %%
models = " (a–c), ".join(job.describe_model(name) for name in ("fig3-plain", "fig3-norm"))
seeds = job.seeds("fig3-plain", "fig3-plain-budget", "fig3-norm", "fig3-norm-budget")
note = f"{models} (d–f); seeds {seeds} in ab, c, de, f; hollow: censored, ×: diverged"
style.small_print(figure, job.small_print(*summaries, note=note))
job.finish(figure)
