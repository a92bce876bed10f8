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
# # Figure 2: performance and time scales
#
# Plain SGD on two nets. Top row: a fully-connected net with three hidden layers. Bottom row: a Wide ResNet.
#
# - **a, d** the time t* at which test accuracy first comes within 0.5 points of its maximum, against λ, for each η:
#   the paper's law is t* ∝ 1/(ηλ);
# - **b, e** the maximum test accuracy against λ; the dashed line is the best run without L2 over all η;
# - **c, f** the same within a fixed number of epochs, where performance peaks at one λ.
#
# Hollow points are bounds: runs whose peak may lie beyond their horizon, left out of the fit. Crosses: diverged.

# %%
from l2dyn.plotting import style
from l2dyn.plotting.job import FigureJob
from l2dyn.plotting.time_scales import draw_best, draw_budget, draw_time

job = FigureJob.start("fig2", globals().get("snakemake"))
figure, axes = style.panels(3, rows=2)

# %%
summaries = []
for panels, row, grid_name, fixed_name in (("abc", axes[:3], "fig2ab", "fig2c"), ("def", axes[3:], "fig2de", "fig2f")):
    grid, fixed = job.summary(grid_name), job.summary(fixed_name)
    draw_time(job, row[0], panels[0], grid)
    draw_best(job, row[1], panels[1], grid)
    draw_budget(job, row[2], panels[2], fixed, grid)
    summaries += [grid, fixed]

# %%
models = " (a–c), ".join(job.describe_model(name) for name in ("fig2ab", "fig2de"))
seeds = job.seeds("fig2ab", "fig2c", "fig2de", "fig2f")
note = f"{models} (d–f); seeds {seeds} in ab, c, de, f; hollow: censored, ×: diverged"
style.small_print(figure, job.small_print(*summaries, note=note))
job.finish(figure)
