"""Typed, validated configuration: one YAML file per scale.

`load_scale("quick")` reads config/quick.yaml. Every error is one line that names the file, the key and the value.
"""

import math
import os
import typing
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from l2dyn.errors import UserError
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.files import ROOT
from l2dyn.runs.horizons import EvaluationGrid, Horizon
from l2dyn.runs.spec import (
    MODELS,
    AugmentationSpec,
    AutoL2Spec,
    ConvNetSpec,
    DataSpec,
    FullyConnectedSpec,
    RunSpec,
    WideResNetSpec,
)


def _no_truth_value(value):
    if isinstance(value, bool):
        raise ValueError("expected a number, not a truth value")
    return value


# the validator stands last, so that the bounds reach the JSON schema
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_truth_value)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_no_truth_value)]
Momentum = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_no_truth_value)]
Ratio = Annotated[float, Field(gt=1.0, le=1.1), BeforeValidator(_no_truth_value)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_no_truth_value)]
NaturalNumber = Annotated[int, Field(ge=0), BeforeValidator(_no_truth_value)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")]


TAGS = (*MODELS, "grid", "derived")  # what pydantic puts into a location where it chose among sections


class Section(BaseModel):
    """A part of the configuration; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FullyConnectedConfig(Section):
    """`hidden_layers` layers of `width` ReLU units and a linear readout."""

    kind: Literal["fc"]
    hidden_layers: Count
    width: Count
    bias: bool = True
    parameterization: Literal["standard", "ntk"] = "standard"
    weight_std: Positive = FullyConnectedSpec.weight_std

    def spec(self) -> FullyConnectedSpec:
        """The floor-0 spec of this net."""
        return FullyConnectedSpec(**self.model_dump())


class ConvNetConfig(Section):
    """Two blocks of two convolutions and a max pooling, a dense layer, a readout; see ConvNetSpec."""

    kind: Literal["convnet"]
    channels: tuple[Count, Count, Count, Count] = ConvNetSpec.channels
    dense: Count = ConvNetSpec.dense
    pool: Count = ConvNetSpec.pool
    pool_stride: Count = ConvNetSpec.pool_stride
    batch_norm: bool = False
    norm_statistics: Literal["batch", "running"] = "batch"
    norm_group: NaturalNumber = 0
    weight_std: Positive = ConvNetSpec.weight_std

    def spec(self) -> ConvNetSpec:
        """The floor-0 spec of this net."""
        return ConvNetSpec(**self.model_dump())


class WideResNetConfig(Section):
    """WRN-depth-width; see WideResNetSpec."""

    kind: Literal["wrn"]
    depth: Count
    width: Count
    norm_statistics: Literal["batch", "running"] = "batch"
    norm_group: NaturalNumber = 0
    weight_std: Positive = WideResNetSpec.weight_std

    @model_validator(mode="after")
    def _whole_blocks(self):
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth: a Wide ResNet has 6n + 4 layers, n at least 1, not {self.depth}")
        return self

    def spec(self) -> WideResNetSpec:
        """The floor-0 spec of this net."""
        return WideResNetSpec(**self.model_dump())


ModelConfig = Annotated[FullyConnectedConfig | ConvNetConfig | WideResNetConfig, Field(discriminator="kind")]


class AutoL2Config(Section):
    """The AutoL2 schedule, see AutoL2Spec; it starts at the experiment's l2."""

    factor: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_no_truth_value)] = AutoL2Spec.factor
    cooldown: NaturalNumber = AutoL2Spec.cooldown
    interval: Positive = AutoL2Spec.interval
    min_l2: NonNegative = AutoL2Spec.min_l2
    trigger: Literal["either", "loss", "error"] = AutoL2Spec.trigger

    def spec(self) -> AutoL2Spec:
        """The same as a plain value."""
        return AutoL2Spec(**self.model_dump())


class AugmentationConfig(Section):
    """Random changes of the training images, see AugmentationSpec."""

    flip: bool = False
    crop: NaturalNumber = 0
    mixup: NonNegative = 0.0

    def spec(self) -> AugmentationSpec:
        """The same as a plain value."""
        return AugmentationSpec(**self.model_dump())


class ScheduleConfig(Section):
    """A piecewise-constant learning rate: multiplied by `factor` at these fractions of the horizon."""

    factor: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_no_truth_value)] = RunSpec.lr_decay_factor
    at: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]

    def fields(self, epochs: float) -> dict:
        """The RunSpec's fields for a run of so many epochs."""
        return {"lr_decay_epochs": tuple(round(part * epochs, 9) for part in self.at), "lr_decay_factor": self.factor}


