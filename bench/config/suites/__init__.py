"""Suites as data: named encoders, models, data sets, threat models and sample counts."""
