"""LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744) around any CLIP encoder, from checkpoints in transformers' format."""

ORIGINAL = ("llava_llama", "llava_mistral", "llava_mpt")
"""Model types of the authors' own code, whose checkpoints must be converted."""
