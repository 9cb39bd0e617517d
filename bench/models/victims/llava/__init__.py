"""LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744) around any CLIP encoder, from checkpoints in transformers' format."""
