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
# # Figure S-kernel: does the kernel decay as equation 2 says?
#
# Gradient descent on 2-layer nets of growing width (k = 2), as in figure 5c.
#
# - **a** the Frobenius norm of the kernel of finite nets, against e^(-2(k-1)λt) of equation 2 (claim C20); the CSV has
#   its slope, in units of the theory's, for λt from 0 to ½, ½ to 1 and 1 to 2;
# - **b** how far the kernel turns away from its initial direction: 1 − ⟨Θ_t, Θ_0⟩/(‖Θ_t‖·‖Θ_0‖), 0 at infinite width;
# - **c** the training loss of the same nets, in the colors of a, against theory. t = η·steps; lines end where
#   training does;
# - **d** the kernel of a CNN without biases (k = 6) in the usual parameterization, at a much larger λ: it decays
#   exponentially too, but what such a net learns is not small beside its weights as drawn, as equation 2 assumes.

# %%

import numpy as np

from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

notebook = FigureNotebook.start("figS-kernel")
experiments = {name: notebook.config.experiments[name] for name in notebook.config.figures["figS-kernel"].experiments}
cnns = {
    name: experiments.pop(name) for name, experiment in list(experiments.items()) if experiment.net.kind == "convnet"
}
loss = notebook.curve("kernel")
figure, (ax_kernel, ax_rotation, ax_loss, ax_cnn) = style.panels(2, rows=2)


def number_slopes(panel, what, t, norm, row, k, intervals):
    """The slope of log ‖Θ‖ in units of the theory's, -2(k-1)λ, between these bounds of λt."""
    for low, high in intervals:
        inside = (t * row.l2 >= low) & (t * row.l2 <= high * (1 + 1e-9))
        if inside.sum() > 2:
            slope = np.polyfit(t[inside], np.log(norm[inside]), 1)[0] / (-2 * (k - 1) * row.l2)
            said = f"slope of log ‖Θ‖ over −2(k−1)λ, {what}, λt {low:g} to {high:g}, seed {row.seed}"
            notebook.number(panel, said, slope, run_ids=row.run_id)


# %%
colors = style.learning_rate_colors(sorted({e.net.width for e in experiments.values()}))
summaries = []
for name, experiment in experiments.items():
    summary = notebook.summary(name)
    summaries.append(summary)
    label = f"width {experiment.net.width}"
    for row in summary[summary["status"].isin(["finished", "short"])].itertuples():
        columns = notebook.record(row)
        t = row.lr * columns["step"]
        norm = columns["kernel_norm"] / columns["kernel_norm"][0]
        look = {"color": colors[experiment.net.width], "linewidth": 0.8}
        ax_kernel.plot(t, norm, label=label, **look)
        ax_rotation.plot(t[1:], columns["kernel_rotation"][1:], **look)
        ax_loss.plot(t[1:], columns["train_loss"][1:], **look)
        series = f"width={experiment.net.width} seed={row.seed}"
        notebook.plot("b", series, t[1:], columns["kernel_rotation"][1:], row.run_id)
        notebook.number("b", f"largest rotation, {series}", np.nanmax(columns["kernel_rotation"]), run_ids=row.run_id)
        notebook.plot("a", f"width={experiment.net.width} seed={row.seed}", t, norm, row.run_id)
        notebook.plot("c", series, t[1:], columns["train_loss"][1:], row.run_id)
        number_slopes("a", f"width {experiment.net.width}", t, norm, row, 2, ((0, 0.5), (0.5, 1), (1, 2)))
        label = None

# %%
channels = style.learning_rate_colors([cnn.net.dense for cnn in cnns.values()])
for name, cnn in cnns.items():
    summary = notebook.summary(name)
    summaries.append(summary)
    k, width, label = len(cnn.net.channels) + 2, cnn.net.dense, f"{cnn.net.dense} channels"
    for row in summary[summary["status"].isin(["finished", "short"])].itertuples():
        columns = notebook.record(row)
        t = row.lr * columns["step"]
        norm = columns["kernel_norm"] / columns["kernel_norm"][0]
        ax_cnn.plot(t * row.l2, norm, label=label, color=channels[width], linewidth=0.8)
        notebook.plot("d", f"channels={width} seed={row.seed}", t * row.l2, norm, row.run_id)
        end = t[-1] * row.l2
        number_slopes("d", f"{width} channels", t, norm, row, k, ((end / 3, end),))
        label = None
ends = [cnn.horizon.t_lr_l2 for cnn in cnns.values()]
lt = np.linspace(0, max(ends, default=1.0), 50)
ax_cnn.plot(lt, np.exp(-10 * lt), color=style.NEUTRAL, linestyle="--", label=r"$e^{-10\lambda t}$")
notebook.plot("d", "theory", lt, np.exp(-10 * lt))
ax_cnn.set(yscale="log", xlabel=r"$\lambda t$", ylabel=r"$\|\Theta_t\|_F / \|\Theta_0\|_F$", xlim=(0, lt[-1]))
ax_cnn.legend()

# %%
l2 = experiment.l2[0]
theory = loss[loss["k"] == 2.0]
t = np.linspace(0, 2 / l2, 200)
ax_kernel.plot(t, np.exp(-2 * l2 * t), color=style.NEUTRAL, linestyle="--", label=r"$e^{-2\lambda t}$")
ax_loss.plot(theory["t"], theory["loss"], color=style.NEUTRAL, linestyle="--", label="theory, $k = 2$")
notebook.plot("a", "theory", t, np.exp(-2 * l2 * t))
notebook.plot("c", "theory", theory["t"], theory["loss"])
ax_kernel.set(
    yscale="log", xlabel="gradient-flow time $t$", ylabel=r"$\|\Theta_t\|_F / \|\Theta_0\|_F$", xlim=(0, t[-1])
)
style.mark_time(ax_kernel, 1 / l2, r"$1/\lambda$")
ax_kernel.set_ylim(bottom=0.6 * np.exp(-2 * l2 * t[-1]), top=1.1)
shown = theory["loss"][(theory["t"] >= 1) & (theory["t"] <= t[-1])]
ax_loss.set_ylim(0.85 * shown.min(), 1.3 * shown.max())
ax_loss.set(xscale="log", yscale="log", xlabel="gradient-flow time $t$", ylabel="training loss", xlim=(1, t[-1]))
style.mark_time(ax_loss, 1 / l2, r"$1/\lambda$")
style.make_room(ax_loss, above=0.3)
ax_rotation.set(
    xscale="log", yscale="log", xlabel="gradient-flow time $t$", ylabel="rotation of the kernel", xlim=(1, t[-1])
)
ax_kernel.legend()
ax_loss.legend(loc="upper left")

# %%
described = [("a–c", experiment), *(("d", cnn) for cnn in list(cnns.values())[:1])]
note = "colors in a–c: widths; even/odd labels; " + "; ".join(
    f"{panel}: {e.data.train_samples} samples, the kernel on {e.kernel_samples}, λ = {e.l2[0]:g}"
    for panel, e in described
)
style.small_print(figure, notebook.small_print(*summaries, note=note))
notebook.finish(figure)
