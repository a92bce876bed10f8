"""Verdicts: an estimate with an interval, held against the region that the claim allows."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from l2dyn.measures.regression import mean_interval

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run at this scale"
REPORTED = "reported"  # of a part that decides nothing
CONFIDENCE = 0.90  # of two-sided intervals; each of their ends is a one-sided bound at 0.95
USUAL = "90 %"  # what an interval is where nothing else is said


@dataclass(frozen=True)
class Part:
    """One thing that a claim says, judged.

    name: what of the claim it is, and on which net. what: what the estimate is, with its unit. interval: what low and
    high are. wanted: the allowed region in words. why: whatever else decides (too little data, what was left out).
    awaited: of a part that is not run: whether the scale plans its runs.
    """

    name: str
    verdict: str
    what: str = ""
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    wanted: str = ""
    why: str = ""
    seeds: int = 0
    run_ids: tuple[str, ...] = field(default=())
    interval: str = USUAL
    awaited: bool = False


def within(
    low: float, high: float, at_least: float = -math.inf, at_most: float = math.inf, strict: bool = False
) -> str:
    """The verdict on an interval: reproduced inside [at_least, at_most], not reproduced outside, else inconclusive.

    An interval that is not known (nan) decides nothing. strict: its ends are not allowed.

    >>> within(-1.1, -0.9, -1.15, -0.85), within(-1.3, -1.2, -1.15, -0.85), within(-1.2, -0.9, -1.15, -0.85)
    ('reproduced', 'not reproduced', 'inconclusive')
    """
    if math.isnan(low) or math.isnan(high):
        return INCONCLUSIVE
    if at_least <= low and high <= at_most and not (strict and (low == at_least or high == at_most)):
        return REPRODUCED
    return NOT_REPRODUCED if high < at_least or low > at_most else INCONCLUSIVE


def all_of(verdicts: Iterable[str]) -> str:
    """The verdict on a claim that needs every part: parts that are not run count only where nothing else is.

    >>> all_of(["reproduced", "not run at this scale"]), all_of(["reproduced", "inconclusive"])
    ('reproduced', 'inconclusive')
    """
    said = set(verdicts)
    return next((v for v in (NOT_REPRODUCED, INCONCLUSIVE, REPRODUCED) if v in said), NOT_RUN)


def t_interval(values: Sequence[float], resolution: float = 0.0) -> tuple[float, float, float]:
    """(mean, low, high) of independent values; the interval is (nan, nan) with fewer than two.

    resolution: the step in which a value is measured, one test image: values that happen to be equal are not certain,
    so that the standard deviation counts as no smaller.

    >>> [round(end, 4) for end in t_interval([0.003, 0.003], resolution=0.001)]
    [0.003, -0.0015, 0.0075]
    """
    return mean_interval([values], CONFIDENCE, resolution)[0]


def range_interval(families: Sequence[Sequence[Sequence[float]]], resolution: float) -> tuple[float, float, float]:
    """(largest range, low, high) of group means within a family: intervals that hold for all pairs at once.

    The extremes are found by looking, so that the interval of a difference fixed beforehand would find one in noise:
    these are Tukey and Kramer's, Bonferroni's over families, with one variance for all groups. families: of groups (one
    at each learning rate, say) of values (seeds). nan where no group has two values.

    >>> [round(end, 4) for end in range_interval([[[0.9, 0.92], [0.9, 0.92]], [[0.8, 0.82], [0.9, 0.92]]], 0.001)]
    [0.1, 0.0607, 0.1393]
    """
    reach = pair_reach(families, resolution)
    each = [range_of_family(family, reach) for family in families]
    return max(one[0] for one in each), *(max(one[end] for one in each) for end in (1, 2))


def range_of_family(family: Sequence[Sequence[float]], reach: float) -> tuple[float, float, float]:
    """(range, low, high) of the means of one family's groups. reach: see pair_reach."""
    means = [float(np.mean(group)) for group in family]
    pairs = itertools.combinations(zip(family, means, strict=True), 2)
    bounds = [(abs(a - b), reach * math.sqrt(1 / len(one) + 1 / len(other))) for (one, a), (other, b) in pairs]
    return max(means) - min(means), max(gap - half for gap, half in bounds), max(gap + half for gap, half in bounds)


def pair_reach(
    families: Sequence[Sequence[Sequence[float]]], resolution: float, among: int = 0, comparisons: int = 0
) -> float:
    """Half the interval of a difference of two means, for all pairs at once, over √(1/n + 1/m) of their n and m values.

    One variance for all groups. among: how many groups there were to look at, where more than those given.
    comparisons: how many families there were, likewise. nan where no group has two values.
    """
    groups = [np.asarray(group, dtype=float) for family in families for group in family]
    free = sum(len(group) - 1 for group in groups)
    if free == 0:
        return math.nan
    spread = max(math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / free), resolution)
    level = 1 - (1 - CONFIDENCE) / (comparisons or len(families))
    among = among or max(map(len, families))
    return float(stats.studentized_range.ppf(level, among, free)) / math.sqrt(2) * spread


def guarded(verdict: str, other: str, doubtful: str) -> str:
    """The verdict, which is `doubtful` only where another reading of the runs comes to the same.

    A λ tuned on the other seeds is worse on average than the best one, a λ tuned on all of them looks better than it
    is: what speaks against tuning has to hold for both.

    >>> guarded("reproduced", "inconclusive", "reproduced"), guarded("reproduced", "inconclusive", "not reproduced")
    ('inconclusive', 'reproduced')
    """
    return INCONCLUSIVE if verdict == doubtful != other else verdict


def unless(part: Part, lacking: str) -> Part:
    """The part as it is where nothing lacks; else it is inconclusive and says what does, in words."""
    if not lacking or part.verdict in (NOT_RUN, REPORTED):
        return part
    return replace(part, verdict=INCONCLUSIVE, why="; ".join(filter(None, (part.why, lacking))))


def remarked(part: Part, remark: str) -> Part:
    """The part with one more remark, if there is one."""
    return replace(part, why="; ".join(filter(None, (part.why, remark))))


def with_sampling_error(estimate: float, accuracies: Sequence[float], samples: int) -> tuple[float, float]:
    """(low, high) of a difference of accuracies when there is one seed: all measured on `samples` test images.

    Taken as independent, which is conservative: the images are the same.
    """
    variance = sum(a * (1 - a) / samples for a in accuracies)
    half = 1.6449 * math.sqrt(variance)
    return estimate - half, estimate + half


def ids_of(rows) -> tuple[str, ...]:
    """The run ids of summary rows, each once."""
    return tuple(dict.fromkeys(str(i) for i in np.asarray(rows["run_id"]) if isinstance(i, str)))
