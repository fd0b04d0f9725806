"""Downloads against a real server that misbehaves in every way we could think of."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minigan.data import fetch as fetch_module
from minigan.data.fetch import Patience, fetch
from minigan.data.sets import SetFile
from minigan.errors import ResourceError

BODY = bytes(range(256)) * 400
FILE = SetFile("data.gz", len(BODY), hashlib.sha256(BODY).hexdigest())
HASTY = Patience(silence=0.4, window=0.3, least=2000)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers the k-th request as the k-th entry of `answers` says; the last one repeats."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = min(len(server.ranges), len(server.answers) - 1)
                server.ranges.append(self.headers.get("Range"))
                try:
                    server.answers[number](self)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def send(body: bytes = BODY, *, code: int = 200, length: int | None = -1, **headers: str) -> Answer:
    """Answer with a body; `length` is what Content-Length claims (None: no such header)."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        if length is not None:
            request.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def whole_or_part(request: BaseHTTPRequestHandler) -> None:
    """A good server, which knows ranges."""
    asked = request.headers.get("Range")
    if asked is None:
        return send()(request)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    place = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    send(BODY[start:], code=206, Content_Range=place)(request)


def cut(bytes_sent: int) -> Answer:
    """Promise all, send a part, hang up."""
    return send(BODY[:bytes_sent], length=len(BODY))


def trickle(request: BaseHTTPRequestHandler) -> None:
    send(b"", length=len(BODY))(request)
    for start in range(0, 60):
        request.wfile.write(BODY[start : start + 1])
        request.wfile.flush()
        time.sleep(0.02)


def silence(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def around(request: BaseHTTPRequestHandler) -> None:
    send(b"", code=302, Location=request.path + "x")(request)


def assert_clean(folder: Path) -> None:
    """Nothing but a complete file may carry the file's name."""
    path = folder / FILE.name
    assert not path.exists() or path.read_bytes() == BODY


def test_fetches_and_reports_progress(server: Server, tmp_path: Path) -> None:
    server.answers = [whole_or_part]
    seen: list[tuple[str, int, int]] = []
    report = lambda *event: seen.append(event)  # noqa: E731
    assert fetch(FILE, [server.url], tmp_path / "new" / "folder", progress=report) == []
    assert (tmp_path / "new" / "folder" / FILE.name).read_bytes() == BODY
    assert seen[-1] == ("data.gz", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_asks_nobody_when_the_file_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(BODY)
    assert fetch(FILE, [server.url], tmp_path) == []
    assert server.ranges == []


def test_replaces_a_damaged_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(BODY[:-1] + b"?")
    server.answers = [whole_or_part]
    assert fetch(FILE, [server.url], tmp_path) == []
    assert (tmp_path / FILE.name).read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(b"no", code=403), "HTTP 403 Forbidden"),
        (send(b"later", code=503), "HTTP 503 Service Unavailable"),
        (send(b"<html>sign in", Content_Type="text/html; charset=utf-8"), "a web page"),
        (send(BODY + b"x"), "102401 bytes, expected 102400"),
        (send(BODY[:-1]), "102399 bytes, expected 102400"),
        (send(bytes(len(BODY))), "checksum is wrong"),
        (send(bytes(len(BODY)), length=None), "checksum is wrong"),
        (send(BODY, code=206, Content_Range="bytes 5-9/102400"), "a part that was not asked for"),
        (send(BODY, code=206), "a part that was not asked for"),
        (send(b"", code=204, length=None), "status 204"),
        (cut(0), "broke off after 0 of 102400"),
        (cut(1000), "broke off after 1000 of 102400"),
        (send(BODY[:1000], length=None), "broke off after 1000 of 102400"),
        (trickle, "too slow"),
        (silence, "no answer in time"),
        (around, "too many redirects"),
        (send(b"", code=302, Location="file:///etc/hostname"), "not allowed"),
        (lambda request: request.wfile.write(b"what?\r\n\r\n"), "what?"),
        (lambda request: None, "closed connection"),
    ],
)
def test_a_bad_mirror_leaves_nothing_and_the_next_one_serves(
    server: Server, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server.answers = [answer]
    failures = fetch(FILE, [server.url], tmp_path, patience=HASTY)
    assert len(failures) == 1
    assert failures[0].startswith(f"{server.url}{FILE.name}: ")
    assert reason in failures[0]
    assert not (tmp_path / FILE.name).exists()

    good = Server()
    good.answers = [whole_or_part]
    try:
        assert fetch(FILE, [server.url, good.url], tmp_path, patience=HASTY) == []
    finally:
        good.close()
    assert_clean(tmp_path)
    assert not (tmp_path / f"{FILE.name}.part").exists()


def test_goes_on_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(30_000), whole_or_part]
    assert fetch(FILE, [server.url], tmp_path) == []
    assert server.ranges == [None, "bytes=30000-"]
    assert_clean(tmp_path)


def test_goes_on_in_a_later_session(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.part").write_bytes(BODY[:777])
    server.answers = [whole_or_part]
    assert fetch(FILE, [server.url], tmp_path) == []
    assert server.ranges == ["bytes=777-"]


def test_starts_over_when_the_server_knows_no_ranges(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.part").write_bytes(b"?" * 777)
    server.answers = [send()]
    assert fetch(FILE, [server.url], tmp_path) == []


@pytest.mark.parametrize("rest", [b"?" * 777, b"?" * len(BODY), b"?" * (len(BODY) + 5)])
def test_a_wrong_rest_is_thrown_away(server: Server, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / f"{FILE.name}.part").write_bytes(rest)
    server.answers = [whole_or_part]
    assert fetch(FILE, [server.url], tmp_path) == []
    assert server.ranges[-1] is None
    assert_clean(tmp_path)


def test_range_not_satisfiable_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.part").write_bytes(BODY[:777])
    server.answers = [send(b"", code=416), send()]
    assert fetch(FILE, [server.url], tmp_path) == []


def test_gives_up_on_a_server_that_always_cuts(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(50_000), send(BODY[:9], code=206, length=9)]
    failures = fetch(FILE, [server.url], tmp_path)
    assert len(failures) == 1
    assert len(server.ranges) <= 4
    assert_clean(tmp_path)


def test_mirrors_that_do_not_exist(tmp_path: Path) -> None:
    failures = fetch(FILE, ["http://127.0.0.1:1/", "nonsense"], tmp_path)
    assert "refused" in failures[0]
    assert "unknown url type" in failures[1]


def test_follows_a_redirect(server: Server, tmp_path: Path) -> None:
    server.answers = [send(b"", code=301, Location="/elsewhere"), send()]
    assert fetch(FILE, [server.url], tmp_path) == []


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda request: (time.sleep(0.2), send()(request))[0]]
    threads = [
        threading.Thread(target=fetch, args=(FILE, [server.url], tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ranges) == 1
    assert_clean(tmp_path)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"data\.gz cannot be stored.*\n.*where:"):
        fetch(FILE, [server.url], tmp_path / "file" / "folder")


def test_disk_full_is_not_the_mirrors_fault(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    server.answers = [send()]
    monkeypatch.setattr(fetch_module.os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        fetch(FILE, [server.url], tmp_path)
    assert not (tmp_path / FILE.name).exists()
