"""Training: a resumable loop, and the FARE and TeCoA fine-tuning built on it."""
