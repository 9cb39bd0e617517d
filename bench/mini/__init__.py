"""The embedded suite: a procedural world, the miniature models trained on it, and the recipes that make them."""
