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
# # Figure 4: predicting the best λ
#
# - **a** test accuracy against t·λ at large λ: the time of its peak gives c. C = η·S·c/(1−μ) has no dimension; where
#   it differs between the λ, what c predicts depends on the λ at which it is measured. C stands beside those λ at which
#   accuracy comes down after its peak, in every run;
# - **b** the λ predicted for a training budget T, c/T, with the interval of c over seeds, and the best λ of a grid,
#   with every λ within 0.1 % of the best accuracy; hollow where these reach the grid's edge, or where a seed's run at
#   the predicted λ is missing.
#
# c is read off in two ways: c_argmax, the maximum of the smoothed curve, and c_0.5pp, the first time within 0.5 points
# of the maximum. The scale's configuration says which of them predicts, and at which λ.

# %%
import numpy as np

from l2dyn.measures.peaks import has_come_down
from l2dyn.measures.regression import mean_interval
from l2dyn.plotting import style
from l2dyn.plotting.budgets import by_budget, predicted_at_budgets, tuned_at_budgets
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("fig4")
peaked, grid, predicted = (notebook.summary(name) for name in ("fig4a", "fig1b-tuned", "fig1b-predicted"))
selection, wanted = notebook.l2_selection("fig1b-predicted"), notebook.config.experiments["fig1b-predicted"].l2
coefficients = (selection.evidence or {}).get("coefficients", [])
units = peaked["units"].iloc[0]
figure, (ax_peak, ax_l2) = style.panels(2, height=2.2)
TOLD = 4.1  # a ratio of λ whose ends are further apart is not told: one step of the grid to either side

# %% [markdown]
# ## a: measuring c

# %%
shown = peaked[peaked["status"].isin(["finished", "short"]) & (peaked["l2"] > 0)]
colors = style.learning_rate_colors(shown["l2"])
end, come_down = 0.0, set()
for row in shown.sort_values("l2").itertuples():
    columns = notebook.record(row)
    curve = (row.l2 * columns["epoch"], columns["test_accuracy"])
    ax_peak.plot(*curve, color=colors[row.l2], linewidth=0.6, alpha=0.8)
    torch_x = row.l2_torch * columns["epoch"]
    if has_come_down(columns["test_accuracy"]):
        come_down.add(row.run_id)
    notebook.plot("a", f"l2={row.l2:g} seed={row.seed}", *curve, row.run_id, x_torch=torch_x)
    end = max(end, curve[0][-1])
times = shown[(shown["t_star"] > 0) & ~shown["censored"]]
level = set(times["l2"][~times["run_id"].isin(come_down)])
times = times[~times["l2"].isin(level)]
groups = dict(list(times.groupby("l2")))
intervals = mean_interval([np.log(runs["C"]) for runs in groups.values()]) if groups else []
read = dict(zip(groups, intervals, strict=True))
for l2 in sorted(colors):
    label = rf"$\lambda = {style.number(l2)}$"
    if l2 in read:
        C, low, high = np.exp(read[l2])
        label += f": $C = {C:.2g}$"
        ids = " ".join(groups[l2]["run_id"])
        notebook.number("a", f"C (0.5pp) at l2={l2:g}", C, low, high, ids, runs=len(groups[l2]))
    ax_peak.plot([], [], color=colors[l2], label=label)
for one in coefficients:
    for reading, name in (("argmax", "argmax"), ("within", "0.5pp")):
        c, low, high = (one[f"c_{reading}{side}"] for side in ("", "_low", "_high"))
        ids = " ".join(one["run_ids"])
        notebook.number("a", f"c_{name} (epochs; of every seed and its evaluations)", c, low, high, ids)
        C = one[f"C_{reading}"]
        notebook.number("a", f"C_{name}", C, low * C / c, high * C / c, ids)
        if reading == wanted.reading:
            ax_peak.axvline(c, color=style.ORANGE, linewidth=1.0, label=rf"$c_\mathrm{{{name}}} = {c:#.2g}$")
            ax_peak.axvspan(low, min(high, end), color=style.ORANGE, alpha=0.12, linewidth=0)
if len(shown):
    ax_peak.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
ax_peak.set(xlabel=style.with_units(r"$t \cdot \lambda$ (epochs)", units), ylabel="test accuracy")
if shown["l2"].nunique() > 1:
    ax_peak.set(xscale="log", xlim=(end / 3e3, None))
else:
    style.cut_early(ax_peak)

# %% [markdown]
# ## b: predicted and tuned λ against the budget

# %%
image = 1 / notebook.config.experiments["fig1b-tuned"].data.test_samples
tuned, guessed = tuned_at_budgets(grid, image), predicted_at_budgets(predicted)
label = "tuned, all within 0.1 % of the best"
spread = (tuned["l2_low"], tuned["l2_high"])
style.draw_series(ax_l2, tuned.index, tuned["l2"], style.BLUE, tuned["at_edge"], label, spread)
extra = {key: tuned[key].to_numpy() for key in ("l2_torch", "l2_low", "l2_high", "l2_centre", "at_edge")}
notebook.plot("b", "tuned", tuned.index, tuned["l2"], tuned["run_ids"].to_numpy(), **extra)
middle, low, high = read.get(wanted.at or (max(read) if read else None), (0.0, np.nan, np.nan))
spread = (guessed["l2"] * np.exp(low - middle), guessed["l2"] * np.exp(high - middle))
label = r"predicted, $\lambda = c/T$"
lacking = guessed["seeds"] < len(notebook.config.experiments["fig1b-predicted"].seeds)
style.draw_series(ax_l2, guessed.index, guessed["l2"], style.ORANGE, lacking, label, spread)
extra = {"l2_torch": guessed["l2_torch"].to_numpy(), "low": spread[0].to_numpy(), "high": spread[1].to_numpy()}
notebook.plot("b", "predicted", guessed.index, guessed["l2"], guessed["run_ids"].to_numpy(), **extra)
both = by_budget(tuned, guessed)
for row in both.itertuples():
    centre, low, high = (one / row.l2_predicted for one in (row.l2_centre, row.l2_maybe_low, row.l2_maybe_high))
    what = f"tuned (centre) over predicted λ, {row.Index:g} epochs (of all λ that may be near the best)"
    notebook.number("b", what, centre, low, high, told=high <= TOLD * low)
style.budget_axis(ax_l2, tuned.index)
ax_l2.set(yscale="log", ylabel=style.with_units(r"L2 coefficient $\lambda$", units))
style.make_room(ax_l2, below=0.3)
style.label_short_log_axis(ax_l2.yaxis)
ax_l2.legend(loc="lower left")

# %%
momentum, augmentation = grid["momentum"].max(), notebook.config.experiments["fig4a"].augmentation.describe()
seeds = notebook.seeds("fig4a", "fig1b-tuned", "fig1b-predicted")
reading = {"argmax": "argmax", "within": "0.5pp"}[wanted.reading]
note = f"{notebook.net('fig4a')}, momentum {momentum:g}, {augmentation} (seeds: {seeds})"
note += f"; predicted from c_{reading}" + (f" at λ = {wanted.at:g}" if wanted.at else "")
note += "; C: of the times within 0.5 points; band: resolution and seeds"
note += "; hollow in b: at the grid's edge, or seeds are missing"
note += f"; no λ: {selection.reason}" if selection.reason else ""
style.small_print(figure, notebook.small_print(peaked, grid, predicted, note=note))
notebook.finish(figure)
