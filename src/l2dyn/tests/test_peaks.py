"""t*, peaks and the one rule of censoring, against brute force in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2dyn.measures.peaks import has_come_down, peak, time_to_peak
from l2dyn.measures.power_laws import fit_power_law

ACCURACIES = st.lists(st.integers(0, 1000).map(lambda i: i / 1000), min_size=1, max_size=40)


def brute_force(t, accuracy, tolerance):
    best = max(map(Fraction, accuracy))
    return next(time for time, a in zip(t, accuracy, strict=True) if Fraction(a) >= best - tolerance)


@settings(max_examples=40)
@given(accuracy=ACCURACIES, scale=st.floats(0.01, 1e4))
def test_time_to_peak_is_the_first_within_tolerance(accuracy, scale):
    t = [scale * i for i in range(len(accuracy))]
    # 0.005 is a number of thousandths here, so a bound half a thousandth away has no rounding to argue about
    assert time_to_peak(t, accuracy, 0.0055) == brute_force(t, accuracy, Fraction(11, 2000))
    assert time_to_peak(t, accuracy, 0) == t[int(np.argmax(accuracy))]
    assert time_to_peak(t, accuracy, 0.0995) == brute_force(t, accuracy, Fraction(199, 2000))


@pytest.mark.parametrize("samples", [200, 4000])
@pytest.mark.parametrize("form", [lambda k, n: k / n, lambda k, n: 1 - (n - k) / n], ids=["k/n", "1-e/n"])
def test_exactly_the_tolerance_counts_as_within(samples, form):
    """0.5 points are a whole number of samples: whether they count must not hang on rounding."""
    gap = samples // 200
    for right in range(gap, samples + 1):
        best, below = form(right, samples), form(right - gap, samples)
        assert time_to_peak([0, 1], [below, best]) == 0
        if right > gap:
            assert time_to_peak([0, 1], [form(right - gap - 1, samples), best]) == 1


@pytest.mark.parametrize(
    ("t", "accuracy", "tolerance"),
    [
        ([], [], 0.005),
        ([1, 2], [0.5], 0.005),
        ([[1, 2]], [[0.5, 0.6]], 0.005),
        (1.0, 0.5, 0.005),
        ([1, math.nan], [0.5, 0.6], 0.005),
        ([1, 2], [0.5, math.nan], 0.005),
        ([1, 2], [0.5, math.inf], 0.005),
        ([1, 2], [0.5, 0.6], -0.1),
        ([1, 2], [0.5, 0.6], math.nan),
        ([1, 2, 4, 8], [50, 89.7, 90, 80], 0.005),  # percent
        ([1, 2], [-0.1, 0.6], 0.005),
        ([2, 1], [0.5, 0.6], 0.005),
        ([1, 1], [0.5, 0.6], 0.005),
    ],
)
def test_bad_curves_are_refused(t, accuracy, tolerance):
    for call in (time_to_peak, lambda *curve: peak(*curve[:2], horizon=1, tolerance=curve[2])):
        with pytest.raises(ValueError, match=r"^(t|accuracy|t and accuracy|tolerance) must"):
            call(t, accuracy, tolerance)


def test_peak_reads_the_curve():
    found = peak([0, 1, 2, 4, 8, 16], [0.1, 0.5, 0.897, 0.9, 0.9, 0.6], horizon=16)
    assert (found.max_accuracy, found.t_argmax, found.t_star, found.t_before) == (0.9, 4.0, 2.0, 1.0)
    assert found.censored is False
    at_the_start = peak([3, 4, 8], [0.9, 0.5, 0.4], horizon=8)
    assert (at_the_start.t_star, at_the_start.t_before, at_the_start.censored) == (3.0, 3.0, False)


@pytest.mark.parametrize(
    ("accuracy", "censored"),
    [
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9], True),  # still rising
        ([0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], False),  # flat since long
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9, 0.8, 0.7], False),  # late, but came down
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9, 0.9, 0.896], True),  # late, ends within the tolerance
        ([0.2, 0.3, 0.4, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], False),  # at half the horizon
        ([0.2, 0.3, 0.4, 0.896, 0.9, 0.9, 0.9, 0.9, 0.9], False),
        ([0.2, 0.3, 0.4, 0.894, 0.896, 0.9, 0.9, 0.9, 0.9], False),
        ([0.2, 0.3, 0.4, 0.5, 0.894, 0.9, 0.9, 0.9, 0.9], True),
        ([0.2, 0.9, 0.3, 0.3, 0.3, 0.3, 0.5, 0.6, 0.901], False),  # within the tolerance early, and again at the end
    ],
)
def test_censoring(accuracy, censored):
    assert peak(range(9), accuracy, horizon=8).censored is censored


RATIO = 1.1  # of neighbouring evaluations


def drawn(curve, horizon, noise, rng):
    """Times and accuracies of a curve, with independent noise at each evaluation."""
    t = np.unique(np.round(RATIO ** np.arange(int(math.log(horizon, RATIO)) + 1), 1))
    return t, np.clip(curve(t) + noise * rng.standard_normal(len(t)), 0, 1)


def exponent_of_l2(curve_at, noise, seed):
    """90 % interval of the exponent of λ from 7 λ over two decades, 3 seeds each, horizons ∝ 1/λ; None without one."""
    rng = np.random.default_rng(seed)
    times, censored, l2s = [], [], np.repeat(np.geomspace(1e-3, 0.1, 7), 3)
    for l2 in l2s:
        t, accuracy = drawn(curve_at(l2), 40 / l2, noise, rng)
        found = peak(t, accuracy, horizon=t[-1])
        times.append(found.t_star)
        censored.append(found.censored)
    law = fit_power_law(times, l2s, censored=censored)
    return None if law is None else (law.low[0], law.high[0])


@pytest.mark.parametrize("noise", [0.002, 0.005, 0.01])
@pytest.mark.parametrize("a_decade", [0.01, 0.02, 0.04])
def test_an_accuracy_that_creeps_up_whatever_l2_shows_no_law(a_decade, noise):
    """Its t* is a fixed part of its horizon, and the horizon is ∝ 1/λ: only the censoring rule tells it from a law."""
    found = [exponent_of_l2(lambda l2: lambda t: 0.85 + a_decade * np.log10(t), noise, seed) for seed in range(8)]
    reproduced = [one for one in found if one is not None and one[0] >= -1.15 and one[1] <= -0.85]
    assert len(reproduced) <= 1


@pytest.mark.parametrize(("after", "noise"), [(0.0, 0.002), (0.03, 0.002), (0.03, 0.005)])
def test_a_peak_at_a_time_of_one_over_l2_shows_the_law(after, noise):
    def curve_at(l2):
        return lambda t: 0.95 * (1 - np.exp(-t * l2)) - after * np.clip(np.log(t * l2 / 6), 0, None)

    found = [exponent_of_l2(curve_at, noise, seed) for seed in range(5)]
    assert sum(low >= -1.15 and high <= -0.85 for low, high in found) >= 4


def test_a_short_record_is_judged_by_its_horizon():
    assert peak([0, 1, 2], [0.2, 0.5, 0.9], horizon=8).censored is False
    assert peak([0, 1, 2], [0.2, 0.5, 0.9], horizon=2).censored is True


@settings(max_examples=40)
@given(accuracy=ACCURACIES, chance=st.sampled_from([0.0, 0.1, 0.5]))
def test_peak_agrees_with_its_rule(accuracy, chance):
    t = list(range(len(accuracy)))
    found = peak(t, accuracy, horizon=t[-1], chance=chance, tolerance=0.0055)
    best, tolerance = max(map(Fraction, accuracy)), Fraction(11, 2000)
    if abs(best - Fraction(chance) - Fraction(1, 10)) < Fraction(1, 10**9):
        return  # exactly 10 points above chance
    if best < Fraction(chance) + Fraction(1, 10):
        assert found is None
        return
    t_star = brute_force(t, accuracy, tolerance)
    half = [a for time, a in enumerate(accuracy) if time <= Fraction(t[-1], 2)]
    stays = t_star <= Fraction(t[-1], 2) and 2 * brute_force(t, half, tolerance) ** 2 >= t_star**2
    assert found.t_star == t_star
    if len(accuracy) < 16:  # single evaluations are compared, as they are
        assert found.censored == (not stays and Fraction(accuracy[-1]) >= best - tolerance)
    elif found.censored:
        assert not stays
    assert found.t_before == max(t_star - 1, 0)
    assert found.max_accuracy == max(accuracy)
    assert found.t_argmax == accuracy.index(max(accuracy))


@pytest.mark.parametrize("samples", [200, 4000])
def test_one_tolerance_for_entering_and_for_leaving_the_band(samples):
    """A run that ends exactly 0.5 points below its maximum ends within them, as it would enter within them."""
    gap = samples // 200
    wrong = []
    for errors in range(samples // 2):
        best, last = 1 - errors / samples, 1 - (errors + gap) / samples
        if not peak([0, 6, 7, 8], [0.1, best, best, last], horizon=8).censored:
            wrong.append(errors)
    assert wrong == []


def test_one_low_evaluation_at_the_end_is_no_fall():
    t = np.arange(40.0)
    accuracy = 0.9 + 0.004 * np.cos(3 * t)  # evaluations that scatter
    accuracy[[30, 39]] = [0.91, 0.89]
    assert not has_come_down(accuracy)
    assert peak(t, accuracy, horizon=39).censored
    accuracy[33:] -= 0.03
    assert has_come_down(accuracy)
    assert not peak(t, accuracy, horizon=39).censored


def test_chance():
    assert peak([0, 1], [0.1, 0.19], horizon=1) is None
    assert peak([0, 1], [0.1, 0.21], horizon=1) is not None
    assert peak([0, 1], [0.1, 0.59], horizon=1, chance=0.5) is None
    assert peak([0, 1], [0.1, 0.61], horizon=1, chance=0.5) is not None


@pytest.mark.parametrize(("tolerance", "part"), [(0.1, "0.5 points are 0.005"), (0.5, "fraction"), ("0.005", "number")])
def test_a_tolerance_in_percent_or_text_is_refused(tolerance, part):
    for call in (time_to_peak, lambda *curve: peak(*curve[:2], horizon=1, tolerance=curve[2])):
        with pytest.raises(ValueError, match=rf"^tolerance must be .*{part}"):
            call([0, 1], [0.5, 0.9], tolerance)


@pytest.mark.parametrize("name", ["horizon", "chance"])
def test_peak_names_what_is_no_number(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a number"):
        peak([0, 1], [0.5, 0.9], **{"horizon": 1} | {name: "0.1"})
