"""Batches: the order is a function of seed and epoch; reading ahead changes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.data import Batch, Batches, Dataset, Prefetch
from minigan.errors import DataError, UsageError


def numbered(count: int, labels: bool = True) -> Dataset:
    """A dataset whose image i is full of the number i."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3), np.uint8)
    return Dataset("numbered", images, np.arange(count) % 7 if labels else None)


def same(a: Batch, b: Batch) -> bool:
    labels = a.labels is b.labels is None or np.array_equal(a.labels, b.labels)
    return np.array_equal(a.images, b.images) and np.array_equal(a.indices, b.indices) and labels


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name == "minigan-prefetch"]


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 10),
    seed=st.integers(0, 2**63 - 1),
    drop_last=st.booleans(),
)
def test_an_epoch_sees_every_image_at_most_once(
    count: int, size: int, seed: int, drop_last: bool
) -> None:
    if drop_last and size > count:
        return
    batches = Batches(numbered(count), size, seed, drop_last=drop_last)
    for epoch in range(3):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        seen = np.concatenate([batches.indices(step) for step in steps])
        assert len(set(seen.tolist())) == len(seen)
        assert len(seen) == (count // size * size if drop_last else count)
    if drop_last:
        assert all(len(batches.indices(step)) == size for step in range(10))


def test_batches_carry_images_labels_and_numbers() -> None:
    batch = Batches(numbered(20), 4, seed=1).batch(0)
    assert batch.images.dtype == np.float32
    assert batch.images.shape == (4, 1, 2, 3)
    assert len(batch) == 4
    np.testing.assert_array_equal(np.rint((batch.images[:, 0, 0, 0] + 1) * 127.5), batch.indices)
    assert batch.labels is not None
    np.testing.assert_array_equal(batch.labels, batch.indices % 7)
    assert Batches(numbered(20, labels=False), 4).batch(0).labels is None


def test_order_depends_on_seed_and_epoch_alone() -> None:
    a, b = Batches(numbered(30), 5, seed=3), Batches(numbered(30), 5, seed=3)
    backwards = {step: b.batch(step) for step in reversed(range(25))}
    assert all(same(a.batch(step), backwards[step]) for step in range(25))
    other = Batches(numbered(30), 5, seed=4)
    assert not np.array_equal(a.indices(0), other.indices(0))
    first = [np.concatenate([a.indices(6 * e + i) for i in range(6)]) for e in range(2)]
    assert not np.array_equal(*first)


def test_order_is_the_documented_one() -> None:
    from minigan.random import generator

    batches = Batches(numbered(30), 5, seed=3)
    order = generator(3, "data", 1).permutation(30)
    np.testing.assert_array_equal(batches.indices(6 + 2), order[10:15])


@given(taken=st.integers(0, 30), drop_last=st.booleans())
def test_state_goes_on_exactly(taken: int, drop_last: bool) -> None:
    one = Batches(numbered(23), 5, seed=9, drop_last=drop_last)
    for _ in islice(one, taken):
        pass
    state = one.state()
    assert set(state) == {"epoch", "cursor"}
    other = Batches(numbered(23), 5, seed=9, drop_last=drop_last)
    other.set_state(state)
    assert other.step == one.step
    assert all(same(a, b) for a, b in islice(zip(one, other, strict=True), 7))


def test_state_of_another_batch_size_is_refused() -> None:
    batches = Batches(numbered(23), 5)
    for cursor in (7, 20, -5):
        with pytest.raises(UsageError, match="not the beginning of a batch of 5"):
            batches.set_state({"epoch": 0, "cursor": cursor})


def test_too_small_and_empty_sets() -> None:
    with pytest.raises(DataError, match=r"numbered has 3 images, too few for a batch of 4\n.*fix"):
        Batches(numbered(3), 4)
    assert len(Batches(numbered(3), 4, drop_last=False).batch(0)) == 3
    with pytest.raises(DataError, match="has 0 images"):
        Batches(numbered(0), 1, drop_last=False)
    with pytest.raises(UsageError, match="batch size 0"):
        Batches(numbered(3), 0)


def test_flip_mirrors_about_half_and_is_repeatable() -> None:
    images = np.zeros((64, 1, 1, 2), np.uint8)
    images[..., 1] = 255
    batches = Batches(Dataset("arrows", images), 32, seed=5, flip=True)
    left = np.concatenate([batches.batch(step).images[:, 0, 0, 0] for step in range(20)])
    assert set(left.tolist()) == {-1.0, 1.0}
    assert 0.4 < (left == 1).mean() < 0.6
    assert same(batches.batch(7), batches.batch(7))
    assert (Batches(Dataset("arrows", images), 32).batch(0).images[..., 0] == -1).all()


# ---- reading ahead ----


class Slow(Dataset):
    """Takes its time, counts its calls, and fails on image `bad`."""

    def __init__(self, count: int, bad: int = -1, delay: float = 0.0) -> None:
        super().__init__("slow", numbered(count).images)
        self.bad, self.delay, self.calls = bad, delay, 0

    def batch(self, indices: object) -> np.ndarray:
        self.calls += 1
        time.sleep(self.delay)
        if self.bad in np.asarray(indices):
            raise OSError(5, "Input/output error")
        return super().batch(indices)


@given(depth=st.integers(1, 5), jumps=st.lists(st.integers(0, 20), max_size=4))
def test_prefetch_changes_nothing(depth: int, jumps: list[int]) -> None:
    plain = Batches(numbered(23), 5, seed=2)
    with Prefetch(Batches(numbered(23), 5, seed=2), depth) as ahead:
        assert all(same(a, b) for a, b in islice(zip(ahead, plain, strict=True), 9))
        for step in jumps:
            assert same(ahead.batch(step), plain.batch(step))
            assert same(ahead.batch(step + 1), plain.batch(step + 1))
        np.testing.assert_array_equal(ahead.indices(11), plain.indices(11))
        assert ahead.batch_size == 5


def test_state_is_what_was_taken_not_what_was_read() -> None:
    slow = Slow(40)
    with Prefetch(Batches(slow, 5), depth=3) as ahead:
        assert ahead.state() == {"epoch": 0, "cursor": 0}
        first = [next(ahead) for _ in range(2)]
        deadline = time.monotonic() + 5
        while slow.calls < 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert slow.calls >= 5
        assert ahead.state() == {"epoch": 0, "cursor": 10}
        third = next(ahead)
        ahead.set_state({"epoch": 0, "cursor": 10})
        assert same(next(ahead), third)
        ahead.set_state({"epoch": 0, "cursor": 0})
        assert all(same(a, b) for a, b in zip(first, islice(ahead, 2), strict=True))


def test_read_ahead_is_bounded() -> None:
    slow = Slow(400)
    with Prefetch(Batches(slow, 5), depth=2) as ahead:
        next(ahead)
        time.sleep(0.1)
        assert slow.calls <= 1 + 2 + 1  # taken, in the queue, in the thread's hand


@pytest.mark.parametrize("ahead", [False, True])
def test_errors_come_up_at_their_batch_with_the_image_numbers(ahead: bool) -> None:
    plain = Batches(Slow(20), 5, seed=1)
    bad = int(plain.indices(2)[3])
    batches: Batches | Prefetch = Batches(Slow(20, bad), 5, seed=1)
    if ahead:
        batches = Prefetch(batches)
    for _ in range(2):
        next(batches)
    for _ in range(2):  # asking again fails again, and does not hang
        with pytest.raises(DataError) as caught:
            next(batches)
        text = str(caught.value)
        assert "reading a batch failed: OSError: [Errno 5] Input/output error" in text
        assert f"batch of step 2, images {', '.join(map(str, plain.indices(2)))}" in text
    assert batches.state() == {"epoch": 0, "cursor": 10}
    assert same(batches.batch(3), plain.batch(3))
    if isinstance(batches, Prefetch):
        batches.close()


def test_our_own_errors_keep_their_kind_and_text() -> None:
    class Broken(Dataset):
        def batch(self, indices: object) -> np.ndarray:
            raise UsageError("what", where="here", why="because", fix="so")

    with Prefetch(Batches(Broken("broken", numbered(4).images), 2)) as batches:
        with pytest.raises(UsageError) as caught:
            next(batches)
    text = str(caught.value)
    assert text.startswith("what\n  where: here; batch of step 0, images ")
    assert text.endswith("\n  why: because\n  fix: so")


def test_close_while_the_thread_is_busy_or_waiting() -> None:
    for delay in (0.0, 0.05):
        ahead = Prefetch(Batches(Slow(20, delay=delay), 5), depth=1)
        next(ahead)
        ahead.close()
        ahead.close()
        assert len(next(ahead)) == 5  # it can be used again
        ahead.close()


def test_a_forgotten_prefetch_ends_its_thread() -> None:
    ahead = Prefetch(Batches(Slow(20), 5))
    next(ahead)
    del ahead


def test_no_thread_before_the_first_batch() -> None:
    Prefetch(Batches(numbered(10), 5))


PROGRAM = """
import numpy as np, sys, time
from minigan.data import Batches, Dataset, Prefetch

class Slow(Dataset):
    def batch(self, indices):
        time.sleep(0.05)
        return super().batch(indices)

ahead = Prefetch(Batches(Slow("slow", np.zeros((40, 1, 2, 2), np.uint8)), 4))
next(ahead)
print("taken", flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(7)", 7), ("raise RuntimeError('stop')", 1)]
)
def test_the_program_ends_cleanly_with_a_forgotten_prefetch(end: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.replace("{end}", end)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "taken\n"
    assert done.returncode == code
    assert "Fatal" not in done.stderr
    if code != 1:
        assert done.stderr == ""
