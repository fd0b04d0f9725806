"""Weights on disk: the checked safetensors container, atomic files, and published weights."""

from minigan.weights.container import load_file as load_file
from minigan.weights.container import read_header as read_header
from minigan.weights.container import save_file as save_file
from minigan.weights.names import detect as detect
from minigan.weights.names import rename as rename
from minigan.weights.pth import load_pth as load_pth
from minigan.weights.published import convert as convert
from minigan.weights.published import load as load