class DataConfig(Section):
    """Which samples: the first `train` and `test` of each split, in canonical order."""

    name: Literal["digits", "mnist", "cifar10"]
    train: Count
    test: Count
    labels: Literal["class", "parity"] = "class"
    scaling: Literal["standardize", "unit"] = "standardize"
    pool: Count = 1

    @model_validator(mode="after")
    def _fits(self):
        for split in ("train", "test"):
            held, asked = getattr(DATASETS[self.name], split), getattr(self, split)
            if asked > held:
                raise ValueError(f"{split}: {asked} samples asked for, {self.name} has {held}")
        return self

    def spec(self) -> DataSpec:
        """The floor-0 spec of these samples, with the data set's checksum."""
        return DataSpec(checksum=DATASETS[self.name].checksum, **self.model_dump())


class DerivedL2Config(Section):
    """λ that is measured, not chosen: one value for every learning rate and budget of the experiment.

    predicted_from: an experiment that measures c = t*·λ; λ = c/T for a budget of T epochs, c/T1 where the learning rate
    first decays at epoch T1. reading: which of the two readings of c counts, the smoothed maximum ("argmax", the
    paper's figure 4a) or the first time within 0.5 points of the maximum ("within"). tuned_from: an experiment that
    trains a grid of λ; λ = the best of them within the budget.
    """

    predicted_from: Name | None = None
    tuned_from: Name | None = None
    reading: Literal["argmax", "within"] = "argmax"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.predicted_from is None) == (self.tuned_from is None):
            raise ValueError("give one of predicted_from and tuned_from")
        if self.tuned_from is not None and self.reading != "argmax":
            raise ValueError("reading: goes with predicted_from")
        return self

    @property
    def source(self) -> str:
        """The experiment that it is measured on."""
        return self.predicted_from or self.tuned_from


L2Config = Annotated[
    Annotated[Annotated[list[NonNegative], Field(min_length=1)], Tag("grid")]
    | Annotated[DerivedL2Config, Tag("derived")],
    Discriminator(lambda value: "derived" if isinstance(value, dict | DerivedL2Config) else "grid"),
]


