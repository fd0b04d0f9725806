"""The server of `minigan paint`: label maps come in, pictures go out.

GET  /                 the page; its files lie in static/paint
GET  /healthz          "ok"
GET  /api/model        classes, colours, size, styles and examples that are offered
POST /api/render       H*W bytes, the class of each pixel -> PNG
                       ?seed=0 & style=ID & mix=0..1; the same request gives the same bytes
POST /api/style        a picture, PNG or JPEG -> {"id": ...}
GET  /api/style/ID     a style that is offered, as PNG
GET  /api/example/N    H*W bytes
POST /api/map          H*W bytes -> PNG with a palette, whose stored numbers are the classes
POST /api/labels       such a PNG -> H*W bytes
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from minigan.apps.painters import Painter
from minigan.apps.server import LatestWins, Refusal, body, guarded, query, static_routes
from minigan.backend import Array
from minigan.data.pixels import Bytes

BYTES = "application/octet-stream"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG"}
UPLOAD = 4 << 20  # bytes of a picture, at most
PIXELS = 16_000_000
KEPT = 64  # styles of pictures; the oldest are forgotten
_SEEDS = 1 << 32
_LARGEST_STYLE = 512  # pixels a side; larger pictures are made smaller first


def application(painter: Painter, token: str, port: int) -> Starlette:
    """The application that serves a painter."""
    desk = Desk(painter)
    routes = [
        *static_routes("paint"),
        Route("/healthz", lambda request: PlainTextResponse("ok")),
        Route("/api/model", desk.model, methods=["GET"]),
        Route("/api/render", desk.render, methods=["POST"]),
        Route("/api/style", desk.style, methods=["POST"]),
        Route("/api/style/{id}", desk.offered_style, methods=["GET"]),
        Route("/api/example/{number}", desk.example, methods=["GET"]),
        Route("/api/map", desk.map, methods=["POST"]),
        Route("/api/labels", desk.labels, methods=["POST"]),
    ]
    return guarded(routes, token, port)


class Desk:
    """The painter, and the styles that it was shown."""

    def __init__(self, painter: Painter) -> None:
        self.painter, self.work = painter, LatestWins()
        self.styles: OrderedDict[str, Array] = OrderedDict()  # of uploaded pictures
        self.offered: dict[str, tuple[Array, bytes]] = {}  # id -> code, PNG
        self.offered_names: list[dict[str, str]] = []
        for name, photo in painter.gallery.items():
            code = painter.encode(photo)
            self.offered[identity(code)] = code, png(photo)
            self.offered_names.append({"id": identity(code), "name": name})
        self.examples = list(painter.examples.values())

    async def model(self, request: Request) -> Response:
        painter = self.painter
        classes = [
            {"name": name, "colour": "#" + bytes(colour).hex()}
            for name, colour in zip(painter.names, painter.colours, strict=True)
        ]
        height, width = painter.size
        about = {"title": painter.title, "note": painter.note, "height": height, "width": width}
        about |= {"seeded": painter.seeded, "takes_styles": painter.takes_styles}
        about |= {"classes": classes, "styles": self.offered_names}
        return JSONResponse(about | {"examples": list(painter.examples)})

    async def render(self, request: Request) -> Response:
        given = query(request, ("seed", "style", "mix"))
        seed, mix = seed_of(given.get("seed", "0")), mix_of(given.get("mix", "1"))
        style = self.style_of(given["style"]) if "style" in given else None
        labels = await self.map_of(request)
        picture = await self.work.run(
            lambda: png(self.painter.render(labels, seed, style, mix), fast=True)
        )
        return Response(picture, media_type="image/png")

    async def style(self, request: Request) -> Response:
        query(request, ())
        data = await body(request, UPLOAD, list(PICTURES))
        photo = decoded(data, PICTURES[request.headers["content-type"]])
        code = await self.work.run(lambda: self.painter.encode(style_picture(photo)))
        name = identity(code)
        if name not in self.offered:
            self.styles[name] = code
            self.styles.move_to_end(name)
            while len(self.styles) > KEPT:
                self.styles.popitem(last=False)
        return JSONResponse({"id": name})

    async def offered_style(self, request: Request) -> Response:
        known = self.offered.get(request.path_params["id"])
        if known is None:
            raise Refusal(404, "no such style is offered")
        return Response(known[1], media_type="image/png")

    async def example(self, request: Request) -> Response:
        number = request.path_params["number"]
        if not re.fullmatch("[0-9]{1,3}", number) or int(number) >= len(self.examples):
            raise Refusal(404, "no such example", f"there are {len(self.examples)}, from 0 on")
        return Response(self.examples[int(number)].tobytes(), media_type=BYTES)

    async def map(self, request: Request) -> Response:
        query(request, ())
        image = Image.fromarray(await self.map_of(request), "L")
        image.putpalette(self.painter.colours.tobytes())  # which makes it "P"
        return Response(encoded(image), media_type="image/png")

    async def labels(self, request: Request) -> Response:
        query(request, ())
        image = decoded(await body(request, UPLOAD, ["image/png"]), "PNG")
        if image.mode not in ("L", "P"):
            raise Refusal(
                422,
                f"a picture of mode {image.mode} is no label map",
                "open a PNG whose numbers are classes",
            )
        height, width = self.painter.size
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.NEAREST)
        labels = np.asarray(image)
        self.check(labels)
        return Response(labels.tobytes(), media_type=BYTES)

    # What requests hold --------------------------------------------------------------------------

    async def map_of(self, request: Request) -> Bytes:
        """The label map (H, W) in the body."""
        height, width = self.painter.size
        data = await body(request, height * width, [BYTES])
        if len(data) != height * width:
            raise Refusal(
                422, f"{len(data):,} bytes are no map of {height} x {width} pixels",
                f"send {height * width:,} bytes, row by row",
            )  # fmt: skip
        labels = np.frombuffer(data, np.uint8).reshape(height, width)
        self.check(labels)
        return labels

    def check(self, labels: Bytes) -> None:
        """Refuse labels that are no class, by pixel and value."""
        count = len(self.painter.names)
        if labels.max() >= count:
            row, column = (int(i) for i in np.argwhere(labels >= count)[0])
            raise Refusal(
                422, f"label {labels[row, column]} at row {row}, column {column} is no class",
                f"there are {count}, from 0 on",
            )  # fmt: skip

    def style_of(self, name: str) -> Array:
        """The code of a style that was offered or shown before."""
        if name in self.offered:
            return self.offered[name][0]
        if name not in self.styles:
            raise Refusal(404, "this style is not known, or was forgotten", "show it again")
        self.styles.move_to_end(name)
        return self.styles[name]


def seed_of(text: str) -> int:
    """A seed, 0 to 2^32 - 1."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= _SEEDS:
        raise Refusal(422, "this is no seed", f"seeds are 0 to {_SEEDS - 1}")
    return int(text)


