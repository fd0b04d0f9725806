"""Folders of pictures: what is taken, how it is converted, what is refused."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from minigan import data
from minigan.data.folder import FolderDataset
from minigan.data.picture import looks_complete, picture_size, read_picture
from minigan.errors import DataError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, 0 * x + 90], axis=2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three unlabelled pictures whose order by name differs from the order of writing."""
    for number, name in enumerate(["b.png", "a.png", "C.png"]):
        save(tmp_path / "pets" / name, noise(8, 6, number))
    return tmp_path / "pets"


# ---- one picture ----


def test_png_is_exact(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    image = read_picture(save(tmp_path / "a.png", pixels))
    assert image.shape == (3, 5, 7)
    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


def test_jpeg_is_close(tmp_path: Path) -> None:
    pixels = smooth(32, 32)
    image = read_picture(save(tmp_path / "a.jpg", pixels, quality=95))
    assert np.abs(image.astype(int) - pixels.transpose(2, 0, 1)).mean() < 3


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(4, 4)).save(buffer, "PNG")
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    assert read_picture(path).shape == (3, 4, 4)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(4, 4)).save(path, kind)
    with pytest.raises(DataError, match=r"a\.png is no PNG or JPEG picture"):
        read_picture(path)


def test_grey_is_luma(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    image = read_picture(save(tmp_path / "a.png", pixels), channels=1)
    assert image.tolist() == [[[76, 150, 29]]]


def test_grey_file_as_colour(tmp_path: Path) -> None:
    image = read_picture(save(tmp_path / "a.png", np.array([[0, 7, 255]], np.uint8)))
    assert image.tolist() == [[[0, 7, 255]]] * 3


def test_one_bit(tmp_path: Path) -> None:
    image = read_picture(save(tmp_path / "a.png", np.array([[True, False]])), channels=1)
    assert image.tolist() == [[[255, 0]]]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image = read_picture(save(tmp_path / "a.png", values), channels=1)
    assert image.tolist() == [[[0, 0, 1, 1, 128, 255]]]


def test_16_bit_colour(tmp_path: Path) -> None:
    """Written by hand, for Pillow cannot write it."""
    row = b"\0" + struct.pack(">3H", 0xFF00, 0x8000, 0x00FF)
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, depth=16, colour=2, data=zlib.compress(row)))
    assert read_picture(path).ravel().tolist() == [0xFF, 0x80, 0x00]


