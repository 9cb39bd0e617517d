"""The mini world's yes-or-no questions and multiple choice are true of its scenes."""

import random
from collections import Counter

import pytest

from bench.mini import choices, world, yes_no

SCENES = world.draw_scenes("validation", 300, stream=99)


@pytest.mark.parametrize("kind", yes_no.NEGATIVES)
def test_every_answer_is_true_and_half_are_no(kind):
    asked = yes_no.yes_no_questions(SCENES, kind, random.Random(0))
    assert Counter(answer for _, _, answer in asked) == {"yes": 300, "no": 300}
    for index, question, answer in asked:
        shape = question.removeprefix("is there a ").removesuffix(" ?")
        assert (shape in yes_no.shapes_of(SCENES, index)) == (answer == "yes")


def test_popular_and_adversarial_negatives_are_the_most_frequent_ones():
    seen = [yes_no.shapes_of(SCENES, i) for i in range(len(SCENES))]
    popular = Counter(shape for shapes in seen for shape in shapes)
    choose = yes_no.negative("popular", SCENES)
    first = popular.most_common(1)[0][0]
    assert choose(frozenset({"no such shape"}), random.Random(0)) == first
    assert choose(frozenset({first}), random.Random(0)) == popular.most_common(2)[1][0]
    present = frozenset(list(seen[0])[:1])
    beside = Counter(shape for shapes in seen if present <= shapes for shape in shapes - present)
    adversarial = yes_no.negative("adversarial", SCENES)(present, random.Random(0))
    assert beside[adversarial] == max(beside.values())


def test_multiple_choice_has_four_different_options_of_which_one_is_right():
    asked = choices.choice_questions(SCENES, random.Random(0))
    assert len(asked) == 300
    for index, kind, question, options, right in asked:
        assert len(set(options)) == choices.OPTIONS
        objects = SCENES.objects(index)
        if kind == "count":
            assert options[right] == world.COUNTS[len(objects) - 1]
        elif kind == "colour":
            shape = question.removesuffix(" ?").split()[-1]
            assert [o.colour for o in objects if o.shape == shape] == [options[right]]
    assert set(Counter(right for *_, right in asked)) == {0, 1, 2, 3}
