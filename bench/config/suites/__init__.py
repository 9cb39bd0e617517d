"""Suites as data: named encoders, models, datasets, threat models and sample counts."""
