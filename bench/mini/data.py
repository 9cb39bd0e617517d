"""The mini world's datasets, as the tasks see them. Each draws from a random stream of its own."""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image

from bench.data.prompts import lettered
from bench.mini import choices, language, world, yes_no
from bench.mini.world import Scenes
from tasks.base import Dataset, Sample, Target

SIZE = 1000  # samples a dataset has; a suite evaluates the first n
_STREAMS = {
    name: 10 + k
    for k, name in enumerate(
        (
            "mini-caption",
            "mini-vqa",
            "mini-stealth",
            "mini-shape",
            "mini-colour",
            "mini-count",
            "mini-texture",
            "mini-sketch",
            "mini-pope",
            "mini-scienceqa",
            "mini-stealth-unseen",
            "mini-pairs",
            "mini-pairs targets",
        )
    )
}
TARGETS = {
    "mini-stealth": ("a sketch of a star", "a black bar"),
    # No sketch has colours, no scene four objects, and captions, here and in training, count no shapes.
    "mini-stealth-unseen": ("a sketch of a black bar", " and ".join(["a black bar"] * 4), "four bars"),
}


def build(name: str, size: int = SIZE, split: str = "test") -> Dataset:
    """The first ``size`` samples of a mini dataset.

    Args:
        name: one of `NAMES`.
        size: number of samples.
        split: "test", or "validation" for everything decided by looking.
    """
    rng = random.Random(f"{name} {split}")
    return _BUILDERS[name](name, split, size, rng)


def _scenes(name: str, split: str, size: int, keep: Callable[[Scenes], np.ndarray] | None = None) -> Scenes:
    """The first ``size`` scenes of the dataset's stream that pass ``keep``."""
    wanted = size
    while True:
        scenes = world.draw_scenes(split, wanted, stream=_STREAMS[name])
        kept = scenes if keep is None else scenes[np.flatnonzero(keep(scenes))]
        if len(kept) >= size:
            return kept[:size]
        wanted *= 2


def _images(scenes: Scenes) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in world.render(scenes)]


