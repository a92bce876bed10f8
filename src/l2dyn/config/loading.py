"""From YAML files, `--config` and the environment to a validated scale; an error names file, key and value."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor

from l2dyn.config.scale import Overrides, ScaleConfig
from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.specs.nets import NETS
from l2dyn.specs.optimizers import OPTIMIZERS

FIGURES = "figures"  # config/figures.yaml: what all scales share
# what pydantic puts into a location where it chose among kinds
_KINDS = {"listed", "selected", *(kind.model_fields["kind"].default for kind in (*NETS, *OPTIMIZERS))}


def config_folder() -> Path:
    """`config/` below the current folder, else of the checkout.

    Raises:
        UserError: where there is neither.
    """
    for folder in (Path("config"), ROOT / "config"):
        if folder.is_dir():
            return folder
    raise UserError("no folder config/ here: this command needs a checkout of l2dyn; call it from its root")


def scale_names() -> list[str]:
    """The scales that have a file."""
    return sorted(path.stem for path in config_folder().glob("*.yaml") if path.stem != FIGURES)


def load_scale(name: str, **overrides) -> ScaleConfig:
    """The validated configuration of a scale; config/figures.yaml has figures that all share, null leaves one out.

    overrides: train, reuse, data_dir, device, threads; one that is None leaves the file's value. Where a job runs is
    nobody's result: L2DYN_DEVICE and L2DYN_DATA override the file's device and data_dir too.

    Raises:
        UserError: no such scale, not YAML, an unknown key, a wrong type, a value out of range.
    """
    path = config_folder() / f"{name}.yaml"
    if name == FIGURES or not path.is_file():
        raise UserError(f"scale={name}: no file {path}; the scales are {', '.join(scale_names())}")
    values = _read_yaml(path)
    shared, own = config_folder() / f"{FIGURES}.yaml", values.get(FIGURES)
    if shared.is_file() and isinstance(own, dict | None):
        every = _read_yaml(shared) | (own or {})
        values[FIGURES] = {name: section for name, section in every.items() if section is not None}
    try:
        scale = _validated(ScaleConfig, values, where=str(path))
    except UserError as error:
        elsewhere = ": figures." in str(error) and shared.is_file()
        raise UserError(f"{error}; figures stand in {shared}, too" if elsewhere else str(error)) from None
    around = {"device": os.environ.get("L2DYN_DEVICE"), "data_dir": os.environ.get("L2DYN_DATA")}
    given = {key: value for key, value in around.items() if value}
    given |= {key: value for key, value in overrides.items() if value is not None}
    where = _validated(Overrides, {"scale": name, **given}, where="L2DYN_DEVICE or an option")
    return scale.model_copy(update=where.model_dump(exclude={"scale"}, exclude_none=True))


def parse_overrides(values: dict) -> Overrides:
    """Snakemake's `config` mapping, typed.

    Raises:
        UserError: for an unknown key or a bad value.
    """
    return _validated(Overrides, values, where="--config")


def _validated(model: type[BaseModel], values: dict, where: str):
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        # a misspelt key is reported as missing, too: name the one that stands in the file
        first = next((e for e in errors if e["type"] == "unknown_key"), errors[0])
        key = _key(first["loc"])
        message = f"{key} is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        key = f"{key}: " if key and first["type"] != "missing" else ""
        got = f", got {first['input']!r}" if isinstance(first["input"], str | int | float | None) else ""
        got = "" if first["type"] in ("missing", "unknown_key") else got
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UserError(f"{where}: {key}{message}{got}{more}") from None


def _key(location: tuple) -> str:
    """A location as a reader of the YAML file would write it: without the kind that pydantic puts after a choice."""
    return ".".join(str(part) for i, part in enumerate(location) if i < 3 or part not in _KINDS)


class _UniqueKeys(SafeConstructor):
    """The safe constructor, which alone would let a key stand twice beside a merge key."""

    def flatten_mapping(self, node):
        """Merge in what its merge keys name, once its own keys are seen to be different ones."""
        if node.merge is None:  # a mapping that others merge in comes here again, its own merges resolved
            keys = [key for key, _ in node.value]
            twice = next((key for i, key in enumerate(keys) if key.value in [k.value for k in keys[:i]]), None)
            if twice is not None:
                raise DuplicateKeyError(None, None, f'found duplicate key "{twice.value}"', twice.start_mark)
        super().flatten_mapping(node)


def _read_yaml(path: Path) -> dict:
    """A YAML file's top-level mapping; a key that stands twice is an error."""
    loader = YAML(typ="safe")  # parsed in C where ruamel.yaml.clib is there
    loader.Constructor = _UniqueKeys
    try:
        values = loader.load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}:{line} not valid YAML: {str(problem).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping at the top level")
    return values
