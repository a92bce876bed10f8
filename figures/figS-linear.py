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
# # Figure S-linear: deep linear nets of finite width
#
# One sample, target 1, gradient flow with L2 of every weight.
#
# - **a** 2-layer nets by width, from f = 0: the exact flow, and the theory of infinite width (k = 2). They agree early
#   and part late: f tends to max(0, 1 - λ√n), not to 0;
# - **b** 3-layer nets drawn from N(0, 1), every weight integrated, and the theory (k = 3);
# - **c** where f of 2-layer nets is at the end, width against (y/λ)²: it is 0 above the line n = (y/λ)² only (claim
#   C15).

# %%

import numpy as np

from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("figS-linear")
table = notebook.curve("linear")
figure, (ax_two, ax_three, ax_phase) = style.panels(3)

# %%
finite = table[(table["panel"] != "phase") & np.isfinite(table["width"])]
colors = style.learning_rate_colors(finite["width"])
for ax, panel, name in ((ax_two, "a", "flow"), (ax_three, "b", "drawn")):
    rows = table[(table["panel"] == name) & (table["t"] > 0)]
    for (width, seed), curve in rows.groupby(["width", "seed"], dropna=False):
        infinite = not np.isfinite(width)
        first = infinite or np.isnan(seed) or seed == min(notebook.config.theory.linear.seeds)
        label = "$n = \\infty$" if infinite else f"$n = {width:g}$"
        look = {"color": style.NEUTRAL, "linestyle": "--", "zorder": 3} if infinite else {"color": colors[width]}
        ax.plot(curve["t"], curve["f"], label=label if first else None, linewidth=1.0, **look)
        notebook.plot(panel, f"width={width:g} seed={seed}", curve["t"], curve["f"])
    l2 = rows["l2"].iloc[0]
    style.mark_time(ax, 1 / l2, r"$1/\lambda$")
    ax.set(
        xscale="log", xlabel="gradient-flow time $t$", ylabel="$f(t)$", ylim=(-1.2 if name == "drawn" else -0.04, 3.4)
    )
    ax.legend(
        loc="upper left",
        title=f"{rows['layers'].iloc[0]} layers",
        ncols=2,
        **{"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 1.0, "borderpad": 0.1},
    )

# %%
phase = table[table["panel"] == "phase"].copy()
phase["ratio"] = 1 / phase["l2"] ** 2
alive = phase["f"] > 0.01  # on the line itself f falls to 0, but only as 1/t
ax_phase.scatter(phase["ratio"][alive], phase["width"][alive], color=style.BLUE, s=9, label="$f_\\infty > 0$")
ax_phase.scatter(
    phase["ratio"][~alive],
    phase["width"][~alive],
    s=9,
    label="$f_\\infty = 0$",
    **{"facecolors": "none", "edgecolors": style.ORANGE},
)
line = np.array([phase["ratio"].min(), phase["ratio"].max()])
ax_phase.plot(line, line, color=style.NEUTRAL, linewidth=0.8, linestyle="--", label="$n = (y/\\lambda)^2$")
ax_phase.set(xscale="log", yscale="log", xlabel="$(y/\\lambda)^2$", ylabel="width $n$")
ax_phase.set_ylim(bottom=0.08)
ax_phase.legend(loc="lower right")
notebook.plot("c", "f at the end", phase["ratio"], phase["f"], width=list(phase["width"]))

# %%
style.small_print(figure, notebook.small_print(note=f"a, b: λ = {table['l2'].iloc[0]:g}; c: gradient flow until 200/λ"))
notebook.finish(figure)