def _captions(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    scenes = _scenes(name, split, size)
    samples = [
        Sample(str(i + 1), image, language.CAPTION_PROMPT, _references(scenes, i, rng), str(i + 1))
        for i, image in enumerate(_images(scenes))
    ]
    return Dataset(name, tuple(samples), max_new_tokens=20)


def _references(scenes: Scenes, index: int, rng: random.Random) -> tuple[str, ...]:
    return (language.plain_caption(scenes, index), *language.captions(scenes, index, rng, 4))


def _questions(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    """One question an image, the kinds in turn; an image that does not allow its kind is asked for the next."""
    scenes = _scenes(name, split, size)
    samples = []
    for i, image in enumerate(_images(scenes)):
        asked = {q.kind: q for q in language.questions(scenes, i, rng)}
        kinds = language.QUESTION_KINDS
        question = next(asked[k] for k in kinds[i % len(kinds) :] + kinds if k in asked)
        samples.append(Sample(str((i + 1) * 1000), image, question.text, question.answers, str(i + 1)))
    return Dataset(name, tuple(samples), max_new_tokens=5)


def _yes_no(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    """Two questions per image: about a shape that it shows, and about one that it does not.

    The three sets ask about the same images; what is popular is counted over all of them, however few are asked about.
    """
    scenes = _scenes("mini-pope", split, max(size, SIZE) // 2 + 1)
    asked = yes_no.yes_no_questions(scenes, name.removeprefix("mini-pope-"), rng)
    images = _images(scenes[np.arange((size + 1) // 2)])
    samples = [
        Sample(str(number), images[index], question, (answer,), f"COCO_val2014_{index + 1:012d}.png")
        for number, (index, question, answer) in enumerate(asked[:size], start=1)
    ]
    return Dataset(name, tuple(samples), max_new_tokens=5)


def _choices(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    """One multiple-choice question per image."""
    scenes = _scenes(name, split, size)
    images = _images(scenes)
    samples = [
        Sample(
            str(index + 1),
            images[index],
            "\n".join([question, *lettered(options)]),
            (options[right],),
            str(index + 1),
            right,
            choices=options,
            categories=choices.CATEGORIES,
        )
        for index, _, question, options, right in choices.choice_questions(scenes, rng)
    ]
    return Dataset(name, tuple(samples), max_new_tokens=5)


def _stealth(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    """Every target on images of its own, in turn."""
    targets = TARGETS[name]
    scenes = _scenes(name, split, size)
    samples = [
        Sample(
            str(i + 1),
            image,
            language.CAPTION_PROMPT,
            (targets[i % len(targets)],),
            str(i + 1),
            captions=_references(scenes, i, rng),
        )
        for i, image in enumerate(_images(scenes))
    ]
    return Dataset(name, tuple(samples), max_new_tokens=20)


def _pairs(name: str, split: str, size: int, rng: random.Random) -> Dataset:
    """Scenes with other scenes that they should be taken for; keywords are the words of the targets' plain captions."""
    scenes, wanted = _scenes(name, split, size), _scenes(f"{name} targets", split, size)
    texts = [language.plain_caption(wanted, i) for i in range(size)]
    targets = [
        Target(image, text, tuple(dict.fromkeys(word for word in text.split() if word not in _LITTLE)))
        for image, text in zip(_images(wanted), texts, strict=True)
    ]
    samples = [
        Sample(str(i + 1), image, language.CAPTION_PROMPT, (), str(i + 1), target=target)
        for i, (image, target) in enumerate(zip(_images(scenes), targets, strict=True))
    ]
    return Dataset(name, tuple(samples), max_new_tokens=20)


_LITTLE = ("a", "of", "and")  # words of captions that are no keywords


def _classes(
    keep: Callable[[Scenes], np.ndarray],
    labels: Callable[[Scenes], np.ndarray],
    classnames: tuple[str, ...],
    templates: tuple[str, ...],
) -> Callable[[str, str, int, random.Random], Dataset]:
    def builder(name: str, split: str, size: int, rng: random.Random) -> Dataset:
        scenes = _scenes(name, split, size, keep)
        samples = [
            Sample(f"s{i:07d}", image, "", (classnames[label],), f"s{i:07d}")
            for i, (image, label) in enumerate(zip(_images(scenes), labels(scenes), strict=True))
        ]
        return Dataset(name, tuple(samples), classnames, templates, chance=100 / len(classnames))

    return builder


def _photo_of_one(scenes: Scenes) -> np.ndarray:
    found: np.ndarray = (scenes.count == 1) & (scenes.style == 0)
    return found


_OF_A_SHAPE = ("a photo of a {c} shape", "an image of a {c} shape", "there is a {c} shape", "a {c} shape")
_BUILDERS: dict[str, Callable[[str, str, int, random.Random], Dataset]] = {
    "mini-caption": _captions,
    "mini-vqa": _questions,
    "mini-stealth": _stealth,
    "mini-stealth-unseen": _stealth,
    "mini-pope-random": _yes_no,
    "mini-pope-popular": _yes_no,
    "mini-pope-adversarial": _yes_no,
    "mini-scienceqa": _choices,
    "mini-pairs": _pairs,
    "mini-shape": _classes(
        _photo_of_one,
        lambda s: s.shape[:, 0],
        world.SHAPES,
        ("a photo of a {c}", "an image of a {c}", "there is a {c}", "a {c}"),
    ),
    "mini-colour": _classes(_photo_of_one, lambda s: s.colour[:, 0], tuple(world.COLOURS), _OF_A_SHAPE),
    "mini-count": _classes(
        lambda s: s.style == 0,
        lambda s: np.asarray(s.count) - 1,
        ("one object", "two objects", "three objects"),
        ("{c} , a shape",),
    ),
    "mini-texture": _classes(_photo_of_one, lambda s: s.texture[:, 0], world.TEXTURES, _OF_A_SHAPE),
    "mini-sketch": _classes(
        lambda s: (s.count == 1) & (s.style == 1),
        lambda s: s.shape[:, 0],
        world.SHAPES,
        ("a sketch of a {c}", "a drawing of a {c}"),
    ),
}
NAMES = tuple(_BUILDERS)
