"""The operations under test, by family."""

from opspec import OpSpec

from specs import (
    activation,
    attention,
    conv,
    elementwise,
    index,
    linear,
    loss,
    norm,
    pool,
    reduce,
    resample,
    sample,
    shape,
)

FAMILIES = [
    *(elementwise, reduce, shape, linear, index),
    *(conv, norm, activation, loss, attention),
    *(resample, pool, sample),
]
ALL: list[OpSpec] = [spec for family in FAMILIES for spec in family.SPECS]
