"""A GPU for machines without one: our CUDA sources run on the CPU, strictly (tests only)."""
