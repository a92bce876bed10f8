"""c, predicted λ and tuned λ, against exact arithmetic by brute force, and what must not change them."""

import math
from dataclasses import astuple, fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from l2dyn.metrics import peak
from l2dyn.prediction import (
    Coefficient,
    coefficient,
    combine,
    decades_apart,
    predict_l2,
    round_l2,
    running_mean,
    tuned_l2,
)

THOUSANDTHS = st.lists(st.integers(200, 700), min_size=1, max_size=25)
WINDOWS = st.sampled_from([1, 3, 5, 9, 99])
SETTINGS = {"l2": 0.01, "lr": 0.2, "steps_per_epoch": 50}
BAD = [0, -1.0, math.nan, math.inf, -math.inf]


def exact_running_mean(values, window):
    smoothed = []
    for i in range(len(values)):
        half = (window - 1) // 2
        while i - half < 0 or i + half >= len(values):
            half -= 1
        inside = [Fraction(values[j]) for j in range(i - half, i + half + 1)]
        smoothed.append(sum(inside) / len(inside))
    return smoothed


# predict_l2, round_l2, decades_apart


def test_the_numbers_of_the_paper():
    assert predict_l2(0.0066, 200, first_decay=60) == pytest.approx(1.1e-4, rel=1e-12)
    assert predict_l2(0.0066, 200, first_decay=200) == predict_l2(0.0066, 200) == 0.0066 / 200


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["c", "budget", "first_decay"])
def test_predict_l2_names_the_bad_argument(name, bad):
    arguments = {"c": 0.01, "budget": 10, "first_decay": 5} | {name: bad}
    with pytest.raises(ValueError, match=rf"^{name} must be positive"):
        predict_l2(**arguments)


