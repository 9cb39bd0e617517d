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
        half_verdicts: what a model in half precision says is final; otherwise every success of an attack in half
            precision is asked again in float32, and every failure is attacked again in float32.
        asks_at_checkpoints: attacks of the kind "apgd-confirm" end as soon as the model is seen to be broken at a
            checkpoint of APGD, not only after all steps.
        first_checkpoint: what APGD compares the loss after its first step with: see `attacks.apgd.apgd`.
        stops_at_answers: an attack on a question ends once no answer that counts can follow, not only after all steps.
        cumulative_radii: a sample is left with the worst of this radius and all smaller ones, and one that a smaller
            radius broke is attacked no more; otherwise each radius is attacked and scored by itself.
        shortcuts: steps that only save later ones work are taken: see `attacks.presets.AttackStep.shortcut`.
        published_attacks: where a preset has published steps, they are taken: see `attacks.presets.Preset.published`.
        target_ends: an attack towards a text wants the answer to end with it, on a model whose loss knows the end.
        yes_no: how an answer is read as yes or no: a name of `tasks.metrics.yes_no.RULES`.
        letter: how an answer is read as an option: a name of `tasks.scienceqa.RULES`.
    """

    name: str
    upright: bool
    rounded_scores: bool
    most_periods: int | None
    half_verdicts: bool
    asks_at_checkpoints: bool
    first_checkpoint: str
    stops_at_answers: bool
    cumulative_radii: bool
    shortcuts: bool
    published_attacks: bool
    target_ends: bool
    yes_no: str
    letter: str


STRICT = Protocol(
    "strict",
    upright=True,
    rounded_scores=False,
    most_periods=None,
    half_verdicts=False,
    asks_at_checkpoints=True,
    first_checkpoint="start",
    stops_at_answers=True,
    cumulative_radii=True,
    shortcuts=True,
    published_attacks=False,
    target_ends=False,
    yes_no="first-word",
    letter="stated",
)
"""Our default: no answer in half precision counts, images as people see them."""

PAPER = Protocol(
    "paper",
    upright=False,
    rounded_scores=True,
    most_periods=32,
    half_verdicts=True,
    asks_at_checkpoints=False,
    first_checkpoint="reference",
    stops_at_answers=False,
    cumulative_radii=False,
    shortcuts=False,
    published_attacks=True,
    target_ends=True,
    yes_no="anything-but-no",
    letter="published",
)
"""The choices of the released code of Schlarmann et al. 2024 (arXiv 2402.12336) that move numbers.

Not followed even here: images may not leave the ball by rounding (there, half-precision images reach 4.046/255), random
draws are seeded, and samples are joined by id. A targeted attack on a text ends once greedy decoding says the text.
"""

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (STRICT, PAPER)}

ASCENDING, DESCENDING, ADAPTIVE = "ascending", "descending", "adaptive"
RADII_ORDERS = (ASCENDING, DESCENDING, ADAPTIVE)
"""In which order the radii of a run are attacked where they are not counted each by itself.

Descending, a sample that an attack leaves as it was at one radius is not attacked at smaller ones: see
`bench.records.inferred`. Adaptive is one of the two, as the first samples tell: see `bench.running.radii`.
"""


def default_radii_order(task: str) -> str:
    """Of a run that is not asked for one: of captions nothing is spared, since an attack nearly always lowers CIDEr."""
    return ASCENDING if task == "captioning" else ADAPTIVE


SEARCH_PRECISION: Mapping[tuple[str, str], str] = {("paper", "captioning"): "fp16", ("paper", "vqa"): "fp16"}
"""Of attacks by (protocol, task), where it is not float32 and none is asked for.

The released code has its ensembles in fp16 in rounds 1 to 6 and in float32 after; targeted attacks and zero-shot
classification are in float32.
"""
