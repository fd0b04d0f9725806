"""Pictures that come in twos: layouts, shared jitter, label maps, batches, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from toygame import Toy

from minigan import data, gans
from minigan.cli import main
from minigan.data.classmaps import read_classes
from minigan.data.frame import Frame
from minigan.errors import DataError, UsageError

REAL = os.environ.get("MINIGAN_DATA", "")
real = pytest.mark.skipif(not REAL, reason="needs MINIGAN_DATA")


def save(path: Path, pixels: Any, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    picture.convert(mode).save(path) if mode else picture.save(path)


def load(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.array(picture)


def blocks(rng: np.random.Generator, classes: int = 5, side: int = 40) -> np.ndarray[Any, Any]:
    return rng.integers(0, classes, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1)


@pytest.fixture
def labelled(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Six photos whose colour is 20 times the class, with instance maps."""
    root = tmp_path / "labelled"
    for number in range(6):
        label = blocks(rng)
        save(root / f"train/photo/{number}.png", np.stack([20 * label] * 3, 2))
        save(root / f"train/label/{number}.png", label)
        save(root / f"train/instance/{number}.png", label + 50)
    (root / "classes.txt").write_text("0\ta\t1\t2\t3\n1\tb\n2\tc\n3\td\n4\tvoid\n")
    return root


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A and B, where B is 255 - A."""
    root = tmp_path / "folders"
    for number in range(5):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        save(root / f"A/{number}.png", pixels)
        save(root / f"B/{number}.png", 255 - pixels)
    return root


@pytest.fixture
def kinds(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five of A, three of B; the colour tells the number."""
    root = tmp_path / "kinds"
    for side, count, base in (("A", 5, 0), ("B", 3, 100)):
        for number in range(count):
            save(root / f"train{side}/{number}.png", np.full((16, 16, 3), base + number))
    return root


# ---- jitter ----


def test_photo_labels_and_instances_are_cut_alike(labelled: Path) -> None:
    train = data.load(labelled, kind="labels", size=32, jitter=1.25)
    assert train.image_shape == (3, 32, 32)
    batches = data.LabelBatches(train, 3, seed=1)
    for step in range(8):
        batch = batches.batch(step)
        photos = np.rint((batch.photos + 1) * 127.5).astype(int)
        assert (photos == 20 * batch.labels[:, None]).all()
        assert batch.instances is not None and batch.edges is not None
        assert (batch.instances == batch.labels + 50).all()
        assert batch.photos.dtype == batch.edges.dtype == np.float32
        assert batch.labels.dtype == batch.instances.dtype == np.int64


def test_pairs_are_cut_alike_and_differently_in_each_epoch(folders: Path) -> None:
    pairs = data.load(folders, kind="pairs", size=16, jitter=1.5)
    batches = data.PairBatches(pairs, 5, seed=2)
    epochs = []
    for step in range(4):
        batch = batches.batch(step)
        np.testing.assert_allclose(batch.a, -batch.b, atol=1e-6)
        epochs.append(batch.b[np.argsort(batch.indices)])
    assert all(not np.array_equal(epochs[0], later) for later in epochs[1:])
    seen = {image.tobytes() for epoch in epochs for image in epoch}
    assert len(seen) > 15


def test_the_draws_are_a_function_of_seed_epoch_and_index(folders: Path) -> None:
    pairs = data.load(folders, kind="pairs", size=16, jitter=1.5)
    by_two, by_five = (data.PairBatches(pairs, n, 7, drop_last=False) for n in (2, 5))
    shown = {}
    for step in range(3):
        batch = by_two.batch(step)
        shown |= dict(zip(batch.indices.tolist(), batch.b, strict=True))
    whole = by_five.batch(0)
    for index, image in zip(whole.indices.tolist(), whole.b, strict=True):
        assert np.array_equal(image, shown[index])


@pytest.mark.parametrize("kind", ["labels", "pairs", "unpaired"])
def test_going_on_anywhere_and_reading_ahead_change_no_bit(kind: str) -> None:
    train = data.load("scenes", kind=kind, size=16, jitter=1.25, limit=10)
    steps = [data.batches(train, 3, 5).batch(step) for step in range(9)]
    later = data.batches(train, 3, 5)
    later.set_state({"epoch": 1, "cursor": 3})
    position = later.step
    with data.Prefetch(data.batches(train, 3, 5)) as ahead:
        for step, batch in enumerate(steps):
            others = [ahead.batch(step)] + ([next(later)] if step >= position else [])
            for other in others:
                for name, value in vars(batch).items():
                    assert np.array_equal(value, getattr(other, name)), name


