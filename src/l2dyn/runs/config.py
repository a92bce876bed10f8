"""Typed, validated configuration: one YAML file per scale.

`load_scale("quick")` reads config/quick.yaml. Every error is one line that names the file, the key and the value.
"""

import functools
import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from l2dyn.errors import UserError
from l2dyn.runs.datasets import DATASETS
from l2dyn.runs.files import ROOT
from l2dyn.runs.horizons import EvaluationGrid, Horizon
from l2dyn.runs.spec import DataSpec, FullyConnectedSpec

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")]


class Section(BaseModel):
    """A part of the configuration; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """A net. `hidden_layers` layers of `width` ReLU units and a linear readout."""

    kind: Literal["fc"]
    hidden_layers: Count
    width: Count
    bias: bool = True
    parameterization: Literal["standard", "ntk"] = "standard"
    weight_std: Positive = FullyConnectedSpec.weight_std

    def spec(self) -> FullyConnectedSpec:
        """The floor-0 spec of this net."""
        return FullyConnectedSpec(**self.model_dump())


class DataConfig(Section):
    """Which samples: the first `train` and `test` of each split, in canonical order."""

    name: Literal["digits", "mnist"]
    train: Count
    test: Count
    labels: Literal["class", "parity"] = "class"
    scaling: Literal["standardize", "unit"] = "standardize"

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


class HorizonConfig(Section):
    """A declared training time, see l2dyn.runs.horizons.Horizon."""

    epochs: Positive | None = None
    t_lr_l2: Positive | None = None
    t_l2: Positive | None = None
    t_lr: Positive | None = None
    cap_epochs: Positive | None = None
    beyond_cap: Literal["cut", "skip"] = "cut"

    @model_validator(mode="after")
    def _one(self):
        given = [k for k in ("epochs", "t_lr_l2", "t_l2") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if not given and self.t_lr is None:
            raise ValueError("give one of epochs, t_lr_l2, t_l2 (and t_lr for l2 = 0)")
        return self

    def horizon(self) -> Horizon:
        """The same as a plain value."""
        return Horizon(**self.model_dump())


class EvaluationConfig(Section):
    """When a run is measured, see l2dyn.runs.horizons.EvaluationGrid."""

    ratio: Annotated[float, Field(gt=1.0, le=1.1)] = 1.1
    every_epoch_up_to: Annotated[int, Field(ge=0)] = 0
    every_epochs: NonNegative = 0.0

    def grid(self) -> EvaluationGrid:
        """The same as a plain value."""
        return EvaluationGrid(**self.model_dump())


class ExperimentConfig(Section):
    """A grid of runs: every learning rate with every L2 coefficient and every seed."""

    shows: str
    model: ModelConfig
    data: DataConfig
    lr: Annotated[list[Positive], Field(min_length=1)]
    l2: Annotated[list[NonNegative], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch: Annotated[int, Field(ge=0)] = 0
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    precision: Literal["float32", "float64"] = "float32"
    horizon: HorizonConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    slices: Count = 1

    @model_validator(mode="after")
    def _consistent(self):
        if self.batch > self.data.train:
            raise ValueError(f"batch: {self.batch} is more than the {self.data.train} training samples")
        if self.data.labels == "parity" and self.loss != "mse":
            raise ValueError("loss: parity labels (±1, one output) go with loss mse")
        for key in ("lr", "l2", "seeds"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: a value stands there twice")
        horizon = self.horizon
        if 0 in self.l2 and horizon.epochs is None and horizon.t_lr is None:
            raise ValueError("horizon: l2 holds 0, so give t_lr or epochs")
        if any(self.l2) and horizon.epochs is None and horizon.t_lr_l2 is None and horizon.t_l2 is None:
            raise ValueError("horizon: l2 holds values above 0, so give epochs, t_lr_l2 or t_l2")
        return self


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


class TheoryConfig(Section):
    """The theory curves."""

    modes: ModesConfig | None = None
    kernel: KernelConfig | None = None


class FigureConfig(Section):
    """What a figure is drawn from."""

    experiments: list[Name] = []
    theory: list[Literal["modes", "kernel"]] = []


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
        kernel = self.theory.kernel
        if kernel is not None and kernel.experiment not in self.experiments:
            raise ValueError(f"theory.kernel.experiment: no experiment {kernel.experiment!r} in this file")
        return self


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
    given = {key: value for key, value in (around | _not_none(overrides)).items() if value}
    given |= {key: overrides[key] for key in ("train", "reuse") if overrides.get(key) is not None}
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
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(model, first["loc"][:-1]))
            raise UserError(f"{where}: unknown key {key}" + (f"; known here: {known}" if known else "")) from None
        if first["type"] == "missing":
            raise UserError(f"{where}: {key} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        got = "" if isinstance(first["input"], dict | BaseModel) else f", got {first['input']!r}"
        raise UserError(f"{where}: {key}: {message}{got}{more}") from None


def _keys_at(model, location) -> list[str]:
    """The known keys of the section at a location, to help with a misspelt one."""
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        if part in model.model_fields:
            kinds = [model.model_fields[part].annotation]
            while kinds:
                kind = kinds.pop()
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    model = kind
                    break
                kinds.extend(getattr(kind, "__args__", ()))
            else:
                return []
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


@functools.cache
def _loader():
    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, which YAML loaders let pass silently."""

        def construct_mapping(self, node, deep=False):
            own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            for key in own:
                if own.count(key) > 1 and not getattr(node, "merged", False):
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
            node.merged = True  # flattening a merge key puts the template's keys beside the overriding ones
            return super().construct_mapping(node, deep)

    return Loader


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{line} not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping at the top level")
    return values
