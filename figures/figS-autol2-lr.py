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
# # Figure S-autol2-lr: AutoL2 with a learning-rate schedule
#
# Test accuracy over time with the schedule of figure 1a: AutoL2, and the constant λ that is best on the grid of figure
# 1a; λ(t) is dotted. AutoL2 is not expected to help here (claim C13).

# %%
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.over_time import draw_over_time

notebook = FigureNotebook.start("figS-autol2-lr")
auto, constant = (notebook.summary(name) for name in ("figS-autol2-lr", "figS-autol2-lr-tuned"))
figure, (ax,) = style.panels(1, height=2.2)

# %%
draw_over_time(notebook, ax, "a", {"AutoL2": auto, "tuned constant": constant})
for pair in auto.merge(constant, on="seed", suffixes=("_auto", "_tuned")).itertuples():
    gain = pair.final_test_accuracy_auto - pair.final_test_accuracy_tuned
    ids = f"{pair.run_id_auto} {pair.run_id_tuned}"
    notebook.number("a", f"last test accuracy of AutoL2 minus tuned, seed {pair.seed}", gain, run_ids=ids)

# %%
note = f"{notebook.net('figS-autol2-lr')} (seeds: {notebook.seeds('figS-autol2-lr', 'figS-autol2-lr-tuned')})"
style.small_print(figure, notebook.small_print(auto, constant, note=note))
notebook.finish(figure)
