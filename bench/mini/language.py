"""What is said of the mini world: captions of varied phrasing, questions with ten annotators' answers.

All text is lower case and built from a closed vocabulary (`words`), so that a word-level tokenizer covers it.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from bench.mini.world import COLOURS, COUNTS, SHAPES, SIZES, STYLES, TEXTURES, Object, Scenes

SYNONYMS = {"circle": "disc", "ring": "donut", "cross": "plus", "purple": "violet", "cyan": "turquoise"}
QUESTION_KINDS = ("colour", "shape", "count", "exists", "where")
CAPTION_PROMPT = "describe the image"
ANNOTATORS = 10


class Question(NamedTuple):
    """A question about one scene. ``answers`` are ten annotators'; ``answer`` is what all would say undistracted."""

    kind: str
    text: str
    answer: str
    answers: tuple[str, ...]


def captions(scenes: Scenes, index: int, rng: random.Random, count: int = 5) -> list[str]:
    """``count`` captions of one scene; the first is complete in objects, the others vary in phrasing and detail."""
    objects, sketch = scenes.objects(index), STYLES[scenes.style[index]] == "sketch"
    return [_caption(objects, sketch, rng, complete=k == 0) for k in range(count)]


def plain_caption(scenes: Scenes, index: int) -> str:
    """The caption that the miniature vision-language model learns to give: every object, colour and shape."""
    sketch = STYLES[scenes.style[index]] == "sketch"
    named = [f"a {o.shape}" if sketch else f"a {o.colour} {o.shape}" for o in scenes.objects(index)]
    return ("a sketch of " if sketch else "") + " and ".join(named)


def _caption(objects: list[Object], sketch: bool, rng: random.Random, *, complete: bool) -> str:
    partial = not complete and len(objects) > 1 and rng.random() < 0.1
    if partial:
        objects = [rng.choice(objects)]
    named = [_noun_phrase(o, sketch, rng) for o in objects]
    if sketch:
        return rng.choice(("a sketch of ", "a drawing of ")) + " and ".join(named)
    if len(named) == 1:
        place = ("in the " if objects[0].place == "middle" else "at the ") + objects[0].place
        patterns = ["{}", "a photo of {}", "an image of {}", "there is {}", f"{{}} {place}"]
        return rng.choice(patterns if partial else [*patterns, "one object , {}", "one object , {}"]).format(named[0])
    listed = rng.choice((" and ", " and ", " with ", " next to ", " , ")).join(named)
    relation = _relation(objects)
    counted = f"{COUNTS[len(objects) - 1]} objects , {{}}"
    patterns = ["{}", "a photo of {}", "an image of {}", "there are {}", counted, counted]
    if relation and rng.random() < 0.25:
        return f"{named[0]} {relation} {named[1]}"
    return rng.choice(patterns).format(listed)


def _relation(objects: list[Object]) -> str | None:
    if len(objects) != 2:
        return None
    first, second = objects
    if first.row == second.row:
        return "left of"
    return "above" if first.column == second.column else None


def _noun_phrase(o: Object, sketch: bool, rng: random.Random) -> str:
    if sketch:
        return f"a {_vary(o.shape, rng)}"
    words = [_vary(o.colour, rng)] if rng.random() < 0.85 else []
    if rng.random() < (0.1 if o.texture == "plain" else 0.7):
        words.insert(0, o.texture)
    if rng.random() < 0.4:
        words.insert(0, o.size)
    return " ".join(["a", *words, _vary(o.shape, rng) if rng.random() < 0.9 else "shape"])


def _vary(word: str, rng: random.Random) -> str:
    return SYNONYMS.get(word, word) if rng.random() < 0.15 else word


def questions(scenes: Scenes, index: int, rng: random.Random) -> list[Question]:
    """One question of each kind that the scene allows, in the order of `QUESTION_KINDS`."""
    objects, sketch = scenes.objects(index), STYLES[scenes.style[index]] == "sketch"
    made = [(kind, _ask(kind, objects, sketch, rng)) for kind in QUESTION_KINDS]
    return [
        Question(kind, *asked, tuple(_annotators(kind, asked[1], rng))) for kind, asked in made if asked is not None
    ]


def _ask(kind: str, objects: list[Object], sketch: bool, rng: random.Random) -> tuple[str, str] | None:
    unique_shape = [o for o in objects if sum(p.shape == o.shape for p in objects) == 1]
    unique_colour = [o for o in objects if sum(p.colour == o.colour for p in objects) == 1]
    if kind == "count":
        return rng.choice(("how many objects are there ?", "how many shapes are there ?")), COUNTS[len(objects) - 1]
    if kind == "where":
        if not unique_shape:
            return None
        o = rng.choice(unique_shape)
        return f"where is the {o.shape} ?", o.place
    if kind == "exists":
        if rng.random() < 0.5:
            return f"is there a {rng.choice(objects).shape} ?", "yes"
        absent = [s for s in SHAPES if all(o.shape != s for o in objects)]
        return f"is there a {rng.choice(absent)} ?", "no"
    if sketch or not unique_shape or not unique_colour:
        return None
    if kind == "colour":
        o = rng.choice(unique_shape)
        return rng.choice((f"what color is the {o.shape} ?", f"what is the color of the {o.shape} ?")), o.colour
    o = rng.choice(unique_colour)
    return rng.choice((f"what shape is {o.colour} ?", f"which object is {o.colour} ?")), o.shape


def _annotators(kind: str, answer: str, rng: random.Random) -> Iterator[str]:
    """Ten answers: mostly ``answer``; some a synonym or a shorter place, few a plain mistake."""
    also = SYNONYMS.get(answer) or (answer.split()[0] if " " in answer else None)
    mistakes = [a for a in _alternatives(kind) if a != answer]
    for _ in range(ANNOTATORS):
        draw = rng.random()
        if draw < 0.04:
            yield rng.choice(mistakes)
        elif also and draw < 0.20:
            yield also
        else:
            yield answer


def _alternatives(kind: str) -> tuple[str, ...]:
    return {
        "colour": tuple(COLOURS),
        "shape": SHAPES,
        "count": (*COUNTS, "four"),
        "exists": ("yes", "no"),
        "where": ("top", "bottom", "left", "right", "middle"),
    }[kind]


def words() -> list[str]:
    """The closed vocabulary, sorted."""
    names = [*SHAPES, *COLOURS, *SIZES, *TEXTURES, *COUNTS, *SYNONYMS.values()]
    glue = (
        "a photo of an image there is are one object objects shape shapes , ? in the at and with next to left right "
        "above below top bottom middle sketch drawing four how many where what which color yes no describe this "
        "picture style colored texture size something USER ASSISTANT :"
    )
    return sorted({*names, *glue.split()})
