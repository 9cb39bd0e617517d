"""Published numbers of the paper (results/published.csv), joined to ours by encoder, task, dataset and radius.

Facts only: the numbers that the authors give in the README of their code, each row with its source.
"""

import csv
from functools import cache
from pathlib import Path

from bench.analysis.cells import AVERAGE, Measure

FILE = Path(__file__).resolve().parents[2] / "results" / "published.csv"
SUITE = "paper"  # numbers of another suite are of other data: nothing is put beside them
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
Key = tuple[str, str, str, str, float]  # encoder, task, model word, dataset, radius in 1/255


@cache
def numbers(path: Path = FILE) -> dict[Key, float]:
    """Every published number that one of our measurements can have beside it; empty without a checkout."""
    if not path.exists():
        return {}
    found: dict[Key, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            task, model = _EVALUATIONS[row["task"]]
            encoder = row["model"].replace("OpenAI", "clip").lower() + _BACKBONES[row["backbone"]]
            found[encoder, task, model, _DATASETS[row["dataset"]], float(row["eps_255"])] = float(row["value"])
    return found


def published(measure: Measure) -> float | None:
    """The paper's number for the same thing: its suite, l-inf, untargeted, not transferred, the same language model."""
    h = measure.header
    if h.suite != SUITE or measure.surrogate or measure.target or (h.norm != "linf" and measure.radius):
        return None
    if measure.dataset == AVERAGE and len(measure.directories) != ZERO_SHOT_SETS:
        return None
    for (encoder, task, model, dataset, eps), value in numbers().items():
        if (encoder, task, dataset, eps) == (h.encoder, h.task, measure.dataset, measure.radius) and (
            model in (h.model or "").casefold()
        ):
            return value
    return None