def test_the_first_decay_lies_within_the_budget():
    with pytest.raises(ValueError, match=r"first_decay .* budget"):
        predict_l2(0.01, 10, first_decay=10.5)


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
def test_bad_values_are_refused(bad):
    for call in (round_l2, lambda x: decades_apart(x, 1.0), lambda x: decades_apart(1.0, x)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            call(bad)


@pytest.mark.parametrize("digits", [0, -1, 1.5, None])
def test_round_l2_refuses_bad_digits(digits):
    with pytest.raises(ValueError, match="digits"):
        round_l2(0.1, digits)


@given(a=st.floats(1e-9, 1e9), b=st.floats(1e-9, 1e9))
def test_decades_apart_is_a_distance_that_scales_away(a, b):
    assert decades_apart(a, a) == 0
    assert decades_apart(a, b) == decades_apart(b, a) == pytest.approx(abs(math.log10(a / b)), abs=1e-12)
    assert decades_apart(7 * a, 7 * b) == pytest.approx(decades_apart(a, b), abs=1e-12)


@pytest.mark.parametrize(("a", "b", "decades"), [(0.05, 0.005, 1), (1e-4, 1e-1, 3), (5e-4, 1.1e-4, 0.6575773)])
def test_decades_apart(a, b, decades):
    assert decades_apart(a, b) == pytest.approx(decades, abs=1e-7)


# running_mean


@given(values=THOUSANDTHS, window=WINDOWS)
def test_running_mean_against_exact_arithmetic(values, window):
    np.testing.assert_allclose(running_mean(values, window), [float(x) for x in exact_running_mean(values, window)])


@given(n=st.integers(1, 30), window=WINDOWS)
def test_running_mean_leaves_a_line_alone(n, window):
    """No bias toward the ends."""
    line = 0.3 - 0.01 * np.arange(n)
    np.testing.assert_allclose(running_mean(line, window), line, atol=1e-14)


def test_running_mean_by_hand():
    assert running_mean([1, 5, 3, 7, 9, 2], 5).tolist() == [1, 3, 5, (5 + 3 + 7 + 9 + 2) / 5, 6, 2]
    assert running_mean([0.5]).tolist() == [0.5]


@pytest.mark.parametrize("window", [0, -1, 2, 3.0, None])
def test_running_mean_refuses_bad_windows(window):
    with pytest.raises(ValueError, match="window"):
        running_mean([1, 2], window)


@pytest.mark.parametrize("values", [[], 1.0, [[1.0]], [math.nan], [1, math.inf]])
def test_running_mean_refuses_bad_values(values):
    with pytest.raises(ValueError, match="values"):
        running_mean(values)


# coefficient


@given(thousandths=THOUSANDTHS, window=WINDOWS, data=st.data())
def test_coefficient_against_brute_force(thousandths, window, data):
    n = len(thousandths)
    t = np.cumsum(data.draw(st.lists(st.integers(1, 8), min_size=n, max_size=n))) / 8
    c = coefficient(t, [k / 1000 for k in thousandths], **SETTINGS, momentum=0.9, window=window)
    smoothed = exact_running_mean(thousandths, window)
    at = {
        "argmax": smoothed.index(max(smoothed)),
        "within": next(i for i, k in enumerate(thousandths) if k >= max(thousandths) - 5),
    }
    for name, i in at.items():
        value, scaled = getattr(c, f"c_{name}"), getattr(c, f"C_{name}")
        low, high = getattr(c, f"c_{name}_low"), getattr(c, f"c_{name}_high")
        assert value == pytest.approx(0.01 * t[i])
        assert scaled == pytest.approx(0.2 * 50 * value / 0.1)
        if 0 < i < n - 1:
            assert (low, high) == pytest.approx((0.01 * t[i - 1], 0.01 * t[i + 1]))
        elif n > 1:
            neighbour = 0.01 * (t[1] if i == 0 else t[-2])
            mirrored = max(2 * value - neighbour, 0)
            assert (low, high) == pytest.approx(tuple(sorted([neighbour, mirrored])))
    assert c.censored == peak(t, np.array(thousandths) / 1000, t[-1]).censored
    assert c.seeds == 1


@given(thousandths=THOUSANDTHS, power=st.integers(-6, 6), shift=st.integers(1, 300))
def test_what_scales_c_and_what_does_not_change_it(thousandths, power, shift):
    t, accuracy = np.arange(len(thousandths)), np.array(thousandths) / 1000
    c = coefficient(t, accuracy, **SETTINGS)
    scaled = astuple(replace(c, seeds=0, censored=False))[:-2]
    longer = coefficient(t * 2.0**power, accuracy, **SETTINGS)
    assert astuple(longer)[:-2] == tuple(x * 2.0**power for x in scaled)
    assert longer.censored == c.censored
    assert coefficient(t, accuracy + shift / 1000, **SETTINGS) == c
    assert coefficient(t.tolist(), accuracy.tolist(), **SETTINGS) == c
    larger = coefficient(t, accuracy, **SETTINGS | {"l2": 0.01 * 2.0**power})
    assert larger.c_within == c.c_within * 2.0**power
    assert larger.c_argmax == c.c_argmax * 2.0**power


def test_the_dimensionless_coefficient_of_the_paper():
    """0.2·48.8·0.0066/(1 − 0.9) = 0.64."""
    t = 0.04 * np.arange(51)
    accuracy = 0.5 - 0.3 * np.abs(t - 0.68)
    c = coefficient(t, accuracy, l2=0.01, lr=0.2, steps_per_epoch=48.8, momentum=0.9)
    assert c.c_argmax == pytest.approx(0.0068)
    assert (c.c_argmax_low, c.c_argmax_high) == pytest.approx((0.0064, 0.0072))
    assert c.C_argmax == pytest.approx(0.2 * 48.8 * 0.0068 / 0.1)
    assert c.c_within == c.c_argmax
    assert not c.censored


def test_smoothing_passes_over_a_lone_spike():
    accuracy = [0.2, 0.2, 0.61, 0.2, 0.3, 0.5, 0.6, 0.6, 0.6, 0.5, 0.4]
    t = np.arange(len(accuracy))
    c = coefficient(t, accuracy, **SETTINGS)
    assert c.c_argmax == pytest.approx(0.07)
    assert c.c_within == pytest.approx(0.02)
    assert coefficient(t, accuracy, **SETTINGS, window=1).c_argmax == pytest.approx(0.02)


def test_of_equal_maxima_the_first_counts():
    c = coefficient(range(7), [0.2, 0.4, 0.6, 0.2, 0.4, 0.6, 0.2], **SETTINGS, window=1)
    assert c.c_argmax == c.c_within == 0.02
    assert coefficient(range(5), [0.7] * 5, **SETTINGS).c_argmax == 0


def test_short_curves():
    alone = coefficient([3.0], [0.5], **SETTINGS)
    assert (alone.c_within_low, alone.c_within, alone.c_within_high) == (0, 0.03, math.inf)
    assert alone.censored
    rising = coefficient([3.0, 4.0], [0.5, 0.6], **SETTINGS)
    assert (rising.c_argmax_low, rising.c_argmax, rising.c_argmax_high) == pytest.approx((0.03, 0.04, 0.05))
    assert rising.censored
    falling = coefficient([3.0, 8.0], [0.6, 0.5], **SETTINGS)
    assert (falling.c_argmax_low, falling.c_argmax, falling.c_argmax_high) == pytest.approx((0, 0.03, 0.08))


def test_a_run_that_never_beats_chance_has_no_coefficient():
    assert coefficient([0, 1], [0.1, 0.19], **SETTINGS) is None
    assert coefficient([0, 1], [0.1, 0.19], **SETTINGS, chance=0.05) is not None
    assert coefficient([0, 1], [0.5, 0.59], **SETTINGS, chance=0.5) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [({name: bad}, f"^{name} must") for name in SETTINGS for bad in BAD]
    + [({"momentum": bad}, "momentum") for bad in (-0.1, 1.0, math.nan)]
    + [({"window": 4}, "window"), ({"tolerance": -1}, "tolerance")]
    + [({"t": bad}, "t ") for bad in ([0, 0, 1], [0, 2, 1], [-1, 0, 1], [0, 1], [0, math.nan, 1], [0, 1, math.inf])]
    + [({"accuracy": bad}, "accuracy") for bad in ([0.5, math.nan, 0.6], [0.5], 0.5, [math.inf] * 3)]
    + [({"t": [], "accuracy": []}, "not empty"), ({"t": [math.inf] * 3}, "finite")],
)
def test_coefficient_refuses_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        coefficient(**{"t": [0, 1, 2], "accuracy": [0.1, 0.6, 0.5]} | SETTINGS | changed)


