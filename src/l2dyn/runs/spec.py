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
from dataclasses import dataclass

NUMERICS_VERSION = 1  # bump when the arithmetic of training changes; recorded with each run, not hashed into its id


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


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training trajectory (see the module's docstring).

    lr: learning rate η. l2: L2 coefficient λ of the penalty (λ/2)·‖θ‖² over all parameters. batch: samples a step, 0
    for the full training set. loss: "cross_entropy" (softmax, mean over samples) or "mse" (mean over samples of half
    the squared distance, summed over outputs). precision: "float32", or "float64" for tests.
    """

    model: FullyConnectedSpec
    data: DataSpec
    lr: float
    l2: float
    momentum: float = 0.0
    batch: int = 0
    loss: str = "cross_entropy"
    init_seed: int = 0
    order_seed: int = 0
    precision: str = "float32"

    def __post_init__(self):
        if self.batch == 0 and self.order_seed != 0:
            object.__setattr__(self, "order_seed", 0)  # a full batch has no order: the same trajectory, the same id
        if self.batch < 0 or self.batch > self.data.train:
            raise ValueError(f"batch {self.batch} does not fit {self.data.train} training samples")

    @property
    def steps_per_epoch(self) -> int:
        """S; an incomplete last batch is dropped."""
        return 1 if self.batch == 0 else self.data.train // self.batch

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
        if dataclasses.is_dataclass(value):
            out[f.name] = to_dict(value)
            continue
        value = _canonical(value, types[f.name])
        default = dataclasses.MISSING if f.default is dataclasses.MISSING else _canonical(f.default, types[f.name])
        if default is dataclasses.MISSING or value != default:
            out[f.name] = value
    return out


def from_dict(cls, values: dict):
    """The inverse of to_dict.

    Raises ValueError for a key that the class does not have (a record written by a later version, say).
    """
    types = _field_types(cls)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    arguments = {}
    for name, value in values.items():
        kind = types[name]
        arguments[name] = from_dict(kind, value) if dataclasses.is_dataclass(kind) else _canonical(value, kind)
    return cls(**arguments)


def canonical_json(value) -> str:
    """JSON with sorted keys and no spaces; a number has one form only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.cache
def _field_types(cls) -> dict[str, type]:
    return typing.get_type_hints(cls)


def _canonical(value, kind):
    """The value in its field's type: 1 and 1.0 are one learning rate, -0.0 is 0.0."""
    if kind is float:
        return float(value) + 0.0
    if kind is int:
        if int(value) != value:
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    return bool(value) if kind is bool else value
