"""The verdicts on the claims as a specification, on invented runs, and the tables of them.

C14, C15, C20 and the estimates behind all verdicts: test_claims_theory.py. What lacks or has diverged, and draws
without any effect: test_claims_runs.py.
"""

import csv
import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from l2dyn.claims.evidence import Evidence
from l2dyn.claims.judges import JUDGES
from l2dyn.claims.verdicts import INCONCLUSIVE as UNCLEAR
from l2dyn.claims.verdicts import NOT_REPRODUCED as NO
from l2dyn.claims.verdicts import NOT_RUN, Part
from l2dyn.claims.verdicts import REPRODUCED as YES
from l2dyn.config.loading import load_scale
from l2dyn.errors import UserError
from l2dyn.files import shipped_folder
from l2dyn.runs.records import Record
from l2dyn.specs.horizons import Horizon
from l2dyn.tables.claims import claims_page, judge, read_claims, verdict_of, write_claims
from l2dyn.tables.summary import FIELDS, write_summary

IDS = list(JUDGES)
L2 = np.geomspace(0.001, 0.1, 7).tolist()  # two decades
L2_SHORT = np.geomspace(0.0015, 0.1, 7).tolist()  # 1.8 of them
LEVEL = (0.98, 0.98, 0.98, 0.96, 0.94, 0.9, 0.8)  # a plateau at small λ
THREE = (0.01, 0.02, 0.04)
RATES = (0.05, 0.15, 0.5)
GRID = (0.02, 0.04, 0.08, 0.16)
OF_TWO_NETS = ("fig2ab", "fig2c", "fig2de", "fig2f")  # the nets of claims that need both
scale = functools.cache(load_scale)
claims_of_the_paper = functools.cache(read_claims)


def runs(
    l2=(0.01,), accuracy=0.99, lr=(0.1,), seeds=3, scatter=0.0005, law=-1.0, spread=0.0, **columns
) -> pd.DataFrame:
    """Finished runs on a grid, with normal noise in accuracy (`scatter`) and in log t* (`spread`).

    accuracy: one for all, or one for each λ. t* = 2·λ^law/η. columns: values or functions of the rows.
    """
    rows = pd.DataFrame(list(itertools.product(lr, l2, range(seeds))), columns=["lr", "l2", "seed"])
    noise = np.random.default_rng(1).normal(size=(2, len(rows)))
    level = rows["l2"].map(dict(zip(l2, np.broadcast_to(accuracy, len(l2)), strict=True)))
    times = 2 * rows["l2"].clip(lower=1e-9) ** law / rows["lr"] * np.exp(spread * noise[1])
    rows = rows.assign(max_test_accuracy=level + scatter * noise[0], t_star=times, min_train_error=0.0)
    rows = rows.assign(
        status="finished", horizon_steps=100, horizon_epochs=100.0, capped=False, censored=False, momentum=0.0
    )
    rows = rows.assign(lr_torch=rows["lr"], l2_torch=rows["l2"]).assign(**columns)
    last = {"final_test_accuracy": rows["max_test_accuracy"], "t_argmax": rows["t_star"]}
    return rows.assign(**{name: values for name, values in last.items() if name not in columns})


def of(experiments=(), curves=(), records=(), name="quick", awaited=()) -> Evidence:
    """Evidence from runs by experiment, whose seeds and budgets are those of the configuration, too.

    records: functions from a row to the columns of its record, by experiment. awaited: of OF_TWO_NETS, what the scale
    has besides.
    """
    summaries, found, configs = {}, {}, dict(scale(name).experiments)
    if experiments:
        left_out = {*OF_TWO_NETS} - {*dict(experiments), *awaited}
        configs = {one: config for one, config in configs.items() if one not in left_out}
    for experiment, rows in dict(experiments).items():
        ids = [f"{experiment}/{row.lr:g}/{row.l2:g}/{row.seed}" for row in rows.itertuples()]
        summaries[experiment] = rows.assign(experiment=experiment, run_id=ids).reindex(columns=FIELDS)
        for row in summaries[experiment].itertuples() if experiment in dict(records) else ():
            found[row.run_id] = Record(None, "finished", row.horizon_steps, 1, dict(records)[experiment](row))
        planned = {"seeds": tuple(sorted(set(rows["seed"])))}
        if configs[experiment].horizon.fixed:
            planned["horizon"] = Horizon(budgets=tuple(sorted(set(rows["horizon_epochs"]))))
        configs[experiment] = configs[experiment].model_copy(update=planned)
    config = scale(name).model_copy(update={"experiments": configs})
    return Evidence(name, config, summaries, dict(curves), found)