def test_label_maps_are_never_mixed(tmp_path: Path) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:, 32:] = 4
    save(tmp_path / "train/label/a.png", label)
    save(tmp_path / "train/photo/a.png", np.stack([50 * label] * 3, 2))
    (tmp_path / "classes.txt").write_text("".join(f"{i}\tc{i}\n" for i in range(5)))
    for size in (24, 48, 100):
        train = data.load(tmp_path, kind="labels", size=size)
        maps = train.maps([0])
        assert set(np.unique(maps)) == {0, 4}
        assert ((train.raw([0])[:, 0] > 100) == (maps == 4)).mean() > 0.97


def test_flip_mirrors_half_of_them(folders: Path) -> None:
    pairs = data.load(folders, kind="pairs")
    plain = {int(i): pairs.batch([i])[0] for i in range(5)}
    mirrored = []
    for step in range(40):
        batch = data.PairBatches(pairs, 5, 0).batch(step)
        for index, image in zip(batch.indices, batch.b, strict=True):
            same = np.array_equal(image, plain[int(index)])
            assert same or np.array_equal(image[..., ::-1], plain[int(index)])
            mirrored.append(not same)
    assert 0.35 < np.mean(mirrored) < 0.65
    steady = data.PairBatches(pairs, 5, 0, flip=False).batch(3)
    assert np.array_equal(steady.b, pairs.batch(steady.indices))


def test_every_cut_is_as_likely(rng: np.random.Generator) -> None:
    place = np.arange(64).reshape(1, 1, 8, 8).repeat(2000, 0)
    corner = Frame((4, 4)).cut(place, rng.random((2000, 3)))[:, 0, 0, 0]
    counts = np.bincount(corner, minlength=64).reshape(8, 8)
    assert counts[:5, :5].min() > 40
    assert counts[:5, :5].sum() == 2000


def test_frame_pads_to_a_multiple() -> None:
    frame = Frame((5, 6), 4)
    stored = np.arange(2 * 1 * 7 * 8).reshape(2, 1, 7, 8)
    assert frame.shape == (8, 8)
    shown = frame.cut(stored)
    assert np.array_equal(shown[:, :, :5, :6], stored[:, :, 1:6, 1:7])
    assert (shown[:, :, 5:] == shown[:, :, 4:5]).all()
    padded, before = data.pad_to_multiple(stored, 16)
    assert padded.shape == (2, 1, 16, 16)
    assert before == (7, 8)


# ---- layouts ----


def test_side_by_side_and_direction(folders: Path, tmp_path: Path) -> None:
    assert data.make_pairs(folders / "A", folders / "B", tmp_path / "joined") == 5
    two, one = (data.load(p, kind="pairs") for p in (folders, tmp_path / "joined"))
    assert np.array_equal(two.a.images, one.a.images)
    assert np.array_equal(two.b.images, one.b.images)
    back = data.load(tmp_path / "joined", kind="pairs", direction="BtoA")
    assert np.array_equal(back.images, two.a.images)
    assert back.fingerprint != one.fingerprint


def test_label_maps_as_pairs_are_in_colour(labelled: Path) -> None:
    pairs = data.load(labelled, kind="pairs")
    labels = data.load(labelled)
    assert isinstance(labels, data.LabelDataset)
    assert labels.ignore == 4
    assert labels.classes == ("a", "b", "c", "d", "void")
    assert labels.colours[0].tolist() == [1, 2, 3]
    assert np.array_equal(pairs.a.images, data.colour_maps(labels.maps(range(6)), labels.colours))
    assert np.array_equal(pairs.images, labels.images)


def test_unpaired_orders_are_independent_and_complete(kinds: Path) -> None:
    both = data.load(kinds)
    assert isinstance(both, data.UnpairedDataset)
    batches = data.UnpairedBatches(both, 2, seed=3)
    assert batches.per_epoch == 3
    numbers = np.concatenate([batches.indices(step) for step in range(15)])
    for column, count in ((0, 5), (1, 3)):
        for start in range(0, 30, count):
            assert sorted(numbers[start : start + count, column]) == list(range(count))
    batch = batches.batch(4)
    assert np.array_equal(np.rint((batch.a[:, 0, 0, 0] + 1) * 127.5), batch.indices[:, 0])
    assert np.array_equal(np.rint((batch.b[:, 0, 0, 0] + 1) * 127.5), 100 + batch.indices[:, 1])
    assert len({tuple(row) for row in numbers}) > 8  # not always the same partners


def test_instance_edges() -> None:
    instances = np.zeros((1, 4, 4), np.int64)
    instances[0, 1:3, 1:3] = 7
    edges = data.instance_edges(instances)
    assert edges.shape == (1, 1, 4, 4)
    assert edges[0, 0].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]


def test_batches_move_as_one(labelled: Path) -> None:
    batch = data.batches(data.load(labelled), 2).batch(0)
    moved = batch.to("cpu")
    assert np.array_equal(moved.photos, batch.photos)
    assert moved.images is moved.photos
    assert len(moved) == 2


