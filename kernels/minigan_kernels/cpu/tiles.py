"""From microkernels to panels: any number of rows and columns, packed or not.

A panel is some 32 columns of a matrix B, its rows one after the other, so that the microkernel
reads a single stream:

    panels[p, k, :] = B[k, 32 p : 32 p + 32]

What is packed may be a transpose: then tiles of 16 x 16 numbers are turned on the way.
"""

from __future__ import annotations

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST, VECTORS, tile
from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    load,
    load_f32,
    load_part,
    store,
    store_f32,
    store_part,
    transpose,
)

_tall, _eight, _four, _two, _one = (tile(h, VECTORS) for h in (TALLEST, min(8, TALLEST), 4, 2, 1))
_tall1, _four1, _one1 = (tile(h, 1) for h in (TALLEST, 4, 1))


@part
def tiles(width, rows, A, a_row, a_k, K, S, a_s, B, b_k, C, c_row, add):  # type: ignore[no-untyped-def]
    """Any number of rows times `width` vectors of B: microkernels, the tallest first."""
    i = 0
    if width == VECTORS:
        while i + TALLEST <= rows:
            _tall(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
            i += TALLEST
        if i + 8 <= rows:
            _eight(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
            i += 8
        if i + 4 <= rows:
            _four(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
            i += 4
        if i + 2 <= rows:
            _two(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
            i += 2
        if i < rows:
            _one(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
        return
    while i + TALLEST <= rows:
        _tall1(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
        i += TALLEST
    while i + 4 <= rows:
        _four1(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
        i += 4
    while i < rows:
        _one1(A + i * a_row, a_row, a_k, K, S, a_s, B, b_k, C + i * c_row, c_row, add)
        i += 1


@part
def times_panel(n, rows, A, a_row, a_k, K, S, a_s, B, C, c_row, edge, add):  # type: ignore[no-untyped-def]
    """Any number of rows times a panel of which n columns count.

    Tiles write whole vectors: where the columns end inside of one, they write to `edge`.
    """
    width = (n + LANES - 1) // LANES
    target, target_row = C, c_row
    if n % LANES:
        target, target_row = edge, PANEL_BYTES
        if add:
            copy_rows(C, c_row, rows, n, edge, PANEL_BYTES)
    tiles(width, rows, A, a_row, a_k, K, S, a_s, B, PANEL_BYTES, target, target_row, add)
    if n % LANES:
        copy_rows(edge, PANEL_BYTES, rows, n, C, c_row)


@part
def copy_rows(source, source_row, rows, columns, target, target_row):  # type: ignore[no-untyped-def]
    """Copy a matrix whose rows are contiguous."""
    for i in range(rows):
        s, t = source + i * source_row, target + i * target_row
        j = 0
        while j + LANES <= columns:
            store(t + 4 * j, load(s + 4 * j))
            j += LANES
        if j < columns:
            store_part(t + 4 * j, load_part(s + 4 * j, columns - j), columns - j)


@part
def pack_panels(b, b_k, b_column, k, n, panels, panel_bytes):  # type: ignore[no-untyped-def]
    """Pack k rows and n columns; `panel_bytes` from one panel to the next."""
    if b_column == 4:
        for i in range(k):
            row, target = b + i * b_k, panels + i * PANEL_BYTES
            for j in range(0, n // PANEL * PANEL, PANEL):
                for v in range(0, PANEL_BYTES, BYTES):
                    store(target + v, load(row + 4 * j + v))
                target += panel_bytes
            j = n // PANEL * PANEL
            copy_rows(row + 4 * j, 0, 1, n - j, target, 0)
        return
    for j in range(0, n, LANES):
        column = panels + j // PANEL * panel_bytes + j % PANEL * 4
        count = min(LANES, n - j)
        whole = k // LANES * LANES if count == LANES else 0
        for i in range(0, whole, LANES):
            transpose(b + j * b_column + 4 * i, b_column, column + i * PANEL_BYTES, PANEL_BYTES)
        for i in range(whole, k):
            for jj in range(count):
                number = load_f32(b + (j + jj) * b_column + i * b_k)
                store_f32(column + i * PANEL_BYTES + 4 * jj, number)
