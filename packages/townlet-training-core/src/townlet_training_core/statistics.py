"""Statistics of few, noisy episodes: intervals, robust means, effect sizes. Pure numpy.

The bootstrap intervals are percentile intervals at *expanded* levels (Hesterberg 2015, "What teachers should
know about the bootstrap"): a plain percentile interval of ``n`` values is too narrow by about
``sqrt((n - 1) / n)`` and takes a normal quantile where a Student quantile is due, so with 16 episodes a "95 %"
interval covers 92 %. Aggregates over several tasks follow Agarwal et al. 2021, "Deep reinforcement learning at
the edge of the statistical precipice": interquartile mean, probability of improvement, bootstrap stratified
by task.

Everywhere a *stratum* is one ``(n,)`` array: the scores of the episodes of one task or scenario. ``rng`` is a
generator, or the seed of one, so that the same call gives the same interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval",
    "bootstrap_iqm",
    "bootstrap_mean",
    "bootstrap_means",
    "cliffs_delta",
    "cohens_d",
    "cohens_dz",
    "interquartile_mean",
    "jensen_shannon_distance",
    "mean_lower_bound",
    "paired_difference",
    "probability_of_improvement",
    "stratified_bootstrap",
    "student_t_quantile",
]

Scores: TypeAlias = NDArray[np.float64]
Random: TypeAlias = np.random.Generator | int

_BLOCK = 1 << 22  # resampled values held at once: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with a two-sided confidence interval; all in the unit of the values."""

    estimate: float
    low: float
    high: float
    confidence: float

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return 0.5 * (self.high - self.low)

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        return value < self.low or value > self.high


# -- means ----------------------------------------------------------------------------------------------------


def bootstrap_mean(values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, rng: Random = 0) -> Interval:
    """Bootstrap the mean of ``(n,)`` values.

    One value, or values that are all the same, give an interval of width zero.
    """
    return stratified_bootstrap([_scores(values)], _mean, confidence=confidence, resamples=resamples, rng=rng)


def paired_difference(
    candidate: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, rng: Random = 0
) -> Interval:
    """Bootstrap the mean of ``candidate - baseline``, two ``(n,)`` arrays paired by seed."""
    first, second = _scores(candidate), _scores(baseline)
    if first.shape != second.shape:
        msg = f"paired values need the same number of episodes, found {first.size} and {second.size}"
        raise ValueError(msg)
    return bootstrap_mean(first - second, confidence=confidence, resamples=resamples, rng=rng)


def bootstrap_means(
    strata: Sequence[ArrayLike], *, confidence: float = 0.95, resamples: int = 2000, rng: Random = 0
) -> Interval:
    """Bootstrap the mean of all scores, resampling within every stratum."""
    return stratified_bootstrap(strata, _mean, confidence=confidence, resamples=resamples, rng=rng)


def mean_lower_bound(strata: Sequence[ArrayLike], *, alpha: float) -> float:
    """Return a one-sided lower bound of a mean over strata, wary of rare disasters.

    Student's bound with Welch's degrees of freedom; every stratum weighs alike. Where the values are skewed
    downwards Student's bound errs on the bold side (few disasters in the sample make both mean and deviation look
    good), so the quantile is then widened by Hall's transformation (Hall 1992, "On the removal of skewness by
    transformation"), which is monotone. Skew upwards, where Student's bound is cautious, changes nothing. Where the
    values do not vary the bound is the mean itself.

    Raises
    ------
    ValueError
        With fewer than two values in a stratum, since they say nothing about their own spread.
    """
    arrays = [_scores(stratum) for stratum in strata]
    _require(arrays, minimum=2)
    mean = math.fsum(_mean(array) for array in arrays) / len(arrays)
    shares = [float(array.var(ddof=1)) / array.size for array in arrays]
    variance = math.fsum(shares)
    if variance == 0.0:
        return mean
    freedom = variance**2 / math.fsum(share**2 / (a.size - 1) for share, a in zip(shares, arrays, strict=True))
    quantile = student_t_quantile(1.0 - alpha, freedom)
    # Skewness of the mean itself: that of the values over sqrt(n).
    third = math.fsum(float(((a - a.mean()) ** 3).mean()) / a.size**2 for a in arrays)
    skewness = third / math.fsum(float(a.var()) / a.size for a in arrays) ** 1.5
    if skewness < -1e-9 and quantile > 0.0:
        widened = 3.0 / skewness * (math.cbrt(1.0 + skewness * (quantile - skewness / 6.0)) - 1.0)
        quantile = max(quantile, widened)
    return mean - quantile * math.sqrt(variance) / len(arrays)


