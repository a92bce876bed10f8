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
# # Figure S-autol2: AutoL2 on other nets, and how much its settings matter
#
# - **a** the FC net, **b** the CNN with batch norm: test accuracy over time with AutoL2 and with the best constant λ of
#   their fixed-budget grid; λ(t) is dotted;
# - **c** the Wide ResNet of figure 1c: best test accuracy by AutoL2 with one setting changed at a time, beside the
#   authors' settings, our reading of the main text ("risen"), a staircase that looks at no measurement, and the tuned
#   constant λ.

# %%
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.over_time import draw_over_time

notebook = FigureNotebook.start("figS-autol2")
figure, (ax_fc, ax_cnn, ax_settings) = style.panels(3, height=2.2)
experiments = notebook.config.figures["figS-autol2"].experiments
summaries = {name: notebook.summary(name) for name in experiments}

# %%
for ax, panel, net in ((ax_fc, "a", "fc"), (ax_cnn, "b", "cnn")):
    pair = {"AutoL2": summaries[f"figS-autol2-{net}"], "tuned constant": summaries[f"figS-autol2-{net}-tuned"]}
    draw_over_time(notebook, ax, panel, pair)
    ax.set_title(notebook.net(f"figS-autol2-{net}"), loc="right", fontsize=style.SMALL)

# %% [markdown]
# ## c: one setting at a time

# %%
labels = {"fig1c-auto": "authors'", "fig1c-tuned": "tuned constant"}
rows = [name for name in experiments if name in labels or name.startswith("figS-autol2-wrn-")]
SHOWN, means = 0.06, {}  # accuracies so far below the best are triangles at the edge, where they are the fewer
for height, name in enumerate(reversed(rows)):
    runs = summaries[name][summaries[name]["status"] == "finished"].dropna(subset="max_test_accuracy")
    label = labels.get(name, name.removeprefix("figS-autol2-wrn-").replace("-", " "))
    ax_settings.text(
        -0.02, height, label, transform=ax_settings.get_yaxis_transform(), ha="right", va="center", fontsize=6
    )
    if len(runs):
        best = runs["max_test_accuracy"]
        color = style.GREEN if label != "tuned constant" else style.BLUE
        ax_settings.hlines(height, best.min(), best.max(), color=color, linewidth=0.8)
        ax_settings.plot(best.mean(), height, "o", color=color)
        ids = " ".join(runs["run_id"])
        notebook.plot("c", label, [best.mean()], [height], ids, low=best.min(), high=best.max())
        notebook.number(
            "c", f"best test accuracy, {label} (range over seeds)", best.mean(), best.min(), best.max(), ids
        )
        means[height] = best.mean()
left = max(means.values(), default=1.0) - SHOWN
if sum(mean < left for mean in means.values()) > len(means) / 2:
    left = min(means.values()) - SHOWN
for height in (height for height, mean in means.items() if mean < left):
    ax_settings.plot(left, height, "<", color=style.GREEN, clip_on=False)
ax_settings.set(xlabel="max test accuracy", ylim=(-0.6, len(rows) - 0.4), xlim=(left, None) if means else None)
ax_settings.set_yticks([])

# %%
note = f"seeds: {notebook.seeds(*experiments)}; c: mean and range over seeds; ◂: left of the axis"
style.small_print(figure, notebook.small_print(*summaries.values(), note=note))
notebook.finish(figure)
