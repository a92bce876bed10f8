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
# - **a** test accuracy against t·λ at one large λ: the time of its peak gives c;
# - **b** the λ predicted for a training budget T, c/T, and the best λ of a grid, with every λ within 0.1 % of the best
#   accuracy; hollow where these reach the grid's edge.
#
# c is read off in two ways: c_argmax, the maximum of the smoothed curve, and c_0.5pp, the first time within 0.5 points
# of the maximum. The scale's configuration says which of them predicts.

# %%
from l2dyn.plotting import style
from l2dyn.plotting.budgets import by_budget, predicted_at_budgets, tuned_at_budgets
from l2dyn.plotting.job import FigureJob
from l2dyn.prediction import decades_apart

job = FigureJob.start("fig4", globals().get("snakemake"))
peaked, grid, predicted = (job.summary(name) for name in ("fig4a", "fig1b-tuned", "fig1b-predicted"))
derived = job.derived("fig1b-predicted")
figure, (ax_peak, ax_l2) = style.panels(2, height=2.2)

# %% [markdown]
# ## a: measuring c

# %%
for row in peaked[peaked["status"].isin(["finished", "short"]) & (peaked["l2"] > 0)].itertuples():
    columns = job.record(row.run_id).prefix(row.horizon_steps)
    ax_peak.plot(row.l2 * columns["epoch"], columns["test_accuracy"], color=style.BLUE, linewidth=0.7, alpha=0.7)
    job.plot("a", f"l2={row.l2:g} seed={row.seed}", row.l2 * columns["epoch"], columns["test_accuracy"], row.run_id)
end = (peaked["l2"] * peaked["horizon_epochs"]).max()
for one in (derived.evidence or {}).get("coefficients", []):
    marks = (("argmax", "argmax", style.ORANGE, "-"), ("within", "0.5pp", style.NEUTRAL, "--"))
    for reading, name, color, line in marks:
        c, low, high = (one[f"c_{reading}{end}"] for end in ("", "_low", "_high"))
        ax_peak.axvline(c, color=color, linestyle=line, linewidth=1.0, label=rf"$c_\mathrm{{{name}}} = {c:#.2g}$")
        ax_peak.axvspan(low, min(high, end), color=color, alpha=0.12, linewidth=0)
        ids = " ".join(one["run_ids"])
        job.plot("a", f"c_{name}", [c], [one[f"C_{reading}"]], ids, low=low, high=high)
    title = f"$\\eta = {style.number(one['lr'])}$, {style.plural(one['seeds'], 'run')}"
    ax_peak.legend(loc="lower center", title=title, frameon=True, framealpha=0.85, edgecolor="none")
ax_peak.set(xlabel=r"$t \cdot \lambda$ (epochs)", ylabel="test accuracy")
style.cut_early(ax_peak)

# %% [markdown]
# ## b: predicted and tuned λ against the budget

# %%
tuned, guessed = tuned_at_budgets(grid), predicted_at_budgets(predicted)
label = "tuned, all within 0.1 % of the best"
spread = (tuned["l2_low"], tuned["l2_high"])
style.draw_series(ax_l2, tuned.index, tuned["l2"], style.BLUE, tuned["at_edge"], label, spread)
extra = {key: tuned[key].to_numpy() for key in ("l2_low", "l2_high", "l2_centre", "at_edge")}
job.plot("b", "tuned", tuned.index, tuned["l2"], tuned["run_ids"].to_numpy(), **extra)
style.draw_series(ax_l2, guessed.index, guessed["l2"], style.ORANGE, label=r"predicted, $\lambda = c/T$")
job.plot("b", "predicted", guessed.index, guessed["l2"], guessed["run_ids"].to_numpy())
both = by_budget(tuned, guessed)
apart = [decades_apart(row.l2_centre, row.l2_predicted) for row in both.itertuples()]
job.plot("b", "decades between tuned (centre) and predicted", both.index, apart)
style.budget_axis(ax_l2, tuned.index)
ax_l2.set(yscale="log", ylabel=r"L2 coefficient $\lambda$")
style.make_room(ax_l2, below=0.3)
style.label_short_log_axis(ax_l2.yaxis)
ax_l2.legend(loc="lower left")

# %%
momentum, augmentation = grid["momentum"].max(), job.describe_augmentation("fig4a")
seeds = job.seeds("fig4a", "fig1b-tuned", "fig1b-predicted")
reading = {"argmax": "argmax", "within": "0.5pp"}[job.config.experiments["fig1b-predicted"].l2.reading]
note = f"{job.describe_model('fig4a')}, momentum {momentum:g}, {augmentation} (seeds: {seeds})"
note += f"; bands: resolution and seeds; predicted from c_{reading}"
if any(one["c_argmax"] > end / 2 for one in (derived.evidence or {}).get("coefficients", [])):
    note += "; the smoothed maximum lies in the last half: no peak is resolved at this scale"
note += f"; no λ: {derived.reason}" if derived.reason else ""
style.small_print(figure, job.small_print(peaked, grid, predicted, note=note))
job.finish(figure)
