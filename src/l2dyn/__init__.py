"""l2dyn: the training dynamics of deep networks with L2 regularization.

Names are loaded when they are first used, so that importing the package costs nothing: the workflow imports it at
every parse, and practitioners may want the theory without torch.
"""

import importlib

__version__ = "0.1.0"
_EXPORTS = {
    "AutoL2": "l2dyn.optim.auto_l2",
    "module_ntk": "l2dyn.nets.module_ntk",
    "measure_c": "l2dyn.optim.measure_c",
    "predict_l2": "l2dyn.measures.best_l2",
    "predict_l2_from_C": "l2dyn.measures.best_l2",
    "theory": "l2dyn.theory",
    "time_to_peak": "l2dyn.measures.peaks",
}
__all__ = ["AutoL2", "measure_c", "module_ntk", "predict_l2", "predict_l2_from_C", "theory", "time_to_peak"]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'l2dyn' has no attribute {name!r}")
    module = importlib.import_module(_EXPORTS[name])
    return module if name == "theory" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
