"""Multiple choice on the mini world, in the manner of ScienceQA: a question about a scene, and four options."""

import random

from bench.mini import language
from bench.mini.world import COLOURS, COUNTS, SHAPES, Scenes

OPTIONS = 4
KINDS = ("colour", "shape", "count")
CATEGORIES = ("NAT", "IMG", "G1-6")  # as `bench.data.scienceqa` reads the export
_POOLS = {"colour": tuple(COLOURS), "shape": SHAPES, "count": (*COUNTS, "four")}


def choice_questions(scenes: Scenes, rng: random.Random) -> list[tuple[int, str, str, tuple[str, ...], int]]:
    """(scene, kind, question, options, index of the right one): the kinds in turn, where a scene allows its kind."""
    asked = []
    for index in range(len(scenes)):
        by_kind = {q.kind: q for q in language.questions(scenes, index, rng)}
        kind = next(k for k in (*KINDS[index % len(KINDS) :], *KINDS) if k in by_kind)
        question = by_kind[kind]
        others = rng.sample([text for text in _POOLS[kind] if text != question.answer], OPTIONS - 1)
        options = [question.answer, *others]
        rng.shuffle(options)
        asked.append((index, kind, question.text, tuple(options), options.index(question.answer)))
    return asked