def parts_of(claim: str, evidence: Evidence) -> list[Part]:
    return judge([one for one in claims_of_the_paper() if one.id == claim], evidence)[claim]


def fig2ab(**how):
    return of({"fig2ab": runs(**{"l2": L2} | how)})


def fig2c(accuracy, l2=THREE, **how):
    return of({"fig2c": runs(l2, accuracy, **how)})


def fig2f(accuracy, l2=THREE):
    """Two seeds with the same accuracies."""
    return of({"fig2f": runs(l2, accuracy, seeds=2, scatter=0.0)})


def setups(*levels, longer=2, **how):
    """Accuracies at λ = 0, 0.01 and 0.02 in as many setups; longer: how many times as long λ = 0 is trained."""
    names = ("fig2ab", "fig2de", "fig3-plain", "fig3-norm")
    how = {"horizon_steps": lambda r: np.where(r["l2"] == 0, 100 * longer, 100)} | how
    return of({name: runs((0, 0.01, 0.02), level, **how) for name, level in zip(names, levels, strict=False)})


def by_rate(*accuracies, lr=(0.1, 0.3), scatter=0.0, seeds=3):
    """The same accuracies at every λ, which differ by `scatter` from one seed to the next."""

    def best(rows):
        return rows["lr"].map(dict(zip(lr, accuracies, strict=True))) + scatter * (rows["seed"] - 1)

    return fig2ab(lr=lr, max_test_accuracy=best, seeds=seeds)


def prediction(
    gap=0.001, at_l2=0.08, l2=GRID, accuracy=(0.9, 0.95, 0.98, 0.95), budgets=(10.0, 100.0), left_out=(), **how
):
    """Tuning on a grid, and runs at a predicted λ that lose `gap`; left_out: a budget and a λ of the grid."""

    def at_budgets(*grid):
        how_each = {"scatter": 0.0002} | how
        return pd.concat([runs(*grid, horizon_epochs=one, **how_each) for one in budgets], ignore_index=True)

    tuned, predicted = at_budgets(l2, accuracy), at_budgets((at_l2,), max(accuracy) - gap)
    if left_out:
        tuned = tuned[(tuned["horizon_epochs"] != left_out[0]) | (tuned["l2"] != left_out[1])]
    measured = runs((scale("quick").experiments["fig1b-predicted"].l2.at,), t_star=20.0)
    return of({"fig1b-tuned": tuned, "fig1b-predicted": predicted, "fig4a": measured})


def measured_c(
    peak, seeds=3, name="gpu", l2=(0.001, 0.002), small=1.3, jitter=0.05, error=0.0, rises=lambda seed: True
):
    """Two epochs of 48 steps at the paper's λ, accuracy largest at `peak`; runs at smaller λ with C = `small`.

    rises: whether a seed does better than chance.
    """

    def curve(row):
        t, top = np.arange(0, 2.02, 0.04), peak * (1 + jitter * row.seed)
        accuracy = 0.6 - 0.5 * np.maximum(1 - t / top, (t - top) / 5) if rises(row.seed) else np.full(t.shape, 0.1)
        return {"step": (48 * t).round().astype(int), "epoch": t, "test_accuracy": accuracy}

    how = {"lr": (0.2,), "lr_torch": 0.02, "momentum": 0.9}
    two = {"l2_torch": 0.2, "horizon_steps": 96, "horizon_epochs": 2.0, "min_train_error": error}
    short = runs((0.01,), 0.6, seeds=seeds, C=1.3, **how, **two)
    tuned = runs(l2, 0.9, horizon_epochs=32.0, C=small, **how)
    return of({"fig4a": short, "fig1b-tuned": tuned}, records={"fig4a": curve}, name=name)


def scheduled(fixed=(0.95, 0.99, 0.95), scaled=(0.98, 0.98, 0.98, 0.95, 0.9), seeds=3):
    """Final accuracies; the best ones are the same everywhere."""

    def final(accuracy):
        drawn = runs(range(1, len(accuracy) + 1), accuracy, seeds=seeds)
        return drawn.assign(max_test_accuracy=0.99)

    return of({"fig1a-fixed": final(fixed), "fig1a-scaled": final(scaled)})


