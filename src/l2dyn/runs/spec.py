"""RunSpec: everything that determines one training trajectory, and the id made from it.

The id is a short hash of the spec's canonical JSON. Fields at their default are left out and defaults never change,
so a field that is added later renames no old run. The horizon is not part of a spec: a longer run serves every
shorter budget as its prefix.
"""

import dataclasses
import functools
import hashlib
import json
import math
import typing
from dataclasses import dataclass, field

NUMERICS_VERSION = 2  # bump when the arithmetic of training changes; recorded with each run, not hashed into its id


@dataclass(frozen=True, kw_only=True)
class FullyConnectedSpec:
    """A fully-connected ReLU net: `hidden_layers` layers of `width` units and a linear readout.

    parameterization "standard": weights N(0, weight_std²/fan_in), used as they are. "ntk": weights N(0, 1), multiplied
    by weight_std/√fan_in in the forward pass (section 4 of the paper). Biases start at 0.
    """

    kind: str = "fc"
    hidden_layers: int
    width: int
    bias: bool = True
    parameterization: str = "standard"
    weight_std: float = math.sqrt(2.0)


@dataclass(frozen=True, kw_only=True)
class ConvNetSpec:
    """Two blocks of [3×3 convolution "same", 3×3 convolution "valid", max pooling], a dense layer and a linear readout.

    channels: of the four convolutions. pool, pool_stride: window and stride of the pooling (the paper's window of 6
    with stride 1 leaves 18×18 of a 32×32 image). batch_norm: before each ReLU. Weights N(0, weight_std²/fan_in),
    biases 0; convolutions and dense layers that batch norm follows keep their biases.
    """

    channels: tuple[int, ...] = (300, 300, 300, 300)
    dense: int = 500
    pool: int = 6
    pool_stride: int = 1
    batch_norm: bool = False
    norm_statistics: str = "batch"  # at test time: of the batch, or "running" averages
    norm_group: int = 0  # samples that are normalized together, 0 for the whole batch
    weight_std: float = math.sqrt(2.0)
    kind: str = field(default="convnet", metadata={"always": True})


@dataclass(frozen=True, kw_only=True)
class WideResNetSpec:
    """WRN-depth-width: pre-activation blocks, (depth − 4)/6 in each of three groups, the first of 16·width channels.

    Weights N(0, weight_std²/fan_in); batch norm with scale and shift, over groups of `norm_group` samples.
    """

    depth: int
    width: int
    norm_statistics: str = "batch"
    norm_group: int = 0
    weight_std: float = 1.0
    kind: str = field(default="wrn", metadata={"always": True})


@dataclass(frozen=True, kw_only=True)
class AutoL2Spec:
    """The AutoL2 schedule (section 3), started at the run's `l2`: after a measurement that rose, λ ← factor·λ.

    A measurement is the mean of the empirical loss and of the training error over `interval` epochs of minibatches.
    cooldown: measurements after a decay in which λ cannot decay again. trigger: "either", "loss" or "error".
    """

    factor: float = 0.1
    cooldown: int = 1
    interval: float = 1.0
    min_l2: float = 0.0
    trigger: str = "either"


@dataclass(frozen=True, kw_only=True)
class AugmentationSpec:
    """Random changes of the training images, drawn anew for every sample of every step.

    flip: left to right with probability ½. crop: zero padding in pixels, then a crop of the original size. mixup: α of
    the Beta distribution that mixes pairs of images and labels, 0 for none.
    """

    flip: bool = False
    crop: int = 0
    mixup: float = 0.0


