"""SVG charts without a library: lines over epochs, and estimates with intervals.

Colours come from the page's style sheet (classes ``s0`` to ``s5``), so that a chart follows dark and light. Series
differ by dash pattern as well, for readers who do not see the colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

from townlet_training_core.dto.evaluation import IntervalDTO

__all__ = ["MAX_POINTS", "interval_chart", "line_chart", "number"]

MAX_POINTS = 400
"""More points than this are averaged in equal buckets: a screen shows no more, and the file stays small."""

_WIDTH, _HEIGHT = 360.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 8.0, 26.0


def line_chart(
    title: str, lines: Sequence[tuple[str, Sequence[float]]], *, axis: str, breaks: Sequence[int] = ()
) -> str:
    """Draw lines over 1, 2, 3, ...

    Parameters
    ----------
    title:
        What is drawn; also read out by screen readers, with first and last value of each line.
    lines:
        (name, values) pairs; NaN interrupts a line, which a thin one bridges.
    axis:
        What the horizontal axis counts.
    breaks:
        Positions after which a new stage begins, marked by vertical lines.
    """
    finite = [value for _, values in lines for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = max(len(values) for _, values in lines)
    low, high, ticks = _scale(min(finite), max(finite))

    def x(position: float) -> float:
        return _LEFT + (position - 1) / max(1, count - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(ticks, y)]
    for position in breaks:
        mark = _round(x(position + 0.5))
        parts.append(f'<line class="break" x1="{mark}" x2="{mark}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    for index, (_, values) in enumerate(lines):
        pieces = _pieces(values)
        for (*_, left), (right, *_) in pairwise(pieces):
            ends = zip("12", (left, right), strict=True)
            places = " ".join(f'x{end}="{_round(x(at))}" y{end}="{_round(y(value))}"' for end, (at, value) in ends)
            parts.append(f'<line class="s{index % 6} gap" {places}/>')
        for piece in pieces:
            points = " ".join(f"{_round(x(at))},{_round(y(value))}" for at, value in piece)
            if len(piece) == 1:
                at, value = piece[0]
                parts.append(f'<circle class="s{index % 6} dot" cx="{_round(x(at))}" cy="{_round(y(value))}" r="2.5"/>')
            else:
                parts.append(f'<polyline class="s{index % 6} line" points="{points}"/>')
    parts.append(f'<text class="tick" x="{_LEFT}" y="{_HEIGHT - 8}">1</text>')
    end = f'x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end"'
    parts.append(f'<text class="tick" {end}>{count} {escape(axis)}</text>')
    spoken = "; ".join(f"{name}: {_journey(values)}" for name, values in lines)
    return _svg(f"{title}. {spoken}", parts, height=_HEIGHT)


def interval_chart(title: str, rows: Sequence[tuple[str, IntervalDTO, Sequence[float]]], *, zero: bool = False) -> str:
    """Draw estimates with intervals, one a row, over the single values where there are any.

    Parameters
    ----------
    rows:
        (name, interval, values) triples.
    zero:
        Mark the value 0, for differences.
    """
    spread = [value for _, i, values in rows for value in (*values, i.low, i.high, i.estimate) if math.isfinite(value)]
    if not spread:
        return ""
    if zero:
        spread.append(0.0)
    low, high, ticks = _scale(min(spread), max(spread))
    height = 30.0 + 30.0 * len(rows)
    left = 110.0

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (_WIDTH - left - 14.0)

    parts = []
    for tick in ticks:
        mark = _round(x(tick))
        strong = " zero" if zero and tick == 0.0 else ""
        parts.append(f'<line class="grid{strong}" x1="{mark}" x2="{mark}" y1="4" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{mark}" y="{height - 8}" text-anchor="middle">{number(tick)}</text>')
    for index, (name, interval, values) in enumerate(rows):
        at = 20.0 + 30.0 * index
        parts.append(f'<text class="name" x="{left - 8}" y="{at + 4}" text-anchor="end">{escape(_clip(name))}</text>')
        parts += [
            f'<line class="rug" x1="{_round(x(v))}" x2="{_round(x(v))}" y1="{at - 6}" y2="{at + 6}"/>'
            for v in values[:MAX_POINTS]
            if math.isfinite(v)
        ]
        if all(map(math.isfinite, (interval.low, interval.high, interval.estimate))):
            ends = f'x1="{_round(x(interval.low))}" x2="{_round(x(interval.high))}" y1="{at}" y2="{at}"'
            parts.append(f'<line class="s{index % 6} bar" {ends}/>')
            parts.append(f'<circle class="s{index % 6} dot" cx="{_round(x(interval.estimate))}" cy="{at}" r="4.5"/>')
    spoken = "; ".join(f"{name}: {number(i.estimate)}, from {number(i.low)} to {number(i.high)}" for name, i, _ in rows)
    return _svg(f"{title}. {spoken}", parts, height=height)


def number(value: float) -> str:
    """Write a number in at most five characters of precision."""
    if not math.isfinite(value):
        return "no value" if math.isnan(value) else "infinite"
    if value == 0.0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.4g}"
        return text if "e" not in text else f"{value:.0f}"
    return f"{value:.3g}"


# -- parts ----------------------------------------------------------------------------------------------------


def _svg(label: str, parts: Sequence[str], *, height: float) -> str:
    spoken = escape(label, quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{spoken}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _axes(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    parts = []
    for tick in ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_round(at)}" y2="{_round(at)}"/>')
        text = f'x="{_LEFT - 6}" y="{_round(at + 4)}" text-anchor="end"'
        parts.append(f'<text class="tick" {text}>{number(tick)}</text>')
    return "".join(parts)


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round limits outwards to a step of 1, 2 or 5 and list the ticks."""
    if high - low < 1e-12 * max(1.0, abs(low), abs(high)):
        pad = 0.5 * abs(low) if abs(low) > 1e-9 else 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [float(f"{k * step:.12g}") for k in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _pieces(values: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Split a line where it has no value, averaging long lines in buckets."""
    size = max(1, math.ceil(len(values) / MAX_POINTS))
    pieces: list[list[tuple[float, float]]] = [[]]
    for start in range(0, len(values), size):
        bucket = [v for v in values[start : start + size] if math.isfinite(v)]
        if bucket:
            width = min(size, len(values) - start)
            pieces[-1].append((start + (width + 1) / 2, math.fsum(bucket) / len(bucket)))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _journey(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return f"from {number(finite[0])} to {number(finite[-1])}" if finite else "no values"


def _clip(name: str) -> str:
    return name if len(name) <= 17 else f"{name[:16]}…"


def _round(value: float) -> str:
    return f"{value:.1f}"
