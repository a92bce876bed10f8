"""The predicted and the tuned λ, against exact arithmetic by brute force, and what must not change them."""

import math
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.measures.best_l2 import predict_l2, predict_l2_from_C, round_l2, tuned_l2
from l2dyn.measures.coefficient import coefficient, combine

BAD = [0, -1.0, math.nan, math.inf, -math.inf]


def test_the_numbers_of_the_paper():
    assert predict_l2(0.0066, 200, first_decay=60) == pytest.approx(1.1e-4, rel=1e-12)
    assert predict_l2(0.0066, 200, first_decay=200) == predict_l2(0.0066, 200) == 0.0066 / 200


def test_all_that_was_measured_is_told_from_one_reading():
    """The most natural slip."""
    c = coefficient([0, 1, 2], [0.1, 0.6, 0.3], l2=0.01, lr=0.2, steps_per_epoch=50)
    with pytest.raises(ValueError, match=r"^c must be a number, got a Coefficient; give its c_argmax"):
        predict_l2(c, 200)
    with pytest.raises(ValueError, match=r"^C must be a number, got a Coefficient; give its C_argmax"):
        predict_l2_from_C(c, lr=0.1, steps=100)


@settings(max_examples=40)
@given(value=st.floats(1e-300, 1e300), digits=st.integers(1, 6))
def test_round_l2_has_the_digits_asked_for_and_is_the_nearest(value, digits):
    rounded = round_l2(value, digits)
    assert round_l2(rounded, digits) == rounded
    assert len(Decimal(repr(rounded)).normalize().as_tuple().digits) <= digits
    unit = Decimal(10) ** (Decimal(value).adjusted() - digits + 1)
    assert abs(Decimal(repr(rounded)) - Decimal(value)) <= unit / 2


@pytest.mark.parametrize(
    ("value", "rounded"), [(6.5999e-5, "6.6e-05"), (9.96e-5, "0.0001"), (0.0066, "0.0066"), (123.0, "120.0")]
)
def test_round_l2_is_canonical(value, rounded):
    assert repr(round_l2(value)) == rounded
    assert repr(round_l2(np.float64(value))) == rounded


@pytest.mark.parametrize("bad", BAD)
def test_bad_values_are_named(bad):
    for name in ("c", "budget", "first_decay"):
        with pytest.raises(ValueError, match=rf"^{name} must be positive"):
            predict_l2(**{"c": 0.01, "budget": 10, "first_decay": 5} | {name: bad})
    with pytest.raises(ValueError, match="must be positive and finite"):
        round_l2(bad)


def test_the_first_decay_lies_within_the_budget_and_digits_are_positive():
    with pytest.raises(ValueError, match=r"first_decay .* budget"):
        predict_l2(0.01, 10, first_decay=10.5)
    for digits in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="digits"):
            round_l2(0.1, digits)


# tuned_l2


@st.composite
def grids(draw):
    """Rows of a grid of λ with several seeds here and there; accuracies are whole numbers of 800 samples."""
    rows = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 400)), min_size=1, max_size=20))
    return [(0.0 if i == 0 else 1e-5 * 2.0**i, Fraction(100 + k, 800)) for i, k in rows]


def split(rows):
    return [l2 for l2, _ in rows], [float(a) for _, a in rows]


@settings(max_examples=40)
@given(rows=grids(), within=st.sampled_from([Fraction(1, 1000), Fraction(0), Fraction(1, 20)]))
def test_tuned_l2_against_brute_force(rows, within):
    means = {}
    for l2 in sorted({l2 for l2, _ in rows if l2 > 0}):
        accuracies = [a for value, a in rows if value == l2]
        means[l2] = sum(accuracies) / len(accuracies)
    tuned = tuned_l2(*split(rows), within=float(within))
    if not means:
        assert tuned is None
        return
    best = max(means.values())
    near = [l2 for l2, mean in means.items() if mean >= best - within]
    assert tuned.l2 == min(l2 for l2, mean in means.items() if mean == best)
    assert tuned.accuracy == pytest.approx(float(best))
    assert tuned.near_best == tuple(near)
    assert (tuned.low, tuned.high) == (near[0], near[-1])
    assert tuned.centre / tuned.low == pytest.approx(tuned.high / tuned.centre)
    assert tuned.low * (1 - 1e-12) <= tuned.centre <= tuned.high * (1 + 1e-12)
    assert tuned.at_edge == (min(means) in near or max(means) in near)