# -- aggregates over tasks ------------------------------------------------------------------------------------


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean of the middle half: a quarter of the values is cut at either end.

    Robust like the median, but uses four times as many values. ``floor(n / 4)`` values go at each end, as in
    ``scipy.stats.trim_mean(values, 0.25)``.
    """
    return float(_iqm_rows(_scores(values)[None, :])[0])


def bootstrap_iqm(
    strata: Sequence[ArrayLike], *, confidence: float = 0.95, resamples: int = 2000, rng: Random = 0
) -> Interval:
    """Bootstrap the interquartile mean of all scores, resampling within every stratum (Agarwal et al. 2021)."""
    return stratified_bootstrap(strata, interquartile_mean, confidence=confidence, resamples=resamples, rng=rng)


def probability_of_improvement(
    candidate: Sequence[ArrayLike],
    baseline: Sequence[ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: Random = 0,
) -> Interval:
    """Bootstrap P(an episode of the candidate scores above one of the baseline), ties counting half.

    Mean over tasks of the Mann-Whitney statistic (Agarwal et al. 2021). Episodes of either side are resampled
    within their task, independently of one another. The interval stays inside [0, 1].
    """
    firsts, seconds = [_scores(x) for x in candidate], [_scores(x) for x in baseline]
    if len(firsts) != len(seconds):
        msg = f"the two sides need the same tasks, found {len(firsts)} and {len(seconds)}"
        raise ValueError(msg)
    _require(firsts, minimum=1)
    _require(seconds, minimum=1)
    generator = _generator(rng)
    estimate = 0.0
    draws = np.zeros(resamples)
    for first, second in zip(firsts, seconds, strict=True):
        wins = (first[:, None] > second[None, :]) + 0.5 * (first[:, None] == second[None, :])
        estimate += float(wins.mean()) / len(firsts)
        # Resampling rows and columns of the table is a product with multinomial weights on either side.
        rows = generator.multinomial(first.size, np.full(first.size, 1 / first.size), resamples) / first.size
        columns = generator.multinomial(second.size, np.full(second.size, 1 / second.size), resamples) / second.size
        draws += np.einsum("ri,ij,rj->r", rows, wins, columns, optimize=True) / len(firsts)
    interval = _percentiles(estimate, draws, [*firsts, *seconds], confidence)
    return Interval(estimate, max(0.0, interval.low), min(1.0, interval.high), confidence)


def stratified_bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Callable[[Scores], float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: Random = 0,
) -> Interval:
    """Bootstrap ``statistic`` of the concatenated strata, resampling each stratum by itself.

    Parameters
    ----------
    strata:
        Arrays ``(n_i,)``, one per task.
    statistic:
        Maps all scores ``(n,)`` to a number.
    confidence:
        Level of the interval, in (0, 1).
    resamples:
        Bootstrap resamples.
    """
    arrays = [_scores(stratum) for stratum in strata]
    _require(arrays, minimum=1)
    if not 0.0 < confidence < 1.0:
        msg = f"confidence must lie between 0 and 1, found {confidence!r}"
        raise ValueError(msg)
    if resamples < 1:
        msg = f"resamples must be at least 1, found {resamples!r}"
        raise ValueError(msg)
    generator = _generator(rng)
    estimate = float(statistic(np.concatenate(arrays)))
    total = sum(array.size for array in arrays)
    draws = np.empty(resamples)
    rows = max(1, _BLOCK // total)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        sample = np.concatenate(
            [array[generator.integers(0, array.size, (count, array.size))] for array in arrays], axis=1
        )
        draws[start : start + count] = _over_rows(statistic, sample)
    return _percentiles(estimate, draws, arrays, confidence)


# -- effect sizes ---------------------------------------------------------------------------------------------


def cohens_d(first: ArrayLike, second: ArrayLike) -> float:
    """Return Hedges' g: the difference of means in pooled standard deviations, corrected for small samples.

    Infinite (with its sign) where the means differ and nothing varies, 0 where neither does.
    """
    x, y = _scores(first), _scores(second)
    _require([x, y], minimum=2)
    freedom = x.size + y.size - 2
    pooled = ((x.size - 1) * float(x.var(ddof=1)) + (y.size - 1) * float(y.var(ddof=1))) / freedom
    return _ratio(_mean(x) - _mean(y), math.sqrt(pooled)) * (1.0 - 3.0 / (4.0 * freedom - 1.0))


def cohens_dz(differences: ArrayLike) -> float:
    """Return the mean of paired differences in their own standard deviations."""
    d = _scores(differences)
    _require([d], minimum=2)
    return _ratio(_mean(d), float(d.std(ddof=1)))


def cliffs_delta(first: ArrayLike, second: ArrayLike) -> float:
    """Return P(x > y) - P(x < y), in [-1, 1]; in ``O(n log n)``, so that it serves whole datasets."""
    x, y = _scores(first), np.sort(_scores(second))
    _require([x, y], minimum=1)
    below = np.searchsorted(y, x, side="left").sum(dtype=np.float64)
    above = (y.size - np.searchsorted(y, x, side="right")).sum(dtype=np.float64)
    return float((below - above) / (x.size * y.size))


def jensen_shannon_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Return the distance of two histograms (counts or shares over the same bins): 0 the same, 1 disjoint.

    Square root of the Jensen-Shannon divergence to base 2, which is a metric (Endres and Schindelin 2003).
    """
    p, q = _scores(first), _scores(second)
    if p.shape != q.shape or not p.size or min(p.min(), q.min()) < 0 or p.sum() <= 0 or q.sum() <= 0:
        msg = f"histograms need the same bins, no negative and some positive counts; found {p.size} and {q.size} bins"
        raise ValueError(msg)
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)

    def divergence(share: Scores) -> float:
        kept = share > 0
        return float(np.sum(share[kept] * np.log2(share[kept] / middle[kept])))

    return math.sqrt(max(0.0, 0.5 * divergence(p) + 0.5 * divergence(q)))


