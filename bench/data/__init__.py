"""Datasets: readers of the official file formats, decoding of images, export of the embedded sets."""
