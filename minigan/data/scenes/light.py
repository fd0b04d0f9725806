"""Time of day and season: the colours of sky and light, and of what grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TIMES = {"night": 0.0, "dawn": 6.0, "morning": 9.0, "noon": 13.0, "sunset": 18.5, "dusk": 20.0}
SEASONS = ("spring", "summer", "autumn", "winter")

# hour: zenith, sky at the horizon, light of the sun, light of the sky, disc of sun or moon
_HOURS: dict[float, tuple[tuple[float, float, float], ...]] = {
    0: ((0.03, 0.04, 0.13), (0.11, 0.15, 0.31), (0.30, 0.34, 0.46), (0.27, 0.31, 0.45),
        (0.93, 0.94, 1.00)),
    4: ((0.05, 0.07, 0.20), (0.22, 0.24, 0.42), (0.32, 0.35, 0.46), (0.29, 0.32, 0.46),
        (0.95, 0.93, 0.95)),
    6: ((0.38, 0.48, 0.74), (1.00, 0.78, 0.68), (0.58, 0.40, 0.31), (0.42, 0.41, 0.48),
        (1.00, 0.92, 0.78)),
    9: ((0.30, 0.54, 0.88), (0.82, 0.90, 0.96), (0.56, 0.53, 0.45), (0.49, 0.52, 0.58),
        (1.00, 0.97, 0.86)),
    13: ((0.18, 0.45, 0.87), (0.70, 0.86, 0.98), (0.60, 0.57, 0.51), (0.50, 0.54, 0.60),
         (1.00, 0.98, 0.90)),
    16.5: ((0.28, 0.46, 0.78), (0.92, 0.86, 0.76), (0.63, 0.52, 0.38), (0.46, 0.47, 0.52),
           (1.00, 0.93, 0.72)),
    18.5: ((0.27, 0.27, 0.55), (1.00, 0.58, 0.27), (0.66, 0.37, 0.19), (0.40, 0.35, 0.44),
           (1.00, 0.83, 0.48)),
    20: ((0.11, 0.12, 0.34), (0.74, 0.37, 0.42), (0.34, 0.25, 0.30), (0.30, 0.27, 0.41),
         (1.00, 0.72, 0.55)),
    22: ((0.04, 0.05, 0.16), (0.15, 0.17, 0.35), (0.30, 0.33, 0.46), (0.27, 0.31, 0.45),
         (0.93, 0.94, 1.00)),
}  # fmt: skip
_LIGHTS = ("zenith", "low", "sun", "ambient", "disc")

# class: colour in spring, summer, autumn, winter; one colour stands for all four
_MATERIALS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "cloud": ((1.00, 1.00, 1.00),),
    "mountain": ((0.47, 0.43, 0.50),),
    "snow": ((0.96, 0.98, 1.02),),
    "hill": ((0.32, 0.51, 0.31), (0.20, 0.41, 0.26), (0.52, 0.37, 0.22), (0.36, 0.41, 0.44)),
    "grass": ((0.46, 0.70, 0.22), (0.39, 0.60, 0.15), (0.66, 0.60, 0.20), (0.62, 0.64, 0.48)),
    "tree": ((0.30, 0.50, 0.15), (0.11, 0.34, 0.11), (0.68, 0.33, 0.10), (0.20, 0.27, 0.26)),
    "water": ((0.07, 0.28, 0.36),),
    "sand": ((0.95, 0.84, 0.62),),
    "rock": ((0.52, 0.49, 0.50),),
    "flowers": ((0.42, 0.64, 0.22), (0.35, 0.55, 0.16), (0.58, 0.53, 0.22), (0.55, 0.56, 0.44)),
}
_BLOSSOMS = np.array(  # two colours for each season
    [
        [[1.00, 0.62, 0.78], [1.00, 0.95, 0.88]],
        [[0.93, 0.18, 0.20], [1.00, 0.82, 0.20]],
        [[0.68, 0.30, 0.72], [0.86, 0.36, 0.52]],
        [[0.64, 0.42, 0.66], [0.80, 0.66, 0.78]],
    ],
    np.float32,
)


def lights(hour: Array) -> dict[str, Array]:
    """Colours (N, 3) at an hour (N,) of 24: "zenith", "low", "sun", "ambient", "disc"."""
    known = np.array(list(_HOURS))
    found = {}
    for which, name in enumerate(_LIGHTS):
        values = np.array([colours[which] for colours in _HOURS.values()])
        bands = [np.interp(hour, known, values[:, c], period=24) for c in range(3)]
        found[name] = np.stack(bands, 1).astype(np.float32)
    return found


def darkness(hour: Array) -> Array:
    """How much it is night, (N,): 0 by day, 1 from 21:30 to 4:30."""
    return np.interp(hour, [4.5, 6, 19, 21.5], [1, 0, 0, 1]).astype(np.float32)


def materials(season: Array, classes: tuple[str, ...]) -> Array:
    """Colours (N, classes, 3) at a point (N,) of the year: 0 spring, 1 summer, ..., 4 spring."""
    table = np.zeros((4, len(classes), 3), np.float32)
    for number, name in enumerate(classes):
        if name in _MATERIALS:
            table[:, number] = np.array(_MATERIALS[name], np.float32)
    return _through_the_year(table, season)


def blossoms(season: Array) -> Array:
    """The two colours (N, 2, 3) of flowers."""
    return _through_the_year(_BLOSSOMS, season)


def _through_the_year(table: Array, season: Array) -> Array:
    """A table (4, ...) of the seasons at any time of the year; a season keeps its look a while."""
    place = np.mod(season, 4)
    now = place.astype(int) % 4
    t = np.clip((place - now - 0.25) * 2, 0, 1).astype(np.float32)
    t = t.reshape(-1, *[1] * (table.ndim - 1))
    mixed: Array = table[now] * (1 - t) + table[(now + 1) % 4] * t
    return mixed
