"""Which verdicts each scale's plan can end in: its points fed with ideal and with contrary runs.

Ideal runs follow the paper in everything, contrary ones in nothing; seeds scatter little. What neither brings about, no
real runs will: claims.yaml says so under `cannot`. C14 rests on no runs, and the smoke scale is there to be run.
"""

import functools

import numpy as np
import pandas as pd
import pytest

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.verdicts import NOT_REPRODUCED, REPRODUCED
from l2dyn.config.loading import load_scale
from l2dyn.runs.l2_selection import L2Selection
from l2dyn.runs.plan import Plan
from l2dyn.tables.claims import judge, read_claims, verdict_of
from l2dyn.tables.summary import FIELDS

BEST = 0.967  # accuracy, the paper's in C11
PAPER_C = 1.29
WORLDS = {"ideal": REPRODUCED, "contrary": NOT_REPRODUCED}


class Curves:
    """A record's columns, whatever its horizon."""

    def __init__(self, columns: dict):
        self.columns = columns

    def prefix(self, steps: int) -> dict:
        """All of them."""
        return self.columns


def selections(scale, ideal: bool) -> dict[str, L2Selection]:
    """The middle of the grid that is tuned on; contrary predictions are a hundredth of it, ideal ones of C11 1e-4."""
    found = {}
    for name, config in scale.experiments.items():
        if config.selected:
            grid = sorted(scale.experiments[config.l2.tuned_from or "fig1b-tuned"].l2)
            l2 = grid[len(grid) // 2] / (1 if ideal or config.l2.tuned_from else 100)
            l2 = 1e-4 if ideal and name == "fig1a-predicted" else l2
            values = {(lr, epochs): l2 for lr in config.lr for epochs in config.horizon.fixed}
            found[name] = L2Selection(values, units=config.units)
    return found


def accuracy(name: str, config, ideal: bool, lr: float, l2: float, grid: list[float]) -> float:
    """By experiment: a plateau and a fall in sweeps with T ∝ 1/λ, a peak inside at fixed budgets; or the opposite."""
    if name.endswith("-predicted"):
        return (0.960 if name == "fig1a-predicted" else BEST) - (0 if ideal else 0.08)
    if config.auto_l2:
        return BEST + (0.01 if ideal == (name != "figS-autol2-lr") else -0.02)
    rank, best = grid.index(l2) if l2 > 0 else -1, len(grid) // 2
    if name == "fig1a-fixed" and 5e-4 in grid[1:-1]:
        best = grid.index(5e-4)  # of C11
    if l2 == 0:
        value = BEST - (0.1 if ideal else 0)
    elif name in ("fig1a-fixed", "fig1b-tuned") or (ideal and config.horizon.fixed and name != "figS-momentum"):
        value = BEST - 0.01 * abs(rank - best)
    elif ideal:
        value = BEST - 0.01 * max(rank - 2, 0)
    else:  # the smallest λ is best at fixed budgets, and none at all no worse; the largest in sweeps
        value = BEST - 0.3 + 0.02 * (-rank if config.horizon.fixed and name != "figS-momentum" else rank)
    if not ideal:
        value -= 0.05 * sorted(config.lr).index(lr)
        value -= 0.05 * config.net.weight_std * name.startswith("figS-init")
    return min(value, BEST)


def peak_time(config, ideal: bool, lr: float, l2: float, epochs: float, smallest: float) -> float:
    """A fifth of what the horizon would be without a cap, which is ∝ 1/(ηλ); or its square root."""
    if l2 == 0:
        return 0.2 * epochs
    horizon = config.horizon
    declared = horizon.t_lr_l2 / (lr * l2) if horizon.t_lr_l2 else (horizon.t_l2 or 2 * epochs * smallest) / l2
    return 0.2 * (declared if ideal else declared**0.5)


def curves(name: str, spec, ideal: bool, steps: int, t_star: float, shift: float) -> tuple[dict, np.ndarray]:
    """(columns of a run's record, the theory of its loss at those steps); shift: of the seed, about 0."""
    step = np.unique(np.concatenate([np.linspace(0, steps, 120), np.geomspace(1e-4 * steps, steps, 300)]))
    epoch, times = step / spec.steps_per_epoch, spec.lr * step
    columns = {"step": step, "epoch": epoch, "train_loss": 0.1 + np.log(np.maximum(epoch, 1e-9) / t_star) ** 2}
    x = 10 * step / steps
    theory = (0.5 - 0.3 * x * np.exp(1 - x)) * (1 + 0.2 * shift * np.exp(-5 * x))
    if name == "fig4a":
        rate = spec.steps_per_epoch * spec.lr * spec.l2 / (1 - spec.momentum)
        top = PAPER_C / rate * (1 if ideal else 0.3)
        grid = np.linspace(0, steps / spec.steps_per_epoch, 51)
        curve = 0.6 - 0.5 * np.maximum(1 - grid / top, (grid - top) / 5 / top).clip(0, 1)
        columns = {"step": grid * spec.steps_per_epoch, "epoch": grid, "test_accuracy": curve}
    elif name == "fig1c-auto":
        columns["test_accuracy"] = np.where(step >= steps / 100, 0.999 if ideal else 0.5, 0.5)
    elif name.startswith(("fig5c", "figS-kernel")):
        stays = (0.2 + 0.002 * shift) * (1 - np.exp(-x))
        slower = (0.1 + 0.001 * shift) * x * np.exp(1 - x / 3)
        wide = theory * (1.01 + 0.002 * shift + 0.2 * (not ideal))
        columns["train_loss"] = wide if name == "fig5c" else theory - (stays if ideal else slower)
        if ideal and name == "figS-kernel-medium":  # as the wide one until after the smallest loss
            columns["train_loss"] = np.where(x <= 1.15, wide, columns["train_loss"])
        columns["kernel_norm"] = np.exp(-2 * spec.l2 * times * ((1.0 if ideal else 0.5) + 0.01 * shift))
    return columns, theory


def evidence(scale_name: str, ideal: bool) -> Evidence:
    """Every point of the scale's plan, finished."""
    scale, draw = load_scale(scale_name), np.random.default_rng(0)
    plan = Plan(scale_name, scale, selections(scale, ideal))
    summaries, records, theories = {}, {}, {}
    for name, config in scale.experiments.items():
        points, rows = plan.experiments[name], []
        grid = sorted({config.shown(point.spec)[1] for point in points} - {0.0})
        for point in points:
            spec, shift = point.spec, draw.normal()
            (lr, l2), epochs = config.shown(spec), point.steps / spec.steps_per_epoch
            late = peak_time(config, ideal, lr, l2, epochs, grid[0]) * np.exp(0.02 * shift)
            value = accuracy(name, config, ideal, lr, l2, grid) + 0.0003 * shift
            predicts = scale.experiments["fig1b-predicted"].l2.at or grid[-1]
            large = not ideal and l2 >= predicts  # of O1: another C there
            row = {
                **{"run_id": point.run_id, "experiment": name, "lr": lr, "l2": l2, "lr_torch": spec.lr},
                **{"l2_torch": spec.l2, "momentum": spec.momentum, "seed": spec.init_seed, "status": "finished"},
                **{"horizon_steps": point.steps, "horizon_epochs": epochs, "capped": point.capped},
                **{"t_star": min(late, epochs), "t_argmax": min(late, epochs), "censored": late > epochs / 2},
                **{"C": PAPER_C * np.exp(0.02 * shift) * (3 if large else 1), "min_train_error": 0.0},
                **{"max_test_accuracy": value, "final_test_accuracy": value},
            }
            rows.append(row)
            columns, theory = curves(name, spec, ideal, point.steps, row["t_star"], shift)
            records[point.run_id] = Curves(columns)
            theories[point.run_id] = spec.lr * columns["step"], theory
        summaries[name] = pd.DataFrame(rows).reindex(columns=FIELDS)
    ids = [i for name in ("fig5c", "fig5c-narrow", "figS-kernel-medium") for i in summaries[name]["run_id"]]
    t = np.geomspace(min(theories[i][0][1] for i in ids), max(theories[i][0][-1] for i in ids), 800)
    kernel = pd.DataFrame({"k": 2.0, "t": t, **{f"loss_{i}": np.interp(t, *theories[i]) for i in ids}})
    return Evidence(scale_name, scale, summaries, {"kernel": kernel}, records)


@functools.cache
def verdicts(scale: str, world: str) -> dict[str, str]:
    """Of every claim."""
    judged = judge(read_claims(), evidence(scale, world == "ideal"))
    return {claim: verdict_of(parts) for claim, parts in judged.items()}


@pytest.mark.parametrize("scale", ["quick", "desktop", "gpu", "paper"])
def test_each_claim_can_come_out_both_ways_or_is_listed(scale):
    judged = [one for one in read_claims() if one.id != "C14" and (not one.scales or scale in one.scales)]
    cannot = {
        claim.id: sorted(wanted for world, wanted in WORLDS.items() if verdicts(scale, world)[claim.id] != wanted)
        for claim in judged
    }
    assert {claim.id: sorted(claim.cannot.get(scale, ())) for claim in judged} == cannot
