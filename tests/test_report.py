"""report.html: complete, closed to the outside, small, honest about damage; charts and frames."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigan.training import charts
from minigan.training.charts import Chart, Series, log_ticks, number, smoothed, thin, ticks
from minigan.training.frames import frames, pack, shrink
from minigan.training.report import report, run_page
from minigan.training.rundir import RunFolder

EVIL = "<script>alert('x')</script>\"&"


def make_run(folder: Path, name: str = "toy", steps: int = 300, seed: int = 0) -> RunFolder:
    """A run folder with a course and pictures made up."""
    rng = np.random.default_rng(seed)
    run = RunFolder.create(folder / "runs", name)
    run.write_config({"preset": "toy", "options": {"lr": 1e-3 * (1 + seed)}, "command": "minigan"})
    run.write_environment({"numpy": "2.0", "threads": 2})
    for step in range(10, steps + 1, 10):
        line = {"step": step, "kimg": step * 0.064, "sec": step * 0.1, "img_s": 400.0}
        line |= {"loss_D": 0.5 + 0.1 * rng.standard_normal(), "loss_G": 1.0, "gnorm_D": 1.5}
        line |= {"gnorm_G": 10.0 ** (step / 100), "d_real": 0.7, "d_fake": 0.3, "verdict": "ok"}
        if step % 100 == 0:
            line["diversity"] = 0.9
        run.add_stats(line)
        if step % 100 == 0:
            for kind in ("fakes", "fakes-ema"):
                grid = rng.integers(0, 256, (40, 40), dtype=np.uint8)
                large = grid.repeat(3, axis=0).repeat(3, axis=1)
                Image.fromarray(large).save(run.samples / f"{kind}-{step:06d}.png")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(run.samples / "reals.png")
    return run


class Page(HTMLParser):
    """Collects tags, attributes, text and what stands inside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.style = "", [], ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data
        else:
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.add_metrics({"step": 300, "fid": 12.34, "kid": 0.02})
    path = report([run.path])
    assert path == run.path / "report.html"
    page = Page(path.read_text())
    words = "00000-toy ok Samples Curves Losses Metrics 12.34 Configuration options.lr Environment"
    for word in [*words.split(), "What to look for", "What D believes", "stats.jsonl"]:
        assert word in page.text, word
    assert len([f for f in page.all("figure") if f["class"] == "film card"]) == 3
    charts_shown = [f for f in page.all("figure") if f["class"] == "chart card"]
    assert len(charts_shown) == 5  # losses, beliefs, norms, diversity, speed
    last = run.stats()[-1]
    assert number(last["loss_D"]) in page.text  # every number also stands as text


def test_nothing_comes_from_outside_and_only_our_script_runs(tmp_path: Path) -> None:
    text = report([make_run(tmp_path).path]).read_text()
    page = Page(text)
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy is not None
    script = next(s for s, t in zip(page.scripts, kinds(page), strict=True) if t == "ours")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "data", "action"):
                assert (value or "").startswith("data:image/webp;base64,")
    assert not re.search(r"https?://|@import|url\(", text.replace("http-equiv", ""))


def kinds(page: Page) -> Iterator[str]:
    for tag, attributes in page.tags:
        if tag == "style":
            yield "style"
        elif tag == "script":
            yield "data" if attributes.get("type") == "application/json" else "ours"


def test_markup_in_names_and_values_is_text(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.write_config({"preset": EVIL, "options": {EVIL: EVIL}, "command": EVIL})
    run.write_environment({"cpu": EVIL})
    for step in (310, 320, 330):
        run.add_stats({"step": step, EVIL: 1.0, "verdict": EVIL})
    run.add_metrics({"step": 1, EVIL: EVIL})
    run.crash.mkdir()
    crash = {"step": 3, "error": EVIL, "message": EVIL}
    (run.crash / "crash.json").write_text(json.dumps(crash))
    picture = run.samples / "fakes-000100.png"
    shutil.copy(picture, run.samples / "<img src=x onerror=1>-000100.png")
    for paths in ([run.path], [run.path, run.path]):
        page = Page(report(paths, tmp_path / "x.html").read_text())
        assert "alert('x')" in page.text
        assert sum(kind == "ours" for kind in kinds(page)) == 1
        assert all("onerror" not in image for image in page.all("img"))
        for script, kind in zip(page.scripts, kinds(page), strict=True):
            if kind == "data":
                assert "<" not in script
                json.loads(script)


def test_films_are_the_pictures_without_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    page = Page(report([run.path]).read_text())
    (data,) = [json.loads(s) for s in page.scripts if s.startswith('{"steps"')]
    assert data["steps"] == [100, 200, 300]
    for name, images in data["names"].items():
        for step, image in zip(data["steps"], images, strict=True):
            raw = base64.b64decode(image.partition(",")[2])
            shown = np.asarray(Image.open(io.BytesIO(raw)).convert("L"))
            with Image.open(run.samples / f"{name}-{step:06d}.png") as original:
                expected = np.asarray(original)[::3, ::3]
            np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("count", [3, 60])
def test_pages_stay_below_five_megabytes(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    run = make_run(tmp_path, steps=20_000)
    for path in run.samples.glob("fakes*"):
        path.unlink()
    side = 800 if count == 3 else 160
    for step in range(count):  # noise, which nothing can compress
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run.samples / f"fakes-{step:06d}.png", compress_level=0)
    path = report([run.path])
    assert path.stat().st_size < 5_000_000
    packed, _ = pack(frames(run.samples)["fakes"], 3_600_000)
    if count == 60:
        assert {0, 59} <= packed.keys()
        assert 15 < len(packed) < 60


def test_damaged_and_missing_parts_do_not_stop_it(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "empty")
    run.write_config({})
    page = Page(report([run.path]).read_text())
    assert "No figures yet" in page.text
    assert "No pictures yet" in page.text
    run = make_run(tmp_path)
    half = run.samples / "fakes-000200.png"
    half.write_bytes(half.read_bytes()[:100])
    (run.samples / "fakes-000300.png").write_bytes(b"no picture")
    with open(run.path / "stats.jsonl", "a") as file:
        file.write('{"step": 310, "lo')
    run.add_stats({"step": 320, "loss_D": float("nan"), "loss_G": float("inf")})
    page = Page(report([run.path]).read_text())
    assert "loss_D is not a number at step 320" in page.text


def test_the_page_depends_on_the_run_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run_page(run) == run_page(RunFolder.open(run.path))


def test_a_crash_stands_at_the_top(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.crash.mkdir()
    crash = {"step": 77, "error": "NumericError", "message": "D: loss_D is nan"}
    (run.crash / "crash.json").write_text(json.dumps(crash))
    text = Page(report([run.path]).read_text()).text
    assert "NumericError at step 77: D: loss_D is nan" in text


def test_runs_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name, seed=i) for i, name in enumerate(("a", "b", "c"))]
    runs[2].add_metrics({"step": 300, "fid": 9.5})
    path = report([run.path for run in runs])
    assert path == tmp_path / "runs" / "comparison.html"
    page = Page(path.read_text())
    for word in ("3 runs side by side", "00001-b", "options.lr", "0.003", "9.5", "Last samples"):
        assert word in page.text
    shown = [json.loads(s) for s in page.scripts if s.startswith('{"limits"')]
    assert all([s["label"] for s in c["series"]] == [r.path.name for r in runs] for c in shown)


