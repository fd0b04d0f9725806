"""Arrays that are changed together again and again, such as the parameters of an optimizer."""

from __future__ import annotations

from typing import Any


class Group(list[Any]):
    """A list of arrays on which a kernel may leave what it prepared for them.

    Nobody changes the list: for other arrays there is another one. A copy starts unprepared, since
    what was prepared may hold the addresses of these very arrays.
    """

    prepared: Any = None

    def __reduce__(self) -> Any:
        return Group, (list(self),)