# -- the Student distribution ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def student_t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's distribution, to about 1e-10; scipy is not a dependency.

    Bisection on the distribution function, which is an incomplete beta integral.
    """
    if not 0.0 < probability < 1.0 or not freedom > 0.0:
        msg = f"need 0 < probability < 1 and freedom > 0, found {probability!r} and {freedom!r}"
        raise ValueError(msg)
    if probability == 0.5:
        return 0.0
    if probability < 0.5:
        return -student_t_quantile(1.0 - probability, freedom)
    low, high = 0.0, 2.0
    while _student_t_cdf(high, freedom) < probability:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if _student_t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _student_t_cdf(t: float, freedom: float) -> float:
    """Return P(T <= t) for t >= 0."""
    squared = t * t
    if squared < freedom:  # the smaller argument converges fast and loses no digits
        return 0.5 + 0.5 * _incomplete_beta(0.5, 0.5 * freedom, squared / (freedom + squared))
    return 1.0 - 0.5 * _incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + squared))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta by its continued fraction (Numerical Recipes, 6.4; Lentz's method)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1.0), tiny)
    fraction = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _nonzero(1.0 + numerator * d, tiny)
            c = _nonzero(1.0 + numerator / c, tiny)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * fraction / a


# -- small parts ----------------------------------------------------------------------------------------------


def _percentiles(estimate: float, draws: Scores, arrays: Sequence[Scores], confidence: float) -> Interval:
    """Percentile interval at the level that a Student interval of these sample sizes would need."""
    freedom = sum(array.size - 1 for array in arrays)
    if freedom < 1:
        return Interval(estimate, estimate, estimate, confidence)
    shrinkage = sum(array.size for array in arrays) / freedom
    quantile = student_t_quantile(0.5 + 0.5 * confidence, freedom) * math.sqrt(shrinkage)
    tail = 0.5 * math.erfc(quantile / math.sqrt(2.0))  # of the normal distribution
    low, high = np.quantile(draws, (tail, 1.0 - tail))
    return Interval(estimate, float(low), float(high), confidence)


def _over_rows(statistic: Callable[[Scores], float], sample: Scores) -> Scores:
    if statistic is _mean:
        return np.asarray(sample.mean(axis=1))
    if statistic is interquartile_mean:
        return _iqm_rows(sample)
    return np.array([statistic(row) for row in sample])


def _iqm_rows(rows: Scores) -> Scores:
    count = rows.shape[1]
    if not count:
        msg = "the interquartile mean of no values is not defined"
        raise ValueError(msg)
    cut = count // 4
    ordered = np.sort(rows, axis=1)
    return np.asarray(ordered[:, cut : count - cut].mean(axis=1))


def _mean(values: Scores) -> float:
    return math.fsum(values.tolist()) / values.size


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0.0:
        return 0.0 if numerator == 0.0 else math.copysign(math.inf, numerator)
    return numerator / denominator


def _nonzero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _scores(values: ArrayLike) -> Scores:
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        msg = f"expected a one-dimensional array of scores, found shape {array.shape}"
        raise ValueError(msg)
    if not np.isfinite(array).all():
        msg = f"scores must be finite, found {array[~np.isfinite(array)][0]!r} among {array.size}"
        raise ValueError(msg)
    return array


def _require(arrays: Sequence[Scores], *, minimum: int) -> None:
    if not arrays or min(array.size for array in arrays) < minimum:
        sizes = [array.size for array in arrays]
        msg = f"at least {minimum} value(s) are needed in every stratum, found sizes {sizes}"
        raise ValueError(msg)


def _generator(rng: Random) -> np.random.Generator:
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