# Charts ----------------------------------------------------------------------------------------

reasonable = st.floats(-1e9, 1e9, allow_nan=False)


@given(reasonable, st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_are_round_and_inside(low: float, width: float, about: int) -> None:
    high = low + width
    found = ticks(low, high, about)
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert all(low - slack <= t <= high + slack for t in found)
    assert len(found) <= about + 1
    assert found == sorted(set(found))


@given(st.floats(1e-12, 1e6), st.floats(1.1, 1e12))
def test_log_ticks_are_powers_inside(low: float, factor: float) -> None:
    found = log_ticks(low, low * factor)
    assert len(found) <= 7
    assert all(low * 0.99 <= t <= low * factor * 1.01 for t in found)


@given(st.lists(st.none() | reasonable, max_size=80))
def test_smoothing_stays_between_the_values(values: list[float | None]) -> None:
    soft = smoothed(values)
    known = [v for v in values if v is not None]
    assert [v is None for v in soft] == [v is None for v in values]
    for value in soft:
        if value is not None:
            slack = 1e-9 * max(map(abs, known))
            assert min(known) - slack <= value <= max(known) + slack


@given(st.integers(1, 3000))
def test_thinning_keeps_the_end(count: int) -> None:
    series = thin(Series("x", list(range(count)), [float(i) for i in range(count)]))
    assert len(series.x) == len(series.y) <= 500
    assert series.x[-1] == count - 1
    gaps = {b - a for a, b in zip(series.x, series.x[1:], strict=False)}
    assert len(gaps) <= 1


@given(
    st.lists(
        st.lists(st.none() | st.floats(-1e30, 1e30, allow_nan=False), max_size=30),
        min_size=1,
        max_size=3,
    )
)
def test_any_chart_is_drawn_inside_its_frame(columns: list[list[float | None]]) -> None:
    series = [Series(f"s{i}", list(range(len(c))), c, i) for i, c in enumerate(columns)]
    text = Chart("title", series).html()
    if not any(v is not None for c in columns for v in c):
        assert text == ""
        return
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", text):
        assert 0 <= float(x) <= charts.WIDTH
        assert 0 <= float(y) <= charts.HEIGHT
    assert "nan" not in text
    assert "inf" not in text


def test_wide_ranges_are_logarithmic() -> None:
    wide = Chart("x", [Series("a", [0, 1, 2], [1.0, 100.0, 100_000.0])]).html()
    flat = Chart("x", [Series("a", [0, 1, 2], [1.0, 1.0, 1.0])]).html()
    assert '"log":true' in wide
    assert '"log":false' in flat


def test_numbers_for_people() -> None:
    shown = [number(v) for v in (None, 0, 3, 12500, 0.0123, 1.5e-7, 2.5e9, -0.5, 99.999, 0.1)]
    expected = ["\u2013", "0", "3", "12,500", "0.012", "1.5e-07", "2.5e+09", "-0.5", "100", "0.1"]
    assert shown == expected


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_shrinking_undoes_enlarging(scale: int, seed: int) -> None:
    small = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    np.testing.assert_array_equal(shrink(large), small if scale <= 4 else large)


# In a browser ----------------------------------------------------------------------------------


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=3000"
).split()


@pytest.mark.browser
def test_the_script_runs_and_fetches_nothing(tmp_path: Path) -> None:
    path = report([make_run(tmp_path).path])
    log = tmp_path / "net.json"
    command = [chromium(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command += [f"--log-net-log={log}", "--enable-logging=stderr", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count('class="readout"') == 5  # one per chart: our script ran under its hash
    assert "step 300" in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
    net = json.loads(log.read_text())
    asked: set[Any] = {e["params"].get("url") for e in net["events"] if "params" in e}
    of_page = {url for url in asked if url and "report" in str(url)}
    assert of_page <= {path.as_uri()}
    hosts = [url for url in asked if url and str(url).startswith(("http:", "https:"))]
    assert not [url for url in hosts if "google" not in str(url)], hosts
