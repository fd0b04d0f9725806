"""A headless Chromium that tests steer: real pointers and keys, pictures of what is on the screen.

It speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) through two
pipes, one JSON message after the other with a zero byte between, so nothing but Chromium is needed:

with Browser(folder) as page:
    page.open("http://127.0.0.1:8000/")
    page.drag([(100, 100), (200, 150)])
    page.evaluate("document.title")
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --use-gl=disabled --disable-quic --no-first-run "
    "--disable-sync --disable-background-networking --disable-component-update "
    "--disable-extensions --hide-scrollbars --force-device-scale-factor=1 --remote-debugging-pipe"
).split()
_PATIENCE = 30.0  # seconds for an answer
KEYS = {"Delete": 46, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Tab": 9}
ALT, CTRL, SHIFT = 1, 2, 8


def chromium() -> str:
    """The path of a Chromium; skips the test if there is none."""
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    found = os.environ.get("MINIGAN_CHROMIUM") or next(filter(None, map(shutil.which, names)), "")
    if not found:
        pytest.skip("no headless Chromium: install it or set MINIGAN_CHROMIUM")
    return found


class Browser:
    """One Chromium with one page.

    Attributes
    ----------
    problems : errors of scripts, and what the console complained about.
    requests : the addresses that the page asked for.
    """

    def __init__(self, folder: Path, width: int = 1280, height: int = 800) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number, self._buffer, self._loaded = 0, b"", False
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
        # Chromium reads from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        with open(folder / "chromium.log", "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", script, "bash", chromium(), *flags, "about:blank"],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.call("Browser.setDownloadBehavior", **where)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    # The protocol --------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith("Browser."):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
        raise AssertionError(f"{method}: Chromium has gone")

    def _messages(self) -> Iterator[dict[str, Any]]:
        end = time.monotonic() + _PATIENCE
        while True:
            while b"\0" in self._buffer:
                first, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(first)
                self._note(message.get("method"), message.get("params", {}))
                yield message
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            data = os.read(self._in, 1 << 16)
            if not data:
                return
            self._buffer += data

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])

    # What a person does --------------------------------------------------------------------------

    def open(self, address: str) -> None:
        """Go to a page, also if only what is behind its # differs."""
        self.load("Page.navigate", url="about:blank")
        self.load("Page.navigate", url=address)

    def reload(self) -> None:
        self.load("Page.reload")

    def load(self, method: str, **params: Any) -> None:
        """A command that loads a page, and wait until it is there."""
        self._loaded = False
        self.call(method, **params)
        end = time.monotonic() + _PATIENCE
        while not self._loaded:
            assert time.monotonic() < end, f"{method} {params} never ends"
            self.call("Target.getTargetInfo")  # so that events are read
            time.sleep(0.02)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; promises are waited for."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 20.0) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def pointer(self, kind: str, x: float, y: float, modifiers: int = 0) -> None:
        held = 0 if kind == "mouseReleased" else 1
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, modifiers=modifiers, button="left",
            buttons=held, clickCount=1,
        )  # fmt: skip

    def drag(self, points: Sequence[tuple[float, float]], modifiers: int = 0) -> None:
        """Press at the first point, move through all, release at the last."""
        self.pointer("mousePressed", *points[0], modifiers)
        for point in points[1:]:
            self.pointer("mouseMoved", *point, modifiers)
        self.pointer("mouseReleased", *points[-1], modifiers)

    def click(self, selector: str) -> None:
        """Click into the middle of an element."""
        x, y, width, height = self.box(selector)
        self.drag([(x + width / 2, y + height / 2)])

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """x, y, width, height of an element, scrolled into view."""
        found = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'nearest', inline: 'nearest'}});"
            " const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        return found[0], found[1], found[2], found[3]

    def key(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key."""
        code = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if key.isalpha() else key
        code = key if key in KEYS else code
        given = {"key": key, "code": "Space" if key == " " else code, "modifiers": modifiers}
        given["windowsVirtualKeyCode"] = KEYS.get(key, ord(key.upper()[0]))
        text = {} if modifiers & ~SHIFT or len(key) > 1 else {"text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def downloaded(self, name: str, seconds: float = 10.0) -> bytes:
        """The content of a file that was downloaded."""
        path, end = self.downloads / name, time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, f"{name} was not downloaded"
            time.sleep(0.02)
        return path.read_bytes()

    def screenshot(self, path: Path) -> None:
        picture = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))
