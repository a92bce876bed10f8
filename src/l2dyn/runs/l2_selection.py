"""l2 selections: λ measured on other runs, as `results/<scale>/<experiment>/l2.json` holds them.

The file is what a Snakemake checkpoint leaves behind; whoever needs these λ later reads only that. How they are
measured stands in l2dyn.tables.l2_selection.
"""

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from l2dyn.errors import UserError
from l2dyn.files import results_folder, write_atomically

FILE = "l2.json"


@dataclass(frozen=True)
class L2Selection:
    """λ of one experiment. values: {(learning rate, budget in epochs): λ}, empty where it could not be measured.

    units: in which learning rates and λ stand here, the experiment's (l2dyn.specs.units). reason: why it could not be
    measured, else "". evidence: how it was, for a reader; nothing here depends on it.
    """

    values: dict[tuple[float, float], float]
    reason: str = ""
    evidence: dict | None = None
    units: str = "torch"

    def answers(self, lrs: Iterable[float], budgets: Iterable[float], units: str = "torch") -> bool:
        """Whether nothing is left to be measured: there is a λ for every pair, or a reason why there is none."""
        if units != self.units:
            return False
        if not self.values:
            return bool(self.reason)
        return set(itertools.product(lrs, budgets)) <= set(self.values)


def selection_path(scale: str, experiment: str) -> Path:
    """Where an experiment's λ are written down."""
    return results_folder() / scale / experiment / FILE


def write_l2_selection(path: Path, selection: L2Selection) -> None:
    """Write the file, atomically."""
    rows = [{"lr": lr, "epochs": epochs, "l2": l2} for (lr, epochs), l2 in sorted(selection.values.items())]
    content = {"units": selection.units, "l2": rows, "reason": selection.reason, "evidence": selection.evidence or {}}
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_l2_selection(path: Path) -> L2Selection | None:
    """The λ of an experiment, None where they have not been measured yet.

    Raises:
        UserError: for a damaged file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {(float(row["lr"]), float(row["epochs"])): float(row["l2"]) for row in content["l2"]}
        if not all(0 < l2 < math.inf for l2 in values.values()):
            raise ValueError("an l2 that is not positive and finite")
        return L2Selection(values, str(content["reason"]), dict(content["evidence"]), str(content["units"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and call again") from None
