"""Defences: wrappers around a victim that act when it is asked; one registry line each, group "bench.defences"."""