class HorizonConfig(Section):
    """A declared training time, see l2dyn.runs.horizons.Horizon.

    budgets: several fixed numbers of epochs; every run is trained to the longest and counts at each of them.
    """

    epochs: Positive | None = None
    budgets: Annotated[list[Positive], Field(min_length=1)] | None = None
    t_lr_l2: Positive | None = None
    t_l2: Positive | None = None
    t_lr: Positive | None = None
    epochs_without_l2: Positive | None = None
    cap_epochs: Positive | None = None
    beyond_cap: Literal["cut", "skip"] = "cut"

    @model_validator(mode="after")
    def _one(self):
        given = [k for k in ("epochs", "budgets", "t_lr_l2", "t_l2") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if not given and self.t_lr is None and self.epochs_without_l2 is None:
            raise ValueError("give one of epochs, budgets, t_lr_l2, t_l2 (and t_lr for l2 = 0)")
        if self.budgets and len(set(self.budgets)) != len(self.budgets):
            raise ValueError("budgets: a value stands there twice")
        return self

    @property
    def fixed(self) -> list[float]:
        """The fixed budgets in epochs, shortest first; none where the horizon depends on λ."""
        return sorted(self.budgets or ([self.epochs] if self.epochs else []))

    @property
    def reached(self) -> list[float]:
        """The fixed budgets as they are trained: what lies beyond the cap is cut there, or left out."""
        cap = math.inf if self.cap_epochs is None else self.cap_epochs
        return [min(epochs, cap) for epochs in self.fixed if epochs <= cap or self.beyond_cap == "cut"]

    def horizons(self) -> list[Horizon]:
        """The same as plain values: one, or one for each budget."""
        plain = self.model_dump(exclude={"budgets"})
        return [Horizon(**plain | {"epochs": b}) for b in sorted(self.budgets)] if self.budgets else [Horizon(**plain)]


class EvaluationConfig(Section):
    """When a run is measured, see l2dyn.runs.horizons.EvaluationGrid."""

    ratio: Ratio = 1.1
    every_epoch_up_to: NaturalNumber = 0
    every_epochs: NonNegative = 0.0
    train_samples: NaturalNumber = 0

    def grid(self) -> EvaluationGrid:
        """The same as a plain value."""
        return EvaluationGrid(**self.model_dump())


class ExperimentConfig(Section):
    """A grid of runs: every learning rate with every L2 coefficient and every seed."""

    shows: str
    model: ModelConfig
    data: DataConfig
    lr: Annotated[list[Positive], Field(min_length=1)]
    l2: L2Config
    seeds: Annotated[list[NaturalNumber], Field(min_length=1)] = [0]
    momentum: Momentum = 0.0
    batch: NaturalNumber = 0
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    precision: Literal["float32", "float64", "tf32", "bfloat16"] = "float32"
    kernel_samples: NaturalNumber = 0
    auto_l2: AutoL2Config | None = None
    lr_schedule: ScheduleConfig | None = None
    augmentation: AugmentationConfig = AugmentationConfig()
    horizon: HorizonConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    slices: Count = 1

    @model_validator(mode="after")
    def _consistent(self):
        if self.batch > self.data.train:
            raise ValueError(f"batch: {self.batch} is more than the {self.data.train} training samples")
        if isinstance(self.model, FullyConnectedConfig):
            for key in ("auto_l2", "lr_schedule"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: for convolutional nets; the batched ensemble has none")
            if self.evaluation.train_samples:
                raise ValueError("evaluation.train_samples: for convolutional nets; others are measured on all samples")
            if self.augmentation != AugmentationConfig():
                raise ValueError("augmentation: for convolutional nets; the batched ensemble has none")
        if self.auto_l2 is not None and (self.derived or 0 in self.l2 or not self.horizon.fixed):
            raise ValueError("auto_l2: starts at a listed l2 > 0 and needs horizon.epochs or horizon.budgets")
        if self.kernel_samples and (not isinstance(self.model, FullyConnectedConfig) or self.data.labels != "parity"):
            raise ValueError("kernel_samples: for fully-connected nets with one output, labels: parity")
        if self.kernel_samples > self.data.train:
            raise ValueError(f"kernel_samples: more than the {self.data.train} training samples")
        if self.evaluation.train_samples > self.data.train:
            raise ValueError(f"evaluation.train_samples: more than the {self.data.train} training samples")
        if self.data.labels == "parity" and self.loss != "mse":
            raise ValueError("loss: parity labels (±1, one output) go with loss mse")
        for key in ("lr", "seeds", *(() if self.derived else ("l2",))):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: a value stands there twice")
        horizon = self.horizon
        if self.derived:
            if not horizon.fixed or horizon.cap_epochs:
                raise ValueError("l2: one that is measured needs horizon.epochs or horizon.budgets, without cap_epochs")
            return self
        if 0 in self.l2 and not (horizon.fixed or horizon.t_lr or horizon.epochs_without_l2):
            raise ValueError("horizon: l2 holds 0, so give epochs_without_l2, t_lr or epochs")
        if any(self.l2) and not horizon.fixed and horizon.t_lr_l2 is None and horizon.t_l2 is None:
            raise ValueError("horizon: l2 holds values above 0, so give epochs, t_lr_l2 or t_l2")
        return self

    @property
    def derived(self) -> bool:
        """Whether λ is measured on another experiment instead of being listed."""
        return isinstance(self.l2, DerivedL2Config)

    def trains_like(self, other: "ExperimentConfig") -> str | None:
        """None where both train the same net on the same data in the same way, else the first key that differs."""
        keys = ("model", "data", "momentum", "batch", "loss", "augmentation", "precision")
        return next((key for key in keys if getattr(self, key) != getattr(other, key)), None)


class ModesConfig(Section):
    """Figures 5a and 5b: single modes of the theory, kernel eigenvalues at the paper's λ."""

    l2: Positive
    eigenvalues: Annotated[list[Positive], Field(min_length=2)]
    t_l2: Positive  # the curves run up to t = t_l2/λ
    points: Count = 400


class KernelConfig(Section):
    """Figure 5c: theory curves on the training set, net and λ of an experiment."""

    experiment: Name
    k: Annotated[list[NonNegative], Field(min_length=1)] = [1.0, 2.0]
    points: Count = 400


class SpectrumConfig(Section):
    """Figure S-spectrum: λ·t_min against λ for power laws, a single mode and the kernel of an experiment's samples."""

    experiment: Name
    powers: Annotated[list[Positive], Field(min_length=1)] = [0.25, 0.5, 1.0, 1.5]
    smallest: Positive = 1e-6  # eigenvalue of a power law, the largest being 1
    l2: Annotated[list[Positive], Field(min_length=2, max_length=2)]  # from, to
    points: Annotated[int, Field(ge=2)] = 41
    k: Positive = 2.0


class LinearConfig(Section):
    """Figure S-linear: deep linear nets of finite width on one sample, target 1."""

    l2: Positive
    widths: Annotated[list[Count], Field(min_length=1)]
    t_l2: Positive  # the curves run up to t = t_l2/λ
    points: Annotated[int, Field(ge=2)] = 200
    phase_widths: Annotated[list[Count], Field(min_length=2)]  # of the phase diagram, n against (y/λ)²
    drawn_widths: Annotated[list[Count], Field(min_length=1)]  # of 3-layer nets, whose every weight is integrated
    seeds: Annotated[list[NaturalNumber], Field(min_length=1)] = [0]


class ConstantConfig(Section):
    """Figure S-constant: theory beside every run of these experiments, fully-connected nets on the full batch."""

    experiments: Annotated[list[Name], Field(min_length=1)]


class TheoryConfig(Section):
    """The theory curves."""

    modes: ModesConfig | None = None
    kernel: KernelConfig | None = None
    spectrum: SpectrumConfig | None = None
    linear: LinearConfig | None = None
    constant: ConstantConfig | None = None

    def experiments_of(self, curve: str) -> list[str]:
        """The experiments on whose samples a curve depends, none if it needs no data."""
        section = getattr(self, curve)
        one = getattr(section, "experiment", None)
        return [one] if one else list(getattr(section, "experiments", []))


class FigureConfig(Section):
    """What a figure is drawn from."""

    experiments: list[Name] = []
    theory: list[Literal["modes", "kernel", "spectrum", "linear", "constant"]] = []


class ScaleConfig(Section):
    """One scale: the whole of config/<scale>.yaml."""

    about: str
    templates: dict = {}  # a place for YAML anchors
    device: Literal["cpu", "cuda", "auto"] = "auto"
    threads: Count = 1
    runtime_minutes: Count = 60
    train: bool = True
    reuse: bool = True
    data_dir: str | None = None
    keep_final_state: bool = False
    experiments: dict[Name, ExperimentConfig]
    theory: TheoryConfig = TheoryConfig()
    figures: dict[Name, FigureConfig]

    @model_validator(mode="after")
    def _references(self):
        for name, figure in self.figures.items():
            for experiment in figure.experiments:
                if experiment not in self.experiments:
                    raise ValueError(f"figures.{name}.experiments: no experiment {experiment!r} in this file")
            for curve in figure.theory:
                if getattr(self.theory, curve) is None:
                    raise ValueError(f"figures.{name}.theory: no theory.{curve} in this file")
        for name, experiment in self.experiments.items():
            if experiment.derived:
                self._check_source(f"experiments.{name}.l2", experiment)
        for curve in TheoryConfig.model_fields:
            for name in self.theory.experiments_of(curve):
                self._check_drawable(f"theory.{curve}.experiment{'s' * (curve == 'constant')}", name)
        if self.theory.constant:
            for name in self.theory.constant.experiments:
                self._check_gradient_flow("theory.constant.experiments", name)
        return self

    def _check_drawable(self, where: str, name: str) -> None:
        """Raise ValueError where no theory curve can be drawn for an experiment."""
        if name not in self.experiments:
            raise ValueError(f"{where}: no experiment {name!r} in this file")
        if self.experiments[name].derived:
            raise ValueError(f"{where}: {name} lists no l2 to draw the curves at")

    def _check_gradient_flow(self, where: str, name: str) -> None:
        """Raise ValueError where gradient flow in function space cannot stand beside an experiment's runs."""
        experiment, first = self.experiments[name], self.experiments[self.theory.constant.experiments[0]]
        if not isinstance(experiment.model, FullyConnectedConfig):
            raise ValueError(f"{where}: {name} does not train fully-connected nets")
        if experiment.batch or experiment.momentum:
            raise ValueError(f"{where}: {name} does not train by plain gradient descent on the full batch")
        if experiment.data.name != first.data.name:
            raise ValueError(f"{where}: {name} trains on another data set than the first")

    def _check_source(self, where: str, experiment: ExperimentConfig) -> None:
        """Raise ValueError where λ cannot be measured on the experiment that is named as its source."""
        wanted = experiment.l2
        where = f"{where}.{'predicted_from' if wanted.predicted_from else 'tuned_from'}"
        source = self.experiments.get(wanted.source)
        if source is None:
            raise ValueError(f"{where}: no experiment {wanted.source!r} in this file")
        if source.derived or not any(source.l2):
            raise ValueError(f"{where}: {wanted.source} lists no l2 above 0")
        if source.auto_l2 is not None:
            raise ValueError(f"{where}: {wanted.source} changes its l2 by auto_l2")
        differing = experiment.trains_like(source)
        if differing:
            raise ValueError(f"{where}: {wanted.source} has another {differing}, so its l2 says nothing here")
        if not set(experiment.lr) <= set(source.lr):
            raise ValueError(f"{where}: {wanted.source} does not have every lr of this experiment")
        if wanted.predicted_from and source.lr_schedule is not None:
            raise ValueError(f"{where}: {wanted.source} has an lr_schedule; c is measured at a constant learning rate")
        if wanted.tuned_from:
            if source.lr_schedule != experiment.lr_schedule:
                raise ValueError(f"{where}: {wanted.source} has another lr_schedule, so its l2 says nothing here")
            served = source.horizon.reached
            for epochs in experiment.horizon.fixed:
                if epochs not in served if source.lr_schedule else epochs > max(served, default=0):
                    raise ValueError(f"{where}: {wanted.source} does not train for {epochs:g} epochs")


class Overrides(Section):
    """What `snakemake --config` (and the command line's options) may set."""

    scale: str = "quick"
    train: bool | None = None
    reuse: bool | None = None
    data_dir: str | None = None
    device: Literal["cpu", "cuda", "auto"] | None = None
    threads: Count | None = None


def config_folder() -> Path:
    """`config/` below the current folder, else of the checkout."""
    return Path("config") if Path("config").is_dir() else ROOT / "config"


def scale_names() -> list[str]:
    """The scales that have a file."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


def load_scale(name: str, **overrides) -> ScaleConfig:
    """The validated configuration of a scale.

    overrides: train, reuse, data_dir, device, threads; one that is None leaves the file's value. Where a job runs is
    nobody's result: L2DYN_DEVICE and L2DYN_DATA override the file's device and data_dir too. Raises UserError: no such
    scale, not YAML, an unknown key, a wrong type, a value out of range.
    """
    path = config_folder() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"scale={name}: no file {path}; the scales are {', '.join(scale_names())}")
    scale = _validated(ScaleConfig, _read_yaml(path), where=str(path))
    around = {"device": os.environ.get("L2DYN_DEVICE"), "data_dir": os.environ.get("L2DYN_DATA")}
    given = {key: value for key, value in around.items() if value} | _not_none(overrides)
    where = _validated(Overrides, {"scale": name, **given}, where="L2DYN_DEVICE or an option")
    return scale.model_copy(update=where.model_dump(exclude={"scale"}, exclude_none=True))


def parse_overrides(values: dict) -> Overrides:
    """Snakemake's `config` mapping, typed. Raises UserError for an unknown key or a bad value."""
    return _validated(Overrides, values, where="--config")


def _not_none(values: dict) -> dict:
    return {key: value for key, value in values.items() if value is not None}


def _validated(model, values, where: str):
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        # a misspelt key is reported as missing, too: name the one that stands in the file
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        key = _key(first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(model, first["loc"][:-1]))
            raise UserError(f"{where}: unknown key {key}{f'; known here: {known}' if known else ''}{more}") from None
        if first["type"] == "missing":
            raise UserError(f"{where}: {key} is missing{more}") from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict | BaseModel) else f", got {first['input']!r}"
        raise UserError(f"{where}: {key}: {message}{got}{more}") from None


def _keys_at(model, location) -> list[str]:
    """The known keys of the section at a location, to help with a misspelt one."""
    parts = list(location)
    while parts:
        kind = model.model_fields[parts.pop(0)].annotation
        while not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            inner = [k for k in typing.get_args(kind) if k not in (str, type(None))]
            if typing.get_origin(kind) in (dict, list) and parts:
                parts.pop(0)  # the name of an entry, the index in a list
            tagged = [k for k in inner if parts and parts[0] in TAGS and _tag(k) == parts[0]]
            if tagged:
                parts.pop(0)
            if not inner:
                return []
            kind = inner[-1] if typing.get_origin(kind) is dict else (tagged or inner)[0]
        model = kind
    return list(model.model_fields)


def _tag(kind) -> str | None:
    """What chooses this section among others: the value of `kind:`, or a tag."""
    for mark in getattr(kind, "__metadata__", ()):
        if isinstance(mark, Tag):
            return mark.tag
    fields = getattr(kind, "model_fields", {})
    return typing.get_args(fields["kind"].annotation)[0] if "kind" in fields else None


def _key(location) -> str:
    """A location as a reader of the YAML file would write it: without the tag that pydantic puts after a choice."""
    parts = [str(part) for part in location]
    if parts[:1] == ["experiments"] and parts[2:3] in (["model"], ["l2"]):
        del parts[3:4]
    return ".".join(parts) or "(top level)"


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML loaders let pass silently."""

    def flatten_mapping(self, node):
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        # a node that has been flattened holds its template's keys beside those that override them
        if not getattr(node, "flattened", False):
            for key in own:
                if own.count(key) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        node.flattened = True
        super().flatten_mapping(node)


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{line} not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping at the top level")
    return values
