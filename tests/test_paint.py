"""The server of `minigan paint`: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from minigan.apps import paint as page
from minigan.apps import server
from minigan.apps.painters import Generator, Painter, Procedure
from minigan.cli import paint as command
from minigan.cli.app import app as cli
from minigan.data import scenes
from minigan.errors import ResourceError, UsageError
from minigan.gans.dcgan import DCGAN
from minigan.gans.gaugan import GauGAN
from minigan.gans.spade import Spade

TOKEN, PORT = "secret", 8000
HOME = f"http://127.0.0.1:{PORT}"
GOOD = {server.TOKEN_HEADER: TOKEN}
BYTES = {**GOOD, "content-type": page.BYTES}
PNG = {**GOOD, "content-type": "image/png"}


class Colours(Painter):
    """Paints each class in its colour, with the seed as its shade of blue; 6 x 8 pixels."""

    title, note = "colours", "for tests"
    names = ("zero", "one", "<two>")
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    size = (6, 8)
    takes_styles = True

    def __init__(self) -> None:
        self.examples = {"plain": np.full(self.size, 1, np.uint8)}
        self.gallery = {"dark": np.zeros((6, 8, 3), np.uint8)}
        self.gate = threading.Event()
        self.gate.set()
        self.painted = 0

    def render(self, labels: Any, seed: int, style: Any, mix: float) -> Any:
        assert self.gate.wait(20)
        self.painted += 1
        picture = self.colours[labels].copy()
        picture[..., 2] ^= np.uint8(seed % 256)
        return picture if style is None else picture // 2 + np.uint8(mix * style.mean() / 2)

    def encode(self, photo: Any) -> Any:
        return photo.mean((0, 1))


@pytest.fixture
def painter() -> Colours:
    return Colours()


@pytest.fixture
def client(painter: Colours) -> Iterator[TestClient]:
    app = page.application(painter, TOKEN, PORT)
    with TestClient(app, HOME, raise_server_exceptions=False) as made:
        yield made


def labels(fill: int = 0) -> bytes:
    return bytes([fill] * 48)


def pixels(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def picture(form: str = "PNG", size: tuple[int, int] = (5, 4), colour: Any = (9, 99, 200)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def post(client: TestClient, path: str, body: bytes, headers: Any = None, **more: Any) -> Any:
    return client.post(path, content=body, headers=BYTES if headers is None else headers, **more)


# What it answers --------------------------------------------------------------------------------


def test_page_and_its_files_come_without_a_token_and_hold_no_secret(client: TestClient) -> None:
    first = client.get("/")
    assert first.headers["content-type"].startswith("text/html") and "<title>" in first.text
    for name in ("paint.css", "paint.js", "board.js", "labels.js", "panels.js", "client.js"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and TOKEN not in answer.text
        assert name in first.text or "import" in client.get("/paint.js").text
        assert not any(far in answer.text for far in ("http://", "//cdn", "@import", "eval("))
    assert client.get("/healthz").text == "ok"


def test_every_answer_has_the_headers(client: TestClient) -> None:
    bad_host = client.get("/", headers={"host": "evil.example"})
    for answer in (client.get("/"), client.get("/api/model"), client.get("/nothing"), bad_host):
        for name, value in server.HEADERS.items():
            assert answer.headers[name] == value
        assert "access-control-allow-origin" not in answer.headers
    policy = server.HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_model(client: TestClient) -> None:
    model = client.get("/api/model", headers=GOOD).json()
    assert (model["height"], model["width"], model["examples"]) == (6, 8, ["plain"])
    assert model["classes"][2] == {"name": "<two>", "colour": "#0000fa"}
    (dark,) = model["styles"]
    assert pixels(client.get(f"/api/style/{dark['id']}", headers=GOOD)).max() == 0
    assert client.get("/api/example/0", headers=GOOD).content == labels(1)


@given(st.binary(min_size=48, max_size=48), st.integers(0, 2**32 - 1))
def test_the_same_request_gives_the_same_bytes(data: bytes, seed: int) -> None:
    client = TestClient(page.application(Colours(), TOKEN, PORT), HOME)
    data = bytes(k % 3 for k in data)
    first, second = (post(client, f"/api/render?seed={seed}", data) for _ in range(2))
    assert first.content == second.content
    expected = Colours.colours[np.frombuffer(data, np.uint8).reshape(6, 8)]
    expected[..., 2] ^= np.uint8(seed % 256)
    np.testing.assert_array_equal(pixels(first), expected)


def test_a_style_is_taken_from_a_picture(client: TestClient) -> None:
    told = post(client, "/api/style", picture(), PNG).json()["id"]
    again = post(client, "/api/style", picture(size=(3, 3)), PNG).json()["id"]
    other = post(client, "/api/style", picture(colour=(0, 0, 99)), PNG).json()["id"]
    assert told == again != other
    plain = pixels(post(client, "/api/render", labels()))
    styled = pixels(post(client, f"/api/render?style={told}&mix=1", labels()))
    half = pixels(post(client, f"/api/render?style={told}&mix=0.5", labels()))
    assert (styled != plain).any() and (styled != half).any()
    jpeg = post(client, "/api/style", picture("JPEG"), {**GOOD, "content-type": "image/jpeg"})
    assert jpeg.status_code == 200


def test_old_styles_are_forgotten_and_offered_ones_are_not(client: TestClient) -> None:
    offered = client.get("/api/model", headers=GOOD).json()["styles"][0]["id"]
    ids = [
        post(client, "/api/style", picture(size=(1, 1), colour=(k, 1, 1)), PNG).json()["id"]
        for k in range(page.KEPT + 1)
    ]
    assert post(client, f"/api/render?style={ids[0]}", labels()).status_code == 404
    for known in (ids[1], ids[-1], offered):
        assert post(client, f"/api/render?style={known}", labels()).status_code == 200


def test_maps_go_out_and_come_back(client: TestClient) -> None:
    data = bytes(k % 3 for k in range(48))
    answer = post(client, "/api/map", data)
    image = Image.open(io.BytesIO(answer.content))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), np.frombuffer(data, np.uint8).reshape(6, 8))
    assert image.getpalette()[:9] == Colours.colours.ravel().tolist()  # type: ignore[index]
    assert post(client, "/api/labels", answer.content, PNG).content == data
    buffer = io.BytesIO()
    image.resize((80, 60), Image.Resampling.NEAREST).save(buffer, "PNG")
    assert post(client, "/api/labels", buffer.getvalue(), PNG).content == data


def test_maps_of_another_size_never_mix_classes(client: TestClient) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (15, 13)).astype(np.uint8) * 2
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    found = post(client, "/api/labels", buffer.getvalue(), PNG).content
    assert len(found) == 48 and set(found) == {0, 2}


# Whom it answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1"}, 400),  # our name is with the port
        ({"host": f"127.0.0.1:{PORT + 1}"}, 400),
        ({"host": f"evil.example@127.0.0.1:{PORT}"}, 400),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT + 1}"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://localhost:{PORT}"}, 403),  # another name is another origin
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({server.TOKEN_HEADER: "wrong"}, 403),
        ({server.TOKEN_HEADER: ""}, 403),
        ({server.TOKEN_HEADER: "s\xe9cret"}, 403),
        ({"origin": HOME}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}, 200),
    ],
)
def test_strangers_are_refused(
    client: TestClient, painter: Colours, headers: dict[str, str], status: int
) -> None:
    encoded = {k: v.encode("latin-1") for k, v in {**BYTES, **headers}.items()}
    answer = post(client, "/api/render", labels(), encoded)
    assert answer.status_code == status
    assert painter.painted == (status == 200)
    if status != 200:
        assert answer.json()["what"] and answer.json()["fix"]


def test_every_api_needs_the_token(client: TestClient) -> None:
    for route in client.app.routes:  # type: ignore[attr-defined]
        if route.path.startswith("/api/"):
            for method in ("GET", "POST", "OPTIONS"):
                assert client.request(method, route.path).status_code == 403


def test_other_methods_and_places(client: TestClient) -> None:
    for method, path in (("GET", "/api/render"), ("PUT", "/api/style"), ("POST", "/")):
        assert client.request(method, path, headers=BYTES).status_code == 405
    for path in ("/static/paint.js", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/paint.py"):
        assert client.get(path, headers=GOOD).status_code == 404
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


# What it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 47, 49, 4800])
def test_maps_of_another_size(client: TestClient, length: int) -> None:
    answer = post(client, "/api/render", bytes(length))
    assert answer.status_code == (413 if length > 48 else 422)


def test_a_label_that_is_no_class_is_named(client: TestClient) -> None:
    answer = post(client, "/api/render", labels()[:-5] + b"\x03" + bytes(4))
    assert answer.status_code == 422
    assert answer.json() == {
        "what": "label 3 at row 5, column 3 is no class",
        "fix": "there are 3, from 0 on",
    }


@pytest.mark.parametrize(
    "wrong",
    ["seed=-1", "seed=4294967296", "seed=1e3", "seed=%20", "seed=", "seed=1&seed=2", "seed=٣",
     "mix=nan", "mix=1.5", "mix=-0", "mix=inf", "mix=", "what=1", "mix=0.1234567"],
)  # fmt: skip
def test_wrong_parameters(client: TestClient, wrong: str) -> None:
    assert post(client, f"/api/render?{wrong}", labels()).status_code == 422


@pytest.mark.parametrize(
    "name", ["0123456789abcdef", "", "../../etc/passwd", "<script>", "x" * 500]
)
def test_unknown_ids(client: TestClient, name: str) -> None:
    assert post(client, "/api/render", labels(), params={"style": name}).status_code == 404
    assert client.get(f"/api/style/{name or 'none'}", headers=GOOD).status_code == 404
    assert client.get(f"/api/example/{name or '1'}", headers=GOOD).status_code == 404


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
     "application/octet-stream; charset=x", "image/svg+xml", "image/gif"],
)  # fmt: skip
def test_other_content_types(client: TestClient, kind: str) -> None:
    headers = {**GOOD, "content-type": kind}
    for path in ("/api/render", "/api/style", "/api/map", "/api/labels"):
        assert post(client, path, labels(), headers).status_code == 415
    zipped = {**BYTES, "content-encoding": "gzip"}
    assert post(client, "/api/render", zlib.compress(labels()), zipped).status_code == 415


def test_large_bodies(client: TestClient) -> None:
    assert post(client, "/api/style", bytes(page.UPLOAD + 1), PNG).status_code == 413

    def endless() -> Iterator[bytes]:  # without a length that could be looked at before
        for _ in range(100):
            yield bytes(100)

    answer = client.post("/api/render", content=endless(), headers=BYTES)
    assert answer.status_code == 413


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels."""
    whole = picture(size=(1, 1))
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:29]
    return whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:]


