"""OpenFlamingo v2 (Awadalla et al. 2023, arXiv 2308.01390) around any CLIP encoder, from the released checkpoints."""
