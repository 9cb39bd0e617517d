"""Datasets: one reader a format, decoding of images, what a run scores."""
