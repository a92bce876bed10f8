"""The claims C1 to C20 of the paper, those of our own (O1, O2), and who judges each."""

from collections.abc import Callable

from l2dyn.claims import infinite_width, initialization, laws, patterns, predictions, tuning
from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import Part

JUDGES: dict[str, Callable[[Evidence, dict], list[Part]]] = {
    "C1": laws.c1,
    "C2": laws.c2,
    "C3": patterns.c3,
    "C4": patterns.c4,
    "C5": patterns.c5,
    "C6": patterns.c6,
    "C7": predictions.c7,
    "C8": predictions.c8,
    "C9": predictions.c9,
    "C10": patterns.c10,
    "C11": tuning.c11,
    "C12": tuning.c12,
    "C13": tuning.c13,
    "C14": infinite_width.c14,
    "C15": infinite_width.c15,
    "C16": initialization.c16,
    "C17": patterns.c17,
    "C18": patterns.c18,
    "C19": laws.c19,
    "C20": infinite_width.c20,
    "O1": predictions.o1,
    "O2": laws.o2,
}
