"""Robustness benchmarks for CLIP encoders and the vision-language models built on them."""
