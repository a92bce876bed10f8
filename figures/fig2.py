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
# # Figure 2: performance and time scales
#
# Plain SGD. First row: a fully-connected net with three hidden layers. Second row, at the scales that train it: a Wide
# ResNet.
#
# - **a, d** the time t* at which test accuracy first comes within 0.5 points of its maximum, against λ, for each η:
#   the paper's law is t* ∝ 1/(ηλ);
# - **b, e** the maximum test accuracy against λ; the dashed line is the best run without L2 over the η that have one;
# - **c, f** the same within a fixed number of epochs, where performance peaks at one λ.
#
# Hollow points are runs whose peak may lie beyond their horizon: lower bounds. The fit in a and d takes them as such,
# because leaving them out would bias it. Plus signs: runs that never fit their training set. Crosses: diverged. These
# two are left out. The printed exponents come from one regression on λ and η, as in claim C2; claim C1 fits λ alone,
# with a constant for each η. Dotted: the regression at the middle η, where the runs tell it. Colors: the same η in
# a and b, and in d and e.

# %%
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_rows

notebook = FigureNotebook.start("fig2")
notebook.finish(draw_rows(notebook, ("fig2ab", "fig2c"), ("fig2de", "fig2f")))
