"""λ that is measured on another experiment's runs, predicted or tuned, against exact arithmetic."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l2dyn.config.scale import ScaleConfig
from l2dyn.runs.bundles import Bundles
from l2dyn.runs.l2_selection import read_l2_selection, write_l2_selection
from l2dyn.runs.plan import Plan
from l2dyn.runs.records import DamagedRecord, write_records
from l2dyn.tables.l2_selection import measured_coefficient, select_l2

SETUP = {
    "shows": "x",
    "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
    "lr": [0.1],
    "evaluation": {"every_epochs": 1},
}
SOURCE = SETUP | {"l2": [0.01], "horizon": {"epochs": 100}}
GUESS = SETUP | {"l2": {"predicted_from": "source"}, "horizon": {"budgets": [10, 40]}}
TUNED = {"l2": {"tuned_from": "source"}}
SCHEDULED = {
    "batch": 16,
    "evaluation": {"every_epochs": 0.25},
    "lr_schedule": {"factor": 0.2, "at": [0.5]},
}  # 4 steps an epoch


def plan_of(source=None, guess=None, setup=None) -> Plan:
    """Two experiments, `source` and `guess`; `setup` changes both."""
    setup = setup or {}
    experiments = {"source": SOURCE | setup | (source or {}), "guess": GUESS | setup | (guess or {})}
    values = {"about": "x", "device": "cpu", "figures": {}, "experiments": experiments}
    return Plan("tiny", ScaleConfig.model_validate(values))


def by_id(records) -> dict:
    return {record.run_id: record for record in records}


def rising_and_falling(epochs, peak, top=0.9, slope=0.01):
    """Test accuracy with one sharp peak; its running mean peaks there too."""
    return np.maximum(top - slope * np.abs(np.asarray(epochs) - peak), 0.0)


@pytest.fixture(scope="session")
def trained(make_record):
    """A record of a task, measured after every step, whose test accuracy peaks at an epoch."""

    def make(task, peak, steps=None, **options):
        steps = task.steps if steps is None else steps
        epochs = np.arange(steps + 1) / task.spec.steps_per_epoch
        return make_record(task.spec, steps=steps, test_accuracy=rising_and_falling(epochs, peak), **options)

    return make


def two_digits(value) -> float:
    """Rounded in decimal arithmetic."""
    exact = Decimal(float(value))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1)))


def smoothed_argmax(accuracy) -> int:
    """The first maximum of the running mean over five, its window shrinking symmetrically at the ends; exact."""
    accuracy = [Fraction(float(a)) for a in accuracy]
    means = []
    for i in range(len(accuracy)):
        reach = min(2, i, len(accuracy) - 1 - i)
        means.append(sum(accuracy[i - reach : i + reach + 1]) / (2 * reach + 1))
    return means.index(max(means))


def first_within(accuracy) -> int:
    """The first index within half a point of the maximum."""
    return next(i for i, a in enumerate(accuracy) if a >= max(accuracy) - 0.005 - 1e-12)


# --- predicted ------------------------------------------------------------------------------------


@given(
    peak=st.integers(3, 45),  # before, the window shrinks over the hill
    l2=st.integers(1, 9999).map(lambda i: i / 1e4),
    budget=st.integers(1, 400).map(lambda i: i / 4),
    batch=st.sampled_from([0, 16]),
)
@settings(max_examples=20)
@example(peak=30, l2=0.005, budget=20, batch=0)
def test_l2_is_c_over_the_budget_to_two_digits(trained, peak, l2, budget, batch):
    """λ·t*/T with t* of a single sharp peak, in decimal arithmetic."""
    plan = plan_of(source={"l2": [l2]}, guess={"horizon": {"epochs": budget}}, setup={"batch": batch})
    (task,) = plan.tasks("source")
    selection = select_l2(plan, "guess", by_id([trained(task, peak)]))
    ((key, found),) = selection.values.items()
    assert (key, selection.reason) == ((0.1, budget), "")
    assert found == float(f"{found:.1e}")
    exact = Fraction(str(l2)) * peak / Fraction(budget)
    unit = Fraction(Decimal(1).scaleb(Decimal(float(exact)).adjusted() - 1))
    assert abs(Fraction(repr(found)) - exact) <= unit / 2 * (1 + Fraction(1, 10**9))


@given(heights=st.lists(st.integers(150, 950), min_size=8, max_size=30), reading=st.sampled_from(["argmax", "within"]))
@settings(max_examples=30)
@example(heights=[150] * 6 + [950] + [150] * 9 + [900] * 5 + [150] * 3, reading="argmax")  # a spike, and a hill
def test_both_readings_against_brute_force(make_record, heights, reading):
    """Of any curve that has come down: the first maximum of the running mean, and the first within half a point."""
    accuracy = [0.0, *(h / 1000 for h in heights), *[0.0] * 20]  # long enough to be told from noise
    epochs = len(accuracy) - 1
    l2 = {"predicted_from": "source", "reading": reading}
    plan = plan_of(source={"horizon": {"epochs": epochs}}, guess={"l2": l2})
    (task,) = plan.tasks("source")
    records = by_id([make_record(task.spec, steps=epochs, test_accuracy=accuracy)])
    selection = select_l2(plan, "guess", records)
    if max(accuracy) < 0.2:  # chance and ten points
        assert selection.values == {}
        assert selection.reason
        return
    at = {"argmax": smoothed_argmax(accuracy), "within": first_within(accuracy)}
    assert selection.values == {(0.1, T): pytest.approx(0.01 * at[reading] / T, rel=0.05) for T in (10, 40)}
    c, *_ = measured_coefficient(plan, "source", records, 0.1)
    assert (c.c_argmax, c.c_within) == (pytest.approx(0.01 * at["argmax"]), pytest.approx(0.01 * at["within"]))


def test_with_a_schedule_the_first_decay_counts(trained):
    """λ = c/T1 where T1 is when the learning rate of the very run that is planned first falls."""
    guess = {"lr_schedule": {"factor": 0.2, "at": [0.75, 0.25, 0.5]}, "horizon": {"budgets": [8, 20]}}
    plan = plan_of(guess=guess, setup={"batch": 16})
    (task,) = plan.tasks("source")
    selection = select_l2(plan, "guess", by_id([trained(task, peak=30)]))
    assert selection.values == {(0.1, 8): 0.15, (0.1, 20): 0.06}  # 0.01·30 / 2 and / 5
    for run in Plan("tiny", plan.scale, {"guess": selection}).experiments["guess"]:
        first = next(step for step in range(run.steps) if run.spec.lr_at(step) < run.spec.lr) / 4
        assert run.spec.l2 == two_digits(0.3 / first)


def test_seeds_and_l2s_are_combined_geometrically(trained):
    plan = plan_of(source={"l2": [0.01, 0.02], "seeds": [0, 1]})
    peaks, tasks = [20, 45, 10, 24], plan.tasks("source")
    records = by_id(trained(task, peak) for task, peak in zip(tasks, peaks, strict=True))
    products = [task.spec.l2 * peak for task, peak in zip(tasks, peaks, strict=True)]
    mean = math.exp(sum(map(math.log, products)) / 4)
    assert abs(mean - sum(products) / 4) > 0.03 * mean  # the arithmetic mean is another one
    assert select_l2(plan, "guess", records).values == {(0.1, T): two_digits(mean / T) for T in (10, 40)}
    c, ids, missing = measured_coefficient(plan, "source", records, 0.1)
    assert (c.seeds, ids, missing) == (4, list(records), [])
    assert c.c_argmax == pytest.approx(mean)


def test_every_learning_rate_has_its_own_c(trained):
    plan = plan_of(source={"lr": [0.1, 0.2, 0.4]}, guess={"lr": [0.4, 0.1]})
    peaks = {0.1: 40, 0.2: 20, 0.4: 10}
    first, unasked, last = (trained(task, peaks[task.spec.lr]) for task in plan.tasks("source"))
    found = {(0.1, 10): 0.04, (0.1, 40): 0.01, (0.4, 10): 0.01, (0.4, 40): 0.0025}
    assert select_l2(plan, "guess", by_id([first, unasked, last])).values == found
    assert select_l2(plan, "guess", by_id([first, last])).values == found
    lacking = select_l2(plan, "guess", by_id([last]))  # all or none
    assert (lacking.values, bool(lacking.reason)) == ({}, True)


def test_c_is_in_epochs_and_knows_no_momentum(trained):
    momentum = {"optimizer": {"kind": "sgd", "momentum": 0.9}}
    for setup in ({}, {"batch": 16}, {"batch": 16} | momentum):
        plan = plan_of(setup=setup)
        (task,) = plan.tasks("source")
        records = by_id([trained(task, peak=30)])
        assert select_l2(plan, "guess", records).values == {(0.1, 10): 0.03, (0.1, 40): 0.0075}


@pytest.mark.parametrize(("guess", "l2"), [({}, (0.03, 0.0075)), (TUNED, (0.01, 0.01))], ids=["predicted", "tuned"])
def test_runs_without_l2_play_no_part(trained, guess, l2):
    """And need not be there."""
    plan = plan_of(source={"l2": [0, 0.01]}, guess=guess)
    without, with_l2 = plan.tasks("source")
    for records in ([trained(with_l2, peak=30)], [trained(with_l2, peak=30), trained(without, peak=5)]):
        assert select_l2(plan, "guess", by_id(records)).values == {(0.1, 10): l2[0], (0.1, 40): l2[1]}


def test_a_run_counts_once_whatever_the_sources_budgets(make_record):
    """A source with several budgets: c of its whole runs, each of them once."""
    plan = plan_of(source={"horizon": {"budgets": [30, 60, 100]}, "seeds": [0, 1]})
    tasks, epochs = plan.tasks("source"), np.arange(101)
    hill = rising_and_falling(epochs, 8, 0.5, 0.02)
    curves = [np.maximum(hill, rising_and_falling(epochs, late)) for late in (60, 66)]
    records = by_id(make_record(t.spec, steps=100, test_accuracy=a) for t, a in zip(tasks, curves, strict=True))
    c, ids, missing = measured_coefficient(plan, "source", records, 0.1)
    assert (sorted(ids), c.seeds, missing) == (sorted(records), 2, [])
    assert c.c_argmax == pytest.approx(0.01 * math.sqrt(60 * 66))
    *_, missing = measured_coefficient(plan, "source", {}, 0.1)
    assert sorted(missing) == sorted(records)


@pytest.mark.parametrize("guess", [{}, TUNED], ids=["predicted", "tuned"])
def test_a_reader_finds_how_it_was_measured(trained, tmp_path, guess):
    plan = plan_of(source={"l2": [0.01, 0.02]}, guess=guess)
    records = by_id(trained(task, peak=20 + i) for i, task in enumerate(plan.tasks("source")))
    selection = select_l2(plan, "guess", records)
    write_l2_selection(tmp_path / "l2.json", selection)
    again = read_l2_selection(tmp_path / "l2.json")
    assert again.values == selection.values
    assert again.evidence["tuned_from" if guess else "predicted_from"] == "source"
    listed = again.evidence["tuned" if guess else "coefficients"]
    assert [one["lr"] for one in listed] == [0.1] * (2 if guess else 1)
    if not guess:
        (c,) = listed
        assert (c["run_ids"], c["seeds"]) == (list(records), 2)
        assert c["c_argmax_low"] < c["c_argmax"] < c["c_argmax_high"]


# --- where it cannot be measured --------------------------------------------------------------------


def assert_unresolved(plan, records, *parts) -> None:
    """No λ, and a reason in one line."""
    selection = select_l2(plan, "guess", by_id(records))
    assert selection.values == {}
    assert "\n" not in selection.reason
    assert [part for part in (*parts, "source") if part not in selection.reason] == [], selection.reason


@pytest.mark.parametrize("guess", [{}, TUNED], ids=["predicted", "tuned"])
def test_missing_short_and_diverged_source_runs(make_record, trained, guess):
    plan = plan_of(source={"seeds": [0, 1, 2], "horizon": {"epochs": 40}}, guess=guess)
    *tasks, last = plan.tasks("source")
    records = [trained(task, peak=10) for task in tasks]
    assert_unresolved(plan, [], "3 of 3")
    assert_unresolved(plan, records, "1 of 3")
    assert_unresolved(plan, [*records, trained(last, peak=10, steps=39)], "1 of 3")
    whole = trained(last, peak=10, steps=40)
    assert set(select_l2(plan, "guess", by_id([*records, whole])).values) == {(0.1, 10), (0.1, 40)}
    # a run that diverged at once serves every horizon and holds no measurement
    plan = plan_of(guess=guess)
    assert_unresolved(plan, [make_record(plan.tasks("source")[0].spec, steps=1, at=[], status="diverged")])


def test_a_censored_source(trained):
    """Accuracy that still rises at the end says only that c is larger."""
    plan = plan_of(source={"seeds": [0, 1]})
    first, second = plan.tasks("source")
    rising = trained(second, peak=100)
    assert_unresolved(plan, [trained(first, peak=100), rising], "uncensored", "0.1")
    found = select_l2(plan, "guess", by_id([trained(first, peak=30), rising]))
    assert found.values == {(0.1, 10): 0.03, (0.1, 40): 0.0075}
    assert found.evidence["coefficients"][0]["seeds"] == 1


@pytest.mark.parametrize(("labels", "least"), [("class", 0.2), ("parity", 0.6)])
def test_a_source_that_never_beats_chance(make_record, labels, least):
    plan = plan_of(setup={"data": SETUP["data"] | {"labels": labels}, "loss": "half_mse"})
    (task,) = plan.tasks("source")
    below, above = (
        make_record(task.spec, steps=100, test_accuracy=rising_and_falling(np.arange(101), 30, top=least + by))
        for by in (-0.001, 0.001)
    )
    assert_unresolved(plan, [below])
    assert select_l2(plan, "guess", by_id([above])).values


@pytest.mark.parametrize("reading", ["argmax", "within"])
def test_a_source_that_peaks_at_its_start(trained, reading):
    plan = plan_of(guess={"l2": {"predicted_from": "source", "reading": reading}})
    assert_unresolved(plan, [trained(plan.tasks("source")[0], peak=0)], "before its first step")


def test_no_c_of_a_run_that_diverged(trained):
    """As in the summary, where it has no t*; one that diverged after the declared horizon is whole."""
    plan = plan_of(source={"seeds": [0, 1]})
    first, second = plan.tasks("source")
    for diverged_at, c in ((50, 0.4), (150, 0.2)):
        diverged = trained(second, peak=10, steps=diverged_at, status="diverged")
        found = select_l2(plan, "guess", by_id([trained(first, peak=40), diverged]))
        assert found.values == {(0.1, 10): c / 10, (0.1, 40): c / 40}


def test_a_damaged_source_record_is_not_passed_over(trained, tmp_path):
    plan, path = plan_of(source={"seeds": [0, 1]}), tmp_path / "1of1-0.parquet"
    write_records(path, [trained(task, peak=30) for task in plan.tasks("source")])
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedRecord):
        select_l2(plan, "guess", Bundles([path]))


# --- tuned ----------------------------------------------------------------------------------------


@st.composite
def grids(draw):
    """{(λ, seed): [test accuracy]}, all equally long, of at least one λ > 0."""
    l2 = draw(st.lists(st.sampled_from([0.001, 0.004, 0.01, 0.03]), min_size=1, max_size=3, unique=True))
    l2 += [0.0] * draw(st.booleans())
    length, seeds = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    heights = st.lists(st.integers(0, 20), min_size=length, max_size=length)
    return {(one, seed): [h / 32 for h in draw(heights)] for one in l2 for seed in range(seeds)}


@given(grid=grids(), data=st.data())
@settings(max_examples=30)
def test_tuned_against_brute_force(make_record, grid, data):
    """The largest mean over seeds of the best accuracy up to the budget; of equal ones the smallest λ."""
    l2s, seeds = (sorted({key[i] for key in grid}) for i in (0, 1))
    length = len(next(iter(grid.values())))
    budgets = data.draw(st.lists(st.integers(1, length - 1), min_size=1, max_size=3, unique=True))
    source = {"l2": l2s, "seeds": seeds, "horizon": {"epochs": length - 1}}
    plan = plan_of(source=source, guess=TUNED | {"horizon": {"budgets": budgets}})
    records = by_id(
        make_record(t.spec, steps=length - 1, test_accuracy=grid[t.spec.l2, t.spec.init_seed])
        for t in plan.tasks("source")
    )

    def best(budget):
        def mean(l2):
            return sum(Fraction(max(grid[l2, seed][: budget + 1])) for seed in seeds) / len(seeds)

        return max((l2 for l2 in l2s if l2 > 0), key=lambda l2: (mean(l2), -l2))

    assert select_l2(plan, "guess", records).values == {(0.1, budget): best(budget) for budget in budgets}


@pytest.mark.parametrize("horizon", [{"epochs": 100}, {"budgets": [5, 100]}, {"budgets": [10, 40]}], ids=str)
def test_tuning_looks_no_further_than_the_budget(make_record, horizon):
    plan = plan_of(source={"l2": [0.01, 0.02, 0.04], "horizon": horizon}, guess=TUNED)
    peaks = {0.01: 70, 0.02: 35, 0.04: 8}
    records = []
    for task in plan.tasks("source"):  # the later, the better
        accuracy = rising_and_falling(np.arange(101), peaks[task.spec.l2], top=0.9 - task.spec.l2)
        records.append(make_record(task.spec, steps=100, test_accuracy=accuracy))
    assert select_l2(plan, "guess", by_id(records)).values == {(0.1, 10): 0.04, (0.1, 40): 0.02}


def test_a_record_as_long_as_the_budget_is_enough(trained):
    plan = plan_of(guess=TUNED)
    (task,) = plan.tasks("source")
    assert select_l2(plan, "guess", by_id([trained(task, peak=30, steps=40)])).values
    assert_unresolved(plan, [trained(task, peak=30, steps=39)], "1 of 1")


def test_a_run_that_diverged_is_never_the_best(make_record, trained):
    """Nor in figure 1b's tuned λ, see l2dyn.plotting.budgets; but it counts at the budgets it reached."""
    plan = plan_of(source={"l2": [0.01, 0.02]}, guess=TUNED)
    good, wild = plan.tasks("source")
    diverged = trained(wild, peak=20, steps=25, status="diverged")
    plain = make_record(good.spec, steps=100, test_accuracy=np.full(101, 0.3))
    assert select_l2(plan, "guess", by_id([plain, diverged])).values == {(0.1, 10): 0.02, (0.1, 40): 0.01}