def paper_accuracies(
    predicted=0.96, tuned=0.967, l2=1e-4, grid=(1e-4, 5e-4, 1e-3), best=1, name="paper", c_spread=1.0, **how
):
    """Final accuracies at a predicted λ and on a grid with one best; c_spread: from a seed of c to the next."""
    levels = [tuned if i == best else 0.95 for i in range(len(grid))]
    found = {"fig1a-fixed": runs(grid, levels, **how), "fig1a-predicted": runs((l2,), predicted, **how)}
    found = {experiment: rows.assign(max_test_accuracy=0.99) for experiment, rows in found.items()}
    c = runs((0.01,), 0.6, t_argmax=lambda r: 0.66 * c_spread ** (r["seed"] - 1))
    return of(found | {"fig4a": c}, name=name)


def against_tuned(reached=(40, 42, 44), gain=0.01, tuned_at=80.0, grid=(0.9, 0.95, 0.9)):
    """AutoL2 beside the best λ of a grid, by seed; reached: when it has that run's best accuracy, None for never."""

    def curve(row):
        t, when = np.arange(101.0), reached[row.seed]
        return {"step": np.arange(101), "epoch": t, "test_accuracy": np.where(t < (when or 999), 0.5, 0.999)}

    grid = runs((0.02, 0.04, 0.08), grid, seeds=len(reached), t_argmax=tuned_at)
    auto = runs((0.8,), 0.95 + gain, seeds=len(reached))
    auto["max_test_accuracy"] += np.linspace(-0.003, 0.003, len(auto))
    return of({"fig1c-auto": auto, "fig1b-tuned": grid}, records={"fig1c-auto": curve})


def with_schedule(gain, seeds=3, scatter=0.0, grid=(0.94, 0.95, 0.94)):
    grid = runs((0.02, 0.04, 0.08), grid, seeds=seeds, scatter=0.0002)
    return of({"figS-autol2-lr": runs((0.8,), 0.95 + gain, seeds=seeds, scatter=scatter), "fig1a-fixed": grid})


def initialized(small=0.97, usual=0.97, large=0.97, past=(), diverges=("", 0), **how):
    """Three scales of the initialization; past: those whose runs have peaked, where the others' have not.

    diverges: an experiment, and the λ at which it does.
    """
    names = {"figS-init-small": small, "figS-init": usual, "figS-init-large": large}
    cut = {"small": "figS-init-small", "usual": "figS-init", "large": "figS-init-large"}
    made = {name: runs((0.01, 0.02), level, **how) for name, level in names.items() if level}
    if diverges[0]:
        made[diverges[0]].loc[made[diverges[0]]["l2"] == diverges[1], "status"] = "diverged"
    return of(
        {n: rows.assign(censored=True) if past and n not in map(cut.get, past) else rows for n, rows in made.items()}
    )


def law_and_patterns(*pairs, law=-1.0, l2=L2, best=(0.95, 0.99, 0.95), seeds=3, name="quick"):
    """Grids and fixed budgets on which C1, C3 and C4 are judged."""
    levels = [0.98] * 3 + np.linspace(0.96, 0.8, len(l2) - 3).tolist()
    grid, budget = runs(l2, levels, law=law, spread=0.1, seeds=seeds), runs(THREE, best, seeds=seeds)
    return of({one: rows for pair in pairs for one, rows in zip(pair, (grid, budget), strict=True)}, name=name)


cnns = functools.partial(law_and_patterns, ("fig3-plain", "fig3-plain-budget"), ("fig3-norm", "fig3-norm-budget"))
momentum = functools.partial(law_and_patterns, ("figS-momentum", "figS-momentum-budget"), name="gpu")


def losses(law=-1.0, recorded=True, spread=0.1):
    """Training losses that are smallest at 20·λ^law."""

    def trough(row):
        t = np.unique(np.geomspace(1, 1e5, 400).round())
        least = 20 * row.l2**law * np.exp(spread * (row.seed - 1))
        return {"step": t.astype(int), "epoch": t, "train_loss": 0.1 + np.log(t / least) ** 2}

    rows = runs(L2, horizon_steps=100_000, horizon_epochs=1e5, t_star=1.0)
    return of({"fig2ab": rows}, records={"fig2ab": trough} if recorded else {})


