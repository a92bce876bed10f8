"""In which units experiments are written, in words for the pages."""

from collections.abc import Mapping

from l2dyn.config.experiment import ExperimentConfig

WHOSE = {"torch": "PyTorch's", "authors": "the authors'"}


def units_in_words(experiments: Mapping[str, ExperimentConfig]) -> str:
    """A sentence on the units of λ, η and c of these experiments, "" where there are none."""
    by_units: dict[str, list[str]] = {}
    for name, experiment in experiments.items():
        by_units.setdefault(experiment.units, []).append(name)
    if len(by_units) < 2:
        return "".join(f"λ, η and c are in {WHOSE[units]} units." for units in by_units)
    listed = (f"in {WHOSE[units]} units in {', '.join(names)}" for units, names in by_units.items())
    return f"λ, η and c are {'; '.join(listed)}."
