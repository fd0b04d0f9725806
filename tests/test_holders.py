"""An out-of-memory error names the operation, and who holds the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import holders
from minigan.autograd import Function
from minigan.cli.app import describe
from minigan.tensor import Tensor


class Hungry(Function):
    """Asks for more memory than there is."""

    def forward(self, x: Any) -> Any:
        raise MemoryError("Unable to allocate 9 GiB")


def test_the_largest_holders_are_named() -> None:
    x = mg.tensor(np.ones((600, 1000), np.float32), requires_grad=True)
    kept = (x * 2.0).exp()
    with pytest.raises(MemoryError) as caught:
        Hungry.apply(kept)
    text = "\n".join(caught.value.__notes__)
    assert "Hungry" in text and "float32 (600, 1000)" in text
    assert "2.3 MiB  a Tensor that learns, float32 (600, 1000)" in text
    code, shown = describe(caught.value)
    assert code == 5 and "a Tensor that learns" in shown
    assert np.isfinite(kept.data).all()  # the program goes on


def test_memory_is_counted_once() -> None:
    before = sum(1 for _ in holders.held())
    array = np.ones((512, 512))
    views = [Tensor(array), Tensor(array[1:]), Tensor(array.T)]
    assert sum(1 for _ in holders.held()) - before == len(views)
    assert holders.largest().count("(512, 512)") == 1