def test_tuning_with_a_schedule_takes_the_runs_made_for_the_budget(make_record):
    """A run for a longer budget decays later, so its prefix is no run of the shorter one."""
    plan = plan_of(setup=SCHEDULED | {"horizon": {"budgets": [8, 16]}}, source={"l2": [0.01, 0.02]}, guess=TUNED)
    tops = {(8, 0.01): 0.8, (8, 0.02): 0.7, (16, 0.01): 0.8, (16, 0.02): 0.95}
    tasks = plan.tasks("source")
    curves = [np.full(task.steps + 1, tops[task.steps / 4, task.spec.l2]) for task in tasks]
    records = by_id(make_record(t.spec, t.steps, test_accuracy=a) for t, a in zip(tasks, curves, strict=True))
    assert len(records) == 4
    selection = select_l2(plan, "guess", records)
    assert selection.values == {(0.1, 8): 0.01, (0.1, 16): 0.02}
    own = Plan("tiny", plan.scale, {"guess": selection}).tasks("guess")
    assert {task.run_id for task in own} < set(records)  # its runs are those of the source


@pytest.mark.parametrize("setup", [{"batch": 16}, SCHEDULED], ids=["constant", "schedule"])
@pytest.mark.parametrize("budget", [10.1, 0.6, 7.3])
def test_budgets_that_are_no_whole_steps(trained, budget, setup):
    """Both experiments ask for the same budget, which makes the same number of steps of either."""
    plan = plan_of(setup=setup | {"horizon": {"epochs": budget}}, source={"l2": [0.01, 0.02]}, guess=TUNED)
    records = by_id(trained(task, peak=budget / (1 + i)) for i, task in enumerate(plan.tasks("source")))
    selection = select_l2(plan, "guess", records)
    assert (selection.reason, set(selection.values)) == ("", {(0.1, budget)})
