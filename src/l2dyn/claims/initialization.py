"""The scale of the initialization: claim C16."""

from dataclasses import replace

import pandas as pd

from l2dyn.claims.evidence import Evidence, by_seed
from l2dyn.claims.verdicts import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPORTED,
    Part,
    ids_of,
    pair_reach,
    range_of_family,
    remarked,
    unless,
    within,
)

BEST = "max_test_accuracy"


def c16(evidence: Evidence, criterion: dict) -> list[Part]:
    """The best accuracy does not depend on the scale of the initialization: equivalence at each λ, past the peak."""
    names = [name for name in evidence.config.experiments if name.startswith("figS-init")]
    return [evidence.complete(part, *names) for part in _equivalence(evidence, names, criterion)]


def _equivalence(evidence: Evidence, names: list[str], criterion: dict) -> list[Part]:
    if not any(len(evidence.runs(name)) for name in names):
        return [Part("scale of the initialization", NOT_RUN)]
    trained = {name: evidence.trained(name, criterion) for name in names}
    trains = set().union(*(rows["l2"] for rows in trained.values()))
    made = {name: evidence.outcomes(name) for name in names}
    tables = {
        evidence.experiment(name).net.weight_std: _peaked(rows[rows["l2"].isin(trains)], trained[name])
        for name, rows in made.items()
        if len(rows)
    }
    scales = sorted(tables)
    margin, ratio = criterion["equivalence_margin"], criterion["min_scale_ratio"]
    shared = sorted(set.intersection(*(set(table.columns) for table in tables.values())))
    peaked = {l2: [scale for scale in scales if l2 in tables[scale]] for l2 in sorted(set().union(*tables.values()))}
    compared = {l2: those for l2, those in peaked.items() if len(those) > 1}
    wanted, what = f"within ±{margin:g}", "difference of best accuracies between two scales (fraction)"
    basis = {
        "seeds": min(rows["seed"].nunique() for rows in made.values() if len(rows)),
        "run_ids": tuple(i for n in names for i in ids_of(evidence.runs(n))),
    }
    if scales[-1] / scales[0] < ratio - 1e-9 or not compared or basis["seeds"] < 2:
        span = f"scales over a factor {scales[-1] / scales[0]:g} ({ratio:g} asked for)"
        lost = [name for name, rows in trained.items() if len(rows) and rows["censored"].astype(bool).all()]
        why = f"{span}, {len(shared)} λ at which all seeds of all scales have peaked"
        why += f"; every run of {', '.join(lost)} is censored" if lost else ""
        return [Part("scale of the initialization", INCONCLUSIVE, what, wanted=wanted, why=why, **basis)]
    parts = []
    for l2, those in compared.items():
        groups = [tables[scale][l2] for scale in those]
        # one variance for this λ; the interval is for all of them at once
        numbers = range_of_family(groups, pair_reach([groups], evidence.image(names[0]), comparisons=len(compared)))
        why = "weight_std " + ", ".join(f"{s:.3g}: {g.mean():.3f}" for s, g in zip(those, groups, strict=True))
        part = Part(f"λ = {l2:g}", within(*numbers[1:], -margin, margin), what, *numbers, wanted, why, **basis)
        if l2 not in shared:
            others = ", ".join(f"{scale:.3g}" for scale in scales if scale not in those)
            part = _of_some_scales(part, f"not every seed of weight_std {others} has peaked", bool(shared))
        parts.append(part)
    return parts


def _peaked(rows: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """Best accuracies, seeds by λ, of those λ at which every seed has peaked.

    A run that diverged or does not beat chance is no censored one: it has nothing to come.
    """
    cut = rows["run_id"].isin(trained[trained["censored"].astype(bool)]["run_id"])
    return by_seed(rows.assign(**{BEST: rows[BEST].where(~cut)}), BEST)


def _of_some_scales(part: Part, lacking: str, others_decide: bool) -> Part:
    """The part where scales lack: two that differ speak against equivalence, two that agree do not establish it.

    others_decide: whether there are λ at which all scales have peaked.
    """
    if part.verdict == NOT_REPRODUCED:
        return remarked(part, lacking)
    return replace(remarked(part, lacking), verdict=REPORTED) if others_decide else unless(part, lacking)
