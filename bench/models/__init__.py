"""Encoders and vision-language models: the catalogue, loading, and the adapters the tasks see."""
