"""Named sets: where they are looked for, what is said when they are not there, and the command's
functions. The files are crafted; the last tests read the real ones if MINIGAN_DATA has them."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from minigan import data
from minigan.data import places, sets
from minigan.data.pixels import resized, with_channels
from minigan.errors import DataError, ShapeError, UsageError

REAL = os.environ.get("MINIGAN_DATA", "")
TINY = np.random.default_rng(3).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)
NAMES = [file.name for file in sets.MNIST.all_files]


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


CONTENTS = dict(zip(NAMES, [idx(TINY), idx(LABELS), idx(TINY[:4]), idx(LABELS[:4])], strict=True))


def place(folder: Path, **replaced: bytes) -> Path:
    """Put a tiny set into a folder; `replaced` maps the beginning of a name to other contents."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        other = next((c for start, c in replaced.items() if name.startswith(start)), content)
        (folder / name).write_bytes(other)
    return folder


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the sets of this machine, and none reaches for the network."""
    monkeypatch.setenv("MINIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIGAN_OFFLINE", "1")
    monkeypatch.delenv("MINIGAN_DATA", raising=False)


def test_root_holds_the_set_or_the_files(tmp_path: Path) -> None:
    folder = place(tmp_path / "sets" / "mnist")
    for root in (tmp_path / "sets", str(folder)):
        dataset = data.load("mnist", root=root)
        np.testing.assert_array_equal(dataset.images[:, 0], TINY)
        assert dataset.labels is not None
        np.testing.assert_array_equal(dataset.labels, LABELS)
        assert dataset.labels.dtype == np.int64
        assert dataset.classes == tuple("0123456789")
        assert dataset.source == str(folder)
    assert len(data.load("mnist", split="test", root=folder)) == 4


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "cache" / "data" / "mnist")
    assert "cache" in data.load("mnist").source
    place(tmp_path / "env" / "mnist")
    monkeypatch.setenv("MINIGAN_DATA", str(tmp_path / "env"))
    assert "env" in data.load("mnist").source
    place(tmp_path / "root" / "mnist")
    assert "root" in data.load("mnist", root=tmp_path / "root").source
    assert "env" in data.load("mnist", root=tmp_path / "nothing").source


def test_decompressed_files_are_as_good(tmp_path: Path) -> None:
    folder = place(tmp_path / "mnist")
    for name in NAMES:
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(CONTENTS[name]))
        (folder / name).unlink()
    np.testing.assert_array_equal(data.load("mnist", root=tmp_path).images[:, 0], TINY)


def test_a_folder_of_idx_files_without_a_known_name(tmp_path: Path) -> None:
    dataset = data.load(place(tmp_path / "own"))
    assert dataset.name == "own"
    assert len(dataset.classes) == 10
    assert data.load(str(tmp_path / "own"), split="test").images.shape == (4, 1, 28, 28)


def test_nothing_works_lists_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = place(tmp_path / "half" / "mnist")
    (half / NAMES[1]).unlink()
    monkeypatch.setenv("MINIGAN_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as caught:
        data.load("mnist", root=tmp_path / "half")
    text = str(caught.value)
    assert "mnist is not on this machine and could not be fetched" in text
    assert f"{half}: has no train-labels-idx1-ubyte.gz" in text
    assert f"{tmp_path / 'env' / 'mnist'}: there is no such folder" in text
    assert "downloading: switched off" in text
    assert f"into {tmp_path / 'cache' / 'data' / 'mnist'}, or into DIR/mnist" in text
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/" in text


def test_failed_mirrors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGAN_OFFLINE", "0")
    dead = sets.NamedSet(
        **{**vars(sets.MNIST), "mirrors": ("http://127.0.0.1:1/a/", "http://127.0.0.1:1/b/")}
    )
    monkeypatch.setitem(sets.NAMED_SETS, "mnist", dead)
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    assert f"http://127.0.0.1:1/a/{NAMES[0]}: Connection refused" in str(caught.value)
    assert "http://127.0.0.1:1/b/" in str(caught.value)
    with pytest.raises(DataError, match="switched off"):
        data.load("mnist", download=False)
    with pytest.raises(DataError, match="Connection refused"):
        data.get("mnist")


def test_fetched_set_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, with the transport replaced by a copy."""
    monkeypatch.setenv("MINIGAN_OFFLINE", "")
    asked = []

    def copy(file: sets.SetFile, mirrors: object, folder: Path, **options: object) -> list[str]:
        asked.append(file.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(CONTENTS[file.name])
        return []

    monkeypatch.setattr(places, "fetch", copy)
    np.testing.assert_array_equal(data.load("mnist").images[:, 0], TINY)
    assert asked == NAMES[:2]  # only what the split needs
    assert data.get("mnist") == tmp_path / "cache" / "data" / "mnist"
    assert asked[2:] == NAMES
    assert len(data.load("mnist", split="test", download=False)) == 4


def test_offline_get(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="switched off by MINIGAN_OFFLINE"):
        data.get("kmnist")
    assert data.get("digits").name == "digits"


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train-images": idx(TINY)[:-9]}, "train-images-idx3-ubyte.gz is damaged: .* expected"),
        ({"train-images": b"<html>"}, "6 bytes, expected 9912422"),
        ({"train-labels": idx(LABELS[:11])}, "12 images but 11 labels"),
        ({"train-labels": idx(LABELS + 1)}, "label 10 of image 9 is out of range"),
        ({"train-labels": idx(TINY)}, "begins with 0x00000803, expected 0x00000801"),
    ],
)
def test_damaged_sets(tmp_path: Path, replaced: dict[str, bytes], message: str) -> None:
    place(tmp_path / "mnist", **replaced)
    with pytest.raises(DataError, match=message):
        data.load("mnist", root=tmp_path)
    assert len(data.load("mnist", split="test", root=tmp_path)) == 4


