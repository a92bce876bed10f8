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
# # Figure 5: infinitely wide networks
#
# - **a** equation 3 for a 2-layer net (k = 2): two modes of label 1, one with γ/λ > 1, one with γ/λ < 1;
# - **b** the same for a linear model (k = 1);
# - **c** training loss against t: theory for k = 1 and k = 2 on the kernel of the training set, and gradient descent on
#   2-layer ReLU nets, a wide and a narrow one. t = η·steps.
#
# The theory of panel c is averaged exactly over random initial functions, whose covariance is the NNGP kernel; each
# finite net starts at one of them. Above the survival width f = 0 is stable; below it a net keeps some of what it
# learned. docs/theory.md explains both.

# %%

from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("fig5")
modes = notebook.curve("modes")
kernel = notebook.curve("kernel")
names = ("fig5c", "fig5c-narrow")
descents = {name: notebook.summary(name) for name in names}
figure, (ax_deep, ax_linear, ax_loss) = style.panels(3)

# %% [markdown]
# ## a, b: single modes

# %%
for ax, panel, k in ((ax_deep, "a", 2.0), (ax_linear, "b", 1.0)):
    curves = sorted(modes[modes["k"] == k].groupby("eigenvalue"), key=lambda item: -item[0])
    for color, (eigenvalue, curve) in zip((style.BLUE, style.ORANGE), curves, strict=False):
        l2 = curve["l2"].iloc[0]
        label = rf"$\gamma/\lambda = {style.number(round(eigenvalue / l2, 6))}$"
        ax.plot(curve["t"], curve["f"], color=color, label=label)
        notebook.plot(panel, f"eigenvalue={eigenvalue:g}", curve["t"], curve["f"], k=k, l2=l2)
    ax.axhline(1.0, color=style.NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)
    style.mark_time(ax, 1 / l2, r"$1/\lambda$")
    ax.set(xscale="log", xlabel="gradient-flow time $t$", ylabel="$f_a(t) / y_a$", ylim=(-0.04, 1.62))
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.legend(loc="upper left", title=f"$k = {k:g}$, $\\lambda = {style.number(l2)}$")

# %% [markdown]
# ## c: training loss, theory and finite nets

# %%
theory_styles = {1.0: (style.BLUE, "theory, $k = 1$"), 2.0: (style.ORANGE, "theory, $k = 2$")}
for k, curve in kernel.groupby("k"):
    color, label = theory_styles.get(k, (style.NEUTRAL, f"theory, $k = {k:g}$"))
    ax_loss.plot(curve["t"], curve["loss"], "--", color=color, label=label, zorder=4)
    notebook.plot("c", f"theory k={k:g}", curve["t"], curve["loss"])

for name, color in zip(names, (style.GREEN, style.NEUTRAL), strict=True):
    experiment = notebook.config.experiments[name]
    width = experiment.net.width
    label = f"width {width}"
    for row in descents[name][descents[name]["status"].isin(["finished", "short"])].itertuples():
        columns = notebook.record(row)
        trained = columns["step"] > 0
        t = row.lr * columns["step"][trained]
        ax_loss.plot(t, columns["train_loss"][trained], color=color, linewidth=0.8, label=label, zorder=3)
        notebook.plot("c", f"width={width} seed={row.seed}", t, columns["train_loss"][trained], row.run_id)
        label = None
l2 = experiment.l2[0]
style.mark_time(ax_loss, 1 / l2, r"$1/\lambda$")
ax_loss.set(xscale="log", yscale="log", xlabel="gradient-flow time $t$", ylabel="training loss")
ax_loss.set_xlim(1, kernel["t"].max())
ax_loss.axhline(0.5, color=style.NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)  # ½ mean(y²) for labels of ±1
ax_loss.text(kernel["t"].max(), 0.52, "$f = 0$", fontsize=style.SMALL, color=style.NEUTRAL, ha="right", va="bottom")
style.make_room(ax_loss, above=0.65)
ax_loss.legend(loc="upper left")

# %%
samples, seeds = experiment.data.train_samples, style.plural(len(experiment.seeds), "seed")
survival = kernel["survival_width"].iloc[0]
note = f"c: {samples} samples, even/odd labels, λ = {l2:g}, η = {experiment.lr[0]:g}, {seeds}"
note += f", survival width {survival:.0f}"
style.small_print(figure, notebook.small_print(*descents.values(), note=note))
notebook.finish(figure)
