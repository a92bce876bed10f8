"""Code keys: a hash of the analysis code behind a result, so that a changed definition makes it anew."""

import functools
import hashlib
import re
from pathlib import Path

from l2dyn.files import ROOT
from l2dyn.specs.base import canonical_json

# packages whose code decides what is shown
ANALYSIS = ("measures", "claims", "tables", "theory", "plotting", "data", "nets")
# and modules elsewhere by which a record is read: which one counts, up to where, at which steps, in which units, what
# chance is
READING = ("runs/records.py", "runs/bundles.py", "specs/horizons.py", "specs/units.py", "specs/data_sets.py")
# import statements: parsing the whole package into syntax trees would slow every Snakemake call
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.*)|import[ \t]+(.*))", re.MULTILINE)
_NAME = re.compile(r"[\w.]+")


def code_key(*roots: str | Path) -> str:
    """Hash of the analysis code behind these modules (names, or files): themselves and what they import of ANALYSIS."""
    waiting = [_source(root) if isinstance(root, str) else root for root in roots]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imported(path)
    package = ROOT / "src" / "l2dyn"
    deciding = (*(package / name for name in ANALYSIS), *(package / name for name in READING), *roots)
    kept = [path for path in sorted(seen) if path in deciding or path.parent in deciding]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in kept]
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:10]


@functools.cache
def _imported(path: Path) -> tuple[Path, ...]:
    """The files of this package that a Python file imports, at its top or inside functions."""
    names = set()
    for module, things, modules in _IMPORT.findall(path.read_text(encoding="utf-8")):
        names |= {module, *(f"{module}.{thing}" for thing in _NAME.findall(things)), *_NAME.findall(modules)}
    found = (_source(name) for name in sorted(names) if name.split(".")[0] == "l2dyn")
    return tuple(path for path in found if path is not None)


def _source(module: str) -> Path | None:
    """The file of a module of this package, None for a name that is no module."""
    base = ROOT.joinpath("src", *module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
