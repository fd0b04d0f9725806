"""A page that puts several runs side by side: samples, curves, and options that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from minigan.training.charts import Chart, Series
from minigan.training.frames import frames, read, shrink, uri, webp
from minigan.training.measured import is_figure, kinds
from minigan.training.page import badge, cell, flat, page, picture
from minigan.training.progress import duration
from minigan.training.report import TITLES, follow, last_values
from minigan.training.rundir import RunFolder

_ABOUT_THE_RUN = {"command", "minigan", "schema"}
_NOT_DRAWN = {"step", "kimg", "sec", "rss_mb", "verdict", "skipped"}


def comparison_page(runs: Sequence[RunFolder]) -> str:
    """The page as HTML."""
    names = [run.path.resolve().name for run in runs]
    title = f"{len(runs)} runs side by side"
    body = [
        f"<header><h1>{title}</h1></header>",
        f'<section class="card wide">{overview(runs, names)}</section>',
        "<h2>Last samples</h2>",
        f'<div class="films">{"".join(map(still, runs, names))}</div>',
        "<h2>Curves</h2>",
        f'<div class="charts">{curves(runs, names)}</div>',
        "<h2>Options that differ</h2>",
        f'<section class="card wide">{options_table(runs, names)}</section>',
    ]
    return page(title, body)


def overview(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Last figures of each run, a row each."""
    lasts = [last_values(run.stats()) for run in runs]
    shown = ["step", "kimg", "sec", "img_s", "d_real", "d_fake", "diversity"]
    shown = [key for key in shown if any(key in last for last in lasts)]
    metrics = [last_values(run.metrics()) for run in runs]
    names_of = dict.fromkeys(key for metric in metrics for key in metric)
    measured = [key for key in names_of if is_figure(key) or key == "n"]
    head = "".join(f'<th class="n">{escape(k)}</th>' for k in (*shown, *measured))
    rows = []
    for run, name, last, metric in zip(runs, names, lasts, metrics, strict=True):
        values = [
            duration(last["sec"]) if k == "sec" and k in last else cell(last.get(k)) for k in shown
        ]
        values += [cell(metric.get(k)) for k in measured]
        cells = "".join(f'<td class="n">{value}</td>' for value in values)
        rows.append(f"<tr><th>{escape(name)}</th><td>{badge(follow(run.stats()))}</td>{cells}</tr>")
    return f"<table><tr><th>run</th><th>verdict</th>{head}</tr>{''.join(rows)}</table>"


def still(run: RunFolder, name: str) -> str:
    """The newest grid of a run, of the moving average if there is one."""
    found = frames(run.samples)
    grid = found.get("fakes-ema") or next(iter(found.values()), {})
    if not grid:
        return ""
    step, path = list(grid.items())[-1]
    pixels = shrink(read(path))
    return picture(name, uri(webp(pixels)), pixels.shape[1::-1], note=f"step {step:,}")


def curves(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """One chart per figure that at least two runs have, one curve per run."""
    stats = [[*run.stats(), *by_kind(run.metrics())] for run in runs]
    figures = list(dict.fromkeys(key for lines in stats for line in lines for key in line))
    figures.sort(key=lambda key: key == "img_s")  # last
    plots = []
    for key in figures:
        holders = [lines for lines in stats if any(key in line for line in lines)]
        if key in _NOT_DRAWN or len(holders) < 2:
            continue
        series = [
            Series(
                name,
                [line["step"] for line in lines if key in line],
                [
                    v if isinstance(v := line[key], int | float) else None
                    for line in lines
                    if key in line
                ],
                i,
            )
            for i, (name, lines) in enumerate(zip(names, stats, strict=True))
        ]
        limits = (0.0, 1.0) if key.startswith("d_") else None
        plots.append(Chart(TITLES.get(key, key), series, unit=limits).html())
    return "".join(plots)


def by_kind(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures under names that say of how many images they are, so that like meets like."""
    return [
        {"step": line["step"]}
        | {f"{name}, {kind}" if kind else name: v for name, v in line.items() if is_figure(name)}
        for kind, lines in kinds(metrics).items()
        for line in lines
    ]


def options_table(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Rows of the configuration in which the runs are not alike."""
    configs = [flat(run.config()) for run in runs]
    keys = [k for k in dict.fromkeys(k for c in configs for k in c) if k not in _ABOUT_THE_RUN]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for key in keys:
        values = [config.get(key) for config in configs]
        if any(value != values[0] for value in values):
            cells = "".join(f"<td>{cell(v)}</td>" for v in values)
            rows.append(f"<tr><th>{escape(key)}</th>{cells}</tr>")
    if not rows:
        return '<p class="soft">None.</p>'
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