def mix_of(text: str) -> float:
    """A number, 0 to 1."""
    if not re.fullmatch(r"[01](\.[0-9]{1,6})?", text) or float(text) > 1:
        raise Refusal(422, "this is no share", "mix is 0 (the seed) to 1 (the picture)")
    return float(text)


def identity(code: Array) -> str:
    """The name of a style: equal styles have equal names."""
    return hashlib.sha256(np.ascontiguousarray(code).tobytes()).hexdigest()[:16]


# Pictures ----------------------------------------------------------------------------------------


def decoded(data: bytes, form: str) -> Image.Image:
    """An uploaded picture, whole, sound and of at most PIXELS pixels, or a Refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of pictures that are suspiciously large
            image = Image.open(io.BytesIO(data), formats=[form])
            if image.width * image.height > PIXELS:
                size = f"{image.width} x {image.height}"
                raise Refusal(413, f"a picture of {size} pixels", f"at most {PIXELS:,} are taken")
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refusal(413, "too many pixels", f"at most {PIXELS:,} are taken") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Warning):
        raise Refusal(422, f"this is no sound {form} picture", "send another") from None
    return image


def style_picture(image: Image.Image) -> Bytes:
    """A picture as uint8 (H, W, 3): turned as its camera was held, and not too large."""
    upright: Any = ImageOps.exif_transpose(image)
    upright.thumbnail((_LARGEST_STYLE, _LARGEST_STYLE))
    return np.asarray(upright.convert("RGB"))


def png(picture: Bytes, fast: bool = False) -> bytes:
    """A picture (H, W, 3) as a file."""
    return encoded(Image.fromarray(np.ascontiguousarray(picture)), 1 if fast else 6)


def encoded(image: Image.Image, effort: int = 6) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=effort)
    return buffer.getvalue()