def test_the_remedy_names_the_command(tmp_path: Path) -> None:
    place(tmp_path / "fashion-mnist", **{"train-images": b"?"})
    with pytest.raises(DataError, match=r"fix: .*minigan data get fashion-mnist"):
        data.load("fashion-mnist", root=tmp_path)


def test_wrong_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset 'minst' \(did you mean 'mnist'\?\)"):
        data.load("minst")
    with pytest.raises(UsageError, match="no dataset 'minst'"):
        data.info("minst")
    with pytest.raises(DataError, match="is no folder"):
        data.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="is no folder"):
        data.load("./mnist")
    with pytest.raises(UsageError, match=r"no split 'tain' \(did you mean 'train'\?\)"):
        data.load("digits", split="tain")
    with pytest.raises(UsageError, match="2 channels"):
        data.load("digits", channels=2)
    with pytest.raises(UsageError, match="limit=0"):
        data.load("digits", limit=0)
    with pytest.raises(UsageError, match="size 0 x 0"):
        data.load("digits", size=0, limit=1)


def test_digits_by_name() -> None:
    train, test = (data.load("digits", split=s, limit=30) for s in ("train", "test"))
    assert train.images.shape == test.images.shape == (30, 1, 28, 28)
    assert train.classes == tuple("0123456789")
    assert not (train.images == test.images).all(axis=(1, 2, 3)).any()


def test_size_and_channels(tmp_path: Path) -> None:
    place(tmp_path / "mnist")
    padded = data.load("mnist", root=tmp_path, size=32, channels=3).images
    assert padded.shape == (12, 3, 32, 32)
    np.testing.assert_array_equal(padded[:, 1, 2:30, 2:30], TINY)
    assert padded.sum() == 3 * TINY.sum(dtype=int)
    assert data.load("mnist", root=tmp_path, size=64).images.shape == (12, 1, 64, 64)
    assert data.load("mnist", root=tmp_path, size=(14, 20)).images.shape == (12, 1, 14, 20)
    assert data.load("mnist", root=tmp_path, limit=5).images.shape == (5, 1, 28, 28)


def test_scaling_keeps_constants() -> None:
    flat = np.full((1, 1, 28, 28), 77, np.uint8)
    assert (resized(flat, 64) == 77).all()
    assert (resized(flat, 7) == 77).all()
    assert resized(flat, 28) is flat


