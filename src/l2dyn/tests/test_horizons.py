"""Declared durations become steps, and a run is measured at steps that do not depend on its horizon."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.specs.horizons import EvaluationGrid, Horizon


@pytest.mark.parametrize(
    ("horizon", "lr", "l2", "steps_per_epoch", "expected"),
    [
        (Horizon(epochs=200), 0.1, 0.01, 1, 200),
        (Horizon(epochs=200), 0.1, 0.0, 1, 200),
        (Horizon(epochs=2), 0.1, 0.01, 390, 780),
        (Horizon(epochs=0.04), 0.1, 0.01, 390, 16),  # 15.6
        (Horizon(t_lr_l2=2.0), 0.5, 0.01, 1, 400),
        (Horizon(t_lr_l2=2.0), 0.1, 0.1, 1, 200),  # 199.99999999999997 in binary arithmetic
        (Horizon(t_lr_l2=2.0), 0.5, 0.01, 4, 1600),
        (Horizon(t_l2=0.1), 0.5, 0.001, 390, 39000),
        (Horizon(t_l2=0.1, t_lr=5), 0.5, 0.001, 1, 100),
        (Horizon(t_lr=1e6), 0.5, 0.0, 1, 2_000_000),
        (Horizon(t_lr=1e6, t_lr_l2=2.0), 0.5, 0.0, 2, 4_000_000),
    ],
)
def test_steps(horizon, lr, l2, steps_per_epoch, expected):
    assert horizon.steps(lr, l2, steps_per_epoch) == (expected, False)


def test_a_run_has_at_least_one_step():
    assert Horizon(epochs=0.001).steps(0.1, 0.01, 10) == (1, False)


@pytest.mark.parametrize(
    ("horizon", "l2"), [(Horizon(t_lr_l2=2.0), 0.0), (Horizon(t_l2=2.0), 0.0), (Horizon(t_lr=1.0), 0.1)]
)
def test_an_undeclared_horizon_is_refused(horizon, l2):
    assert not horizon.covers(l2)
    with pytest.raises(ValueError, match="no single horizon"):
        horizon.steps(0.1, l2, 1)


def test_budgets_are_horizons_of_their_own():
    several = Horizon(budgets=(8, 2, 4), cap_epochs=5)
    assert several.fixed == [2, 4, 8]
    assert several.reached == [2, 4, 5]
    assert [one.steps(0.1, 0.0, 10) for one in several.each()] == [(20, False), (40, False), (50, True)]
    with pytest.raises(ValueError, match="no single horizon"):
        several.steps(0.1, 0.1, 10)


def test_runs_without_l2_fall_back_to_epochs():
    """As Horizon's docstring says: t_lr is for runs at λ = 0, they *fall back* to epochs."""
    assert Horizon(epochs=10, t_lr=100.0).steps(1.0, 0.01, 1) == (10, False)
    assert Horizon(epochs=10, t_lr=100.0).steps(1.0, 0.0, 1) == (100, False)


def test_cap_cuts_or_skips():
    cut, skip = Horizon(t_lr_l2=2.0, cap_epochs=100), Horizon(t_lr_l2=2.0, cap_epochs=100, beyond_cap="skip")
    assert cut.steps(0.5, 0.01, 3) == (300, True)
    assert skip.steps(0.5, 0.01, 3) is None
    for horizon in (cut, skip):
        assert horizon.steps(0.5, 0.1, 3) == (120, False)
        assert horizon.steps(0.5, 0.04, 3) == (300, False)  # exactly the cap


@pytest.mark.parametrize("beyond_cap", ["cut", "skip"])
@pytest.mark.parametrize("t", ["0.1", "1", "2", "4"])
def test_a_horizon_equal_to_its_cap_is_not_beyond_it(t, beyond_cap):
    """Decimal numbers as a person writes them: t/(η·λ) is the cap exactly, whatever binary arithmetic makes of it."""
    wrong = []
    for lr, l2 in itertools.product(["0.001", "0.002", "0.01", "0.05", "0.15", "0.5"], ["0.0005", "0.001", "0.02"]):
        exact = Fraction(t) / (Fraction(lr) * Fraction(l2))
        if exact.denominator > 1:
            continue
        horizon = Horizon(t_lr_l2=float(t), cap_epochs=float(exact), beyond_cap=beyond_cap)
        if horizon.steps(float(lr), float(l2), 1) != (int(exact), False):
            wrong.append((lr, l2))
    assert wrong == []


