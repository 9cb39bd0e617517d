"""Attack schedules as data. This module imports nothing heavy, so that listing presets is instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class AttackStep:
    """One attack on the samples that are still robust.

    Attributes:
        name: unique within its preset; recorded, and part of the seed of a random start.
        kind: which attack: a name of the group "bench.attack_kinds", built in or of a plugin.
        steps: gradient steps; for "square", queries of the model.
        goal: what the attacker wants, read by the task only. "best" is the goal of the worst result so far,
            `EMBEDDING` needs no task: away from what the encoder says of the clean image.
        start: the clean image, a random image of the ball, or the image of the worst result so far.
        first_step: step size in units of eps; constant for "pgd", the first one for "apgd".
        precision: "search" follows the search precision of the run, "float32" is always that.
        volley: steps in a row with the same word here are taken side by side, in one batch; a sample that one of
            them breaks leaves them all.
        shortcut: the step only saves later ones work, and a protocol may leave it out.
        through: what of a defended victim the attack looks at: see `attacks.adaptive.WAYS`; "" is the victim as it is.
        independent: the step is taken also on samples that only steps with another `through` have broken, so that
            ways to look at a victim can be compared.
        options: settings that the kind understands, such as momentum, restarts or loss; see `attacks.kinds`.
    """

    name: str
    kind: str
    steps: int
    goal: str
    start: Literal["clean", "random", "best"]
    first_step: float
    precision: Literal["search", "float32"] = "search"
    volley: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shortcut: bool = False
    through: str = ""
    independent: bool = False

    def as_data(self) -> dict[str, Any]:
        """What a step does, as JSON data for the record; options and defences only where there are any."""
        data = asdict(self)
        unset = {name for name in ("options", "through", "independent") if not data[name]}
        return {key: value for key, value in data.items() if key != "shortcut" and key not in unset}


@dataclass(frozen=True)
class Preset:
    """A named schedule: one line for humans, and its steps in order.

    Attributes:
        published: the steps of the publication that the attack is from, where they are others; taken under a protocol
            that follows it.
    """

    description: str
    steps: tuple[AttackStep, ...]
    published: tuple[AttackStep, ...] = ()


# Goals on which no task decides: away from what an encoder makes of the clean image, or towards a target's image, its
# text, or answers that mean that text.
EMBEDDING, PATCH_TOKENS, POOLED = "embedding", "patch-tokens", "pooled"
TARGET_IMAGE, TARGET_TEXT, TARGET_SAID = "target-image", "target-text", "target-said"
BROUGHT = "brought"
TASKLESS = (EMBEDDING, PATCH_TOKENS, POOLED, TARGET_IMAGE, TARGET_TEXT, TARGET_SAID, BROUGHT)
OWN_WORDS = "own-words"  # towards the target behind the beginning of what the model says of the clean image
TARGET_CLASSES = 9  # the strongest rivals, as in APGD-T of AutoAttack (Croce & Hein 2020, arXiv 2003.01690)
SQUARE_QUERIES = 5000  # as in AutoAttack
PAPER_RESTARTS = 5  # of APGD on cross-entropy in the zero-shot evaluation of arXiv 2402.12336; AutoAttack has one
OPTIONS = 5  # that a question of ScienceQA may have
REFERENCES = 5  # captions an image has in COCO and Flickr30k; answers taken of a question

# Attacks on vision-language models follow Schlarmann et al. 2024 (arXiv 2402.12336), section 4 and appendix:
# 100 steps (10000 for targeted attacks), first step eps. A search precision other than float32 holds for the rounds
# that the paper has in half precision; the later rounds are in single precision always.
_REFERENCE_STEPS = tuple(
    AttackStep(f"reference-{n}", "apgd", 100, f"reference-{n}", "clean", 1.0) for n in range(REFERENCES)
)
_AGAIN = AttackStep("again", "apgd", 100, "best", "best", 1.0, precision="float32")
# No loss tells that a caption is worth nothing; generating at the checkpoints does.
_CAPTION_STEPS = tuple(replace(step, kind="apgd-confirm") for step in (*_REFERENCE_STEPS, _AGAIN))
_APGD_CE = AttackStep("apgd-ce", "apgd", 100, "untargeted", "random", 2.0)
_APGD_T = tuple(
    AttackStep(f"apgd-t-{rank}", "apgd", 100, f"targeted-{rank}", "random", 2.0, volley="apgd-t")
    for rank in range(1, TARGET_CLASSES + 1)
)
# Whether any step breaks a sample does not depend on their order; the cost does. Ten steps on cross-entropy break
# nearly all that a hundred do, and most of what is robust then is broken by one of the nine targets, side by side,
# within about ten steps. A sample that is robust to the end has had all of AutoAttack's steps and those ten.
_OPENING = replace(_APGD_CE, name="apgd-ce-10", steps=10, shortcut=True)
_AUTOATTACK = (_OPENING, *_APGD_T, _APGD_CE)
# Before AutoAttack's own targets, a few steps on raw margins, which do not rescale as DLR does: what it costs and
# breaks is in docs/from-autoattack.md.
_MARGINS = tuple(
    replace(step, name=f"margin-{rank}", steps=25, volley="margin", options={"loss": "margin"}, shortcut=True)
    for rank, step in enumerate(_APGD_T, start=1)
)
_RESTARTS = tuple(replace(_APGD_CE, name=f"apgd-ce-{n}") for n in range(1, PAPER_RESTARTS + 1))
# Chosen on validation images of the mini world after a first result with APGD alone (BENCHMARKS.md): momentum gets past
# what stops APGD, at a third of its gradients, and APGD breaks some of what is left.
_MOMENTUM = {"momentum": 0.9, "schedule": "cosine"}
_STEALTH = (
    AttackStep("momentum", "pgd", 250, "target", "clean", 0.5, options=_MOMENTUM),
    AttackStep("momentum-random", "pgd", 250, "target", "random", 1.0, options=_MOMENTUM),
    AttackStep("apgd", "apgd", 250, "target", "random", 2.0),
    AttackStep("own-words", "pgd", 250, OWN_WORDS, "clean", 0.5, options=_MOMENTUM),
)
# Attacks that were published for transfer, with their constants; step sizes are 1/255 at the radius in the description.
_MATCHING = AttackStep("mf-ii", "pgd", 300, TARGET_IMAGE, "clean", 1 / 8, options={"momentum": 0.0})
_TRANSFERS = {
    "m-attack": Preset(
        "M-Attack (arXiv 2503.10635): 300 sign steps of 1/255 at eps 16 towards a target image, both cropped at random "
        "(50 to 90 % of the area)",
        (AttackStep("m-attack", "crops", 300, TARGET_IMAGE, "clean", 1 / 16),),
    ),
    "foa-attack": Preset(
        "FOA-Attack (arXiv 2505.21494): M-Attack with 0.2 of the optimal transport between 10 centres of patch tokens, "
        "and models weighed by their progress; eps 16",
        (AttackStep("foa-attack", "foa", 300, TARGET_IMAGE, "clean", 1 / 16),),
    ),
    "attackvlm-ii": Preset(
        "AttackVLM's MF-ii (arXiv 2305.16934): 300 sign steps of 1/255 at eps 8 towards the features of a target image",
        (_MATCHING,),
    ),
    "attackvlm-it": Preset(
        "AttackVLM's MF-it (arXiv 2305.16934): the same towards the embedding of a target text; eps 8",
        (replace(_MATCHING, name="mf-it", goal=TARGET_TEXT),),
    ),
    "attackvlm-tt": Preset(
        "AttackVLM's MF-ii, then MF-tt (arXiv 2305.16934): 8 steps of 1/255 with 100 answers each (sigma 8) towards "
        "answers that mean a target text; eps 8",
        (_MATCHING, AttackStep("mf-tt", "queries", 8, TARGET_SAID, "best", 1 / 8)),
    ),
    "veattack": Preset(
        "VEAttack (arXiv 2505.17440): 100 steps of 1/255 at eps 4 with momentum 0.9 away from the clean patch tokens",
        (AttackStep("veattack", "pgd", 100, PATCH_TOKENS, "random", 1 / 4),),
    ),
    "ssa-cwa": Preset(
        "SSA-CWA (arXiv 2309.11751): 500 steps of 1/255 at eps 16 away from the clean embedding, through one model "
        "after the other, each gradient a mean over 20 changed spectra",
        (AttackStep("ssa-cwa", "common-weakness", 500, POOLED, "random", 1 / 16, options={"spectrum": 20}),),
    ),
}

PRESETS: dict[str, Preset] = {
    "pgd": Preset(
        "40 steps of PGD with momentum from a random start; a quick look, not an evaluation",
        (AttackStep("pgd", "pgd", 40, "untargeted", "random", 0.0625),),  # 2.5 eps / steps
    ),
    "apgd": Preset(
        "100 steps of APGD from a random start",
        (AttackStep("apgd", "apgd", 100, "untargeted", "random", 2.0),),
    ),
    "autoattack": Preset(
        "APGD on cross-entropy and targeted APGD on up to nine rival classes: AutoAttack's white-box half",
        _AUTOATTACK,
    ),
    "autoattack-margin": Preset(
        "autoattack, and 25 steps on the margin of each target before: stronger on plain CLIP, a fifth dearer on what "
        "is robust",
        (_OPENING, *_MARGINS, *_APGD_T, _APGD_CE),
    ),
    "autoattack-full": Preset(
        "AutoAttack's standard version: the same, then targeted FAB and the black-box Square attack (pyautoattack)",
        (
            *_AUTOATTACK,
            AttackStep("fab-t", "fab-t", 100, "untargeted", "clean", 0.0),
            AttackStep("square", "square", SQUARE_QUERIES, "untargeted", "clean", 0.0),
        ),
    ),
    "apgd-square": Preset(
        "APGD, then 1000 queries of the black-box Square attack: where that finds more, gradients are masked",
        (
            AttackStep("apgd", "apgd", 100, "untargeted", "random", 2.0),
            AttackStep("square", "square", 1000, "untargeted", "clean", 0.0),
        ),
    ),
    "autoattack-paper": Preset(
        "APGD on cross-entropy from five random starts and targeted APGD: the paper's zero-shot evaluation",
        (_RESTARTS[0], *_APGD_T, *_RESTARTS[1:]),
    ),
    "embedding": Preset(
        "100 steps of APGD away from the encoder's own view of the image; needs no task, no text, no language model",
        (AttackStep("embedding", "apgd", 100, EMBEDDING, "random", 2.0),),
    ),
    "transfer": Preset(
        "100 steps of APGD on the encoder that --surrogate names, never stopping early; scored on --encoder",
        (AttackStep("transfer", "apgd", 100, "untargeted", "random", 2.0),),
    ),
    "noise": Preset(
        "one random image of the ball, without gradients: the floor that attacks and transfers are set beside",
        (AttackStep("noise", "noise", 1, "untargeted", "random", 0.0),),
    ),
    "ensemble": Preset(
        "APGD against each of five references, then again from the worst image so far",
        _CAPTION_STEPS,
    ),
    "ensemble-vqa": Preset(
        "the ensemble, then APGD towards the answers 'maybe' and 'Word'",
        (
            *_REFERENCE_STEPS,
            _AGAIN,
            AttackStep("maybe", "apgd", 100, "target:maybe", "clean", 1.0, precision="float32"),
            AttackStep("Word", "apgd", 100, "target:Word", "clean", 1.0, precision="float32"),
        ),
    ),
    "answers": Preset(
        "three rounds of 100 steps: away from the first and the second most frequent answer, then from the worst image",
        (
            AttackStep("reference-0", "apgd", 100, "reference-0", "random", 2.0),
            AttackStep("reference-1", "apgd", 100, "reference-1", "clean", 1.0),
            _AGAIN,
        ),
    ),
    "choices": Preset(
        "away from the right option of a multiple-choice question, then 100 steps towards each of the others",
        (
            AttackStep("right", "apgd", 100, "untargeted", "clean", 1.0),
            *(AttackStep(f"wrong-{n}", "apgd", 100, f"wrong-{n}", "clean", 1.0) for n in range(1, OPTIONS)),
        ),
    ),
    "captions": Preset(
        "three rounds of 100 steps: away from two reference captions, then again from the worst image",
        (*_CAPTION_STEPS[:2], _CAPTION_STEPS[-1]),
    ),
    "stealth-500": Preset(
        "500 steps of PGD with momentum towards the text that the attacker wants said",
        (replace(_STEALTH[0], steps=500),),
    ),
    "stealth": Preset(
        "1000 steps towards the text that the attacker wants said: PGD with momentum, APGD, and PGD towards the text "
        "behind the model's own words; --protocol paper: 10000 steps of APGD",
        _STEALTH,
        published=(AttackStep("stealth", "apgd", 10_000, "target", "clean", 1.0),),
    ),
    **_TRANSFERS,
}
