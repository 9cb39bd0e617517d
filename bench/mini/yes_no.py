"""POPE on the mini world: is there a shape that the scene shows, or one that it does not (Li et al. 2023, section 5).

Per scene one question about a shape that is there and one about an absent shape; three sets differ in how the absent
shape is chosen: at random; the most popular one in all scenes; the one most often seen together with the present ones.
"""

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations

from bench.mini.world import SHAPES, Scenes

Negative = Callable[[frozenset[str], random.Random], str]
NEGATIVES = ("random", "popular", "adversarial")


def shapes_of(scenes: Scenes, index: int) -> frozenset[str]:
    """The shapes that a scene shows."""
    return frozenset(o.shape for o in scenes.objects(index))


def negative(kind: str, scenes: Scenes) -> Negative:
    """How an absent shape is chosen for a scene's present shapes: a name of `NEGATIVES`.

    Args:
        kind: "random", "popular" or "adversarial".
        scenes: whose shapes are counted.
    """
    seen = [shapes_of(scenes, i) for i in range(len(scenes))]
    popular = Counter(shape for shapes in seen for shape in shapes)
    together = Counter(frozenset(pair) for shapes in seen for pair in combinations(sorted(shapes), 2))

    def chosen(present: frozenset[str], rng: random.Random) -> str:
        absent = [shape for shape in SHAPES if shape not in present]
        if kind == "random":
            return rng.choice(absent)
        if kind == "popular":
            return max(absent, key=lambda shape: popular[shape])
        return max(absent, key=lambda shape: sum(together[frozenset((shape, p))] for p in present))

    return chosen


def yes_no_questions(scenes: Scenes, kind: str, rng: random.Random) -> list[tuple[int, str, str]]:
    """(scene, question, answer) twice per scene: about a present shape, then about an absent one."""
    choose = negative(kind, scenes)
    asked = []
    for index in range(len(scenes)):
        present = shapes_of(scenes, index)
        asked.append((index, f"is there a {rng.choice(sorted(present))} ?", "yes"))
        asked.append((index, f"is there a {choose(present, rng)} ?", "no"))
    return asked
