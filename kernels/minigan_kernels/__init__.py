"""Array kernels behind minigan: arrays in, arrays out; no graph, no Tensor.

`reference` defines every kernel, `cpu` computes the same functions fast. One signature table for
all devices stands in kernels/README.md.
"""