def layer_widths(spec: FullyConnectedSpec, inputs: int, outputs: int) -> list[int]:
    """[inputs, width, …, width, outputs]."""
    return [inputs, *[spec.width] * spec.hidden_layers, outputs]


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The samples a run sees: the first `train` and `test` ones of each split in canonical order."""

    name: str
    checksum: str
    train: int
    test: int
    labels: str = "class"  # "parity": ±1 for even and odd classes, one output
    scaling: str = "standardize"  # by the data set's mean and std; "unit": every image scaled to norm √(pixels)
    pool: int = 1  # images are averaged over windows of pool × pool pixels first


ModelSpec = FullyConnectedSpec | ConvNetSpec | WideResNetSpec
MODELS: dict[str, type] = {"fc": FullyConnectedSpec, "convnet": ConvNetSpec, "wrn": WideResNetSpec}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training trajectory (see the module's docstring).

    lr: learning rate η. l2: L2 coefficient λ of the penalty (λ/2)·‖θ‖² over all parameters; with auto_l2 its first
    value. lr_decay_epochs: epochs at which η is multiplied by lr_decay_factor. batch: samples a step, 0 for the full
    training set. loss: "cross_entropy" (softmax, mean over samples) or "mse" (mean over samples of half the squared
    distance, summed over outputs). precision: "float32", or "tf32" and "bfloat16" for products rounded by a GPU,
    or "float64" for tests (l2dyn.training.precision). kernel_samples: on so many training samples, the first ones, the
    norm of the neural tangent kernel is measured (fully-connected nets with one output). Raises ValueError for a batch
    that does not fit.
    """

    model: ModelSpec
    data: DataSpec
    lr: float
    l2: float
    momentum: float = 0.0
    batch: int = 0
    loss: str = "cross_entropy"
    init_seed: int = 0
    order_seed: int = 0
    precision: str = "float32"
    auto_l2: AutoL2Spec | None = None
    lr_decay_epochs: tuple[float, ...] = ()
    lr_decay_factor: float = 0.2
    augmentation: AugmentationSpec = AugmentationSpec()
    augmentation_seed: int = 0
    kernel_samples: int = 0

    def __post_init__(self):
        # what has no effect must not make another id for the same trajectory
        if self.batch == 0:
            object.__setattr__(self, "order_seed", 0)
        if self.augmentation == AugmentationSpec():
            object.__setattr__(self, "augmentation_seed", 0)
        if not self.lr_decay_epochs:
            object.__setattr__(self, "lr_decay_factor", type(self).lr_decay_factor)
        if self.batch < 0 or self.batch > self.data.train:
            raise ValueError(f"batch {self.batch} does not fit {self.data.train} training samples")

    @property
    def steps_per_epoch(self) -> int:
        """S; an incomplete last batch is dropped."""
        return 1 if self.batch == 0 else self.data.train // self.batch

    def lr_at(self, step: int) -> float:
        """The learning rate of the step after `step` steps: a pure function of it, so that resuming is free."""
        decays = sum(step >= round(epoch * self.steps_per_epoch) for epoch in self.lr_decay_epochs)
        return self.lr * self.lr_decay_factor**decays

    @functools.cached_property
    def run_id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(to_dict(self)).encode()).hexdigest()[:12]


def to_dict(spec) -> dict:
    """The spec as nested plain dictionaries, without the fields at their default.

    >>> data = DataSpec(name="digits", checksum="c", train=512, test=4000)
    >>> run = RunSpec(model=FullyConnectedSpec(hidden_layers=3, width=64), data=data, lr=1, l2=1e-5)
    >>> to_dict(run)["lr"], to_dict(run)["model"]
    (1.0, {'hidden_layers': 3, 'width': 64})
    """
    out = {}
    types = _field_types(type(spec))
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        omissible = not f.metadata.get("always") and f.default is not dataclasses.MISSING
        if omissible and _canonical(value, types[f.name]) == _canonical(f.default, types[f.name]):
            continue
        out[f.name] = to_dict(value) if dataclasses.is_dataclass(value) else _canonical(value, types[f.name])
    return out


def from_dict(cls, values: dict):
    """The inverse of to_dict.

    Raises ValueError for a key that the class does not have (a record written by a later version, say).
    """
    types = _field_types(cls)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    return cls(**{name: _revived(value, types[name]) for name, value in values.items()})


def canonical_json(value) -> str:
    """JSON with sorted keys and no spaces; a number has one form only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.cache
def _field_types(cls) -> dict[str, type]:
    return typing.get_type_hints(cls)


def _revived(value, kind):
    """A field's value from its JSON form."""
    if isinstance(value, dict):
        if kind == ModelSpec:
            kind = MODELS[value.get("kind", "fc")]
        elif not dataclasses.is_dataclass(kind):
            kind = next(k for k in typing.get_args(kind) if dataclasses.is_dataclass(k))
        return from_dict(kind, value)
    canonical = _canonical(value, kind)
    return tuple(canonical) if isinstance(canonical, list) else canonical


def _canonical(value, kind):
    """The value in its field's JSON type: 1 and 1.0 are one learning rate, -0.0 is 0.0, a tuple is a list."""
    if kind is float:
        return float(value) + 0.0
    if kind is int:
        if int(value) != value:
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    if typing.get_origin(kind) is tuple:
        return [_canonical(item, typing.get_args(kind)[0]) for item in value]
    return bool(value) if kind is bool else value
