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
# # Figure S-spectrum: when does t ∝ 1/λ follow from theory?
#
# The time of the smallest training loss at infinite width (k = 2, f(0) = 0), found in equation 3, for power-law spectra
# y² dN ∝ γ^(p-1) dγ, for a single mode, and for the kernel of real samples.
#
# - **a** λ·t against λ: level where the paper's law holds, and ½ where λ is above all eigenvalues;
# - **b** the local exponent d log t / d log λ, which the law says is -1. The law ends where λ falls below the smallest
#   eigenvalues (marked for the real kernel); a single mode above λ has only a logarithm.

# %%

from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.theory import law_window

notebook = FigureNotebook.start("figS-spectrum")
table = notebook.curve("spectrum")
figure, (ax_constant, ax_slope) = style.panels(2)

# %%
powers = [name for name in table["spectrum"].unique() if name.startswith("power")]
colors = style.learning_rate_colors([float(name.split()[1]) for name in powers])
looks = {name: (color, "-", f"$p = {name.split()[1]}$") for name, color in zip(powers, colors.values(), strict=True)}
looks |= {"single mode": (style.NEUTRAL, "--", "a single mode"), "kernel": (style.ORANGE, "-", "kernel of the samples")}
for name, rows in table.groupby("spectrum", sort=False):
    color, line, label = looks[name]
    ax_constant.plot(rows["l2"], rows["C"], color=color, linestyle=line, label=label)
    ax_slope.plot(rows["l2"], rows["slope"], color=color, linestyle=line)
    notebook.plot("a", name, rows["l2"], rows["C"])
    notebook.plot("b", name, rows["l2"], rows["slope"])
    window = law_window(rows["l2"], rows["slope"])
    if window is not None:
        for end, l2 in zip(("smallest", "largest"), window, strict=True):
            notebook.number("b", f"{name}: {end} λ where the exponent is −1 ± 0.1", l2)
kernel = table[table["spectrum"] == "kernel"]
smallest, window = kernel["smallest"].iloc[0], law_window(kernel["l2"], kernel["slope"])
ax_slope.axhspan(-1.1, -0.9, color=style.NEUTRAL, alpha=0.15, linewidth=0)
for ax in (ax_constant, ax_slope):
    ax.axvline(smallest, color=style.ORANGE, linewidth=0.6, linestyle=":")
    ax.set(xscale="log", xlabel="$\\lambda$")
ax_constant.axhline(0.5, color=style.NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)
ax_constant.set(ylabel="$\\lambda\\, t_{\\min}$", ylim=(0, 0.95))
ax_slope.set(ylabel="$d\\,\\log t_{\\min} / d\\,\\log\\lambda$", ylim=(-1.45, 0.1))
ax_constant.legend(loc="upper left", ncols=2, columnspacing=1.0)

# %%
section = notebook.config.theory.spectrum
samples = notebook.config.experiments[section.experiment].data.train_samples
note = (
    f"k = {section.k:g}, mean over samples; power laws from γ = {section.smallest:g} to 1; kernel: {samples} "
    f"samples, even/odd labels, dotted: its smallest eigenvalue; band: -1 ± 0.1"
    + (f", where the kernel is for λ from {window[0]:.2g} to {window[1]:.2g}" if window else "")
)
style.small_print(figure, notebook.small_print(note=note))
notebook.finish(figure)
