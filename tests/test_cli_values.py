"""Texts of the command line as values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.cli.values import grid, integers, overrides
from minigan.errors import UsageError

DEFAULTS: dict[str, Any] = {
    "size": 28, "lr": 2e-4, "flip": True, "up": "conv", "betas": (0.5, 0.999), "limit": None
}  # fmt: skip


def test_seeds() -> None:
    assert integers("0-3,42") == [0, 1, 2, 3, 42]
    assert integers(" 7 , 2 - 4") == [7, 2, 3, 4]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_lists_of_seeds_come_back(numbers: list[int]) -> None:
    assert integers(",".join(map(str, numbers))) == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-2", "1,,2", "0-99999999", "1.5", "1e3"])
def test_what_is_no_list_of_seeds(text: str) -> None:
    with pytest.raises(UsageError):
        integers(text)


def test_grids() -> None:
    assert grid("4x8") == (4, 8)
    for text in ("4", "x", "0x3", "4x", "axb", "-1x2"):
        with pytest.raises(UsageError, match="is no grid"):
            grid(text)


def test_options_have_the_type_of_their_defaults() -> None:
    pairs = ["size=32", "lr=1e-3", "flip=no", "up=a=b", "betas=0,0.9", "limit=5"]
    assert overrides("dcgan", pairs, DEFAULTS) == {
        "size": 32, "lr": 1e-3, "flip": False, "up": "a=b", "betas": (0.0, 0.9), "limit": 5
    }  # fmt: skip
    assert overrides("dcgan", ["limit=some"], DEFAULTS) == {"limit": "some"}


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ("size", "no '='"),
        ("sise=3", "did you mean 'size'"),
        ("size=3.5", "size=3.5 is not a whole number"),
        ("lr=fast", "lr=fast is not a number"),
        ("flip=maybe", "neither true nor false"),
        ("betas=1,x", "betas=1,x is not a number"),
    ],
)
def test_bad_options(pair: str, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        overrides("dcgan", [pair], DEFAULTS)
