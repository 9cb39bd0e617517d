"""The two protocols, choice by choice: each of them moves numbers, so that none may change unseen."""

from dataclasses import asdict

from tasks.protocol import PAPER, PROTOCOLS, SEARCH_PRECISION, STRICT

CHOICES = {  # strict, paper
    "name": ("strict", "paper"),
    "upright": (True, False),
    "rounded_scores": (False, True),
    "most_periods": (None, 32),
    "half_verdicts": (False, True),
    "asks_at_checkpoints": (True, False),
    "first_checkpoint": ("start", "reference"),
    "stops_at_answers": (True, False),
    "cumulative_radii": (True, False),
    "shortcuts": (True, False),
    "published_attacks": (False, True),
    "target_ends": (False, True),
    "yes_no": ("first-word", "anything-but-no"),
    "letter": ("stated", "published"),
}


def test_each_protocol_chooses_what_it_is_documented_to_choose():
    assert asdict(STRICT) == {name: strict for name, (strict, _) in CHOICES.items()}
    assert asdict(PAPER) == {name: paper for name, (_, paper) in CHOICES.items()}
    assert PROTOCOLS == {"strict": STRICT, "paper": PAPER}


def test_only_the_papers_ensembles_are_in_half_precision():
    assert SEARCH_PRECISION == {("paper", "captioning"): "fp16", ("paper", "vqa"): "fp16"}