@settings(max_examples=40)
@given(rows=grids(), shift=st.integers(-100, 100), factor=st.integers(-8, 8), data=st.data())
def test_what_does_not_change_the_tuned_l2(rows, shift, factor, data):
    l2, accuracy = split(rows)
    tuned = tuned_l2(l2, accuracy)
    assert tuned_l2(*split(data.draw(st.permutations(rows)))) == tuned
    assert tuned_l2([*l2, 0.0], [*accuracy, 1.0]) == tuned  # λ = 0 is no candidate
    if tuned is None:
        return
    shifted = tuned_l2(l2, np.array(accuracy) + shift / 1000)
    assert replace(shifted, accuracy=tuned.accuracy) == tuned
    scaled = tuned_l2(np.array(l2) * 4.0**factor, accuracy)
    assert scaled.near_best == tuple(x * 4.0**factor for x in tuned.near_best)
    assert scaled.centre == pytest.approx(tuned.centre * 4.0**factor, rel=1e-12)
    assert scaled.at_edge == tuned.at_edge


def test_exactly_a_tenth_of_a_percent_counts_as_near():
    for best in range(1, 1001, 3):
        tuned = tuned_l2([1, 2, 3, 4], [0, (best - 1) / 1000, best / 1000, 0])
        assert tuned.near_best[-2:] == (2, 3) or best == 1
        assert tuned.l2 == 3


@pytest.mark.parametrize(
    ("accuracy", "near_best", "at_edge"),
    [
        ([0.1, 0.5, 0.9, 0.5, 0.1], (4,), False),
        ([0.1, 0.9, 0.9, 0.8995, 0.1], (2, 4, 8), False),
        ([0.9, 0.5, 0.1, 0.1, 0.1], (1,), True),
        ([0.1, 0.1, 0.1, 0.9, 0.9], (8, 16), True),
        ([0.1, 0.9, 0.1, 0.9, 0.1], (2, 8), False),
        ([0.5] * 5, (1, 2, 4, 8, 16), True),
    ],
)
def test_spreads_and_edges(accuracy, near_best, at_edge):
    tuned = tuned_l2([1, 2, 4, 8, 16], accuracy)
    assert tuned.near_best == near_best
    assert tuned.at_edge == at_edge
    assert tuned.l2 == near_best[0]
    assert tuned.centre == pytest.approx(math.sqrt(near_best[0] * near_best[-1]))


def test_seeds_are_averaged_before_anything_else():
    l2 = [1, 2, 4, 8, 2, 4]
    tuned = tuned_l2(l2, [0.1, 0.9, 0.7, 0.1, 0.3, 0.7])  # one lucky seed at 2
    assert (tuned.l2, tuned.near_best) == (4, (4,))
    assert tuned.accuracy == pytest.approx(0.7)


def test_grids_without_a_choice():
    assert tuned_l2([], []) is None
    assert tuned_l2([0, 0], [0.5, 0.6]) is None
    alone = tuned_l2([0, 0.01], [0.9, 0.8])
    assert (alone.l2, alone.low, alone.high, alone.at_edge) == (0.01, 0.01, 0.01, True)
    assert alone.centre == pytest.approx(0.01)


def test_results_are_plain_python_numbers():
    tuned = tuned_l2([1, 2, 4], [0.1, 0.5, 0.1])
    assert {type(getattr(tuned, field.name)) for field in fields(tuned)} <= {float, bool, tuple}


@pytest.mark.parametrize(
    ("l2", "accuracy", "within"),
    [
        ([1, 2], [0.5], 0.001),
        (1.0, 0.5, 0.001),
        ([[1.0]], [[0.5]], 0.001),
        ([1, math.nan], [0.5, 0.6], 0.001),
        ([1, math.inf], [0.5, 0.6], 0.001),
        ([1, 2], [0.5, math.nan], 0.001),
        ([0, 2], [math.nan, 0.6], 0.001),
        ([-1, 2], [0.5, 0.6], 0.001),
        ([1, 2], [0.5, 0.6], -0.001),
        ([1, 2], [0.5, 0.6], math.nan),
    ],
)
def test_bad_grids_are_refused(l2, accuracy, within):
    with pytest.raises(ValueError, match=r"l2 |within|accuracy "):
        tuned_l2(l2, accuracy, within)


def test_from_a_curve_to_a_prediction_and_back():
    """Runs that obey t* = c/λ: c of the largest λ predicts the best λ of every budget."""
    grid = 0.001 * 2.0 ** np.arange(-2, 9)

    def run(t, l2):
        x = l2 * t / 0.1
        return 0.2 + 0.6 * x * np.exp(1 - x) - 0.02 * np.log10(l2)

    short = np.arange(0, 101) / 50
    c = coefficient(short, run(short, grid[-1]), l2=grid[-1], lr=0.1, steps_per_epoch=10)
    assert c.c_argmax_low <= 0.1 <= c.c_argmax_high
    for budget in (10, 25, 50):
        t = np.arange(0, 4 * budget + 1) / 4
        tuned = tuned_l2(grid, [run(t, l2).max() for l2 in grid])
        assert not tuned.at_edge
        assert abs(math.log10(tuned.centre / predict_l2(combine([c]).c_argmax, budget))) < 0.3