# ---- what is refused ----


def test_a_number_that_is_no_class_is_named(labelled: Path) -> None:
    label = load(labelled / "train/label/3.png")
    label[7, 11] = 37
    save(labelled / "train/label/3.png", label)
    with pytest.raises(DataError, match=r"3\.png: 37 at pixel x=11, y=7 is none of the 5 classes"):
        data.load(labelled, kind="labels")


def test_255_is_unlabelled_if_the_classes_say_so(labelled: Path) -> None:
    label = load(labelled / "train/label/0.png")
    label[0, 0] = 255
    save(labelled / "train/label/0.png", label)
    with pytest.raises(DataError, match="255 at pixel x=0, y=0"):
        data.load(labelled, kind="labels")
    with open(labelled / "classes.txt", "a") as file:
        file.write("255\tunlabelled\n")
    train = data.load(labelled, kind="labels")
    assert train.ignore == 5
    assert train.maps([0])[0, 0, 0] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 a\n", "is no class"),
        ("0\ta\t1\t2\n", "is no class"),
        ("0\ta\t1\t2\t300\n", "is no class"),
        ("0\ta\n2\tb\n", "without gaps"),
        ("0\ta\n0\tb\n", "named twice"),
        ("", "without gaps"),
    ],
)
def test_bad_classes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_label_maps_in_colour_are_refused(labelled: Path) -> None:
    save(labelled / "train/label/2.png", np.zeros((40, 40, 3)))
    with pytest.raises(DataError, match=r"2\.png has no number for each pixel"):
        data.load(labelled)
    (labelled / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no classes\.txt"):
        data.load(labelled)


def test_pairs_must_be_pairs(folders: Path) -> None:
    (folders / "B/4.png").rename(folders / "B/five.png")
    with pytest.raises(DataError, match="2 files have no partner") as caught:
        data.load(folders, kind="pairs")
    assert "4.png" in str(caught.value) and "five.png" in str(caught.value)
    (folders / "B/five.png").rename(folders / "B/4.png")
    save(folders / "B/2.png", np.zeros((20, 24, 3)))
    with pytest.raises(DataError, match=r"2\.png is 24 x 20, but 2\.png is 24 x 24"):
        data.load(folders, kind="pairs")


def test_grey_among_colour_is_refused(folders: Path) -> None:
    save(folders / "B/1.png", np.zeros((24, 24)), "L")
    with pytest.raises(DataError, match="1 of 5 pictures of B are grey"):
        data.load(folders, kind="pairs")
    assert data.load(folders, kind="pairs", channels=1).image_shape == (1, 24, 24)


def test_halves_need_an_even_width(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((8, 17, 3)))
    with pytest.raises(DataError, match="17 pixels wide"):
        data.load(tmp_path, kind="pairs")


def test_sizes_that_do_not_divide_are_padded_and_it_is_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((75, 200, 3)))
    with pytest.warns(UserWarning, match="100 x 75 are padded to 112 x 80"):
        pairs = data.load(tmp_path, kind="pairs", multiple=16)
    assert pairs.image_shape == (3, 80, 112)
    assert data.batches(pairs, 1).batch(0).a.shape == (1, 3, 80, 112)


def test_wrong_requests(labelled: Path, folders: Path) -> None:
    with pytest.raises(UsageError, match=r"no kind of data 'pair' \(did you mean 'pairs'"):
        data.load(folders, kind="pair")
    with pytest.raises(UsageError, match="direction is 'B'"):
        data.load(folders, kind="pairs", direction="B")
    with pytest.raises(UsageError, match="from 1 to 2"):
        data.load(folders, kind="pairs", jitter=3)
    with pytest.raises(DataError, match="no photos with label maps"):
        data.load(folders, kind="labels")
    with pytest.raises(UsageError, match="digits has images alone"):
        data.load("digits", kind="pairs")


def test_a_set_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIGAN_DATA", raising=False)
    monkeypatch.setenv("MINIGAN_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="facades is not on this machine") as caught:
        data.load("facades")
    assert "cannot be downloaded" in str(caught.value)


# ---- the command line ----


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(list(arguments)))
    return int(ended.value.code or 0)


