"""Curves as inline SVG: a smooth line, the raw one faint behind it, and data for the read-out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 12, 30  # margins around the plot
_MOST_POINTS = 500
NONE = "\u2013"  # what stands where a number is missing
_COLOURS = 6  # the style sheet has --c0 ... --c5


@dataclass
class Series:
    """One curve: points (x, y) in order of x; y None is a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0


@dataclass
class Chart:
    """One plot: a title, curves, and whether the y axis is logarithmic."""

    title: str
    series: list[Series]
    note: str = ""
    unit: tuple[float, float] | None = None  # fixed limits of y
    _limits: tuple[float, float, float, float] = field(default=(0, 1, 0, 1), init=False)
    _log: bool = field(default=False, init=False)

    def html(self) -> str:
        """The chart as a <figure>; the read-out reads the JSON that stands in it."""
        self.series = [thin(series) for series in self.series if any_number(series.y)]
        if not self.series:
            return ""
        smooth = [smoothed(series.y) for series in self.series]
        self._fit(smooth)
        lines = []
        for series, soft in zip(self.series, smooth, strict=True):
            style = f'style="stroke:var(--c{series.colour % _COLOURS})"'
            lines.append(f'<path class="raw" {style} d="{self._path(series.x, series.y)}"/>')
            lines.append(f'<path class="soft" {style} d="{self._path(series.x, soft)}"/>')
        data = {
            "limits": self._limits,
            "log": self._log,
            "series": [
                {"label": s.label, "x": list(s.x), "y": [_short(v) for v in s.y], "c": s.colour}
                for s in self.series
            ],
        }
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        legend = "".join(
            f'<li><i style="background:var(--c{s.colour % _COLOURS})"></i>{escape(s.label)} '
            f"<b>{number(last_number(s.y))}</b></li>"
            for s in self.series
        )
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<figure class="chart card"><figcaption>{escape(self.title)}</figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" data-left="{LEFT}" data-right="{WIDTH - RIGHT}" '
            f'role="img" '
            f'aria-label="{escape(self.title)}">{self._axes()}'
            f'<g class="plot">{"".join(lines)}</g>'
            f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>'
            f'<ul class="legend">{legend}</ul>{note}'
            f'<script type="application/json">{text}</script></figure>'
        )

    def _fit(self, smooth: Sequence[Sequence[float | None]]) -> None:
        """Choose the axes: all of the smooth lines, most of the raw ones."""
        xs = [x for series in self.series for x in series.x]
        soft = [v for line in smooth for v in line if v is not None]
        raw = sorted(v for s in self.series for v in s.y if v is not None)
        low = min(min(soft), raw[len(raw) // 50])
        high = max(max(soft), raw[-1 - len(raw) // 50])
        if self.unit:
            low, high = self.unit
        self._log = not self.unit and low > 0 and high / low > 100
        if not self._log and not self.unit:
            pad = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
            low, high = (0.0 if 0 <= low < 0.3 * high else low - pad), high + pad
        left, right = min(xs), max(xs)
        self._limits = (left, right if right > left else left + 1, low, high)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """From data to the coordinates of the picture."""
        left, right, low, high = self._limits
        if self._log:
            y, low, high = (math.log(max(v, 1e-30)) for v in (y, low, high))
        across = (x - left) / (right - left)
        up = min(max((y - low) / (high - low or 1), -0.05), 1.05)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    def _path(self, xs: Sequence[float], ys: Sequence[float | None]) -> str:
        steps, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None:
                pen = "M"
                continue
            px, py = self._place(x, y)
            steps.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L"
        return "".join(steps)

    def _axes(self) -> str:
        left, right, low, high = self._limits
        parts = []
        for value in log_ticks(low, high) if self._log else ticks(low, high, 5):
            y = self._place(left, value)[1]
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(value)}</text>'
            )
        for value in ticks(left, right, 6):
            x = self._place(value, high)[0]
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{number(value)}</text>'
            )
        return "".join(parts)


def thin(series: Series) -> Series:
    """Keep at most 500 evenly chosen points, the last one among them."""
    stride = -(-len(series.x) // _MOST_POINTS)
    if stride <= 1:
        return series
    first = (len(series.x) - 1) % stride
    return Series(series.label, series.x[first::stride], series.y[first::stride], series.colour)


def smoothed(values: Sequence[float | None]) -> list[float | None]:
    """Exponential moving average over about a 25th of the points, without the bias to zero."""
    keep = 1 - 1 / max(1.0, len(values) / 25)
    average, weight = 0.0, 0.0
    result: list[float | None] = []
    for value in values:
        if value is not None:
            average = keep * average + (1 - keep) * value
            weight = keep * weight + (1 - keep)
        result.append(average / weight if weight and value is not None else None)
    return result


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high], at most six."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, -(-(last - first + 1) // 6))
    return [10.0**power for power in range(first, last + 1, stride)]


def number(value: float | None) -> str:
    """A number for people: 12,500 or 0.0123 or 1.2e-07."""
    if value is None:
        return NONE
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = (
            f"{value:,.3f}"
            if abs(value) < 1
            else f"{value:,.2f}"
            if abs(value) < 100
            else f"{value:,.0f}"
        )
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.1e}"


def any_number(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)


def last_number(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
