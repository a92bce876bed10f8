"""Prose by hand for the pages that are written by machine: paper_results/remarks.yaml."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from l2dyn.errors import UserError
from l2dyn.files import shipped_folder
from l2dyn.tables.claims import read_claims


def remarks_on(scale: str, path: Path | None = None, everywhere: bool = True) -> dict[str, str]:
    """What is said of each claim at a scale; everywhere: with what is said of all scales.

    Raises:
        UserError: for a file of another form, and for a claim that does not exist.
    """
    path = path or shipped_folder() / "remarks.yaml"
    found = {**(_section("all", path) if everywhere else {}), **_section(scale, path)}
    unknown = sorted(set(found) - {claim.id for claim in read_claims()})
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: no claim of that name")
    return found


def findings_of_figures(path: Path | None = None) -> dict[str, str]:
    """What is said of each figure of the quick scale.

    Raises:
        UserError: for a file of another form.
    """
    return _section("figures", path or shipped_folder() / "remarks.yaml")


def _section(name: str, path: Path) -> dict[str, str]:
    try:
        found = (YAML(typ="safe").load(path) or {}).get(name, {})
        return {key: str(text).strip() for key, text in found.items()}
    except (OSError, YAMLError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as remarks by scale and claim ({type(error).__name__})") from None
