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
# # Figure S-momentum: the panels of figure 2 with momentum, and augmentation at the scales that have it
#
# - **a** the time t* to the peak against λ; **b** the maximum test accuracy; **c** the same within a fixed number of
#   epochs (claim C18).

# %%
from l2dyn.plotting.notebook import FigureNotebook
from l2dyn.plotting.time_scales import draw_rows

notebook = FigureNotebook.start("figS-momentum")
notebook.finish(draw_rows(notebook, ("figS-momentum", "figS-momentum-budget")))
