"""The lines of metrics.jsonl as curves and as a table: what was measured, of how many images.

A line holds step, sec, figures by name, and perhaps n (images measured), net ("raw" or "ema") and
the figures "floor.NAME" of as many real images. Figures of different n or nets do not compare, so
each such kind gets curves of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minigan.training.charts import Chart, Series
from minigan.training.page import line_table

Line = Mapping[str, Any]

_FLOOR = "floor."
_NO_FIGURES = {"step", "sec", "n", "net"}
_TOGETHER = (  # title, names, fixed limits, how to read it
    ("Fréchet distance (FID)", ("fid",), None, "Lower is better; real images are the floor."),
    ("Kernel distance (KID)", ("kid",), None, "Lower is better; around 0 for real images."),
    (
        "Precision and recall",
        ("precision", "recall"),
        (0.0, 1.0),
        "Precision falls with bad samples, recall when something is missing.",
    ),
    (
        "Density and coverage",
        ("density", "coverage"),
        None,
        "The same by counts of neighbours, which a few odd images do not move.",
    ),
    ("Classifier score", ("score",), None, "Higher is better: sure of each image, all classes."),
    ("Confidence, accuracy of classes", ("confidence", "class_accuracy"), (0.0, 1.0), ""),
    ("Classes: divergence from the real shares", ("class_kl",), None, "Lower is better."),
    (
        "Memorised training images",
        ("memorised", "copies"),
        None,
        "0: training images are no nearer to the samples than images held out.",
    ),
)
_IN_TABLE_ONLY = {"kid_error", "classes", "min_class"}


def measured_section(metrics: Sequence[Line]) -> str:
    """Curves, if there are two lines of a kind, and the table; nothing without metrics."""
    if not metrics:
        return ""
    plots = [
        chart.html() for kind, lines in kinds(metrics).items() for chart in charts(kind, lines)
    ]
    drawn = f'<div class="charts">{"".join(plots)}</div>' if plots else ""
    table = f'<section class="card wide">{line_table(rows(metrics))}</section>'
    return f"<h2>Metrics</h2>{drawn}{table}"


def kinds(metrics: Sequence[Line]) -> dict[str, list[Line]]:
    """What was measured alike -> its lines in order of steps, the last one of each step."""
    found: dict[str, dict[int, Line]] = {}
    for line in metrics:
        known = []
        if isinstance(line.get("n"), int):
            known.append(f"N = {line['n']:,}")
        if line.get("net") == "raw":
            known.append("raw weights")
        found.setdefault(", ".join(known), {})[line["step"]] = line
    return {kind: [by[step] for step in sorted(by)] for kind, by in found.items()}


def charts(kind: str, lines: Sequence[Line]) -> list[Chart]:
    """One chart for each group of figures, with the figures of real images."""
    if len(lines) < 2:
        return []
    names = [n for n in dict.fromkeys(name for line in lines for name in line) if is_figure(n)]
    grouped = {name for _, group, *_ in _TOGETHER for name in group}
    others = [(n, (n,), None, "") for n in names if n not in grouped | _IN_TABLE_ONLY]
    made = []
    for title, group, limits, note in (*_TOGETHER, *others):
        present = [name for name in group if name in names]
        floors = [_FLOOR + name for name in present if any(_FLOOR + name in x for x in lines)]
        series = [curve(name, lines, i) for i, name in enumerate((*present, *floors))]
        made.append(Chart(f"{title}, {kind}" if kind else title, series, note, limits))
    return made


def curve(name: str, lines: Sequence[Line], colour: int) -> Series:
    """One figure over the steps."""
    base = name.removeprefix(_FLOOR)
    label = base if base == name else f"{base} of real images"
    values = [v if isinstance(v := line.get(name), int | float) else None for line in lines]
    return Series(label, [line["step"] for line in lines], values, colour)


def rows(metrics: Sequence[Line]) -> list[dict[str, Any]]:
    """Rows of the table; below the last, what real images get."""
    own = [{k: v for k, v in line.items() if not k.startswith(_FLOOR)} for line in metrics]
    last = metrics[-1]
    floor = {k.removeprefix(_FLOOR): v for k, v in last.items() if k.startswith(_FLOOR)}
    if not floor:
        return own
    return [*own, {"step": "real images", "n": last.get("n"), **floor}]


def is_figure(name: str) -> bool:
    """Whether it is what was measured, and not the circumstances or the floor."""
    return name not in _NO_FIGURES and not name.startswith(_FLOOR)
