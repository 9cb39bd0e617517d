"""Data sets: readers of the official file formats, the decoding of images, and the export of the embedded sets."""
