"""The mini world: deterministic, index-addressable, consistent between pixels and words."""

import random

import numpy as np
import pytest

from bench.mini import data, language, world

EXPECTED_MEANS = [123.265, 138.999, 139.473, 182.383]


def test_world_is_frozen_under_its_version():
    """Any change to what a version draws moves every number: raise WORLD_VERSION and retrain."""
    pixels = world.render(world.draw_scenes("test", 64))
    assert world.WORLD_VERSION == 1
    assert pixels.shape == (64, 48, 48, 3)
    # A tolerance of a grey level, not a digest: another libm may round a pixel the other way.
    assert pixels.reshape(64, -1).mean(1)[:4] == pytest.approx(EXPECTED_MEANS, abs=0.05)


def test_a_longer_split_begins_with_the_shorter_one():
    long, short = world.draw_scenes("train", 3000), world.draw_scenes("train", 10)
    late = world.draw_scenes("train", 5, start=2045)
    assert np.array_equal(world.render(long[:10]), world.render(short))
    assert np.array_equal(world.render(long[2045:2050]), world.render(late))


def test_an_image_depends_on_its_own_scene_only():
    scenes = world.draw_scenes("test", 50)
    assert np.array_equal(world.render(scenes)[20:23], world.render(scenes[20:23]))


@pytest.mark.parametrize(("a", "b"), [(("train", 0), ("test", 0)), (("test", 0), ("test", 1))])
def test_splits_and_streams_do_not_share_scenes(a, b):
    first = world.draw_scenes(a[0], 100, stream=a[1])
    second = world.draw_scenes(b[0], 100, stream=b[1])
    assert not np.array_equal(first.centre, second.centre)


def test_objects_are_where_and_what_the_scene_says():
    """The pixels at an object's centre look like its colour, for plain photos of filled shapes."""
    scenes = world.draw_scenes("test", 2000)
    images = world.render(scenes).astype(float) / 255
    palette = 0.5 + world.CONTRAST * (world.COLOUR_VALUES - 0.5)
    hits = total = 0
    for i in np.flatnonzero((scenes.style == 0) & (scenes.count == 1)):
        if world.SHAPES[scenes.shape[i, 0]] in ("ring", "crescent") or scenes.texture[i, 0] != 0:
            continue
        x, y = np.round(scenes.centre[i, 0]).astype(int)
        colour = images[i, y - 1 : y + 2, x - 1 : x + 2].mean((0, 1))
        hits += np.abs(palette - colour).sum(1).argmin() == scenes.colour[i, 0]
        total += 1
    assert total > 200
    assert hits / total > 0.7  # opacity below 1 mixes the background in


def test_every_word_is_in_the_vocabulary():
    scenes, rng, known = world.draw_scenes("test", 500), random.Random(0), set(language.words())
    for i in range(500):
        said = [*language.captions(scenes, i, rng), language.plain_caption(scenes, i), language.CAPTION_PROMPT]
        for question in language.questions(scenes, i, rng):
            said += [question.text, *question.answers]
        assert set(" ".join(said).split()) <= known


def test_captions_count_what_is_there():
    scenes, rng = world.draw_scenes("test", 800), random.Random(1)
    for i in range(800):
        for caption in language.captions(scenes, i, rng, 8):
            for number, word in enumerate(world.COUNTS, start=1):
                if f"{word} object" in caption:
                    assert scenes.count[i] == number


def test_annotators_mostly_agree_and_sometimes_differ():
    vqa = data.build("mini-vqa", 300)
    majority = [max(map(s.references.count, s.references)) for s in vqa.samples]
    assert all(len(s.references) == 10 for s in vqa.samples)
    assert np.mean(majority) > 7.5
    assert min(majority) < 9


@pytest.mark.parametrize("name", data.NAMES)
def test_a_smaller_data_set_is_a_prefix(name):
    large, small = data.build(name, 40), data.build(name, 15)
    assert [s.references for s in large.samples[:15]] == [s.references for s in small.samples]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(large.samples, small.samples, strict=False))
    assert len({s.id for s in large.samples}) == 40


@pytest.mark.parametrize("name", [n for n in data.NAMES if data.build(n, 1).classnames])
def test_class_sets_hold_every_class(name):
    dataset = data.build(name, 300)
    assert {s.references[0] for s in dataset.samples} == set(dataset.classnames)
    assert dataset.chance == pytest.approx(100 / len(dataset.classnames))