# combine


@st.composite
def coefficients(draw):
    middle = st.floats(1e-5, 10)
    argmax, within, scale = draw(middle), draw(middle), draw(middle)
    return Coefficient(
        argmax, 0.9 * argmax, 1.2 * argmax, scale * argmax, within, 0, 2 * within, scale * within, draw(st.booleans())
    )


@given(several=st.lists(st.none() | coefficients(), max_size=8), data=st.data())
def test_combine_against_logarithms(several, data):
    kept = [c for c in several if c is not None and not c.censored]
    both = combine(several)
    if not kept:
        assert both is None
        return
    assert both.seeds == len(kept)
    assert not both.censored
    for name in ("c_argmax", "C_argmax", "c_within", "C_within"):
        assert getattr(both, name) == pytest.approx(np.exp(np.mean(np.log([getattr(c, name) for c in kept]))))
    for name in ("c_argmax", "c_within"):
        assert getattr(both, f"{name}_low") == min(getattr(c, f"{name}_low") for c in kept)
        assert getattr(both, f"{name}_high") == max(getattr(c, f"{name}_high") for c in kept)
        assert getattr(both, f"{name}_low") <= getattr(both, name) <= getattr(both, f"{name}_high")
    assert combine(data.draw(st.permutations(several))) == both


def test_combine_of_one_is_itself_and_of_many_does_not_underflow():
    one = coefficient([0, 1, 2], [0.2, 0.6, 0.3], **SETTINGS)
    assert combine(iter([one])) == one
    assert combine([one] * 300).c_within == pytest.approx(one.c_within)
    assert combine([]) is None
    assert combine([None, replace(one, censored=True)]) is None
    assert combine([one, replace(one, c_within=0.0)]).c_within == 0


# tuned_l2


@st.composite
def grids(draw):
    """Rows of a grid of λ with several seeds here and there; accuracies are whole numbers of 800 samples."""
    rows = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 400)), min_size=1, max_size=20))
    return [(0.0 if i == 0 else 1e-5 * 2.0**i, Fraction(k, 800)) for i, k in rows]


def split(rows):
    return [l2 for l2, _ in rows], [float(a) for _, a in rows]


@given(rows=grids(), within=st.sampled_from([Fraction(1, 1000), Fraction(0), Fraction(1, 10)]))
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
    assert decades_apart(tuned.centre, tuned.low) == pytest.approx(decades_apart(tuned.high, tuned.centre))
    assert tuned.low * (1 - 1e-12) <= tuned.centre <= tuned.high * (1 + 1e-12)
    assert tuned.at_edge == (min(means) in near or max(means) in near)


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
    for best in range(1, 1001):
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
    for result in (tuned_l2([1, 2, 4], [0.1, 0.5, 0.1]), coefficient([0, 1, 2], [0.2, 0.6, 0.3], **SETTINGS)):
        for field in fields(result):
            assert type(getattr(result, field.name)) in (float, int, bool, tuple)


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
    with pytest.raises(ValueError, match=r"l2 |within"):
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
        assert decades_apart(tuned.centre, predict_l2(combine([c]).c_argmax, budget)) < 0.3
