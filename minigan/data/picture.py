"""One picture file, decoded with suspicion.

Only PNG and JPEG are opened, whatever a file's name says. Everything ends as 8-bit grey or RGB:

| stored as                 | becomes                                                    |
| ------------------------- | ---------------------------------------------------------- |
| 1-bit, grey, RGB, palette | what one sees                                              |
| 16-bit grey               | value / 257, rounded (16-bit RGB: the upper byte)          |
| CMYK, YCCK                | RGB by Pillow's conversion, without colour profiles        |
| with transparency         | laid on white                                              |
| EXIF orientation          | turned as a viewer would                                   |
| animated PNG              | the first picture                                          |
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from minigan.errors import DataError

from .pixels import Bytes

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
PIXEL_LIMIT = 64_000_000
_MOST_ENLARGED = 8  # times; a picture of a few pixels is no picture
_EXIF_ORIENTATION = 0x0112
_TURNS = {  # EXIF orientation -> what puts the picture upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


def read_picture(
    source: Path | BinaryIO,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    *,
    limit: int = PIXEL_LIMIT,
) -> Bytes:
    """Return a picture as uint8 (channels, H, W).

    Parameters
    ----------
    source : a file, by path or opened.
    size : (H, W): the picture is scaled until it just covers this (bicubic), then cut in the
        centre. None leaves it as it is.
    channels : 1 for grey (ITU-R BT.601), 3 for RGB.
    limit : pictures of more pixels are refused before they are decoded.

    Raises
    ------
    DataError : no PNG or JPEG, damaged, too large, or too small for `size`.
    """
    name = source.name if isinstance(source, Path) else "the picture"
    picture = _opened(source, name, limit)
    with picture:
        turn = _orientation(picture)
        try:
            picture.load()
            picture = _plain(picture, turn, "L" if channels == 1 else "RGB")
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise DataError(f"{name} is damaged: {error}", where=_where(source)) from None
        if size is not None:
            picture = _cover(picture, size, name)
        pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))


def picture_size(source: Path | BinaryIO, *, limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """Return (H, W) as shown, from the header alone. Raises DataError like `read_picture`."""
    name = source.name if isinstance(source, Path) else "the picture"
    with _opened(source, name, limit) as picture:
        on_its_side = _orientation(picture) >= 5
        width, height = picture.size
    return (width, height) if on_its_side else (height, width)


def looks_complete(path: Path) -> bool:
    """Whether a file ends as a PNG or JPEG should. False is a suspicion, not a proof."""
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        end = file.read().rstrip(b"\x00")
    return end.endswith(_JPEG_END if start == b"\xff\xd8" else _PNG_END)


def _opened(source: Path | BinaryIO, name: str, limit: int) -> Image.Image:
    """Open without decoding and check format and number of pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(source, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, source, limit) from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is no PNG or JPEG picture", where=_where(source)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{name} cannot be opened: {error}", where=_where(source)) from None
    if picture.width * picture.height > limit:
        picture.close()
        raise _too_large(name, source, limit)
    return picture


def _too_large(name: str, source: Any, limit: int) -> DataError:
    return DataError(
        f"{name} has more than {limit // 1_000_000} million pixels",
        where=_where(source),
        why="such a file can be a trap that fills the memory",
        fix="make the picture smaller",
    )


def _where(source: Any) -> str:
    return str(source) if isinstance(source, Path) else ""


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of a picture not yet decoded; 1 if it has none."""
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        value = exif.get(_EXIF_ORIENTATION)
    except Exception:  # nonsense in there does not make the picture unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain(picture: Image.Image, orientation: int, mode: str) -> Image.Image:
    """Turn by EXIF, lay on white, and convert to 8-bit grey or RGB."""
    from PIL import Image

    turned = picture
    if orientation > 1:
        turned = picture.transpose(Image.Transpose[_TURNS[orientation]])
    if turned.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        wide = np.asarray(turned).astype(np.int64)
        turned = Image.fromarray(np.clip((wide + 128) // 257, 0, 255).astype(np.uint8))
    if turned.has_transparency_data:
        clear = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return turned.convert(mode)


def _cover(picture: Image.Image, size: tuple[int, int], name: str) -> Image.Image:
    """Scale and cut in the centre, in one step that samples each pixel once."""
    from PIL import Image

    height, width = size
    scale = max(width / picture.width, height / picture.height)
    if scale > _MOST_ENLARGED:
        raise DataError(
            f"{name} is too small: {picture.width} x {picture.height} for {width} x {height}",
            why=f"it would have to be enlarged more than {_MOST_ENLARGED} times",
        )
    # Half of what is left over, on each side; rounding must not lead out of the picture.
    left = max(0.0, (picture.width - width / scale) / 2)
    top = max(0.0, (picture.height - height / scale) / 2)
    box = (left, top, picture.width - left, picture.height - top)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
