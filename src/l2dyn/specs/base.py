"""What all specs share: frozen, validated values with one canonical JSON form; how kinds of them are registered."""

import importlib
import json
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegative = Annotated[
    float, Field(ge=0, allow_inf_nan=False, strict=True), AfterValidator(lambda x: x + 0.0)
]  # no -0
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
NaturalNumber = Annotated[int, Field(ge=0, strict=True)]
Enumerated = Annotated[int, Field(ge=1, le=10_000, strict=True)]  # gone through one by one: a slip must not fill memory


class Spec(BaseModel):
    """A frozen value that refuses unknown keys and numbers of another type (no truth values, no text).

    Subclasses add fields; a field that is added later needs a default, which then never changes, so that no run gets
    another id. Raises pydantic's ValidationError, a ValueError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        unknown = sorted(set(values) - set(cls.model_fields)) if isinstance(values, dict) else []
        if unknown:
            known = ", ".join(cls.model_fields)
            raise PydanticCustomError(
                "unknown_key", "unknown key {key}; known here: {known}", {"key": unknown[0], "known": known}
            )
        return values


def to_dict(spec: Spec) -> dict:
    """The spec as nested plain dictionaries, without the fields at their default; `kind` always stays.

    >>> class Example(Spec):
    ...     size: int
    ...     rate: Positive = 1.0
    >>> to_dict(Example(size=3, rate=1)), to_dict(Example(size=3, rate=2))
    ({'size': 3}, {'size': 3, 'rate': 2.0})
    """
    out = {}
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name == "kind" or field.is_required() or value != field.default:
            out[name] = _plain(value)
    return out


def _plain(value):
    if isinstance(value, Spec):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def canonical_json(value) -> str:
    """JSON with sorted keys and no spaces; raises ValueError for infinities and NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def one_of(*kinds: type[Spec]):
    """The type of a field that holds one of these kinds, chosen by its key `kind`."""
    return Annotated[Union[kinds], Field(discriminator="kind")] if len(kinds) > 1 else kinds[0]  # noqa: UP007


def imported(path: str):
    """The object behind an import path "package.module:name"; where a spec names torch code without loading it."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
