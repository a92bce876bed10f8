"""c = λ·t* off one curve and over seeds, against exact arithmetic by brute force, and what must not change it."""

import math
from dataclasses import astuple, fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.measures.coefficient import Coefficient, coefficient, combine, running_mean
from l2dyn.measures.peaks import peak

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


# running_mean


@settings(max_examples=40)
@given(values=THOUSANDTHS, window=WINDOWS)
def test_running_mean_against_exact_arithmetic(values, window):
    np.testing.assert_allclose(running_mean(values, window), [float(x) for x in exact_running_mean(values, window)])


@settings(max_examples=40)
@given(n=st.integers(1, 30), window=WINDOWS)
def test_running_mean_leaves_a_line_alone(n, window):
    """No bias toward the ends."""
    line = 0.3 - 0.01 * np.arange(n)
    np.testing.assert_allclose(running_mean(line, window), line, atol=1e-14)


def test_running_mean_by_hand():
    assert running_mean([1, 5, 3, 7, 9, 2], 5).tolist() == [1, 3, 5, (5 + 3 + 7 + 9 + 2) / 5, 6, 2]
    assert running_mean([0.5]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("values", "window", "name"),
    [([1, 2], bad, "window") for bad in (0, -1, 2, 3.0, None)]
    + [(bad, 5, "values") for bad in ([], 1.0, [[1.0]], [math.nan], [1, math.inf])],
)
def test_running_mean_names_what_it_refuses(values, window, name):
    with pytest.raises(ValueError, match=name):
        running_mean(values, window)


# coefficient


@settings(max_examples=40)
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


@settings(max_examples=40)
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


def test_the_coefficient_is_of_plain_python_numbers():
    c = coefficient(np.array([0, 1, 2]), np.array([0.2, 0.6, 0.3]), **SETTINGS)
    assert {type(getattr(c, field.name)) for field in fields(c)} == {float, int, bool}


# combine


@st.composite
def coefficients(draw):
    middle = st.floats(1e-5, 10)
    argmax, within, scale = draw(middle), draw(middle), draw(middle)
    return Coefficient(
        argmax, 0.9 * argmax, 1.2 * argmax, scale * argmax, within, 0, 2 * within, scale * within, draw(st.booleans())
    )


@settings(max_examples=40)
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
