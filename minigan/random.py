"""Randomness without hidden state: every draw is a function of (seed, stream, step).

A *stream* is a name ("z", "dropout", "data", ...). Its k-th generator is NumPy's counter-based
Philox keyed by the seed, the stream's name and k. So two streams never disturb one another, a
draw can be repeated without replaying what came before it, and to resume a run it is enough to
remember a few integers (`state`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from minigan_kernels import recording
from minigan_kernels.reference.random import philox_normal

from minigan.backend import Backend, find
from minigan.errors import UsageError

_SEED_LIMIT = 2**63
_seed = 0
_counters: dict[str, int] = {}


def generator(seed: int, stream: str, step: int) -> np.random.Generator:
    """Return the generator of one step of a stream: Philox(key=(seed, crc32(stream), step)).

    Parameters
    ----------
    seed : 0 <= seed < 2**63.
    stream : any name; its CRC-32 fills the upper half of the second key word.
    step : 0 <= step < 2**32, the lower half.
    """
    _check_seed(seed)
    key = np.array(_key(seed, stream, step), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def draw(stream: str) -> np.random.Generator:
    """Return the next generator of `stream` and advance the stream's counter."""
    return generator(_seed, stream, _advance(stream))


def next_key(stream: str) -> tuple[int, int]:
    """Return the key of the generator that `draw` would return, and advance the counter."""
    return _key(_seed, stream, _advance(stream))


def _advance(stream: str) -> int:
    """The step of a stream that comes next; it is taken now."""
    step = _counters.get(stream, 0)
    _counters[stream] = step + 1
    return step


def _key(seed: int, stream: str, step: int) -> tuple[int, int]:
    """The two words of Philox's key."""
    if not 0 <= step < 2**32:
        raise UsageError(f"step {step} of stream '{stream}' is not in [0, 2**32)")
    return seed, zlib.crc32(stream.encode()) << 32 | step


def uniform(stream: str, shape: Sequence[int], dtype: Any = np.float32, device: str = "cpu") -> Any:
    """Draw an array in [0, 1) on `device`: the same numbers on all, those of `draw(stream).random`.

    A recorded step draws new numbers each time it is played.
    """
    target = find(device)
    if target.xp is np:
        return draw(stream).random(tuple(shape), dtype)
    return target.kernels.philox_uniform(_key_on(target, stream), shape, dtype)


def normal(stream: str, shape: Sequence[int], dtype: Any = np.float32, device: str = "cpu") -> Any:
    """Draw standard normal numbers on `device`: the same on all, by the formula of Box and Muller.

    They are not those of `draw(stream).standard_normal`, which cannot be made one by one.
    """
    target = find(device)
    if target.xp is np:
        return philox_normal(next_key(stream), shape, dtype)
    return target.kernels.philox_normal(_key_on(target, stream), shape, dtype)


def _key_on(target: Backend, stream: str) -> Any:
    """The next key of a stream: numbers, or where a step is recorded an array on the device."""
    if recording.current() is None:
        return next_key(stream)
    return target.kernels.device.feed(lambda: np.array(next_key(stream), np.uint64))


def manual_seed(seed: int) -> None:
    """Start all streams anew from `seed`."""
    global _seed
    _check_seed(seed)
    _seed = int(seed)
    _counters.clear()


def state() -> dict[str, int]:
    """Return the seed (key "seed") and the counter of each stream (keys "stream/NAME")."""
    return {"seed": _seed} | {f"stream/{name}": count for name, count in _counters.items()}


def set_state(saved: dict[str, int]) -> None:
    """Return to a state that `state` gave."""
    manual_seed(saved["seed"])
    for key, count in saved.items():
        if key.startswith("stream/"):
            _counters[key.removeprefix("stream/")] = int(count)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < _SEED_LIMIT:
        raise UsageError(f"seed {seed} is out of range", fix="use 0 <= seed < 2**63")