@given(hnp.arrays(np.uint8, (2, 3, 3, 2)))
def test_grey_as_pillow_computes_it(images: np.ndarray) -> None:
    grey = with_channels(images, 1)
    for image, expected in zip(images, grey, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L")
        np.testing.assert_array_equal(np.asarray(picture), expected[0])


def test_bytes_and_floats_round_trip() -> None:
    values = np.arange(256, dtype=np.uint8)
    floats = data.to_float(values)
    assert floats.dtype == np.float32
    assert (floats[0], floats[255]) == (-1, 1)
    np.testing.assert_array_equal(data.to_uint8(floats), values)
    extremes = np.array([-np.inf, -3, 3, np.inf, np.nan], np.float32)
    assert data.to_uint8(extremes).tolist() == [0, 0, 255, 255, 0]


def test_dataset_checks_and_describes_itself() -> None:
    images = TINY[:, None]
    dataset = data.Dataset("tiny", images, LABELS.astype(np.int64), tuple("0123456789"))
    assert repr(dataset) == "<Dataset tiny (train): 12 x 1x28x28, 10 classes>"
    assert dataset.batch([3, 3, 1]).shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(data.to_uint8(dataset.batch(range(12))), images)
    assert dataset.fingerprint == data.Dataset("other", images.copy(), dataset.labels).fingerprint
    assert dataset.fingerprint != data.Dataset("tiny", images).fingerprint
    assert dataset.fingerprint != data.Dataset("tiny", images[::-1], dataset.labels).fingerprint
    with pytest.raises(DataError, match="must be uint8"):
        data.Dataset("floats", images.astype(np.float32))
    with pytest.raises(DataError, match="11 labels for 12 images"):
        data.Dataset("tiny", images, np.zeros(11, np.int64))


# ---- list, info, check ----


def test_list_and_info(tmp_path: Path) -> None:
    known = ["mnist", "fashion-mnist", "kmnist", "digits"]
    known += ["facades", "camvid", "summer2winter", "scenes"]
    assert [s.name for s in data.list_sets()] == known
    facts = data.info("mnist")
    assert facts.place == ""
    assert facts.download_bytes == 11_594_722
    place(tmp_path / "cache" / "data" / "mnist")
    assert data.info("mnist").place == str(tmp_path / "cache" / "data" / "mnist")
    assert data.info("digits").place == "made when needed"


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(tmp_path / "cache" / "data" / "mnist")
    real_sums = data.check("mnist")
    assert [s.state for s in real_sums] == ["damaged"] * 4
    assert "minigan data get mnist" in real_sums[0].reason
    files = [sets.SetFile(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in CONTENTS.items()]
    tiny = {"train": (files[0], files[1]), "test": (files[2], files[3])}
    monkeypatch.setitem(
        sets.NAMED_SETS, "mnist", sets.NamedSet(**{**vars(sets.MNIST), "files": tiny})
    )
    (folder / NAMES[3]).unlink()
    (folder / NAMES[2]).rename(folder / NAMES[2].removesuffix(".gz"))
    (folder / NAMES[1]).write_bytes(CONTENTS[NAMES[1]][:-1] + b"?")
    states = data.check("mnist")
    assert [s.state for s in states] == ["ok", "damaged", "ok", "missing"]
    assert states[2].reason == "not compressed, so not verified"
    assert data.check("digits") == []


# ---- grids ----


def test_grid_places_every_image() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * 50 * np.ones((3, 2, 4), np.uint8)
    grid = data.image_grid(images, columns=3, gap=1)
    assert grid.shape == (2 * 2 + 1, 3 * 4 + 2, 3)
    for number in range(5):
        row, column = divmod(number, 3)
        cell = grid[row * 3 : row * 3 + 2, column * 5 : column * 5 + 4]
        assert (cell == number * 50).all()
    assert (grid[3:, 10:] == 0).all()
    assert data.image_grid(images, 3, scale=3, gap=1).shape == (15, 42, 3)


@given(
    count=st.integers(1, 9),
    columns=st.none() | st.integers(1, 12),
    gap=st.integers(0, 3),
    scale=st.integers(1, 3),
)
def test_grid_loses_nothing(count: int, columns: int | None, gap: int, scale: int) -> None:
    images = np.ones((count, 1, 2, 3), np.float32)
    grid = data.image_grid(images, columns, scale, gap)
    assert grid.dtype == np.uint8
    assert (grid == 255).sum() == count * 6 * scale**2
    assert set(np.unique(grid)) <= {0, 255}


def test_grid_of_floats_clips_and_survives_nan() -> None:
    images = np.array([[-5.0, 0, 5, np.nan]], np.float32).reshape(1, 1, 1, 4)
    assert data.image_grid(images).ravel().tolist() == [0, 128, 255, 0]
    for shape in ((0, 1, 2, 2), (3, 2, 2), (1, 2, 4, 4)):
        with pytest.raises(ShapeError, match="image_grid: cannot draw"):
            data.image_grid(np.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_png_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data.save_png(tmp_path / "a.png", pixels, scale=2)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture)[::2, ::2], pixels[..., 0] if shape[2:] == (1,) else pixels
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.save_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        data.save_png(tmp_path / "a.png", np.ones((9, 9), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_preview(tmp_path: Path) -> None:
    place(tmp_path / "mnist")
    labelled = data.load("mnist", root=tmp_path)
    picture = data.preview(labelled, rows=2, columns=8, scale=1)
    assert picture.size == (2 * 28 + 2, 2 * 28 + 2)  # classes 0 and 1 have two images each
    plain = data.Dataset("plain", labelled.images)
    assert data.preview(plain, rows=2, columns=3, scale=2).size == (2 * (3 * 30 - 2), 116)


# ---- the real thing, where it is ----


@pytest.mark.skipif(not REAL, reason="set MINIGAN_DATA to a folder with mnist/")
@pytest.mark.parametrize(
    ("name", "first"), [("mnist", [5, 0, 4, 1, 9]), ("fashion-mnist", [9, 0, 0, 3, 0])]
)
def test_published_files(name: str, first: list[int]) -> None:
    if not (Path(REAL) / name).is_dir():
        pytest.skip(f"MINIGAN_DATA has no {name}")
    train = data.load(name, root=REAL)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert train.labels is not None
    assert train.labels[:5].tolist() == first
    assert data.load(name, split="test", root=REAL).images.shape == (10_000, 1, 28, 28)
    assert {state.state for state in data.check(name, root=REAL)} == {"ok"}
