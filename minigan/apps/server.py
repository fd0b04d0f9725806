"""What the web applications share: who may ask, how much, and how refusals look.

The server is for the person at this machine. It listens on 127.0.0.1 alone, and of what arrives
there it answers only

- a Host that is its own name: a page of another name that resolves to 127.0.0.1 ("DNS rebinding")
  is turned away;
- an Origin, where the browser tells one, that is its own: so are other pages;
- under /api/ the token of this start in the header X-Minigan-Token: so are other people and
  programs of this machine. The token stands behind the # of the printed address, which browsers
  never send to anybody.

Nothing of a request ever becomes part of a path. Refusals are JSON: {"what": ..., "fix": ...}.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minigan.errors import MiniganError, ResourceError

T = TypeVar("T")

HOST = "127.0.0.1"
TOKEN_HEADER = "x-minigan-token"
_BODY_SECONDS = 10.0  # in which a request must have arrived
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Refusal(Exception):
    """A request that is not served: the status, why, and what to do instead."""

    def __init__(self, status: int, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.status, self.what, self.fix = status, what, fix

    def response(self) -> JSONResponse:
        return JSONResponse({"what": self.what, "fix": self.fix}, self.status)


# Who may ask -------------------------------------------------------------------------------------


class Guard:
    """Wraps an application: refuses strangers, and adds the headers of HEADERS to every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close"})
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self.check(Headers(scope=scope), scope["path"])
        except Refusal as refusal:
            await refusal.response()(scope, receive, guarded_send)
        else:
            await self.app(scope, receive, guarded_send)

    def check(self, headers: Headers, path: str) -> None:
        """Raise a Refusal unless the request comes from our page, or from who knows the token."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            raise Refusal(400, "this server goes by another name", "use the printed address")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            raise Refusal(403, "another page asks", "use the printed address")
        if path.startswith("/api/"):
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                raise Refusal(403, "another page asks", "use the printed address")
            given = headers.get(TOKEN_HEADER, "").encode("latin-1")
            if not hmac.compare_digest(given, self.token.encode()):
                raise Refusal(
                    403, "wrong or missing token", "open the whole address that was printed"
                )


def guarded(routes: Sequence[BaseRoute], token: str, port: int) -> Starlette:
    """An application of these routes behind the guard."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={
            Refusal: _refused,
            MiniganError: _not_possible,
            HTTPException: _no_such_thing,
            Exception: _failed,
        },
    )


def _refused(request: Request, refusal: Any) -> Response:
    return refusal.response()


def _not_possible(request: Request, error: Any) -> Response:
    return Refusal(422, error.what, error.fix).response()


def _no_such_thing(request: Request, error: Any) -> Response:
    response = Refusal(error.status_code, error.detail.lower()).response()
    response.headers.update(error.headers or {})
    return response


def _failed(request: Request, error: Exception) -> Response:
    """A bug of ours: the page learns its name, uvicorn writes the rest to the terminal."""
    refusal = Refusal(500, f"{type(error).__name__}: {error}", "see the terminal; this is a bug")
    response = refusal.response()
    response.headers.update(HEADERS)  # starlette answers failures from outside of the guard
    return response


# What they may send ------------------------------------------------------------------------------


async def body(request: Request, most: int, kinds: Sequence[str]) -> bytes:
    """The body of a request: at most `most` bytes, of one of these content types."""
    kind = request.headers.get("content-type", "")
    if kind not in kinds or "content-encoding" in request.headers:
        raise Refusal(415, f"'{kind}' is not taken here", f"send {' or '.join(kinds)}")
    if int(request.headers.get("content-length", "0")) > most:
        raise Refusal(413, f"more than {most:,} bytes", "send less")
    read = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                read += chunk
                if len(read) > most:
                    raise Refusal(413, f"more than {most:,} bytes", "send less")
    except TimeoutError:
        raise Refusal(408, f"nothing complete in {_BODY_SECONDS:.0f} seconds", "again") from None
    except ClientDisconnect:
        raise Refusal(400, "the request broke off") from None
    return bytes(read)


def query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The parameters behind the ?, each once and none but the known ones."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise Refusal(422, "unknown or repeated parameters", f"there are {', '.join(known)}")
    return dict(given)


def static_routes(folder: str) -> list[Route]:
    """The files of minigan/apps/static/FOLDER, each under its own name, index.html as /."""
    place = resources.files("minigan.apps").joinpath("static").joinpath(folder)
    routes = []
    for file in place.iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        kind = _KINDS[file.name.rpartition(".")[2]]
        routes.append(Route(path, _constant(file.read_bytes(), kind), methods=["GET"]))
    return routes


def _constant(content: bytes, kind: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


# Work --------------------------------------------------------------------------------------------


class LatestWins:
    """One thread works, and at most one request waits: a newer one takes its place.

    Who draws wants the newest picture. A queue would show all the old ones first.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "painter")
        self._busy = False
        self._waiting: asyncio.Future[bool] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`; Refusal 429 if a newer request came while this one waited."""
        if self._busy:
            await self._turn()
        self._busy = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._pass_on()

    async def _turn(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(False)
        turn = self._waiting = asyncio.get_running_loop().create_future()
        try:
            mine = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._pass_on()
            raise
        if not mine:
            raise Refusal(429, "a newer request took the place of this one", "ask again")

    def _pass_on(self) -> None:
        turn, self._waiting = self._waiting, None
        self._busy = turn is not None and not turn.done()
        if turn is not None and not turn.done():
            turn.set_result(True)


# Serving -----------------------------------------------------------------------------------------


def new_token() -> str:
    """What the page must show: 24 bytes that nobody can guess."""
    return secrets.token_urlsafe(24)


def listen(port: int = 0) -> socket.socket:
    """A socket on 127.0.0.1; port 0 is any that is free."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two servers share a port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen(64)
    except OSError as error:
        made.close()
        raise ResourceError(
            f"port {port} cannot be had: {error.strerror}",
            fix="use another --port; without the option a free one is found",
        ) from None
    return made


def serve(app: ASGIApp, made: socket.socket) -> None:
    """Answer requests until Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=64,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=2,
    )
    try:
        uvicorn.Server(config).run([made])
    except KeyboardInterrupt:  # uvicorn has shut down and passes the signal on
        pass
    finally:
        made.close()
