"""Texts of the command line as values: seeds, grids, options of a preset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from minigan.errors import UsageError, did_you_mean

_MOST_SEEDS = 1_000_000
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def integers(text: str) -> list[int]:
    """`0-3,42` as [0, 1, 2, 3, 42]."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match:
            raise UsageError(f"'{text}' is no list of numbers", fix="write it like 0-15,42")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first + len(found) >= _MOST_SEEDS:
            raise UsageError(f"'{part}' is no range from small to large (a million at most)")
        found.extend(range(first, last + 1))
    return found


def grid(text: str) -> tuple[int, int]:
    """`4x8` as (4, 8): rows, columns."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match or not int(match[1]) * int(match[2]):
        raise UsageError(f"'{text}' is no grid", fix="write rows x columns, like 4x8")
    return int(match[1]), int(match[2])


def overrides(preset: str, pairs: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` texts as options of a preset, each of the type that its default has."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"-o {pair}: there is no '='", fix="write -o key=value")
        if key not in defaults:
            raise UsageError(
                f"{preset} has no option '{key}'{did_you_mean(key, defaults)}",
                fix=f"its options are {', '.join(defaults)}",
            )
        found[key] = typed(key, text, defaults[key])
    return found


def typed(key: str, text: str, default: Any) -> Any:
    """The text as a value of the type of `default`."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise UsageError(f"{key}={text} is neither true nor false")
        return text.lower() in _TRUE
    try:
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        if isinstance(default, tuple | list):
            first = default[0] if default else ""
            return type(default)(typed(key, part, first) for part in text.split(","))
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"{key}={text} is not {kind}", why=f"its default is {default}") from error
    try:
        return json.loads(text)
    except ValueError:
        return text
