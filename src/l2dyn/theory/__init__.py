"""Infinite-width theory (section 4): kernel modes, functions on and off the training set, kernels, minima; k = 0.

Beside it what is exact at finite width: deep linear nets, and where f = 0 is stable.
"""

from l2dyn.theory.deep_linear import linear_net_flow, two_layer_flow
from l2dyn.theory.evolution import evolve, integrate
from l2dyn.theory.kernels import mean_loss, relu_ntk
from l2dyn.theory.minima import (
    Extremum,
    accuracy_maximum,
    law_window,
    loss_minimum,
    power_law_spectrum,
    spectrum_minima,
)
from l2dyn.theory.modes import (
    late_time_response,
    mode_evolution,
    mode_quotients,
    mode_residual,
    mode_residual_response,
    mode_response,
    slope_response,
)
from l2dyn.theory.scale_invariance import equivalent_learning_rate
from l2dyn.theory.zero_function import survival_width

__all__ = [
    "Extremum",
    "accuracy_maximum",
    "equivalent_learning_rate",
    "evolve",
    "integrate",
    "late_time_response",
    "law_window",
    "linear_net_flow",
    "loss_minimum",
    "mean_loss",
    "mode_evolution",
    "mode_quotients",
    "mode_residual",
    "mode_residual_response",
    "mode_response",
    "power_law_spectrum",
    "relu_ntk",
    "slope_response",
    "spectrum_minima",
    "survival_width",
    "two_layer_flow",
]
