"""report.html: a run as one page that needs no network, no server and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minigan.training.charts import Chart, Series, number
from minigan.training.frames import frames, pack, read, shrink, uri, webp
from minigan.training.health import Health, Verdict
from minigan.training.measured import measured_section
from minigan.training.page import badge, flat, key_table, line_table, page, picture, sentence
from minigan.training.progress import duration
from minigan.training.rundir import RunFolder
from minigan.weights.atomic import write_text

_PICTURE_BYTES = 3_600_000  # of the 5 MB that a page may have
_ROWS = 60  # of the table of figures
_KNOWN = {"step", "kimg", "sec", "img_s", "rss_mb", "verdict", "skipped"}


def report(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the page of one run, or a page that compares several; return its path.

    Parameters
    ----------
    runs : run folders.
    out : RUN/report.html by default, for several runs comparison.html beside the first.
    """
    folders = [RunFolder.open(run) for run in runs]
    if len(folders) == 1:
        path = Path(out or folders[0].path / "report.html")
        write_text(path, run_page(folders[0]))
        return path
    from minigan.training.comparison import comparison_page

    path = Path(out or folders[0].path.parent / "comparison.html")
    write_text(path, comparison_page(folders))
    return path


def run_page(run: RunFolder) -> str:
    """The page of one run as HTML."""
    config, stats = run.config(), run.stats()
    verdict = follow(stats)
    body = [
        header(run, verdict),
        facts(config, stats),
        "<h2>Samples</h2>",
        film(run),
        "<h2>Curves</h2>",
        charts(stats),
        measured_section(run.metrics()),
        "<h2>What to look for</h2>",
        advice(stats),
        "<h2>Run</h2>",
        f'<div class="two"><section class="card"><h3 class="soft">Configuration</h3>'
        f'{key_table(flat(config))}</section><section class="card">'
        f'<h3 class="soft">Environment</h3>{key_table(flat(run.environment()))}</section></div>',
        reproduce(config, run),
        figures_table(stats),
    ]
    return page(run.path.resolve().name, body)


# Sections ----------------------------------------------------------------------------------------


def header(run: RunFolder, verdict: Verdict) -> str:
    crash = run.crash / "crash.json"
    failed = ""
    if crash.exists():
        told = json.loads(crash.read_text())
        verdict = Verdict("stopped", f"{told['error']} at step {told['step']}: {told['message']}")
        failed = "The folder crash/ holds what is known about it."
    text = " ".join(sentence(part) for part in (verdict.reason, verdict.advice, failed) if part)
    return (
        f'<header><div class="head"><h1>{escape(run.path.resolve().name)}</h1>'
        f'{badge(verdict)}</div><p class="reason">{escape(text)}</p></header>'
    )


def facts(config: Mapping[str, Any], stats: Sequence[Mapping[str, Any]]) -> str:
    """The most important numbers, large."""
    if not stats:
        return '<p class="soft">No figures yet: the first line is written after the first tick.</p>'
    last = stats[-1]
    found = [("steps", f"{last['step']:,}"), ("thousand images", number(last.get("kimg")))]
    found.append(("training time", duration(last.get("sec") or 0)))
    found.append(("images per second", number(last.get("img_s"))))
    names = {"d_real": "D(x)", "d_fake": "D(G(z))"}
    found += [(label, number(last[key])) for key, label in names.items() if key in last]
    if "diversity" in (spread := last_values(stats)):
        found.append(("diversity, 1 is real", number(spread["diversity"])))
    if last.get("rss_mb"):
        found.append(("peak memory, MB", number(last["rss_mb"])))
    if last.get("skipped"):
        found.append(("skipped turns (NaN)", number(last["skipped"])))
    cells = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in found)
    return f'<div class="facts">{cells}</div>'


