"""Protocols: choices beside the attack that move a number, named and stored with every result. Never imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One way of counting. Results of different protocols never stand in one table.

    Attributes:
        upright: images are turned as their EXIF orientation says.
        rounded_scores: the VQA accuracy of a question is rounded to two decimals.
        most_periods: how many periods the VQA normalisation deletes from one answer; None for all of them.
        half_verdicts: what a model in half precision says is final; otherwise every success of a search in half
            precision is judged again in float32, and every failure is searched again in float32.
        asks_at_checkpoints: attacks of the kind "apgd-confirm" end as soon as the model is seen to be broken at a
            checkpoint of APGD, not only after all steps.
        first_checkpoint: what APGD compares the loss after its first step with: see `attacks.apgd.apgd`.
        yes_no: how an answer is read as yes or no: a name of `tasks.pope.RULES`.
        letter: how an answer is read as an option: a name of `tasks.scienceqa.RULES`.
    """

    name: str
    upright: bool
    rounded_scores: bool
    most_periods: int | None
    half_verdicts: bool
    asks_at_checkpoints: bool
    first_checkpoint: str
    yes_no: str
    letter: str


STRICT = Protocol("strict", upright=True, rounded_scores=False, most_periods=None, half_verdicts=False,
                  asks_at_checkpoints=True, first_checkpoint="start", yes_no="first-word", letter="stated")  # fmt: skip
"""Our default: no verdict in half precision, images as people see them."""

PAPER = Protocol("paper", upright=False, rounded_scores=True, most_periods=32, half_verdicts=True,
                 asks_at_checkpoints=False, first_checkpoint="reference", yes_no="anything-but-no",
                 letter="published")  # fmt: skip
"""The choices of the released code of Schlarmann et al. 2024 (arXiv 2402.12336) that move numbers.

Not followed even here: images may not leave the ball by rounding (there, half-precision images reach 4.046/255), random
draws are seeded, and samples are joined by id.
"""

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (STRICT, PAPER)}