def test_palette(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    image = read_picture(save(tmp_path / "a.png", pixels))
    assert image[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]


def test_transparent_palette_and_grey(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "p.png", transparency=0)
    assert read_picture(tmp_path / "p.png")[:, 0, 0].tolist() == [255, 255, 255]
    save(tmp_path / "la.png", np.array([[[9, 255], [9, 0]]], np.uint8))
    assert read_picture(tmp_path / "la.png", channels=1).tolist() == [[[9, 255]]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red.save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_picture(tmp_path / "a.jpg")[:, 8, 8].astype(int)
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Store the upright picture as a camera held in eight ways would; all come out upright."""
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255  # one bright corner shows every turn
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright[:, ::-1].T,
        7: upright[::-1, ::-1].T,
        8: upright[::-1].T,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif)
    assert picture_size(path) == (16, 32)
    image = read_picture(path, channels=1)[0]
    assert np.abs(image.astype(int) - upright).mean() < 8


def test_nonsense_in_exif_is_ignored(tmp_path: Path) -> None:
    pixels = smooth(16, 16)
    path = save(tmp_path / "a.jpg", pixels, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may complain of the tags
        assert read_picture(path).shape == (3, 16, 16)


def test_scales_and_cuts_in_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 200  # exactly the middle third
    image = read_picture(save(tmp_path / "a.png", wide), size=(20, 20))
    assert image.shape == (3, 20, 20)
    assert image.min() >= 180  # only the cut's edge may feel its dark neighbour


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_any_size_gives_the_wanted_size_or_a_refusal(
    height: int, width: int, size: tuple[int, int]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "PNG")
    buffer.seek(0)
    try:
        image = read_picture(buffer, size)
    except DataError as error:
        assert "too small" in str(error)
        assert max(size[0] / height, size[1] / width) > 8
    else:
        assert image.shape == (3, *size)
        np.testing.assert_array_equal(image[:, 0, 0], [10, 20, 30])
        assert (image == image[:, :1, :1]).all()


def png(width: int, height: int, *, depth: int, colour: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_image_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, depth=1, colour=0, data=zlib.compress(bytes(1000))))
    for open_it in (read_picture, picture_size):
        with pytest.raises(DataError, match=r"bomb\.png has more than 64 million pixels"):
            open_it(path)
    with pytest.raises(DataError, match="16 million"):
        read_picture(path, limit=16_000_000)


def test_text_bomb_is_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("story", "a" * (3 << 20), zip=True)
    path = save(tmp_path / "a.png", noise(4, 4), pnginfo=info)
    with pytest.raises(DataError, match=r"a\.png (is damaged|cannot be opened)"):
        read_picture(path)


def test_animated_png_gives_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "a.png")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_pictures_look_incomplete_and_do_not_decode(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"a.{suffix}", noise(24, 24))
    assert looks_complete(whole)
    content = whole.read_bytes()
    for cut in range(0, len(content) - 2, 97):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(content[:cut])
        assert not looks_complete(path)
        with pytest.raises(DataError):
            read_picture(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_zeros_or_a_film_behind_the_end_do_no_harm(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", smooth(16, 16))
    whole = path.read_bytes()
    for tail in (bytes(50), b"ftypmp42 and a film of three seconds" * 9):
        path.write_bytes(whole + tail)
        assert len(data.load(tmp_path)) == 1


# ---- a folder ----


def test_unlabelled_folder_in_the_order_of_names(folder: Path) -> None:
    dataset = data.load(folder)
    assert isinstance(dataset, FolderDataset)
    assert [path.name for path in dataset.paths] == ["C.png", "a.png", "b.png"]
    assert len(dataset) == 3
    assert dataset.labels is None
    assert dataset.classes == ()
    assert dataset.image_shape == (3, 8, 6)
    assert dataset.name == "pets"
    expected = np.stack([noise(8, 6, seed).transpose(2, 0, 1) for seed in (2, 1, 0)])
    np.testing.assert_array_equal(dataset.images, expected)
    np.testing.assert_array_equal(data.to_uint8(dataset.batch([2, 0])), expected[[2, 0]])
    assert "3 x 3x8x6" in repr(dataset)


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/2.png", "cat/1.png", "cat/deep/3.png", "ant/9.png"):
        save(tmp_path / name, noise(4, 4))
    dataset = data.load(tmp_path)
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    assert dataset.labels.dtype == np.int64
    assert data.load(tmp_path, labels=False).labels is None


def test_one_sub_folder_is_no_labelling(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", noise(4, 4))
    assert data.load(tmp_path).labels is None
    labelled = data.load(tmp_path, labels=True)
    assert labelled.classes == ("images",)


def test_loose_pictures_beside_classes_are_a_question(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "loose.png"):
        save(tmp_path / name, noise(4, 4))
    with pytest.raises(DataError, match=r"are the sub-folders of .* classes or not"):
        data.load(tmp_path)
    with pytest.raises(DataError, match=r"1 pictures of .* have no class"):
        data.load(tmp_path, labels=True)
    assert len(data.load(tmp_path, labels=False)) == 3


def test_split_is_a_sub_folder(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png", noise(4, 4))
    save(tmp_path / "test" / "1.png", noise(4, 4))
    save(tmp_path / "test" / "2.png", noise(4, 4))
    assert [len(data.load(tmp_path, split=s)) for s in ("train", "test")] == [1, 2]
    with pytest.raises(DataError, match="has no part 'test'"):
        data.load(tmp_path / "train", split="test")


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(4, 4))
    save(tmp_path / "b.png", noise(4, 6))
    with pytest.raises(DataError, match=r"differ in size\n.*a\.png is 4 x 4, b\.png is 6 x 4"):
        data.load(tmp_path)
    assert data.load(tmp_path, size=4).images.shape == (2, 3, 4, 4)
    assert data.load(tmp_path, size=(2, 4), channels=1).images.shape == (2, 1, 2, 4)


def test_empty_folder_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no files at all"):
        data.load(tmp_path)
    for name in ("a.webp", "b.webp", "c.txt", ".hidden.png"):
        (tmp_path / name).write_text("?")
    with pytest.raises(DataError, match=r"found 2 \.webp, 1 \.txt\n.*fix: give a folder"):
        data.load(tmp_path)


def test_hidden_files_and_folders_are_left_out(folder: Path) -> None:
    save(folder / "._a.png", noise(8, 6))
    save(folder / ".thumbnails" / "a.png", noise(8, 6))
    assert len(data.load(folder)) == 3


def test_links_do_not_lead_out(folder: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "outside" / "secret.png", noise(8, 6))
    os.symlink(outside, folder / "out.png")
    os.symlink(outside.parent, folder / "out")
    os.symlink("a.png", folder / "z.png")  # inside: as good as a copy
    names = [path.name for path in data.load(folder).paths]  # type: ignore[attr-defined]
    assert names == ["C.png", "a.png", "b.png", "z.png"]


def test_a_link_to_the_folder_itself_is_followed(folder: Path, tmp_path: Path) -> None:
    os.symlink(folder, tmp_path / "link")
    assert len(data.load(tmp_path / "link")) == 3


def test_few_damaged_pictures_are_left_out_with_a_warning(tmp_path: Path) -> None:
    for number in range(100):
        save(tmp_path / f"{number % 2}" / f"{number:03}.png", noise(4, 4, number))
    whole = (tmp_path / "0" / "040.png").read_bytes()
    (tmp_path / "0" / "040.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"1 of 100 pictures .* left out:\n.*0/040\.png: "):
        dataset = data.load(tmp_path)
    assert len(dataset) == 99
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0] * 49 + [1] * 50
    assert dataset.images.shape == (99, 3, 4, 4)


def test_many_damaged_pictures_are_an_error_that_names_them(folder: Path) -> None:
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:80])
    (folder / "b.png").write_text("<html>not found</html>")
    with pytest.raises(DataError) as caught:
        data.load(folder)
    text = str(caught.value)
    assert "2 of 3 pictures in pets cannot be used" in text
    assert "a.png: a.png is damaged" in text
    assert "b.png: b.png is no PNG or JPEG picture" in text
    assert "fix: replace or remove them" in text
    with pytest.warns(UserWarning):
        assert len(data.load(folder, max_damaged=0.7)) == 1


def test_damage_inside_is_found_on_use_and_by_check(folder: Path) -> None:
    """A flipped byte in the middle: the end is there, so only decoding shows it."""
    content = bytearray((folder / "b.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "b.png").write_bytes(content)
    dataset = data.load(folder)
    assert dataset.batch([0, 1]).shape == (2, 3, 8, 6)
    with pytest.raises(DataError, match=r"b\.png is damaged"):
        dataset.batch([2])
    seen: list[tuple[int, int]] = []
    states = data.check(folder, step=lambda *event: seen.append(event))
    assert [(state.name, state.state) for state in states] == [("b.png", "damaged")]
    assert seen[-1] == (3, 3)


def test_limit(folder: Path) -> None:
    assert len(data.load(folder, limit=2)) == 2


def test_pictures_are_decoded_once_while_there_is_room(folder: Path) -> None:
    dataset = data.load(folder, cache_bytes=2 * 3 * 8 * 6)
    before = dataset.images
    for path in folder.glob("*.png"):
        path.unlink()
    np.testing.assert_array_equal(dataset.raw([0, 1]), before[:2])
    with pytest.raises(DataError):
        dataset.raw([2])


def test_fingerprint_depends_on_content_names_and_shape(folder: Path) -> None:
    original = data.load(folder).fingerprint
    assert data.load(folder).fingerprint == original
    assert data.load(folder, size=6).fingerprint != original
    assert data.load(folder, limit=2).fingerprint != original
    (folder / "b.png").rename(folder / "d.png")
    assert data.load(folder).fingerprint != original
    (folder / "d.png").rename(folder / "b.png")
    assert data.load(folder).fingerprint == original
    save(folder / "b.png", noise(8, 6, 99))
    assert data.load(folder).fingerprint != original
