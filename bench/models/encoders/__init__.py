"""CLIP encoders: catalogue, loading, formats, conversion."""
