"""A sentence about a landscape, from what is in it and when it is."""

from __future__ import annotations

from collections.abc import Mapping

from .light import SEASONS

_PHASES = (  # until which hour
    (4.5, "at night"), (7, "at dawn"), (11, "in the morning"), (15, "at noon"),
    (17.5, "in the afternoon"), (19.3, "at sunset"), (21, "at dusk"), (24, "at night"),
)  # fmt: skip
_LEAST = 0.008  # of the pixels: less of a class is not worth a word


def caption(kind: str, shares: Mapping[str, float], hour: float, season: float) -> str:
    """Such as "a lake below snowy mountains at sunset in autumn, with trees and rocks"."""
    there = {name for name, share in shares.items() if share > _LEAST}
    place = {"lake": "a lake", "sea": "the sea", "river": "a river", "dunes": "sand dunes"}.get(
        kind, "a meadow"
    )
    if kind in ("lake", "sea", "river") and "water" not in there:
        place = "a meadow"
    if kind == "dunes" and "sand" not in there:
        place = "a meadow"
    if "mountain" in there or "snow" in there:
        place += " below snowy mountains" if "snow" in there else " below mountains"
    elif "hill" in there:
        place += " before hills"
    when = f"{phase(hour)} in {SEASONS[int(season + 0.5) % 4]}"
    names = {"tree": "trees", "rock": "rocks", "flowers": "flowers", "cloud": "clouds"}
    things = [word for name, word in names.items() if name in there]
    if shares.get("sun", 0) > 0:
        things.append("the moon" if phase(hour) == "at night" else "the sun")
    if not things:
        return f"{place} {when}"
    listed = " and ".join(filter(None, [", ".join(things[:-1]), things[-1]]))
    return f"{place} {when}, with {listed}"


def phase(hour: float) -> str:
    """The time of day in words."""
    return next(words for until, words in _PHASES if hour % 24 < until)
