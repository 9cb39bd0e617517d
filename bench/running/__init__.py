"""Carrying out runs: load, attack batch by batch, certify, record."""
