"""Tasks that ask whether an image is taken for its target, and the rule-based judge."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from tasks.base import NOT_FINITE, Answer, Dataset, Sample, Target
from tasks.judges import Words
from tasks.targets import Keywords, TargetCaption, TargetText

PICTURE = Image.new("RGB", (4, 4))


def dataset(*targets):
    samples = [Sample(str(k), PICTURE, "describe", (), str(k), target=target) for k, target in enumerate(targets)]
    return Dataset("pairs", tuple(samples))


BAR = Target(PICTURE, "a red bar", ("red", "bar"))


class Letters:
    """A judge by the share of letters that two texts have in common, in their order of the alphabet."""

    name = "letters"

    def __call__(self, said, wanted):
        one, other = set(said), set("".join(wanted))
        return len(one & other) / len(one | other)

    def digests(self):
        return {}


@pytest.mark.parametrize(
    ("said", "keywords", "share"),
    [
        ("Two dogs on a sandy beach.", ["dog", "beach", "sandy beach", "cat"], 0.75),
        ("a hotdog", ["dog"], 0.0),
        ("snow-covered peaks", ["snow", "peak"], 1.0),
        ("", ["a"], 0.0),
        ("Berries & boxes", ["berry", "box", "BOXES"], 1.0),
        ("a bus passes the glass", ["bus", "glass", "buses"], 2 / 3),
        ("people", ["person"], 1.0),
    ],
)
def test_keywords_are_found_as_words(said, keywords, share):
    assert Words()(said, keywords) == pytest.approx(share)


def test_the_share_of_keywords_is_the_score():
    task = Keywords(dataset(BAR))
    (sample,) = task.dataset.samples
    assert sample.references == ("red", "bar")
    assert [task.score(said, sample) for said in ("a red bar", "a red star", "a blue ring")] == [100, 50, 0]
    assert [task.broken(score, sample) for score in (100.0, 50.0)] == [True, False]


def test_another_judge_gives_another_score():
    assert (
        TargetText(dataset(BAR), judge=Letters()).score("a red bar", TargetText(dataset(BAR)).dataset.samples[0]) == 100
    )


def test_the_victim_is_compared_with_its_own_caption_of_the_target():
    class Counts:
        """Says how bright an image is."""

        def predict(self, images, samples):
            return [Answer(f"{image.mean():.1f}") for image in images]

    levels = {"0": 0.2, "1": 0.7, "2": 0.5}

    def look(samples):
        return torch.stack([torch.full((3, 4, 4), levels[sample.id]) for sample in samples])

    task = TargetCaption(dataset(BAR, BAR, BAR), judge=Letters()).settled(Counts(), look, batch=2)
    assert [sample.references for sample in task.dataset.samples] == [("0.2",), ("0.7",), ("0.5",)]
    assert task.score("0.7", task.dataset.samples[1]) == 100
    assert task.score("0.7", task.dataset.samples[0]) == 50


def test_a_victim_without_a_caption_of_the_target_is_named():
    class Silent:
        def predict(self, images, samples):
            return [Answer("", NOT_FINITE)]

    with pytest.raises(ValueError, match="sample 0: the victim gave no caption of the target: the model's output"):
        TargetCaption(dataset(BAR)).settled(Silent(), lambda samples: torch.zeros(1, 3, 4, 4))


def test_datasets_that_do_not_suit_say_what_they_lack():
    bare = replace(dataset(BAR), samples=(Sample("0", PICTURE, "describe", (), "0"),))
    assert all("without a target" in str(task.fits(bare)) for task in (Keywords, TargetText, TargetCaption))
    mute = dataset(Target(PICTURE))
    assert "does not say keywords" in str(Keywords.fits(mute))
    assert "does not say a text" in str(TargetText.fits(mute))
    assert TargetCaption.fits(mute) is None


def test_goals_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="goal 'untargeted' leads to no target; choose an attack such as m-attack"):
        Keywords(dataset(BAR)).applies("untargeted", dataset(BAR).samples[0])
