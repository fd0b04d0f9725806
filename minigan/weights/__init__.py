"""Weights on disk: the checked safetensors container and atomic files."""

from minigan.weights.container import load_file as load_file
from minigan.weights.container import read_header as read_header
from minigan.weights.container import save_file as save_file
