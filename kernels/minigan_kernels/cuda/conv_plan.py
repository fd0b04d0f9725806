"""Which kernel computes a convolution: the instances there are, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.cuda.conv_taps import PHASES, TAPS, Geometry
from minigan_kernels.cuda.sources import Source

SMS = 132  # multiprocessors of an H200: a constant, so that sums are the same on every GPU
EDGE = 32  # multiply-adds in the time in which a number of a tile is fetched
START = 64  # terms in the time in which a block starts and stores
SHORTEST = 256  # terms of a part that is worth a pass over its results
PARAMS = np.dtype(
    [
        *((name, "i4") for name in ("N", "C", "K", "groups", "D", "H", "W", "OD", "OH", "OW")),
        ("in_step", "i4", 3),
        ("out_step", "i4", 3),
        *((name, "i4") for name in ("weight_taps", "phases", "splits")),
        ("phase", "i4", (PHASES, 8)),
        ("tap", "i4", (TAPS, 4)),
    ]
)  # mg::Conv


@dataclass(frozen=True)
class Tile:
    """An instance of a kernel, whose blocks compute rows (positions) x columns (channels)."""

    source: Source
    instance: str
    rows: int
    columns: int
    depth: int  # a multiple of it is summed for each tap
    threads: int
    shared: int  # bytes


def _simt(kind: str, bm: int, bn: int, tm: int, tn: int) -> Tile:
    name, depth = f"conv_simt<{kind}, {bm}, {bn}, 8, {tm}, {tn}>", 8
    size = 4 if kind == "float" else 8
    shared = 2 * depth * (bm + 4 + bn + 4) * size
    return Tile(PLAIN, name, bm, bn, 1, bm // tm * (bn // tn), shared)


def _tf32(shape: tuple[int, ...], flat: bool = False) -> Tile:
    bm, bn, bk, wm, wn, stages, _ = shape
    threads = 32 * (bm // wm) * (bn // wn)
    shared = stages * (bm + bn) * bk * 4
    return Tile(TENSOR, _tf32_name(shape, flat), bm, bn, 1 if flat else bk, threads, shared)


def _tf32_name(shape: tuple[int, ...], flat: bool) -> str:
    return f"conv_tf32<{_text(shape)}, {str(flat).lower()}>"


def _wgmma(groups: int, bn: int, stages: int) -> Tile:
    name, bm = f"conv_wgmma<{groups}, {bn}, {stages}>", groups * 64
    return Tile(WARPGROUP, name, bm, bn, 32, groups * 128, stages * (bm + bn) * 128 + 1024)


_SIMT_SHAPES = {
    "float": ((128, 64, 8, 4), (64, 64, 4, 4), (128, 16, 4, 2)),
    "double": ((64, 64, 4, 4), (128, 16, 4, 2)),
}
# In wide tiles a number that was fetched is used more often, small ones leave less of the GPU idle;
# the last of each is for few channels.
_TF32_SHAPES = (
    (128, 128, 32, 64, 32, 3, 1),
    (128, 64, 32, 32, 32, 3, 1),
    (64, 64, 32, 32, 32, 4, 1),
    (128, 32, 16, 32, 32, 4, 1),
)
# Three products need twice the accumulators: tiles half as deep leave registers for them.
_FP32_SHAPES = (
    (128, 128, 16, 64, 32, 4, 3),
    (128, 64, 16, 32, 32, 4, 3),
    (64, 64, 16, 32, 32, 4, 3),
    (128, 32, 16, 32, 32, 4, 3),
)
_FLAT_SHAPE = _FP32_SHAPES[1]
_WGMMA_SHAPES = ((2, 256, 4), (2, 128, 4), (2, 64, 4))


def _text(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


PLAIN = Source(
    "conv.cu",
    (
        *(
            f"conv_simt<{t}, {m}, {n}, 8, {a}, {b}>"
            for t, shapes in _SIMT_SHAPES.items()
            for m, n, a, b in shapes
        ),
        *(f"{f}<{t}>" for f in ("conv_direct", "pack_weight", "sum_parts") for t in _SIMT_SHAPES),
    ),
)
TENSOR = Source(
    "conv_tf32.cu",
    (
        *(_tf32_name(shape, False) for shape in _TF32_SHAPES + _FP32_SHAPES),
        _tf32_name(_FLAT_SHAPE, True),
    ),
    apart=True,
    contains=("HMMA", "LDSM", "LDGSTS"),
)
WARPGROUP = Source(
    "conv_wgmma.cu",
    tuple(f"conv_wgmma<{_text(shape)}>" for shape in _WGMMA_SHAPES),
    apart=True,
    architectures=("sm_90a",),
    contains=("HGMMA", "LDGSTS"),
)
THIN = Source("conv_thin.cu", ("add_taps<float>", "add_taps<double>"))

SIMT = {kind: tuple(_simt(kind, *s) for s in shapes) for kind, shapes in _SIMT_SHAPES.items()}
TF32 = tuple(map(_tf32, _TF32_SHAPES))
FP32 = tuple(map(_tf32, _FP32_SHAPES))
FLAT = _tf32(_FLAT_SHAPE, flat=True)
WGMMA = tuple(_wgmma(*s) for s in _WGMMA_SHAPES)


def candidates(kind: str, precision: str, architecture: str, c: int, k: int) -> tuple[Tile, ...]:
    """Kernels for c input and k output channels of a group."""
    if kind == "double":
        return SIMT[kind]
    if c < 8:  # the first layers wait for memory: float32 accuracy costs nothing more
        return (FLAT,) if k > 16 else SIMT[kind]
    if precision != "tf32":
        return FP32
    return WGMMA if architecture == "sm_90a" and c >= 32 and k > 32 else TF32


def choose(
    tiles: Sequence[Tile], positions: int, planes: int, k: int, taps: int, c: int
) -> tuple[Tile, int]:
    """The fastest tile, and in how many parts its sums of taps x c products are cut.

    A multiprocessor spends on one term of a tile's sums its area, and more for fetching its edges;
    all work on rounds of one tile each. Sums are cut where there are not enough tiles for a round.
    `planes` counts the phases and groups.
    """

    def cost(tile: Tile) -> tuple[float, int]:
        blocks = -(-positions // tile.rows) * -(-k // tile.columns) * planes
        terms = taps * -(-c // tile.depth) * tile.depth
        splits = max(1, min(SMS // max(1, blocks), terms // SHORTEST))
        rounds = -(-blocks * splits // SMS)
        one = tile.rows * tile.columns + EDGE * (tile.rows + tile.columns)
        return rounds * one * (terms / splits + (START if splits == 1 else SHORTEST)), splits

    costs = [cost(tile) for tile in tiles]
    best = min(range(len(tiles)), key=lambda i: costs[i][0])
    return tiles[best], costs[best][1]


@dataclass(frozen=True, eq=False)
class Job:
    """A layer ready for launch, but for its arrays."""

    tile: Tile
    splits: int
    grid: tuple[int, ...]
    params: Any  # mg::Conv


@lru_cache(maxsize=4096)
def job(
    geometry: Geometry, n: int, c: int, k: int, groups: int, kind: str, precision: str, arch: str
) -> Job:
    """How to compute a layer with n images, c input and k output channels per group."""
    tiles = candidates(kind, precision, arch, c, k)
    positions, phases = n * geometry.positions, len(geometry.phases)
    tile, splits = choose(tiles, positions, phases * groups, k, geometry.most_taps, c)
    rows, columns = -(-positions // tile.rows), -(-k // tile.columns)
    blocks = rows * phases * groups * splits * columns
    return Job(tile, splits, (blocks,), params(geometry, n, c, k, groups, splits))


@lru_cache(maxsize=4096)
def params(geometry: Geometry, n: int, c: int, k: int, groups: int, splits: int = 1) -> Any:
    """The structure mg::Conv."""
    p = np.zeros((), PARAMS)
    sizes = (n, c, k, groups, *geometry.spatial, *geometry.out)
    for name, value in zip(PARAMS.names or (), sizes, strict=False):
        p[name] = value
    p["in_step"], p["out_step"] = geometry.in_step, geometry.out_step
    p["weight_taps"], p["phases"] = geometry.weight_taps, len(geometry.phases)
    p["splits"] = splits
    if geometry.by_value:
        p["phase"][: len(geometry.phases)] = geometry.phases
        p["tap"][: len(geometry.taps)] = geometry.taps
    return p[()]