def test_pictures_that_are_none(client: TestClient) -> None:
    sound = picture(size=(60, 60))
    noisy = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(noisy, "PNG")
    wrong = [
        b"",
        b"no picture",
        picture("JPEG"),
        picture("GIF"),
        sound[:40],
        noisy.getvalue()[:5000],
    ]
    for data in wrong:
        assert post(client, "/api/style", data, PNG).status_code == 422
    for size in ((60_000, 60_000), (4001, 4000), (2**31 - 1, 2**31 - 1)):
        answer = post(client, "/api/style", bomb(*size), PNG)
        assert answer.status_code == 413, answer.text
    assert post(client, "/api/labels", picture(), PNG).status_code == 422  # colours, not classes
    assert post(client, "/api/labels", sound[:50], PNG).status_code == 422


@given(st.data())
def test_damaged_pictures_are_refused_or_read(data: st.DataObject) -> None:
    client = TestClient(page.application(Colours(), TOKEN, PORT), HOME)  # raises what is a bug
    sound = bytearray(picture(size=(20, 20)))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    for path in ("/api/style", "/api/labels"):
        assert post(client, path, bytes(sound), PNG).status_code in (200, 413, 422)


def test_a_bug_is_told_and_the_server_lives(client: TestClient, painter: Colours) -> None:
    painter.render = lambda *args: 1 / 0  # type: ignore[method-assign, assignment]
    answer = post(client, "/api/render", labels())
    assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["what"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    del painter.render  # type: ignore[method-assign]
    assert post(client, "/api/render", labels()).status_code == 200


# Many at once -----------------------------------------------------------------------------------


def test_the_latest_wins() -> None:
    order: list[int] = []

    async def main() -> list[Any]:
        gate, work = threading.Event(), server.LatestWins()

        def job(k: int) -> int:
            assert gate.wait(20)
            order.append(k)
            return k

        tasks = []
        for k in range(10):
            tasks.append(asyncio.create_task(work.run(lambda k=k: job(k))))  # type: ignore[misc]
            await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await work.run(lambda: 77) == 77
        return answers

    answers = asyncio.run(main())
    assert order == [0, 9]
    assert [a for a in answers if isinstance(a, int)] == [0, 9]
    assert all(a.status == 429 for a in answers[1:9])


def test_who_gives_up_waiting_blocks_nobody() -> None:
    async def main() -> None:
        gate, work = threading.Event(), server.LatestWins()
        first = asyncio.create_task(work.run(lambda: gate.wait(20)))
        await asyncio.sleep(0)
        second = asyncio.create_task(work.run(lambda: True))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await first
        assert await asyncio.wait_for(work.run(lambda: 5), 5) == 5

    asyncio.run(main())


def test_a_failed_picture_makes_room_for_the_next() -> None:
    async def main() -> None:
        work = server.LatestWins()
        with pytest.raises(ZeroDivisionError):
            await work.run(lambda: 1 / 0)
        assert await asyncio.wait_for(work.run(lambda: 5), 5) == 5

    asyncio.run(main())


# The painters -----------------------------------------------------------------------------------


def test_the_procedure_paints_and_takes_styles() -> None:
    painter = Procedure(32)
    lake = painter.examples["lake"]
    night, noon = (painter.encode(painter.gallery[name]) for name in ("night", "noon"))
    by_day, by_night = (painter.render(lake, 0, style, 1.0) for style in (noon, night))
    assert by_day.shape == (32, 32, 3) and by_day.mean() > 1.5 * by_night.mean()
    np.testing.assert_array_equal(by_day, painter.render(lake, 0, noon, 1.0))
    of_seed = painter.render(lake, 5, None, 1.0)
    np.testing.assert_array_equal(of_seed, painter.render(lake, 5, noon, 0.0))
    assert (of_seed != painter.render(lake, 6, None, 1.0)).any()


def small(kind: Any, **options: Any) -> Any:
    sizes = {"size": 32, "width": 2, "width_d": 2, "hidden": 4, "upsamplings": 5}
    return kind(**sizes, **options, previews=1)


def test_a_gaugan_paints_with_seed_style_and_mix() -> None:
    painter = Generator(small(GauGAN, nz=8), scenes.CLASSES, scenes.COLOURS)
    map_ = painter.examples["bay"]
    assert painter.takes_styles and painter.seeded and map_.shape == (32, 32)
    style = painter.encode(painter.gallery["sunset"])

    def paint(seed: int, mix: float, style: Any = style) -> Any:
        return painter.render(map_, seed, style, mix)

    assert paint(0, 1.0).shape == (32, 32, 3) and paint(0, 1.0).dtype == np.uint8
    np.testing.assert_array_equal(paint(0, 0.5), paint(0, 0.5))
    np.testing.assert_array_equal(paint(0, 1.0), paint(1, 1.0))  # all from the picture
    np.testing.assert_array_equal(paint(3, 0.0), paint(3, 0.7, None))  # all from the seed
    assert (paint(0, 0.0) != paint(1, 0.0)).any()


def test_a_spade_that_starts_from_the_map_has_no_seed() -> None:
    names = tuple(f"class {k}" for k in range(5))
    painter = Generator(small(Spade, classes=5), names, scenes.COLOURS[:5], size=48)
    assert not painter.seeded and not painter.takes_styles
    assert not painter.examples and not painter.gallery and painter.size == (48, 48)
    picture = painter.render(np.zeros((48, 48), np.uint8), 0, None, 1.0)
    assert picture.shape == (48, 48, 3)
    with pytest.raises(UsageError, match="no style"):
        painter.encode(np.zeros((9, 9, 3), np.uint8))


# The command ------------------------------------------------------------------------------------


def test_the_names_of_classes(tmp_path: Path) -> None:
    assert command.classes_of("scenes", 12).names == scenes.CLASSES
    assert command.classes_of("scenes", 3).names == ("class 0", "class 1", "class 2")
    (tmp_path / "classes.txt").write_text("0\troad\t1\t2\t3\n1\ttree\n")
    known = command.classes_of(str(tmp_path), 2)
    assert known.names == ("road", "tree") and known.colours[0].tolist() == [1, 2, 3]
    assert command.classes_of(str(tmp_path), 4).names[3] == "class 3"


def test_what_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SHIPPED", tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="--procedure"):
        command.choose_painter(None, False, None, "ema")
    monkeypatch.setattr("minigan.cli.sample.load_game", lambda path: (DCGAN(), {"preset": "dcgan"}))
    with pytest.raises(UsageError, match="no label maps"):
        command.painter_of(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"minigan\[web\]"):
        command.check_web()


def test_a_run_is_painted_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"preset": "gaugan", "data": {"name": "scenes"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    game = small(GauGAN, nz=8)
    about = {"preset": "gaugan", "step": 1200}
    monkeypatch.setattr("minigan.cli.sample.load_game", lambda path: (game, about))
    painter = command.painter_of(tmp_path)
    assert painter.names == scenes.CLASSES and painter.note == "step 1,200"
    client = TestClient(page.application(painter, TOKEN, PORT), HOME)
    first, second = (post(client, "/api/render?seed=4", bytes(32 * 32)) for _ in range(2))
    assert pixels(first).shape == (32, 32, 3) and first.content == second.content


def test_help_and_port() -> None:
    assert "secret" in CliRunner().invoke(cli, ["paint", "--help"]).output
    with server.listen() as made:
        port = made.getsockname()[1]
        assert made.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ResourceError, match=f"port {port} cannot be had"):
            server.listen(port)


def test_the_real_server_answers_and_stops() -> None:
    call = [sys.executable, "-m", "minigan", "paint", "--procedure", "--size", "16", "--json"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        address, _, token = json.loads(run.stdout.readline())["address"].partition("/#")
        host, port = address.removeprefix("http://").split(":")
        lines = ["POST /api/render HTTP/1.1", f"Host: {host}:{port}", f"X-Minigan-Token: {token}"]
        lines += [f"Content-Type: {page.BYTES}", "Content-Length: 256", "Connection: close", "", ""]
        answer = asked(int(port), "\r\n".join(lines).encode() + bytes(256))
        assert answer.startswith(b"HTTP/1.1 200") and b"\x89PNG" in answer
        assert asked(int(port), b"no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")
        with socket.create_connection((host, int(port))):  # who says nothing keeps nobody waiting
            run.send_signal(2)
            started = time.monotonic()
            assert run.wait(20) == 0
            assert time.monotonic() - started < 10
        assert run.stderr and "Traceback" not in run.stderr.read()


def asked(port: int, message: bytes) -> bytes:
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as line:
                line.sendall(message)
                return b"".join(iter(lambda: line.recv(65536), b""))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")
