"""Scores of texts: pure functions from text to a number, without torch."""

from tasks.metrics.cider import Cider
from tasks.metrics.contains import contains_target
from tasks.metrics.ptb import tokenize
from tasks.metrics.vqa_accuracy import exact_match, normalise, vqa_accuracy

__all__ = ["Cider", "contains_target", "exact_match", "normalise", "tokenize", "vqa_accuracy"]
