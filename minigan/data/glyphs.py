"""The ten digits as pen strokes: how people write them.

A *glyph* is one way to write a digit: a few strokes, each a list of points that the pen passes
through. Between the points it moves along a smooth curve (see `pen`), so a corner is written as
the end of one stroke and the beginning of the next in the same point.

Strokes are written here as text, "x,y x,y ... | x,y ...", in hundredths of the digit's height: x
grows to the right, y downwards. `share` says how often people write a digit this way.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Glyph:
    """One way to write a digit: its strokes (points in digit heights), and how common it is."""

    name: str
    share: float
    strokes: tuple[tuple[Point, ...], ...]


def _glyph(name: str, share: float, strokes: str) -> Glyph:
    return Glyph(name, share, tuple(_points(stroke) for stroke in strokes.split("|")))


def _points(stroke: str) -> tuple[Point, ...]:
    pairs = (pair.split(",") for pair in stroke.split())
    return tuple((int(x) / 100, int(y) / 100) for x, y in pairs)


# fmt: off
ZERO = (
    _glyph("closed oval", 5, "42,1 17,15 6,50 17,86 41,99 65,86 76,50 66,15 42,1"),
    _glyph("crossing at the top", 3,
           "60,10 38,1 14,20 5,54 16,87 40,99 64,84 73,48 62,16 40,2 30,6"),
    _glyph("narrow", 2, "34,0 20,12 13,48 18,86 32,99 47,87 54,50 48,13 34,0"),
    _glyph("round", 2, "45,2 15,14 2,48 14,83 46,97 79,84 92,50 78,15 45,2"),
    _glyph("tail that overshoots", 2,
           "28,14 11,36 7,64 20,91 44,98 67,82 75,48 62,14 38,3 22,14 18,30"),
    _glyph("inner hook", 2, "52,18 30,8 10,34 6,64 22,95 48,97 70,76 74,40 58,10 40,4 42,20"),
)
ONE = (
    _glyph("plain", 20, "30,0 31,34 30,68 30,100"),
    _glyph("bowed", 7, "36,0 31,32 28,66 29,100"),
    _glyph("flag", 2, "12,24 24,14 34,0 | 34,0 34,50 33,100"),
    _glyph("flag and base", 1, "10,22 22,14 34,1 | 34,1 34,50 34,98 | 6,99 34,98 62,97"),
)
TWO = (
    _glyph("flat base", 5, "6,22 22,5 46,1 66,14 66,36 48,62 24,82 2,97 | 2,97 36,95 76,97"),
    _glyph("loop in the corner", 5,
           "10,20 28,3 54,6 64,26 54,52 34,76 14,95 1,92 6,78 24,78 46,91 66,98 84,88"),
    _glyph("long wavy base", 3,
           "12,16 34,1 58,6 62,26 48,52 28,74 6,93 | 6,93 22,83 42,88 64,98 86,92"),
    _glyph("like a Z", 2, "8,12 30,4 58,5 62,16 46,42 26,70 4,96 | 4,96 36,92 74,93"),
    _glyph("swan", 2, "4,30 12,10 36,1 60,12 62,38 46,66 24,90 10,99 20,93 44,93 72,96"),
    _glyph("big loop below", 3,
           "6,22 22,4 48,3 64,22 60,48 46,76 24,96 4,90 6,70 26,64 48,78 80,98"),
    _glyph("flat foot", 2, "8,18 28,2 54,6 60,26 44,50 20,70 2,88 | 2,88 30,84 90,80"),
)
THREE = (
    _glyph("two bows", 6,
           "8,14 26,1 52,5 60,22 46,38 26,45 | 26,45 50,50 66,68 58,90 30,99 4,88"),
    _glyph("flat top", 3,
           "10,6 34,4 62,3 | 62,3 46,24 28,42 | 28,42 54,48 67,70 52,94 24,99 2,89"),
    _glyph("small loop in the middle", 3,
           "10,12 30,1 54,7 56,26 40,43 25,50 22,44 34,43 54,54 62,74 48,95 22,98 2,86"),
    _glyph("hooked ends", 3,
           "6,24 14,6 38,0 58,12 54,32 32,45 | 32,45 58,52 68,74 50,96 22,97 6,80"),
    _glyph("one sweep", 2, "6,8 32,2 58,10 54,30 36,46 50,54 60,70 46,92 20,100 0,94"),
)
FOUR = (
    _glyph("open", 5, "10,4 6,26 5,50 | 5,50 28,54 66,50 | 60,0 56,40 52,100"),
    _glyph("open, rounded", 5, "14,2 6,26 6,46 22,54 44,48 60,38 | 66,0 58,40 50,100"),
    _glyph("closed", 3, "54,0 28,30 2,62 | 2,62 36,64 76,60 | 54,0 52,44 50,100"),
    _glyph("one line", 3, "16,6 6,30 10,48 32,46 52,26 60,6 | 60,6 56,30 48,64 42,100"),
    _glyph("long bar", 3, "22,2 12,28 2,54 | 2,54 36,52 80,46 | 52,18 46,54 42,100"),
    _glyph("square", 4, "8,8 4,34 8,60 | 8,60 38,60 72,53 | 66,2 62,50 61,100"),
)
FIVE = (
    _glyph("separate bar", 5,
           "18,4 15,22 11,42 | 11,42 36,36 60,50 62,76 40,96 4,94 | 18,4 42,5 70,1"),
    _glyph("one line", 5, "74,3 50,3 28,8 18,24 20,42 42,50 58,66 52,88 28,99 2,92"),
    _glyph("big belly", 3, "22,3 14,40 | 14,40 46,32 72,52 68,82 38,99 8,86 | 22,3 46,3 66,4"),
    _glyph("like an S", 3, "66,0 40,8 22,22 22,40 40,52 48,72 34,93 10,98 0,84"),
    _glyph("detached bar", 2, "20,10 12,40 34,40 56,56 54,82 30,98 4,90 | 28,8 50,6 78,0"),
    _glyph("rising bar", 4,
           "24,16 18,28 12,42 | 12,42 34,42 48,58 44,82 22,98 0,92 | 24,16 52,10 86,0"),
)
SIX = (
    _glyph("curved stem", 6, "50,0 28,18 12,46 8,76 24,98 48,94 60,74 50,56 28,60 11,80"),
    _glyph("straight stem", 4, "30,0 16,32 7,66 16,93 38,99 58,84 54,62 34,55 14,70"),
    _glyph("big loop", 3, "44,1 20,22 6,52 10,86 36,99 66,88 74,64 54,46 28,52 14,70"),
    _glyph("open loop", 2, "56,2 30,12 10,40 6,74 22,97 48,92 58,70 44,56 28,64"),
    _glyph("hanging loop", 3, "16,4 6,34 6,72 20,97 46,98 64,80 56,60 34,60 18,78"),
)
SEVEN = (
    _glyph("plain", 6, "2,12 30,7 64,6 | 64,6 50,36 38,66 28,100"),
    _glyph("curved", 4, "2,16 22,5 46,3 62,12 54,40 40,68 32,100"),
    _glyph("hook on the left", 3, "2,28 8,6 | 8,6 36,8 66,3 | 66,3 52,38 44,70 40,100"),
    _glyph("with a bar", 3, "4,10 32,7 66,4 | 66,4 50,40 40,70 32,100 | 18,52 42,49 70,47"),
    _glyph("upright", 3, "4,6 28,10 54,4 | 54,4 52,36 50,68 50,100"),
    _glyph("round head with a bar", 2,
           "4,22 16,6 42,4 60,10 54,38 42,68 32,100 | 16,56 40,54 66,48"),
)
EIGHT = (
    _glyph("figure of eight", 6,
           "58,12 38,1 16,12 18,32 38,48 58,68 56,90 32,99 10,86 16,66 38,46 58,28 58,12"),
    _glyph("open at the top", 4,
           "62,16 46,3 22,6 14,24 32,42 54,60 58,84 38,99 14,90 14,72 34,50 54,30 68,4"),
    _glyph("two rings", 3,
           "34,46 14,34 14,12 34,1 54,12 54,34 34,46 | 34,46 10,60 8,84 32,99 60,86 60,60 "
           "34,46"),
    _glyph("narrow, crossing high", 3,
           "50,6 30,4 22,20 36,38 46,60 44,86 26,99 12,88 16,66 36,38 54,18 48,4"),
    _glyph("rising end", 4,
           "60,24 42,8 20,14 22,34 40,50 50,72 38,97 14,94 12,74 32,54 56,32 80,6"),
)
NINE = (
    _glyph("straight stem", 6,
           "56,10 36,1 14,12 8,34 24,47 44,36 56,10 | 57,8 54,40 48,70 42,100"),
    _glyph("one line", 5, "52,18 40,3 18,8 6,28 16,44 36,40 52,20 56,12 52,44 42,72 34,100"),
    _glyph("hooked tail", 2,
           "58,12 38,1 14,12 10,34 28,46 50,34 58,12 | 58,10 58,46 54,80 36,99 10,92"),
    _glyph("swept tail", 4, "60,14 46,1 20,8 10,30 26,44 50,30 62,8 54,44 34,76 12,100"),
    _glyph("open top", 2, "50,2 24,6 8,28 18,46 42,40 60,22 | 62,4 56,40 50,70 46,100"),
    _glyph("wide ring", 3, "58,16 32,4 6,16 4,38 28,46 52,32 60,12 | 60,12 60,40 58,72 58,100"),
)
# fmt: on

GLYPHS = (ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE)
