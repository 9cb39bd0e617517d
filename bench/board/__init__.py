"""The public board: entries packed from runs, checked against their evidence, and shown as static pages."""
