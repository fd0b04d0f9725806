"""`minigan paint` in a real browser: strokes of a real pointer, and the pictures that follow."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import ALT, CTRL, SHIFT, Browser
from PIL import Image

from minigan.apps import server
from minigan.apps.paint import application
from minigan.apps.painters import Painter, Procedure
from minigan.data import scenes

pytestmark = pytest.mark.browser

TOKEN = "secret"
SIZE = 32
SHOWN = "document.getElementById('dot').className === 'ok'"
GRASS, TREE, WATER, SAND, FLOWERS = 6, 7, 8, 9, 11


class Flat(Procedure):
    """Scenes in the colours of their classes: every pixel says which class it was painted from.

    The seed is subtracted from blue, and a style halves what it is mixed with.
    """

    names = (*scenes.CLASSES[:-1], "<b>flowers</b>")
    failing = False

    def render(self, labels: Any, seed: int, style: Any, mix: float) -> Any:
        if self.failing:
            raise ValueError("out of paint")
        picture = self.colours[labels].copy()
        picture[..., 2] -= np.uint8(seed % 256)
        return picture if style is None else np.rint(picture * (1 - mix / 2)).astype(np.uint8)


class Page:
    """The open page, the painter behind it, and what a person would do."""

    def __init__(self, browser: Browser, painter: Painter, port: int) -> None:
        self.browser, self.painter, self.port = browser, painter, port
        self.complaints = 0  # of the console, that are expected

    def open(self, token: str = TOKEN) -> None:
        self.browser.open(f"http://127.0.0.1:{self.port}/#{token}")

    def settle(self) -> None:
        """Wait until the picture shows the map of now."""
        self.browser.evaluate("new Promise(requestAnimationFrame)")
        self.browser.until(SHOWN)

    def canvas(self, name: str) -> Any:
        """The pixels of a canvas, (H, W, 3)."""
        values = self.browser.evaluate(
            "(c => { const copy = new OffscreenCanvas(c.width, c.height).getContext('2d');"
            " copy.drawImage(c, 0, 0); const d = copy.getImageData(0, 0, c.width, c.height).data;"
            f" return [c.height, c.width, ...d]; }})(document.getElementById('{name}'))"
        )
        return np.array(values[2:], np.uint8).reshape(values[0], values[1], 4)[..., :3]

    def labels(self) -> Any:
        """The label map, read back from its colours; every pixel has one of them exactly."""
        shown = self.canvas("map").astype(int)
        same = (shown[:, :, None] == scenes.COLOURS.astype(int)).all(-1)
        assert (same.sum(-1) == 1).all()
        return same.argmax(-1)

    def at(self, column: float, row: float) -> tuple[float, float]:
        """The place on the screen of the middle of a pixel of the map."""
        x, y, width, height = self.browser.box("#map")
        return x + (column + 0.5) * width / SIZE, y + (row + 0.5) * height / SIZE

    def stroke(self, *places: tuple[float, float], modifiers: int = 0) -> None:
        self.browser.drag([self.at(*place) for place in places], modifiers)
        self.settle()

    def agrees(self, seed: int = 0) -> None:
        """The picture is what the painter makes of the map."""
        made = self.painter.render(self.labels().astype(np.uint8), seed, None, 1.0)
        np.testing.assert_array_equal(self.canvas("picture"), made)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    import uvicorn

    made = server.listen()
    port, painter = made.getsockname()[1], Flat(SIZE)
    config = {"log_level": "error", "lifespan": "off", "ws": "none"}
    running = uvicorn.Server(uvicorn.Config(application(painter, TOKEN, port), **config))  # type: ignore[arg-type]
    thread = threading.Thread(target=running.run, args=([made],))
    thread.start()
    try:
        with Browser(tmp_path) as browser:
            opened = Page(browser, painter, port)
            opened.open()
            browser.until(SHOWN)
            yield opened
            assert len(browser.problems) <= opened.complaints, browser.problems
            ours = (
                f"http://127.0.0.1:{port}/",
                f"blob:http://127.0.0.1:{port}/",
                "about:",
                "data:",
            )
            assert [url for url in browser.requests if not url.startswith(ours)] == []
    finally:
        running.should_exit = True
        thread.join(20)
        made.close()


def test_strokes_pictures_and_undo(page: Page) -> None:
    browser = page.browser
    lake = page.painter.examples["lake"]
    np.testing.assert_array_equal(page.labels(), lake)
    page.agrees()
    # A brush of two pixels, straight down: exactly those pixels, all of them, and no others.
    browser.key("1", SHIFT)  # rock, the eleventh
    browser.key("2", SHIFT)  # flowers
    assert browser.evaluate("document.querySelector('#size').value") == "2"
    page.stroke((4, 3), (4, 9), (4, 20))
    expected = lake.copy()
    expected[3:22, 4:6] = FLOWERS
    np.testing.assert_array_equal(page.labels(), expected)
    page.agrees()
    stroked = page.labels()
    # A line, a rectangle and a bucket.
    browser.key("l")
    browser.key("8")
    browser.key("[")
    page.stroke((0, 31), (31, 31))
    browser.key("r")
    browser.click("[data-label='9']")
    page.stroke((20, 4), (12, 9))
    expected[31, :] = TREE
    expected[4:10, 12:21] = SAND
    np.testing.assert_array_equal(page.labels(), expected)
    browser.key("f")
    browser.key("9")
    page.stroke((15, 5))
    expected[4:10, 12:21] = WATER
    np.testing.assert_array_equal(page.labels(), expected)
    page.agrees()
    # Back and forth.
    for _ in range(3):
        browser.key("z", CTRL)
    page.settle()
    np.testing.assert_array_equal(page.labels(), stroked)
    page.agrees()
    browser.click("#undo")
    page.settle()
    np.testing.assert_array_equal(page.labels(), lake)
    assert browser.evaluate("document.querySelector('#undo').disabled")
    for _ in range(3):
        browser.key("Z", CTRL | SHIFT)
    browser.click("#redo")
    page.settle()
    np.testing.assert_array_equal(page.labels(), expected)
    page.agrees()
    assert "ms from stroke to picture" in browser.evaluate("document.body.innerText")


def test_leaving_the_canvas_picking_and_keys(page: Page) -> None:
    browser = page.browser
    browser.key("2", SHIFT)
    page.stroke((30, 30), (40, 50), (31, 28))  # a pointer that leaves and comes back
    changed = page.labels()
    assert (changed == FLOWERS).sum() > 4 and (changed[:25] != FLOWERS).all()
    # The eyedropper, by tool and by Alt: the map stays.
    browser.key("i")
    page.stroke((16, 0))
    assert browser.evaluate("document.querySelector('#palette [aria-checked=true]').title") == "sky"
    browser.key("b")
    column, row = np.argwhere(changed == WATER)[0][::-1]
    page.stroke((int(column), int(row)), modifiers=ALT)
    chosen = browser.evaluate("document.querySelector('#palette [aria-checked=true]').title")
    assert chosen == "water"
    np.testing.assert_array_equal(page.labels(), changed)
    # Keys alone: the cursor starts in the middle.
    browser.key("2", SHIFT)
    browser.key("r")
    browser.evaluate("document.querySelector('#map').focus(), 0")
    page.stroke((5, 5), modifiers=ALT)  # takes a class and leaves the cursor there
    browser.key("2", SHIFT)
    browser.key(" ")
    browser.key("ArrowRight", SHIFT)
    browser.key("ArrowDown")
    browser.key(" ")
    page.settle()
    after = page.labels()
    assert (after[5:7, 5:14] == FLOWERS).all() and (after == FLOWERS).sum() >= 18
    browser.key(" ")
    browser.key("ArrowDown", SHIFT)
    browser.key("Escape")
    page.settle()
    np.testing.assert_array_equal(page.labels(), after)
    browser.key("Delete")
    page.settle()
    assert (page.labels() == FLOWERS).all()
    page.agrees()
    # Names are shown as they are, never as markup.
    label = browser.evaluate(
        "document.querySelector('#palette [data-label=\"11\"] span').innerText"
    )
    assert label == "<b>flowers</b>"


def test_seed_styles_and_examples(page: Page, tmp_path: Path) -> None:
    browser = page.browser
    plain = page.canvas("picture").astype(int)
    browser.evaluate(
        "(e => { e.value = 3; e.dispatchEvent(new Event('input')); })"
        "(document.getElementById('seed'))"
    )
    page.settle()
    page.agrees(seed=3)
    browser.key("d")
    page.settle()
    page.agrees(seed=int(browser.evaluate("document.getElementById('seed').value")))
    browser.evaluate("document.getElementById('seed').value = 0")
    browser.click("[title='style: sunset']")
    page.settle()
    np.testing.assert_allclose(page.canvas("picture"), plain / 2, atol=0.5)
    browser.click("[title='style: seed only']")
    page.settle()
    np.testing.assert_array_equal(page.canvas("picture"), plain)
    # A picture of one's own, larger than the server takes: the page makes it smaller.
    own = tmp_path / "my <i>holiday.jpg"
    Image.new("RGB", (5000, 4000), (200, 120, 40)).save(own)
    browser.choose_file("#style-file", own)
    browser.until("document.querySelectorAll('#styles [role=radio]').length === 8")
    page.settle()
    np.testing.assert_allclose(page.canvas("picture"), plain / 2, atol=0.5)
    browser.evaluate(
        "(e => { e.value = 50; e.dispatchEvent(new Event('input')); })"
        "(document.getElementById('mix'))"
    )
    page.settle()
    np.testing.assert_allclose(page.canvas("picture"), plain * 0.75, atol=0.5)
    browser.click("[title='style: seed only']")
    browser.click("[title='scene: dunes']")
    page.settle()
    np.testing.assert_array_equal(page.labels(), page.painter.examples["dunes"])
    page.agrees()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    browser.choose_file("#style-file", broken)
    browser.until("document.getElementById('message').innerText.includes('broken.png')")


def test_downloads_come_back_and_a_reload_keeps_the_map(page: Page, tmp_path: Path) -> None:
    browser = page.browser
    browser.key("2", SHIFT)
    page.stroke((3, 3), (20, 20))
    painted = page.labels()
    browser.key("s", CTRL)
    picture = Image.open(io.BytesIO(browser.downloaded("paint-seed0.png")))
    np.testing.assert_array_equal(np.asarray(picture), page.canvas("picture"))
    browser.click("#save-map")
    saved = browser.downloaded("paint-map.png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(saved))), painted)
    browser.reload()
    browser.until(SHOWN)
    np.testing.assert_array_equal(page.labels(), painted)
    browser.key("Delete")
    page.settle()
    assert (page.labels() == GRASS).all()
    path = tmp_path / "map.png"
    path.write_bytes(saved)
    browser.choose_file("#map-file", path)
    while (page.labels() == GRASS).all():  # until the file was read
        page.settle()
    page.settle()
    np.testing.assert_array_equal(page.labels(), painted)
    page.agrees()


def test_errors_are_shown_and_the_map_stays(page: Page) -> None:
    browser, painter = page.browser, page.painter
    painter.failing = True  # type: ignore[attr-defined]
    start, end = page.at(3, 3), page.at(9, 9)
    browser.pointer("mousePressed", *start)
    browser.until("document.getElementById('message').innerText.includes('out of paint')")
    assert page.at(3, 3) == start  # the message moves nothing
    browser.pointer("mouseMoved", *end)
    browser.pointer("mouseReleased", *end)
    painted = page.labels()
    painter.failing = False  # type: ignore[attr-defined]
    page.stroke((20, 20))
    page.agrees()
    assert (painted[3:10, 3:10].diagonal() == GRASS).all()
    assert browser.evaluate("document.getElementById('message').hidden")
    # A server that was started again has another token; the tab keeps the map.
    painted = page.labels()
    page.open("wrong")
    browser.until("document.getElementById('message').innerText.includes('token')")
    browser.load("Runtime.evaluate", expression=f"location.hash = '{TOKEN}'")
    browser.until(SHOWN)
    np.testing.assert_array_equal(page.labels(), painted)
    page.complaints = 4


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
def test_it_fits_the_window(page: Page, width: int, height: int) -> None:
    browser = page.browser
    browser.resize(width, height)
    wide = browser.evaluate("document.documentElement.scrollWidth")
    tall = browser.evaluate("document.documentElement.scrollHeight")
    assert wide <= width and (tall <= height or width < 720)
    unnamed = browser.evaluate(
        "[...document.querySelectorAll('button, input, canvas')].filter(e => !e.hidden && "
        "!e.closest('[hidden], [aria-hidden=true], button canvas') && "
        "!(e.innerText || e.title || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert [found for found in unnamed if "<canvas width" not in found] == []
    page.stroke((5, 5), (9, 9))
    page.agrees()