def adamw(**how):
    """The same grid for the FC net and the CNN."""
    how = {"l2": L2, "lr": RATES, "spread": 0.1} | how
    return of({name: runs(**how) for name in ("figS-adamw-fc", "figS-adamw-cnn")})


MEASURED = [  # claim, its verdict, on what, the evidence
    ("C1", YES, "1/L2 over two decades", lambda: fig2ab(spread=0.1)),
    ("C1", YES, "a constant for each learning rate", lambda: fig2ab(lr=RATES, t_star=lambda r: r["lr"] / r["l2"])),
    ("C1", NO, "another power", lambda: fig2ab(law=-0.7, spread=0.1)),
    ("C1", YES, "a learning rate with bounds only", lambda: fig2ab(
        lr=RATES, spread=0.1, censored=lambda r: r["lr"] == RATES[0])),
    ("C1", UNCLEAR, "much scatter", lambda: fig2ab(spread=1.0)),
    ("C1", UNCLEAR, "less than two decades", lambda: fig2ab(l2=L2_SHORT, spread=0.1)),
    ("C1", UNCLEAR, "two decades, at no single learning rate", lambda: of(
        {"fig2ab": pd.concat([runs(L2[:4], lr=(0.1,)), runs(L2[3:], lr=(0.3,))])})),
    ("C1", UNCLEAR, "no run fits its training set", lambda: fig2ab(min_train_error=0.5)),
    ("C1", UNCLEAR, "every peak is a bound", lambda: fig2ab(censored=True, spread=0.1)),
    ("C2", YES, "one constant", lambda: fig2ab(lr=RATES, spread=0.1)),
    ("C2", NO, "another power of the learning rate", lambda: fig2ab(
        lr=RATES, t_star=lambda r: r["lr"] ** -0.5 / r["l2"])),
    ("C2", NO, "one learning rate thrice as slow", lambda: fig2ab(
        lr=RATES, seeds=30, t_star=lambda r: (1 + 2 * (r["lr"] == 0.15)) / r["lr"] / r["l2"])),
    ("C2", UNCLEAR, "much scatter", lambda: fig2ab(lr=RATES, spread=1.5)),
    ("C2", NOT_RUN, "one learning rate", lambda: fig2ab(spread=0.1)),
    ("C3", YES, "level, then falling", lambda: fig2ab(accuracy=LEVEL)),
    ("C3", NO, "worse at the smallest L2", lambda: fig2ab(accuracy=(0.94, 0.96, 0.98, 0.98, 0.94, 0.9, 0.8))),
    ("C3", NO, "rising with L2", lambda: fig2ab(
        accuracy=(0.98, 0.98, 0.98, 0.981, 0.983, 0.985, 0.986), scatter=1e-4)),
    ("C3", UNCLEAR, "seeds that scatter", lambda: fig2ab(accuracy=LEVEL, scatter=0.05)),
    ("C3", UNCLEAR, "one seed, a deficit near the margin", lambda: fig2ab(
        accuracy=(0.942, 0.95, 0.95, 0.94, 0.93, 0.9, 0.8), seeds=1, scatter=0.0)),
    ("C3", NO, "smaller L2 do not train", lambda: fig2ab(accuracy=(0.1, 0.1, 0.98, 0.98, 0.96, 0.94, 0.9))),
    ("C3", UNCLEAR, "still better at the smallest L2", lambda: fig2ab(
        accuracy=(0.99, 0.97, 0.95, 0.93, 0.91, 0.89, 0.87))),
    ("C3", UNCLEAR, "one seed, rising with L2", lambda: fig2ab(
        accuracy=(0.98, 0.98, 0.98, 0.981, 0.983, 0.985, 0.986), scatter=1e-4, seeds=1)),
    ("C3", UNCLEAR, "three L2 train", lambda: fig2ab(accuracy=[0.98] * 3 + [0.1] * 4)),
    ("C3", UNCLEAR, "all horizons capped", lambda: fig2ab(accuracy=LEVEL, capped=True)),
    ("C4", YES, "an interior L2 is best", lambda: fig2c((0.95, 0.99, 0.95))),
    ("C4", NO, "no L2 at all is best", lambda: fig2c((0.995, 0.99, 0.97, 0.95), (0, *THREE))),
    ("C4", NO, "both ends are better", lambda: fig2c((0.99, 0.95, 0.99))),
    ("C4", UNCLEAR, "the smallest L2 is best, and better than none", lambda: fig2c(
        (0.98, 0.99, 0.97, 0.95), (0, *THREE))),
    ("C4", UNCLEAR, "the smallest L2 is best, and none may be better", lambda: fig2c(
        (0.9901, 0.99, 0.97, 0.95), (0, *THREE))),
    ("C4", UNCLEAR, "the smallest L2 is best, none was not tried", lambda: fig2c((0.99, 0.97, 0.95))),
    ("C4", UNCLEAR, "the largest L2 is best", lambda: fig2c((0.98, 0.94, 0.96, 0.99), (0, *THREE))),
    ("C4", UNCLEAR, "seeds that scatter", lambda: fig2c((0.97, 0.98, 0.97), scatter=0.02)),
    ("C4", UNCLEAR, "one seed", lambda: fig2c((0.95, 0.99, 0.95), seeds=1)),
    ("C4", UNCLEAR, "two L2", lambda: fig2c((0.95, 0.99), THREE[:2])),
    ("C5", YES, "a gain in three of four setups", lambda: setups(
        *[(0.95, 0.97, 0.96), (0.95, 0.96, 0.97)], (0.95, 0.97, 0.96), (0.97, 0.95, 0.94))),
    ("C5", UNCLEAR, "a gain in two of three setups, another is awaited", lambda: setups(
        (0.95, 0.97, 0.96), (0.95, 0.96, 0.97), (0.97, 0.95, 0.94))),
    ("C5", NO, "a gain in two of four setups", lambda: setups(*[(0.95, 0.97, 0.96), (0.97, 0.96, 0.95)] * 2)),
    ("C5", UNCLEAR, "seeds that scatter", lambda: setups(*[(0.95, 0.96, 0.96)] * 3, scatter=0.05)),
    ("C5", UNCLEAR, "one seed", lambda: setups(*[(0.95, 0.97, 0.96)] * 3, seeds=1)),
    ("C5", UNCLEAR, "two setups", lambda: setups(*[(0.95, 0.97, 0.96)] * 2)),
    ("C5", UNCLEAR, "no L2 trained as long as the smallest", lambda: setups(*[(0.95, 0.97, 0.96)] * 3, longer=1)),
    ("C6", YES, "the same accuracy", lambda: by_rate(0.99, 0.991)),
    ("C6", NO, "four points", lambda: by_rate(0.99, 0.95)),
    ("C6", UNCLEAR, "a range near the margin", lambda: by_rate(0.99, 0.982, scatter=0.005)),
    ("C6", UNCLEAR, "one seed", lambda: by_rate(0.99, 0.95, seeds=1)),
    ("C6", UNCLEAR, "one learning rate", lambda: by_rate(0.99, lr=(0.1,))),
    ("C7", YES, "a tenth of a point", lambda: prediction()),
    ("C7", NO, "two points", lambda: prediction(gap=0.02)),
    ("C7", UNCLEAR, "seeds that scatter", lambda: prediction(scatter=0.01)),
    ("C7", UNCLEAR, "one seed", lambda: prediction(seeds=1)),
    ("C7", UNCLEAR, "a coarse grid", lambda: prediction(l2=(0.01, 0.03, 0.1, 0.3))),
    ("C7", UNCLEAR, "less than a decade of budgets", lambda: prediction(budgets=(20.0, 100.0))),
    ("C8", YES, "a factor of two", lambda: prediction(at_l2=0.04)),
    ("C8", NO, "a factor of forty", lambda: prediction(at_l2=0.002)),
    ("C8", UNCLEAR, "all of the grid may be best", lambda: prediction(
        at_l2=0.04, accuracy=(0.98,) * 4, scatter=0.01)),
    ("C8", UNCLEAR, "best at the edge of the grid", lambda: prediction(accuracy=(0.9, 0.92, 0.95, 0.98))),
    ("C8", UNCLEAR, "half a decade of budgets", lambda: prediction(at_l2=0.04, budgets=(10.0, 30.0))),
    ("C9", YES, "the C of the paper", lambda: measured_c(0.64)),
    ("C9", NO, "a third of it", lambda: measured_c(0.2)),
    ("C9", NOT_RUN, "a smaller net on pooled images", lambda: measured_c(0.64, name="desktop")),
    ("C9", UNCLEAR, "still rising after two epochs", lambda: measured_c(3.0)),
    ("O1", YES, "the same C", lambda: measured_c(0.64)),
    ("O1", NO, "another C at small L2", lambda: measured_c(0.64, small=3.9)),
    ("O1", UNCLEAR, "a C that scatters", lambda: measured_c(0.64, small=lambda r: 1.3 * 2.0 ** (r["seed"] - 1))),
    ("O2", YES, "the law for both nets", adamw),
    ("O2", NO, "another power of the decay", lambda: adamw(law=-0.5)),
    ("O2", NO, "no dependence on the learning rate", lambda: adamw(t_star=lambda r: 1 / r["l2"])),
    ("O2", UNCLEAR, "half a decade of decays", lambda: adamw(l2=L2[:3])),
    ("O2", UNCLEAR, "much scatter", lambda: adamw(spread=1.5)),
    ("O2", NOT_RUN, "no run with AdamW", lambda: of({"fig2ab": runs(L2)})),
    ("C10", YES, "both patterns in the last accuracy", scheduled),
    ("C10", UNCLEAR, "the smallest L2 is best", lambda: scheduled(fixed=(0.99, 0.97, 0.95))),
    ("C10", UNCLEAR, "still better at the smallest L2", lambda: scheduled(scaled=(0.99, 0.97, 0.95, 0.92, 0.88))),
    ("C10", NO, "no plateau", lambda: scheduled(scaled=(0.9, 0.94, 0.98, 0.95, 0.9))),
    ("C10", UNCLEAR, "one seed", lambda: scheduled(seeds=1)),
    ("C11", NOT_RUN, "at another scale than the one of the paper", lambda: paper_accuracies(name="quick")),
    ("C12", YES, "in half the time", against_tuned),
    ("C12", NO, "in twice the time", lambda: against_tuned(reached=(80, 82, 84), tuned_at=40.0)),
    ("C12", NO, "less accurate", lambda: against_tuned(reached=(None,) * 3, gain=-0.02)),
    ("C12", UNCLEAR, "in half the time of an L2 at the edge", lambda: against_tuned(grid=(0.9, 0.92, 0.95))),
    ("C12", NO, "less accurate than an L2 at the edge", lambda: against_tuned(
        reached=(None,) * 3, gain=-0.02, grid=(0.9, 0.92, 0.95))),
    ("C12", UNCLEAR, "one seed", lambda: against_tuned(reached=(40,))),
    ("C12", UNCLEAR, "one of three reaches it", lambda: against_tuned(reached=(40, None, None))),
    ("C13", YES, "half a point worse", lambda: with_schedule(-0.005)),
    ("C13", NO, "a point better", lambda: with_schedule(0.01)),
    ("C13", YES, "half a point worse than an L2 at the edge", lambda: with_schedule(-0.005, grid=(0.9, 0.94, 0.95))),
    ("C13", UNCLEAR, "better than an L2 at the edge", lambda: with_schedule(0.01, grid=(0.9, 0.94, 0.95))),
    ("C13", UNCLEAR, "seeds that scatter", lambda: with_schedule(-0.005, scatter=0.01)),
    ("C13", UNCLEAR, "one seed", lambda: with_schedule(-0.005, seeds=1)),
    ("C16", YES, "the same accuracy", initialized),
    ("C16", NO, "five points", lambda: initialized(large=0.92)),
    ("C16", UNCLEAR, "seeds that scatter", lambda: initialized(scatter=0.03)),
    ("C16", UNCLEAR, "scales over a factor of two", lambda: initialized(large=None)),
    ("C16", UNCLEAR, "one seed", lambda: initialized(seeds=1)),
    ("C16", NO, "two scales differ, a third has no peak", lambda: initialized(small=0.92, past=("small", "usual"))),
    ("C16", YES, "the same accuracy, at one L2 a scale has no peak", lambda: initialized(
        censored=lambda r: (r["l2"] == 0.01) & (r["max_test_accuracy"] > 0.971), large=0.972)),
    ("C16", NO, "a scale that does not train", lambda: initialized(usual=0.1)),
    ("C16", NO, "a scale that diverges at an L2", lambda: initialized(diverges=("figS-init-large", 0.02))),
    ("C16", UNCLEAR, "a scale of the plan without a summary", lambda: initialized(usual=None)),
    ("C16", UNCLEAR, "two scales agree, a third has no peak", lambda: initialized(past=("small", "usual"))),
    ("C16", UNCLEAR, "no run is past its peak", lambda: initialized(censored=True)),
    ("C16", UNCLEAR, "one seed is nowhere past its peak", lambda: initialized(censored=lambda r: r["seed"] == 2)),
    ("C17", YES, "law and patterns on both", cnns),
    ("C17", NO, "another power", lambda: cnns(law=-0.7)),
    ("C17", UNCLEAR, "less than two decades", lambda: cnns(l2=L2_SHORT)),
    ("C18", YES, "law and patterns", momentum),
    ("C18", NO, "another power", lambda: momentum(law=-0.7)),
    ("C18", UNCLEAR, "the smallest L2 is best", lambda: momentum(best=(0.99, 0.97, 0.95))),
    ("C18", UNCLEAR, "all L2 trained equally long", lambda: momentum(name="quick")),
    ("C18", UNCLEAR, "one seed", lambda: momentum(seeds=1)),
    ("C19", YES, "1/L2 over two decades", losses),
    ("C19", NO, "another power", lambda: losses(law=-0.7)),
    ("C19", UNCLEAR, "much scatter", lambda: losses(spread=1.0)),
    ("C19", UNCLEAR, "no curves", lambda: losses(recorded=False)),
]  # fmt: skip


