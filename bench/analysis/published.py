"""Published numbers of the paper (published.csv), joined to ours by encoder, task, dataset and radius.

Facts only: the numbers that the authors give in the README of their code, each row with its source. A number stands
beside ours as the same thing only where it was measured under the same conditions; else it is said what differs.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from bench.analysis.cells import AVERAGE, Measure

SUITE = "paper"  # numbers of another suite are of other data: nothing is put beside them
PROTOCOL = "paper"
ZERO_SHOT_SETS = 13  # the published average is the plain mean over so many datasets
_BACKBONES = {  # their name -> what our names of encoders end in
    "ViT-L/14 OpenAI": "",
    "ViT-B/32 OpenAI": "-vit-b-32",
    "ViT-B/32 LAION-2B": "-vit-b-32-laion",
    "ViT-B/16 LAION-2B": "-vit-b-16-laion",
    "ConvNeXt-B LAION-2B": "-convnext-b-laion",
}
# Their name of an evaluation -> our task, and a word that our model's name must hold.
_EVALUATIONS = {
    "clip_zero_shot": ("zeroshot", ""),
    "llava_1.5_7b_captioning": ("captioning", "llava-1.5-7b"),
    "llava_1.5_7b_vqa": ("vqa", "llava-1.5-7b"),
    "openflamingo_9b_captioning": ("captioning", "openflamingo-9b"),
    "openflamingo_9b_vqa": ("vqa", "openflamingo-9b"),
}
_DATASETS = {"average_zero_shot": AVERAGE, "COCO": "coco", "TextVQA": "textvqa"}
# What lies behind the published numbers (arXiv 2402.12336, sections 4.1 and 4.4, and the released code): by task, the
# attack preset that is theirs, the precision of its first rounds, and the samples per dataset under attack.
_CONDITIONS = {
    "zeroshot": ("autoattack-paper", "float32", 1000),
    "captioning": ("ensemble", "fp16", 500),
    "vqa": ("ensemble-vqa", "fp16", 500),
}
# How the published models were asked, by the word that their names hold: the settings of their families.
_ASKED: Mapping[str, Mapping[str, str]] = {
    "llava-1.5-7b": {"conversation": "vicuna_v1", "image_aspect_ratio": "pad"},
    "openflamingo-9b": {"beams": "3", "length_counts": "prompt"},
}
# Clean numbers are of whole test sets: the 13 of the average together, Karpathy's images, TextVQA's validation split.
_CLEAN_SAMPLES = {AVERAGE: 176_214, "coco": 5_000, "textvqa": 5_000}
Key = tuple[str, str, str, str, float]  # encoder, task, model word, dataset, radius in 1/255


@dataclass(frozen=True)
class Published:
    """A published number.

    Attributes:
        value: on the metric's scale.
        differs: what was otherwise when it was measured, such as "n = 500, published 5000"; () where it is of the very
            thing that we measured.
    """

    value: float
    differs: tuple[str, ...] = ()


@cache
def numbers() -> dict[Key, float]:
    """Every published number that one of our measurements can have beside it."""
    found: dict[Key, float] = {}
    text = resources.files("bench.analysis").joinpath("published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        task, model = _EVALUATIONS[row["task"]]
        encoder = row["model"].replace("OpenAI", "clip").lower() + _BACKBONES[row["backbone"]]
        found[encoder, task, model, _DATASETS[row["dataset"]], float(row["eps_255"])] = float(row["value"])
    return found


def published(measure: Measure) -> Published | None:
    """The paper's number beside ours: its suite, l-inf, untargeted, not transferred, the same language model."""
    h = measure.header
    if h.suite != SUITE or measure.surrogate or measure.target or measure.part or (h.norm != "linf" and measure.radius):
        return None
    if measure.dataset == AVERAGE and len(measure.directories) != ZERO_SHOT_SETS:
        return None
    for (encoder, task, model, dataset, eps), value in numbers().items():
        if (encoder, task, dataset, eps) == (h.encoder, h.task, measure.dataset, measure.radius) and (
            model in (h.model or "").casefold()
        ):
            return Published(value, tuple(_differences(measure, _ASKED.get(model, {}))))
    return None


def _differences(measure: Measure, asked: Mapping[str, str]) -> Iterator[str]:
    """Every condition under which our number was measured otherwise than the paper's."""
    h = measure.header
    attack, precision, samples = _CONDITIONS[h.task]
    pairs: list[tuple[str, object, object]] = [("protocol", h.protocol_name, PROTOCOL), ("tower", h.tower, "encoder")]
    if measure.radius:
        pairs += [("attack", h.attack, attack), ("precision", h.precision, precision)]
        wanted = samples * len(measure.headers)
    else:
        wanted = _CLEAN_SAMPLES[measure.dataset]
    pairs.append(("n", measure.estimate.n, wanted))
    pairs += [(name, value, asked.get(name, "the default")) for name, value in h.victim_settings.items()]
    if h.defence is not None:
        pairs.append(("defence", h.defence, "none"))
    for name, ours, theirs in pairs:
        if ours != theirs:
            yield f"{name} {ours}, published {theirs}"