def test_check_lists_everything(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", str(labelled)) == 0
    label = load(labelled / "train/label/3.png")
    label[7, 11] = 37
    save(labelled / "train/label/3.png", label)
    save(labelled / "train/label/1.png", np.zeros((40, 40, 3)))
    save(labelled / "train/photo/0.png", np.zeros((40, 40)), "L")
    save(labelled / "train/photo/4.png", np.zeros((30, 40, 3)))
    (labelled / "train/photo/5.png").write_bytes(b"no picture")
    (labelled / "train/label/2.png").unlink()
    capsys.readouterr()
    assert run("data", "check", str(labelled)) == 4
    out = capsys.readouterr().out
    for text in (
        "37 at pixel x=11, y=7",
        "1.png has no number for each pixel",
        "grey, while others",
        "40 x 40, but its photo is 40 x 30",
        "5.png is no PNG or JPEG",
        "label has no file of that name",
    ):
        assert text in out, text


def test_check_of_pairs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png", np.zeros((8, 16, 3)))
    save(tmp_path / "b.png", np.zeros((8, 17, 3)))
    assert run("data", "check", str(tmp_path)) == 0
    assert run("data", "check", "--pairs", str(tmp_path)) == 4
    assert "no two halves" in capsys.readouterr().out


def test_make_pairs(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, out = str(folders / "A"), str(folders / "B"), tmp_path / "out"
    assert run("data", "make-pairs", a, b, str(out), "--size", "16") == 0
    assert "5 pairs" in capsys.readouterr().out
    assert load(out / "0.png").shape == (16, 32, 3)
    assert run("data", "make-pairs", a, b, str(out)) != 0
    assert "not empty" in capsys.readouterr().err
    (folders / "B/3.png").unlink()
    assert run("data", "make-pairs", a, b, str(tmp_path / "other")) != 0
    assert not (tmp_path / "other").exists()


def test_preview_shows_both(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "shown.png"
    assert run("data", "preview", str(labelled), "--out", str(out)) == 0
    assert load(out).shape[1] > 2 * 40


class PairToy(Toy):
    """A toy that wants pairs, and sees to it that it gets them."""

    data, jitter = "pairs", 1.25

    def start(self, batch: Any) -> None:
        assert isinstance(batch, data.PairBatch)
        super().start(batch)
        self.log["seen"] = float(batch.a.sum())


class LabelToy(Toy):
    """A toy that wants label maps of as many classes as it is told."""

    data = "labels"

    def __init__(self, lr: float = 1e-3, classes: int = 2) -> None:
        super().__init__(lr)
        self.options, self.classes = {"lr": lr, "classes": classes}, classes

    def start(self, batch: Any) -> None:
        assert isinstance(batch, data.LabelBatch)
        assert self.class_colours is not None and len(self.class_colours) == self.classes == 5
        super().start(batch)


def test_training_on_pairs_resumes_bit_for_bit(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gans.PRESETS, "pairtoy", (PairToy, {}))
    start = ["train", "pairtoy", "--data", str(folders), "--batch", "2", "--no-progress"]
    start += ["--direction", "BtoA", "--out", str(tmp_path / "runs"), "--seed", "4"]
    assert run(*start, "--steps", "10", "--name", "whole") == 0
    assert run(*start, "--steps", "4", "--name", "parts") == 0
    whole, parts = sorted((tmp_path / "runs").iterdir())
    config = json.loads((whole / "config.json").read_text())["data"]
    assert (config["kind"], config["direction"], config["jitter"]) == ("pairs", "BtoA", 1.25)
    assert run("train", "--resume", str(parts), "--steps", "10", "--no-progress") == 0
    ends = [max(run.glob("checkpoints/*.safetensors")) for run in (whole, parts)]
    one, two = (safetensors.numpy.load_file(end) for end in ends)
    assert one.keys() == two.keys()
    for name in one:
        assert np.array_equal(one[name], two[name]), name


def test_a_game_gets_the_classes_of_the_data(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(gans.PRESETS, "labeltoy", (LabelToy, {}))
    start = ["train", "labeltoy", "--data", str(labelled), "--batch", "2", "--no-progress"]
    assert run(*start, "--steps", "2", "--out", str(tmp_path)) == 0
    (folder,) = tmp_path.glob("*labeltoy*")
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["classes"] == 5
    assert config["data"]["classes"] == ["a", "b", "c", "d", "void"]
    capsys.readouterr()
    assert run("train", "vanilla", "--jitter", "1.1", "--out", str(tmp_path)) == 1
    assert "two pictures at a time" in capsys.readouterr().err


# ---- real data ----


@real
@pytest.mark.parametrize(("name", "counts"), [("facades", (400, 100)), ("camvid", (367, 101))])
def test_real_label_maps(name: str, counts: tuple[int, int]) -> None:
    for split, count in zip(("train", "test"), counts, strict=True):
        found = data.load(name, kind="labels", split=split, size=64, limit=None)
        assert len(found) == count
        assert len(found.classes) == 12
    assert found.ignore == (11 if name == "camvid" else None)
    batch = data.LabelBatches(found, 4).batch(0)
    assert batch.photos.shape == (4, 3, 64, 64)
    assert batch.labels.max() < 12


@real
def test_real_unpaired() -> None:
    found = data.load("summer2winter", size=64, jitter=1.12)
    assert isinstance(found, data.UnpairedDataset)
    assert (len(found.a), len(found.b)) == (481, 486)