def cases(spec):
    return [
        pytest.param(claim, verdict, build, id=f"{claim} {verdict}, {what}") for claim, verdict, what, build in spec
    ]


@pytest.mark.parametrize(("claim", "verdict", "build"), cases(MEASURED))
def test_verdicts(claim, verdict, build):
    assert verdict_of(parts_of(claim, build())) == verdict


@functools.cache
def unfinished(status):
    return of({name: runs(status=status) for name in scale("quick").experiments})


@pytest.mark.parametrize("status", ["missing", "short", "diverged", None])
@pytest.mark.parametrize("claim", IDS)
def test_not_run_without_finished_runs(claim, status):
    """Neither experiments without a summary nor rows of another status count."""
    parts = parts_of(claim, unfinished(status) if status else of())
    assert verdict_of(parts) == NOT_RUN
    assert {part.verdict for part in parts} == {NOT_RUN}


def test_an_experiment_that_is_not_run_leaves_the_verdict_to_the_others():
    parts = parts_of("C1", fig2ab(spread=0.1))
    assert [part.verdict for part in parts] == [YES, NOT_RUN]
    assert verdict_of(parts) == YES


@pytest.mark.parametrize(("law", "verdict"), [(-1.0, UNCLEAR), (-0.7, NO)])
def test_while_runs_of_the_plan_are_awaited_nothing_is_reproduced(law, verdict, tmp_path):
    """One net against the law is enough to contradict it, one for it is not enough."""
    evidence = of({"fig2ab": runs(L2, law=law, spread=0.1)}, awaited=["fig2de"])
    parts = parts_of("C1", evidence)
    assert [part.verdict for part in parts][1] == NOT_RUN
    assert verdict_of(parts) == verdict
    write_claims(claims_of_the_paper()[:1], {"C1": parts}, tmp_path / "claims.csv", tmp_path / "claim_parts.csv")
    (row,) = csv.DictReader((tmp_path / "claims.csv").open())
    assert row["verdict"] == verdict
    assert ("no run of fig2de is there yet" in row["why"]) == (verdict == UNCLEAR)