def film(run: RunFolder) -> str:
    """Real images, and each grid as a film over the steps with one slider for all."""
    found = frames(run.samples)
    cards, names, size = [], {}, (0, 0)
    for name, files in found.items():
        packed, size = pack(files, _PICTURE_BYTES // len(found))
        if packed:
            names[name] = packed
            last = list(packed.values())[-1]
            cards.append(picture(name, last, size, f'data-film="{escape(name)}"'))
    if (reals := run.samples / "reals.png").exists():
        pixels = shrink(read(reals))
        cards.append(picture("real images", uri(webp(pixels)), pixels.shape[1::-1]))
    if not cards:
        return '<p class="soft">No pictures yet.</p>'
    grid = f'<div class="films">{"".join(cards)}</div>'
    steps = sorted({step for packed in names.values() for step in packed})
    if len(steps) < 2:
        return grid
    images = {name: [packed.get(step) for step in steps] for name, packed in names.items()}
    data = json.dumps({"steps": steps, "names": images}).replace("<", "\\u003c")
    return (
        '<div class="player"><button id="play" type="button">Play</button>'
        f'<input id="frame" type="range" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}" '
        f'aria-label="training step"><output id="shown">step {steps[-1]:,}</output></div>{grid}'
        f'<script type="application/json" id="frames">{data}</script>'
    )


def charts(stats: Sequence[Mapping[str, Any]]) -> str:
    """All curves: losses, what D believes, gradient norms, then every other figure."""
    if len(stats) < 2:
        return '<p class="soft">Too few figures for curves yet.</p>'
    names = list(dict.fromkeys(name for line in stats for name in line))
    players = [name.removeprefix("gnorm_") for name in names if name.startswith("gnorm_")]
    totals = [f"loss_{player}" for player in players if f"loss_{player}" in names]
    parts = [n for n in names if n.startswith("loss_") and n not in totals]
    beliefs = [n for n in ("d_real", "d_fake", "d_fake_g") if n in names]
    norms = [f"gnorm_{player}" for player in players]
    drawn = {*totals, *parts, *beliefs, *norms}
    others = [n for n in names if n not in drawn | _KNOWN]
    plots = [
        Chart("Losses", curves(stats, totals), "They measure the contest, not the pictures."),
        Chart("Parts of the losses", curves(stats, parts)),
        Chart(
            "What D believes",
            curves(stats, beliefs),
            "Mean probability of being real. 0.5 everywhere: D cannot tell them apart.",
            (0.0, 1.0),
        ),
        Chart("Norm of the gradients", curves(stats, norms)),
        *(Chart(TITLES.get(name, name), curves(stats, [name])) for name in others),
        Chart(TITLES["img_s"], curves(stats, ["img_s"])),
    ]
    return f'<div class="charts">{"".join(plot.html() for plot in plots)}</div>'


_LABELS = {
    "d_real": "D(x)",
    "d_fake": "D(G(z)), D's turn",
    "d_fake_g": "D(G(z)), G's turn",
}
TITLES = {
    **_LABELS,
    "diversity": "Diversity of the samples (1: as different as real images)",
    "img_s": "Images per second",
}


def curves(stats: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[Series]:
    """One curve per figure."""
    found = []
    for i, name in enumerate(names):
        lines = [line for line in stats if name in line]
        label = _LABELS.get(name, name)
        values = [v if isinstance(v := line[name], int | float) else None for line in lines]
        found.append(Series(label, [line["step"] for line in lines], values, i))
    return found


def advice(stats: Sequence[Mapping[str, Any]]) -> str:
    """How to read the curves that are there."""
    names = {name for line in stats[-50:] for name in line}
    shown = [(title, text) for needs, title, text in _ADVICE if not needs or needs in names]
    items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in shown)
    return f'<section class="card look"><dl>{items}</dl></section>'


_ADVICE = (
    (
        "",
        "The samples decide",
        "Move the slider: shapes should appear in the first tenth of the run and sharpen slowly. "
        "Each place of the grid keeps its noise, so it should settle on one motif. If all places "
        "turn alike, or jump to other motifs together again and again, the generator collapsed.",
    ),
    (
        "",
        "Losses are no measure of quality",
        "They say who is ahead in the contest. Healthy curves wobble around a level; G's loss may "
        "rise slowly while the pictures improve. A loss that runs away, or D's loss at zero for "
        "long, is a bad sign.",
    ),
    (
        "d_real",
        "What D believes",
        "Typical is D(x) between 0.6 and 0.9 and D(G(z)) between 0.1 and 0.4. D(x) near 1 with "
        "D(G(z)) near 0 for long means that D wins and G hardly learns. Both at 0.5 from the "
        "beginning means that D does not learn.",
    ),
    (
        "diversity",
        "Diversity",
        "Mean distance between samples, divided by the same between real images. It grows towards "
        "1; below 0.25 after the beginning the verdict says collapse.",
    ),
    (
        "",
        "Norm of the gradients",
        "Steady, within a factor of ten or so. Rising by orders of magnitude: lower the learning "
        "rate. Falling to nothing: the other player won.",
    ),
    (
        "",
        "fakes and fakes-ema",
        "The same noise through the weights as they are, and through their moving average. The "
        "average lags behind in short runs and is calmer and better in long ones.",
    ),
)


def reproduce(config: Mapping[str, Any], run: RunFolder) -> str:
    command = config.get("command") or run.environment().get("command")
    if not command:
        return ""
    return f'<h2>Reproduce</h2><section class="card"><pre>{escape(str(command))}</pre></section>'


# Tables ------------------------------------------------------------------------------------------


def figures_table(stats: Sequence[Mapping[str, Any]]) -> str:
    """The figures as text, at most sixty lines of them."""
    if not stats:
        return ""
    stride = -(-len(stats) // _ROWS)
    chosen = [*stats[::-1][::stride]][::-1]
    return (
        f'<h2>Figures</h2><details class="card"><summary>{len(chosen)} of {len(stats)} lines of '
        f'stats.jsonl</summary><div class="wide">{line_table(chosen)}</div></details>'
    )


def follow(stats: Iterable[Mapping[str, Any]]) -> Verdict:
    """The verdict after these lines."""
    health = Health()
    for line in stats:
        health.see(line)
    return health.verdict


def last_values(stats: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The last value of every figure."""
    found: dict[str, Any] = {}
    for line in stats:
        found |= line
    return found
