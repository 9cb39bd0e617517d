"""Metrics: pure functions from text to a number, no torch."""

from tasks.metrics.cider import Cider
from tasks.metrics.contains import contains_target
from tasks.metrics.vqa_accuracy import normalise, vqa_accuracy

__all__ = ["Cider", "contains_target", "normalise", "vqa_accuracy"]
