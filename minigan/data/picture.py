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
_Box = tuple[float, float, float, float]
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


def read_picture(
    source: Path | BinaryIO,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    *,
    half: int | None = None,
    limit: int = PIXEL_LIMIT,
) -> Bytes:
    """Return a picture as uint8 (channels, H, W).

    Parameters
    ----------
    source : a file, by path or opened.
    size : (H, W): the picture is scaled until it just covers this (bicubic), then cut in the
        centre. None leaves it as it is.
    channels : 1 for grey (ITU-R BT.601), 3 for RGB.
    half : 0 takes the left half alone, 1 the right half.
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
        if half is not None:
            middle = picture.width // 2
            picture = picture.crop((half * middle, 0, (half + 1) * middle, picture.height))
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


def picture_mode(source: Path) -> str:
    """Return how Pillow calls what is stored ("L", "RGB", "P", ...), from the header alone."""
    with _opened(source, source.name, PIXEL_LIMIT) as picture:
        return picture.mode


def read_numbers(source: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the stored numbers (H, W) of a grey or palette PNG, of 1, 8 or 16 bits.

    Raises
    ------
    DataError : no PNG, damaged, or in colour: then there is no one number for a pixel.
    """
    with _opened(source, source.name, PIXEL_LIMIT) as picture:
        one_number = picture.mode in ("1", "L", "P", "I", "I;16", "I;16B")
        if picture.format != "PNG" or not one_number:
            raise DataError(
                f"{source.name} has no number for each pixel",
                where=str(source),
                why=f"it is {picture.format}, {picture.mode}; classes and instances are kept in "
                "PNG files, grey or with a palette",
                fix="save the class numbers as an 8-bit grey or palette PNG",
            )
        try:
            return np.asarray(picture).astype(np.int32)
        except MemoryError:
            raise
        except Exception as error:
            raise DataError(f"{source.name} is damaged: {error}", where=str(source)) from None


def cover_nearest(
    numbers: np.ndarray[Any, np.dtype[Any]], size: tuple[int, int]
) -> np.ndarray[Any, np.dtype[Any]]:
    """Scale and cut numbers (H, W) exactly as `read_picture` does photos, without mixing them."""
    box = _covering_box(numbers.shape[1], numbers.shape[0], size)
    height, width = size
    across = (box[0] + (np.arange(width) + 0.5) * (box[2] - box[0]) / width).astype(np.intp)
    down = (box[1] + (np.arange(height) + 0.5) * (box[3] - box[1]) / height).astype(np.intp)
    return numbers[np.minimum(down, len(numbers) - 1)][:, np.minimum(across, numbers.shape[1] - 1)]


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
    box = _covering_box(picture.width, picture.height, size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _covering_box(width: int, height: int, size: tuple[int, int]) -> _Box:
    """Left, top, right, bottom of the largest part in the centre with the proportions of `size`."""
    scale = max(size[1] / width, size[0] / height)
    # Half of what is left over, on each side; rounding must not lead out of the picture.
    left = max(0.0, (width - size[1] / scale) / 2)
    top = max(0.0, (height - size[0] / scale) / 2)
    return left, top, width - left, height - top
