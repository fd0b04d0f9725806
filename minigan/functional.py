"""One flat face over the operations: `import minigan.functional as F`."""

from minigan.ops.activation import (
    bias_act,
    elu,
    gelu,
    leaky_relu,
    log_sigmoid,
    maxout,
    prelu,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
)
from minigan.ops.arithmetic import (
    add,
    cast,
    div,
    mul,
    neg,
    sub,
)
from minigan.ops.attention import scaled_dot_product_attention
from minigan.ops.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from minigan.ops.dropout import dropout, dropout1d, dropout2d, dropout3d
from minigan.ops.elementwise import (
    abs,
    clamp,
    cos,
    exp,
    expm1,
    lerp,
    log,
    log1p,
    maximum,
    minimum,
    pow,
    rsqrt,
    sign,
    sin,
    sqrt,
    square,
    tanh,
    where,
)
from minigan.ops.indexing import embedding, gather, index_put, one_hot
from minigan.ops.linear import linear, matmul
from minigan.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge_loss,
    huber_loss,
    kl_normal,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    softplus_loss,
)
from minigan.ops.modulate import adain, conditional_batch_norm, spade
from minigan.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm
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
from minigan.ops.softmax import log_softmax, logsumexp, softmax
from minigan.ops.upfirdn import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
