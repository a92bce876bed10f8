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
# # Figure S-adamw: decoupled weight decay
#
# The paper is about an L2 penalty under SGD. AdamW takes η·λ·θ off the parameters apart from the gradient; does t\*
# still go as 1/(ηλ)?
#
# - **a, b** the time t\* to the peak against λ, for the FC net and for the CNN with batch norm (claim O2);
# - **c** the best λ within a budget of T epochs, the λ that c/T predicts, and for comparison the decay whose time scale
#   1/(η·λ·S) is the budget, or a tenth of it (the time scale of the moving average that AdamW keeps of its updates, by
#   which Wang and Aitchison, arXiv 2405.13698, set λ).

# %%
import numpy as np

from l2dyn.plotting import style
from l2dyn.plotting.budgets import by_budget, predicted_at_budgets, tuned_at_budgets
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_time

notebook = FigureNotebook.start("figS-adamw")
fully, conv, grid, predicted = (notebook.summary(f"figS-adamw-{name}") for name in ("fc", "cnn", "budget", "predicted"))
figure, (ax_fc, ax_cnn, ax_l2) = style.panels(3)

# %%
for ax, panel, summary, name in ((ax_fc, "a", fully, "figS-adamw-fc"), (ax_cnn, "b", conv, "figS-adamw-cnn")):
    draw_time(notebook, ax, panel, summary)
    ax.set_title(notebook.net(name), loc="right", fontsize=style.SMALL)
    colors = style.learning_rate_colors(summary["lr"])
    for lr, color in sorted(colors.items()):
        ax.plot([], [], "-o", color=color, linewidth=0.9, label=rf"$\eta = {style.number(lr)}$")
    style.make_room(ax, below=0.2, above=0.3)
    ax.legend(loc="upper right")  # the exponents stand below

# %%
tuned, guessed = tuned_at_budgets(grid), predicted_at_budgets(predicted)
spread = (tuned["l2_low"], tuned["l2_high"])
style.draw_series(ax_l2, tuned.index, tuned["l2"], style.BLUE, tuned["at_edge"], "tuned", spread)
extra = {key: tuned[key].to_numpy() for key in ("l2_low", "l2_high", "l2_centre", "at_edge", "accuracy")}
notebook.plot("c", "tuned", tuned.index, tuned["l2"], tuned["run_ids"].to_numpy(), **extra)
style.draw_series(ax_l2, guessed.index, guessed["l2"], style.ORANGE, label=r"$\lambda = c/T$")
extra = {"accuracy": guessed["accuracy"].to_numpy()}
notebook.plot("c", "predicted", guessed.index, guessed["l2"], guessed["run_ids"].to_numpy(), **extra)
config = notebook.config.experiments["figS-adamw-budget"]
steps = config.run(config.lr[0], 0.0, config.seeds[0], 1.0).steps_per_epoch
budgets = np.array(sorted(set(grid["horizon_epochs"])))
for part, line in ((1.0, ":"), (0.1, "--")):
    scale = 1.0 / (config.lr[0] * steps * part * budgets)
    label = r"$1/(\eta\lambda S) = T$" if part == 1 else r"$1/(\eta\lambda S) = T/10$"
    ax_l2.plot(budgets, scale, line, color=style.NEUTRAL, linewidth=1.0, label=label, zorder=1)
    notebook.plot("c", f"time scale of {part:g} T", budgets, scale)
for row in by_budget(tuned, guessed).itertuples():
    notebook.number("c", f"tuned (centre) over predicted λ, {row.Index:g} epochs", row.l2_centre / row.l2_predicted)
    lost = row.accuracy_tuned - row.accuracy_predicted
    notebook.number("c", f"accuracy of tuned minus predicted, {row.Index:g} epochs", lost)
style.budget_axis(ax_l2, budgets)
ax_l2.set(yscale="log", ylabel=r"weight decay $\lambda$")
style.make_room(ax_l2, below=0.5)
style.label_short_log_axis(ax_l2.yaxis)
ax_l2.legend(loc="lower left")

# %%
seeds = notebook.seeds("figS-adamw-fc", "figS-adamw-cnn", "figS-adamw-budget")
note = f"AdamW, decoupled decay (seeds: {seeds}); c: η = {config.lr[0]:g}; bars of $t^*$: 90 % intervals"
note += "; dotted in a, b: the fit"
note += ", hollow: censored, +: does not fit its training set"
style.small_print(figure, notebook.small_print(fully, conv, grid, predicted, note=note))
notebook.finish(figure)
