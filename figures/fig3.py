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
# # Figure 3: CNNs without and with batch norm
#
# The panels of figure 2 for a convolutional net at one learning rate. Top row: without batch norm; bottom row: with it.
#
# - **a, d** the time t* to the peak against λ; **b, e** the maximum test accuracy; **c, f** the same within a fixed
#   number of epochs.

# %%
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_rows

notebook = FigureNotebook.start("fig3")
notebook.finish(draw_rows(notebook, ("fig3-plain", "fig3-plain-budget"), ("fig3-norm", "fig3-norm-budget")))
