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
from l2dyn.measures.best_l2 import decades_apart
from l2dyn.plotting import style
from l2dyn.plotting.budgets import by_budget, predicted_at_budgets, tuned_at_budgets
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("fig4")
peaked, grid, predicted = (notebook.summary(name) for name in ("fig4a", "fig1b-tuned", "fig1b-predicted"))
selection = notebook.l2_selection("fig1b-predicted")
figure, (ax_peak, ax_l2) = style.panels(2, height=2.2)

# %% [markdown]
# ## a: measuring c

# %%
for row in peaked[peaked["status"].isin(["finished", "short"]) & (peaked["l2"] > 0)].itertuples():
    columns = notebook.record(row)
    ax_peak.plot(row.l2 * columns["epoch"], columns["test_accuracy"], color=style.BLUE, linewidth=0.7, alpha=0.7)
    notebook.plot(
        "a", f"l2={row.l2:g} seed={row.seed}", row.l2 * columns["epoch"], columns["test_accuracy"], row.run_id
    )
end = (peaked["l2"] * peaked["horizon_epochs"]).max()
for one in (selection.evidence or {}).get("coefficients", []):
    marks = (("argmax", "argmax", style.ORANGE, "-"), ("within", "0.5pp", style.NEUTRAL, "--"))
    for reading, name, color, line in marks:
        c, low, high = (one[f"c_{reading}{end}"] for end in ("", "_low", "_high"))
        ax_peak.axvline(c, color=color, linestyle=line, linewidth=1.0, label=rf"$c_\mathrm{{{name}}} = {c:#.2g}$")
        ax_peak.axvspan(low, min(high, end), color=color, alpha=0.12, linewidth=0)
        ids = " ".join(one["run_ids"])
        notebook.number("a", f"c_{name} (epochs)", c, low, high, ids)
        notebook.number("a", f"C_{name}", one[f"C_{reading}"], run_ids=ids)
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
notebook.plot("b", "tuned", tuned.index, tuned["l2"], tuned["run_ids"].to_numpy(), **extra)
style.draw_series(ax_l2, guessed.index, guessed["l2"], style.ORANGE, label=r"predicted, $\lambda = c/T$")
notebook.plot("b", "predicted", guessed.index, guessed["l2"], guessed["run_ids"].to_numpy())
both = by_budget(tuned, guessed)
for row in both.itertuples():
    apart = decades_apart(row.l2_centre, row.l2_predicted)
    notebook.number("b", f"decades from tuned (centre) to predicted, {row.Index:g} epochs", apart)
style.budget_axis(ax_l2, tuned.index)
ax_l2.set(yscale="log", ylabel=r"L2 coefficient $\lambda$")
style.make_room(ax_l2, below=0.3)
style.label_short_log_axis(ax_l2.yaxis)
ax_l2.legend(loc="lower left")

# %%
momentum, augmentation = grid["momentum"].max(), notebook.config.experiments["fig4a"].augmentation.describe()
seeds = notebook.seeds("fig4a", "fig1b-tuned", "fig1b-predicted")
reading = {"argmax": "argmax", "within": "0.5pp"}[notebook.config.experiments["fig1b-predicted"].l2.reading]
note = f"{notebook.net('fig4a')}, momentum {momentum:g}, {augmentation} (seeds: {seeds})"
note += f"; bands: resolution and seeds; predicted from c_{reading}"
if any(one["c_argmax"] > end / 2 for one in (selection.evidence or {}).get("coefficients", [])):
    note += "; the smoothed maximum lies in the last half: no peak is resolved at this scale"
note += f"; no λ: {selection.reason}" if selection.reason else ""
style.small_print(figure, notebook.small_print(peaked, grid, predicted, note=note))
notebook.finish(figure)