def test_the_criterion_decides():
    """The numbers of claims.yaml are those that are judged by."""
    c1 = claims_of_the_paper()[0]
    wider = c1.model_copy(update={"criterion": c1.criterion | {"slope_high": -0.5}})
    evidence = fig2ab(law=-0.7, spread=0.1)
    assert [verdict_of(judge([one], evidence)["C1"]) for one in (c1, wider)] == [NO, YES]


@pytest.fixture(scope="module")
def judged():
    made = (fig2ab(lr=RATES, spread=0.1), fig2c((0.99, 0.95, 0.99)), prediction(), momentum(seeds=1))
    found = {name: rows for evidence in made for name, rows in evidence.summaries.items()}
    return judge(claims_of_the_paper(), of(found))


def test_the_tables(judged, tmp_path):
    """claims.csv has a row a claim, claim_parts.csv one a part; numbers are exact, unknown ones empty."""
    write_claims(claims_of_the_paper(), judged, tmp_path / "claims.csv", tmp_path / "claim_parts.csv")
    claims, parts = (list(csv.DictReader((tmp_path / f"{n}.csv").open())) for n in ("claims", "claim_parts"))
    assert next(iter(claims[0])) == "claim"
    assert [row["claim"] for row in claims] == IDS
    for row in claims:
        of_claim = judged[row["claim"]]
        deciding = next(part for part in of_claim if part.verdict == row["verdict"])
        ids = row["run_ids"].split()
        assert (row["part"], row["verdict"]) == ("", verdict_of(of_claim))
        assert float(row["estimate"] or "nan") == pytest.approx(deciding.estimate, rel=0, abs=0, nan_ok=True)
        assert row["what"].startswith(deciding.name)
        assert set(ids) == {i for part in of_claim for i in part.run_ids}
        assert len(ids) == len(set(ids)) == int(row["runs"])
    everything = [(claim, part) for claim in IDS for part in judged[claim]]
    for row, (claim, part) in zip(parts, everything, strict=True):
        assert (row["claim"], row["part"], row["verdict"], row["why"]) == (claim, part.name, part.verdict, part.why)
        for name in ("estimate", "low", "high"):
            assert row[name] == ("" if math.isnan(getattr(part, name)) else repr(float(getattr(part, name))))
    assert {row["verdict"] for row in claims} == {YES, NO, UNCLEAR, NOT_RUN}


