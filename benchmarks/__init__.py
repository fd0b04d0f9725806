"""Measurements against PyTorch, side by side in one process: `python -m benchmarks --help`."""
