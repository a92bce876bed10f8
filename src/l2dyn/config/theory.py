"""The theory curves: a new one is a section here, a field of TheoryConfig, and the module in l2dyn/tables it names."""

from typing import Annotated, ClassVar

from pydantic import Field

from l2dyn.config.experiment import Name
from l2dyn.specs.base import Count, Enumerated, NaturalNumber, NonNegative, Positive, Spec

Points = Annotated[int, Field(ge=2, strict=True)]


class CurveConfig(Spec):
    """A table of theory curves.

    table: import path of a function that is called with this section and the scale's experiments, plan, and data, and
    returns columns; see l2dyn.tables.theory_curves.
    """

    table: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments on whose samples it depends, none if it needs no data."""
        return ()


class ModesConfig(CurveConfig):
    """Figures 5a and 5b: single modes of the theory, kernel eigenvalues at the paper's λ, up to t = t_l2/λ."""

    table: ClassVar[str] = "l2dyn.tables.theory_curves:modes_table"

    l2: Positive
    eigenvalues: Annotated[tuple[Positive, ...], Field(min_length=2)]
    t_l2: Positive
    points: Enumerated = 400


class KernelConfig(CurveConfig):
    """Figure 5c: theory curves on the training set, net and λ of an experiment."""

    table: ClassVar[str] = "l2dyn.tables.theory_curves:kernel_table"

    experiment: Name
    k: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (1.0, 2.0)
    points: Enumerated = 400

    @property
    def needs(self) -> tuple[str, ...]:
        """See CurveConfig."""
        return (self.experiment,)


class SpectrumConfig(CurveConfig):
    """Figure S-spectrum: λ·t_min against λ for power laws, a single mode and the kernel of an experiment's samples.

    smallest: eigenvalue of a power law, the largest being 1. l2: from, to.
    """

    table: ClassVar[str] = "l2dyn.tables.theory_curves:spectrum_table"

    experiment: Name
    powers: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 1.5)
    smallest: Positive = 1e-6
    l2: tuple[Positive, Positive]
    points: Points = 41
    k: Positive = 2.0

    @property
    def needs(self) -> tuple[str, ...]:
        """See CurveConfig."""
        return (self.experiment,)


class LinearConfig(CurveConfig):
    """Figure S-linear: deep linear nets of finite width on one sample, target 1, up to t = t_l2/λ.

    phase_widths: of the phase diagram, n against (y/λ)². drawn_widths: of 3-layer nets, all
    of whose weights are integrated.
    """

    table: ClassVar[str] = "l2dyn.tables.theory_curves:linear_table"

    l2: Positive
    widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    t_l2: Positive
    points: Points = 200
    phase_widths: Annotated[tuple[Count, ...], Field(min_length=2)]
    drawn_widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NaturalNumber, ...], Field(min_length=1)] = (0,)


class ConstantConfig(CurveConfig):
    """Figure S-constant: theory beside every run of these experiments, fully-connected nets on the full batch."""

    table: ClassVar[str] = "l2dyn.tables.theory_beside_runs:constant_table"

    experiments: Annotated[tuple[Name, ...], Field(min_length=1)]

    @property
    def needs(self) -> tuple[str, ...]:
        """See CurveConfig."""
        return self.experiments


class TheoryConfig(Spec):
    """The theory curves of a scale."""

    modes: ModesConfig | None = None
    kernel: KernelConfig | None = None
    spectrum: SpectrumConfig | None = None
    linear: LinearConfig | None = None
    constant: ConstantConfig | None = None

    def curve(self, name: str) -> CurveConfig | None:
        """The section of a curve, None where the scale has none."""
        return getattr(self, name, None)


CURVES = tuple(TheoryConfig.model_fields)
