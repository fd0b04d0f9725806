"""Training: the loop, checkpoints, the run folder, progress, previews, report."""
