"""One flat face over the operations: `import minigan.functional as F`."""

from minigan.ops.dropout import dropout, dropout1d, dropout2d, dropout3d
from minigan.ops.elementwise import (
    abs,
    add,
    cast,
    clamp,
    cos,
    div,
    exp,
    expm1,
    lerp,
    log,
    log1p,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    rsqrt,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from minigan.ops.indexing import embedding, gather, one_hot
from minigan.ops.linear import linear, matmul
from minigan.ops.pad import pad
from minigan.ops.pool import (
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from minigan.ops.reduce import argmax, cumsum, max, mean, min, norm, std, sum, var
from minigan.ops.resample import interpolate
from minigan.ops.sample import affine_grid, grid_sample
from minigan.ops.shape import (
    broadcast_to,
    cat,
    chunk,
    concat,
    crop,
    flatten,
    flip,
    index,
    index_put,
    pad_zeros,
    permute,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    unsqueeze,
)
from minigan.ops.shuffle import minibatch_stddev, pixel_shuffle, pixel_unshuffle
from minigan.ops.upfirdn import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
