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
# # Figure 2: performance and time scales, fully-connected net
#
# Panels a, b, c of figure 2 of the paper: a fully-connected net with three hidden layers on 512 digits, plain SGD.
#
# - **a** the time t* at which test accuracy first comes within 0.5 points of its maximum, against λ, for each η:
#   the paper's law is t* ∝ 1/(ηλ);
# - **b** the maximum test accuracy against λ; the dashed line is the best run without L2 over all η;
# - **c** the same within a fixed number of epochs, where performance peaks at one λ.
#
# Hollow points are bounds: in a, runs whose peak may lie beyond their horizon (left out of the fit).

# %%
import numpy as np

from l2dyn.metrics import fit_power_law
from l2dyn.plotting import style
from l2dyn.plotting.job import FigureJob

job = FigureJob.start("fig2", globals().get("snakemake"))
grid = job.summary("fig2ab")
fixed = job.summary("fig2c")
colors = style.learning_rate_colors(grid["lr"])
figure, (ax_time, ax_best, ax_fixed) = style.panels(3)


# %% [markdown]
# Several seeds of one (η, λ) are drawn as one point at their mean (geometric for times) with their range as a bar.


# %%
def per_l2(runs, column, mean):
    """One row per λ: mean, range and run ids over seeds; a bound where any seed's value is one."""
    return runs.groupby("l2").agg(
        y=(column, mean),
        low=(column, "min"),
        high=(column, "max"),
        hollow=("bound", "any"),
        run_ids=("run_id", " ".join),
        seeds=("run_id", "size"),
    )


def draw(ax, panel, series, points, color, label=None):
    """Draw a series and note it for the CSV."""
    style.draw_series(
        ax, points.index, points["y"], color, points["hollow"], label, spread=(points["low"], points["high"])
    )
    extra = {key: points[key].to_numpy() for key in ("low", "high", "hollow", "seeds")}
    job.plot(panel, series, points.index, points["y"], points["run_ids"].to_numpy(), **extra)


def geometric_mean(values):
    """Of positive values."""
    return float(np.exp(np.log(values).mean()))


# %% [markdown]
# ## a: time to the peak
#
# The fit is a regression of log t* on log λ and log η over the uncensored runs, its 90 % interval a bootstrap over
# runs. In the CSV its x is the number of decades that the fitted runs span; the exponents at each η stand there too.

# %%
with_l2 = grid[grid["l2"] > 0]
timed = with_l2.dropna(subset="t_star").assign(bound=lambda runs: runs["censored"])
for lr, runs in timed.groupby("lr"):
    draw(ax_time, "a", f"lr={lr:g}", per_l2(runs, "t_star", geometric_mean), colors[lr], rf"${style.number(lr)}$")
for lr, runs in with_l2[with_l2["status"] == "diverged"].groupby("lr"):
    style.draw_diverged(ax_time, runs["l2"], colors[lr])
    job.plot("a", f"lr={lr:g} diverged", runs["l2"], np.nan, runs["run_id"].to_numpy())

fitted = timed[~timed["censored"] & (timed["t_star"] > 0)]
law = fit_power_law(fitted["t_star"], fitted["l2"], fitted["lr"]) if len(fitted) else None
if law is not None:
    l2 = np.geomspace(fitted["l2"].min(), fitted["l2"].max(), 50)
    middle = sorted(colors)[len(colors) // 2]
    line = np.exp(law.intercept) * l2 ** law.slopes[0] * middle ** law.slopes[1]
    ax_time.plot(l2, line, ":", color=style.NEUTRAL, linewidth=1.0, zorder=1)
    interval = f"[{law.low[0]:.2f}, {law.high[0]:.2f}]".replace("-", "−")
    text = f"$t^* \\propto \\lambda^{{{law.slopes[0]:.2f}}}$ {interval}\n$t^* \\propto \\eta^{{{law.slopes[1]:.2f}}}$"
    ax_time.text(0.04, 0.03, text, transform=ax_time.transAxes, fontsize=style.SMALL, va="bottom")
    job.plot("a", "fit", l2, line, " ".join(fitted["run_id"]))
    for name, slope, low, high in zip(("l2", "lr"), law.slopes, law.low, law.high, strict=True):
        job.plot("a", f"exponent of {name}", [law.decades[0]], [slope], " ".join(fitted["run_id"]), low=low, high=high)
for lr, runs in fitted.groupby("lr"):
    one = fit_power_law(runs["t_star"], runs["l2"])
    if one is not None:
        ids = " ".join(runs["run_id"])
        job.plot("a", f"exponent of l2 at lr={lr:g}", one.decades, one.slopes, ids, low=one.low, high=one.high)
ax_time.set(xscale="log", yscale="log", xlabel=r"L2 coefficient $\lambda$", ylabel="epochs to peak $t^*$")
style.make_room(ax_time, below=0.28)

# %% [markdown]
# ## b: the best test accuracy
#
# The dashed line is the best that training without L2 reached over all η.

# %%
best = with_l2.dropna(subset="max_test_accuracy")
best = best[best["status"] != "diverged"].assign(bound=lambda runs: runs["censored"] | (runs["status"] == "short"))
for lr, runs in best.groupby("lr"):
    draw(ax_best, "b", f"lr={lr:g}", per_l2(runs, "max_test_accuracy", "mean"), colors[lr])


def draw_without_l2(ax, panel, runs):
    """The dashed line of λ = 0: seeds averaged, then the best learning rate."""
    runs = runs[(runs["l2"] == 0)].dropna(subset="max_test_accuracy")
    if len(runs) == 0:
        return
    means = runs.groupby("lr")["max_test_accuracy"].mean()
    ids = " ".join(runs.loc[runs["lr"] == means.idxmax(), "run_id"])
    ax.axhline(means.max(), color=style.NEUTRAL, linestyle="--", linewidth=1.0, label=r"$\lambda = 0$", zorder=1)
    job.plot(panel, "l2=0", [0.0], [means.max()], ids)


draw_without_l2(ax_best, "b", grid)
ax_best.set(xscale="log", xlabel=r"L2 coefficient $\lambda$", ylabel="max test accuracy")
handles = [*ax_time.get_legend_handles_labels()[0], *ax_best.get_legend_handles_labels()[0]]
ax_best.legend(handles=handles, title=r"learning rate $\eta$", loc="lower left")

# %% [markdown]
# ## c: a fixed budget

# %%
budget = fixed["horizon_epochs"].max()
within = fixed[(fixed["l2"] > 0) & (fixed["status"] != "diverged")].dropna(subset="max_test_accuracy")
within = within.assign(bound=lambda runs: runs["status"] == "short")
for lr, runs in within.groupby("lr"):
    draw(ax_fixed, "c", f"lr={lr:g}", per_l2(runs, "max_test_accuracy", "mean"), colors.get(lr, style.BLUE))
draw_without_l2(ax_fixed, "c", fixed)
rates = ", ".join(f"{lr:g}" for lr in sorted(set(fixed["lr"])))
ax_fixed.set(xscale="log", xlabel=r"L2 coefficient $\lambda$", ylabel="max test accuracy")
style.make_room(ax_fixed, below=0.3)
ax_fixed.legend(title=rf"{budget:g} epochs, $\eta = {rates}$", loc="lower left")

# %%
model = job.config.experiments["fig2ab"].model
counts = [style.plural(len(job.config.experiments[name].seeds), "seed") for name in ("fig2ab", "fig2c")]
note = f"width {model.width}; {counts[0]} in a, b, {counts[1]} in c; hollow: censored, ×: diverged"
style.small_print(figure, job.small_print(grid, fixed, note=note))
job.finish(figure)