def test_the_page_has_a_section_for_every_claim(judged):
    page = claims_page(claims_of_the_paper(), judged, "quick", scale("quick"))
    sections = page.split("\n## ")[1:]
    assert page.startswith("# Claims at the scale quick")
    for section, claim in zip(sections, claims_of_the_paper(), strict=True):
        assert section.startswith(f"{claim.id}: {verdict_of(judged[claim.id])}\n")
        assert claim.claim in section
        assert claim.judged_by in section
        assert all(part.name in section for part in judged[claim.id])
        assert "λ, η and c are in PyTorch's units." in section
        assert ("*At this scale*" in section) == ("quick" in claim.cannot)


def test_evidence_is_read_from_a_folder(tmp_path):
    """What a summary says is judged alike in memory and as a file; what is not there is not run."""
    evidence = of({"fig2ab": runs(L2, censored=lambda r: r["l2"] == L2[0], spread=0.1)}, awaited=["fig2de"])
    (tmp_path / "fig2ab").mkdir()
    write_summary(tmp_path / "fig2ab" / "summary.csv", evidence.summaries["fig2ab"].to_dict("records"))
    read = Evidence.read("quick", scale("quick"), tmp_path, {})
    assert (list(read.summaries), dict(read.curves)) == (["fig2ab"], {})
    assert parts_of("C1", read) == parts_of("C1", evidence)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda entries: entries[:2] + entries[3:], "claims: C1, C2, C3"),
        (lambda entries: entries[::-1], "claims: C1, C2, C3"),
        (
            lambda entries: [*entries[:2], entries[2] | {"judge": "me"}],
            r"claims\[2\].*: unknown key judge; known here: id",
        ),
        (lambda entries: [*entries[:2], {"id": "C3"}], r"claims\[2\]\.claim: Field required"),
        (lambda entries: [entries[0] | {"figures": "fig2"}], r"claims\[0\]\.figures: "),
        pytest.param(lambda entries: None, "claims: "),
    ],
    ids=["a claim is missing", "order", "unknown key", "key is missing", "type", "nothing"],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, change, named):
    content = yaml.safe_load((shipped_folder() / "claims.yaml").read_text())
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content | {"claims": change(content["claims"])}))
    with pytest.raises(UserError, match=f"{path}: {named}") as refused:
        read_claims(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [None, "claims: [", "[]", "{}"])
def test_no_such_file_and_no_yaml(tmp_path, text):
    path = tmp_path / "claims.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        read_claims(path)
