"""A static HTML report of runs: tables, curves, gallery, every number a link to its records. Needs no network."""