GRIDS = st.builds(
    EvaluationGrid,
    ratio=st.floats(1.001, 1.1) | st.just(1.1),
    every_epoch_up_to=st.integers(0, 30),
    every_epochs=st.just(0.0),
)
REGULAR = st.builds(
    EvaluationGrid, every_epoch_up_to=st.integers(0, 5), every_epochs=st.floats(0.01, 3) | st.sampled_from([0.04, 1.0])
)
LIMITS = st.integers(1, 3000) | st.sampled_from([10**5, 2**20])
BUDGETS = st.lists(st.integers(1, 4000), max_size=4).map(tuple)


@given(grid=GRIDS | REGULAR, limit=st.integers(1, 3000), per_epoch=st.integers(1, 500), budgets=BUDGETS)
def test_grid_holds_its_ends_budgets_and_epochs(grid, limit, per_epoch, budgets):
    steps = grid.steps(limit, per_epoch, budgets)
    assert steps == sorted(set(steps))
    assert all(type(s) is int for s in steps)
    assert (steps[0], steps[-1]) == (0, limit)
    assert {b for b in budgets if b <= limit} <= set(steps)
    assert {e * per_epoch for e in range(grid.every_epoch_up_to + 1) if e * per_epoch <= limit} <= set(steps)


@given(grid=GRIDS, limit=LIMITS, per_epoch=st.integers(1, 500), budgets=BUDGETS)
def test_neighbours_are_close(grid, limit, per_epoch, budgets):
    for a, b in itertools.pairwise(grid.steps(limit, per_epoch, budgets)):
        assert b <= max(a + 1, math.floor(a * grid.ratio))
        assert b <= a + 1 or 10 * b <= 11 * a


def test_log_spaced_steps_are_as_few_as_the_ratio_asks_for():
    steps = EvaluationGrid().steps(10**6, 1)
    assert len(steps) < 20 + 1.1 * math.log(10**5) / math.log(1.1)
    assert all(c * 10 > a * 11 or c <= a + 2 for a, c in zip(steps[:-3], steps[2:-1], strict=True))


@settings(max_examples=40)
@given(grid=GRIDS | REGULAR, limits=st.tuples(LIMITS, LIMITS), per_epoch=st.integers(1, 500), budgets=BUDGETS)
def test_the_grid_does_not_depend_on_the_horizon(grid, limits, per_epoch, budgets):
    short, long = sorted(min(x, 5_000) for x in limits)
    below = [s for s in grid.steps(long, per_epoch, budgets) if s < short]
    assert grid.steps(short, per_epoch, budgets) == [*below, short]


@pytest.mark.parametrize(
    ("every_epochs", "per_epoch", "limit", "expected"),
    [
        (1.0, 4, 12, [0, 4, 8, 12]),
        (0.5, 4, 7, [0, 2, 4, 6, 7]),
        (0.04, 390, 60, [0, 16, 31, 47, 60]),  # 15.6, 31.2, 46.8
        (0.1, 10, 3, [0, 1, 2, 3]),
        (0.01, 10, 3, [0, 1, 2, 3]),  # more often than there are steps
        (5.0, 10, 3, [0, 3]),
    ],
)
def test_every_epochs_replaces_log_spacing(every_epochs, per_epoch, limit, expected):
    assert EvaluationGrid(every_epochs=every_epochs).steps(limit, per_epoch) == expected


@given(grid=REGULAR, limit=st.integers(1, 3000), per_epoch=st.integers(1, 500))
def test_every_epochs_keeps_its_interval(grid, limit, per_epoch):
    steps = grid.steps(limit, per_epoch)
    interval = grid.every_epochs * per_epoch
    assert max(b - a for a, b in itertools.pairwise(steps)) <= max(1, interval + 1)


def test_every_epoch_up_to():
    steps = EvaluationGrid(every_epoch_up_to=3).steps(10_000, 100)
    assert {100, 200, 300} <= set(steps)
    assert set(steps) - set(EvaluationGrid().steps(10_000, 100)) <= {100, 200, 300}


def test_every_epoch_up_to_goes_no_further_than_the_run():
    assert EvaluationGrid(every_epoch_up_to=10**15).steps(6, 2) == [0, 1, 2, 3, 4, 5, 6]
