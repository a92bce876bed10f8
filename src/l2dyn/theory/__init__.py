"""Infinite-width theory: dynamics of one kernel mode, ReLU kernels, and the training loss they imply."""

from l2dyn.theory.kernels import mean_loss, relu_ntk
from l2dyn.theory.modes import mode_evolution, mode_residual, mode_residual_response, mode_response

__all__ = [
    "mean_loss",
    "mode_evolution",
    "mode_residual",
    "mode_residual_response",
    "mode_response",
    "relu_ntk",
]
