"""Networks: modules, layers and their first values. Names and defaults follow torch.nn."""

from minigan.nn import init
from minigan.nn.activation import (
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from minigan.nn.conditional import SPADE, AdaIN, ConditionalBatchNorm2d
from minigan.nn.containers import ModuleDict, ModuleList, Sequential
from minigan.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from minigan.nn.equalized import equalized
from minigan.nn.linear import Embedding, Linear, Weighted
from minigan.nn.module import Buffer, Module, Parameter, observe
from minigan.nn.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    PixelNorm,
)
from minigan.nn.shape import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Dropout,
    Dropout2d,
    Flatten,
    Identity,
    MaxPool2d,
    MinibatchStdDev,
    PixelShuffle,
    PixelUnshuffle,
    ReflectionPad2d,
    ReplicationPad2d,
    Reshape,
    Unflatten,
    Upsample,
    ZeroPad2d,
)
from minigan.nn.spectral import SpectralNorm, remove_spectral_norm, spectral_norm
from minigan.nn.state import from_torch
