"""Tasks: scoring, goals, and objectives against a scripted vision-language model."""

import pytest
import torch

from tasks.base import Answer, Dataset
from tasks.captioning import Captioning, clean_caption
from tasks.protocol import PAPER, STRICT
from tasks.stealth import Stealth
from tasks.vqa import VQA, first_phrase, frequent_answers, reference_rank
from tasks.zeroshot import ZeroShot
from tests.tasks.scripted import Scripted, make_sample


def test_captions_of_one_image_are_refused_for_cider_is_not_defined():
    one, two = (tuple(make_sample(["a bar"], key=str(k)) for k in range(n)) for n in (1, 2))
    assert "one image" in Captioning.fits(Dataset("d", one))
    assert Captioning.fits(Dataset("d", two)) is None


def _dataset(classes=(), prompt="what ?"):
    samples = tuple(make_sample(["red"], key=key, prompt=prompt) for key in ("1", "2"))
    return Dataset("d", samples, classnames=classes)


@pytest.mark.parametrize(
    ("task", "ceiling", "part_scores_as_whole", "asked"),
    [
        (ZeroShot, 100, True, _dataset(("red", "blue"), prompt="")),
        (VQA, 100, True, _dataset()),
        (Captioning, None, False, _dataset()),
        (Stealth, 100, True, _dataset()),
    ],
)
def test_a_task_says_what_fits_how_high_it_goes_and_whether_a_part_scores_as_the_whole(
    task, ceiling, part_scores_as_whole, asked
):
    assert (task.ceiling, task.part_scores_as_whole) == (ceiling, part_scores_as_whole)
    assert task.fits(asked) is None
    if task is ZeroShot:
        assert task.fits(_dataset()) == "has no classes"
    else:
        assert task.fits(_dataset(("red", "blue"))) == "has classes where prompts are needed"
        assert "without a prompt; give its row prompt" in task.fits(_dataset(prompt=""))


ANSWERS = ["red"] * 6 + ["crimson"] * 4


def test_under_the_papers_protocol_an_attack_on_an_answer_goes_on_whatever_is_said():
    images = torch.tensor([0.0, 0.6]).view(2, 1, 1, 1).expand(2, 3, 4, 4)  # first tokens "red" and "blue"
    ended = {}
    for protocol in (STRICT, PAPER):
        task = VQA(Dataset("d", (make_sample(ANSWERS),)), protocol)
        objective = task.bind(Scripted()).objective(images[:1], task.dataset.samples, "reference-0")
        ended[protocol.name] = objective(images, torch.zeros(2, dtype=torch.int64)).fooled.tolist()
    assert ended == {"strict": [False, True], "paper": [False, False]}


def test_vqa_attacks_answers_by_frequency_and_stops_when_no_answer_can_follow():
    task = VQA(Dataset("d", (make_sample(ANSWERS),), prompt_suffix=" briefly"))
    model = Scripted()
    victim = task.bind(model)
    images = torch.tensor([0.0, 0.3, 0.6]).view(3, 1, 1, 1).expand(3, 3, 4, 4)  # first tokens 0, 1, 2
    objective = victim.objective(images[:1], task.dataset.samples, "reference-1")
    assert model.wanted == ["crimson"]
    loss, fooled = objective(images, torch.zeros(3, dtype=torch.int64))
    assert loss.tolist() == pytest.approx([0, 0.3, 0.6])
    assert fooled.tolist() == [False, False, True]  # "red" and "crimson" are accepted, "blue" is not
    targeted = victim.objective(images[:1], task.dataset.samples, "target:maybe")
    assert model.wanted == ["maybe"]
    assert targeted(images, torch.zeros(3, dtype=torch.int64)).loss.tolist() == pytest.approx([0, -0.3, -0.6])
    assert victim.predict(images[:1], task.dataset.samples) == [Answer("red")]
    assert model.asked == ["what ? briefly"]


def test_a_vqa_attack_goes_on_while_the_answer_counts_however_it_is_spelled():
    """LLaVA-1.5 says "Yes" where annotators wrote "yes": taken for broken, such a question was never attacked."""
    task = VQA(Dataset("d", (make_sample(["crimson"] * 10),)))
    objective = task.bind(Scripted()).objective(torch.zeros(1, 3, 4, 4), task.dataset.samples, "reference-0")
    bright = torch.tensor([0.0, 0.3, 0.8]).view(3, 1, 1, 1).expand(3, 3, 4, 4)  # "red", "Crim", the end
    assert objective(bright, torch.zeros(3, dtype=torch.int64)).fooled.tolist() == [True, False, True]


def test_vqa_scores_are_rounded_by_the_papers_protocol_only():
    sample = make_sample(["red", "red"])
    assert VQA(Dataset("d", (sample,)), STRICT).score("red", sample) == pytest.approx(100 / 3, rel=1e-15)
    assert VQA(Dataset("d", (sample,)), PAPER).score("red", sample) == 33.33


def test_vqa_deletes_every_period_but_in_the_papers_protocol():
    sample = make_sample(["p" * 33 + "m"] * 10)
    assert VQA(Dataset("d", (sample,)), STRICT).score("p." * 33 + "m", sample) == 100
    assert VQA(Dataset("d", (sample,)), PAPER).score("p." * 33 + "m", sample) == 0


def test_vqa_skips_references_that_do_not_exist():
    task = VQA(Dataset("d", ()))
    assert task.applies("reference-1", make_sample(ANSWERS))
    assert not task.applies("reference-2", make_sample(ANSWERS))
    assert task.applies("target:Word", make_sample(ANSWERS))
    assert not task.broken(30.0, make_sample(ANSWERS))
    assert task.broken(0.0, make_sample(ANSWERS))


def test_frequent_answers_keep_raw_strings_and_first_appearance():
    assert frequent_answers(["Yes", "no", "yes", "no", "maybe"]) == ["no", "Yes", "yes", "maybe"]


def test_goals_that_make_no_sense_are_refused():
    assert reference_rank("untargeted") == 0
    with pytest.raises(ValueError, match="targeted-3"):
        reference_rank("targeted-3")


@pytest.mark.parametrize(
    ("raw", "cut"),
    [("red", "red"), ("red, blue", "red"), ("red,blue", "red,blue"), ("blue Question: x", "blue"), ("Shorts", "")],
)
def test_answers_are_cut_to_their_first_phrase(raw, cut):
    assert first_phrase(raw) == cut


def test_captions_are_cut_and_unquoted():
    assert clean_caption(' a "red" star Output: a dog') == "a red star"


def test_captioning_scores_with_the_data_set_and_never_claims_to_have_fooled():
    samples = tuple(make_sample([f"a {c} star", f"one {c} star"], key=c) for c in ("red", "blue", "green"))
    task = Captioning(Dataset("d", samples))
    assert task.score("a red star", samples[0]) > task.score("a blue star", samples[0])
    assert task.broken(9.99, samples[0])
    assert not task.broken(10.0, samples[0])
    assert not task.applies("reference-2", samples[0])
    objective = task.bind(Scripted()).objective(torch.zeros(1, 3, 4, 4), samples[:1], "reference-1")
    assert not objective(torch.ones(1, 3, 4, 4), torch.tensor([0])).fooled.any()


def test_stealth_is_won_by_the_target_and_ascends_towards_it():
    sample = make_sample(["Reset your password"])
    task = Stealth(Dataset("d", (sample,)))
    assert task.score("please reset your PASSWORD now", sample) == 100
    assert task.score("reset the password", sample) == 0
    assert task.broken(100, sample)
    progress = task.bind(Scripted()).objective(torch.zeros(1, 3, 4, 4), [sample], "target")(
        torch.tensor([0.2, 0.9]).view(2, 1, 1, 1).expand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    )
    assert progress.loss.tolist() == pytest.approx([-0.2, -0.9])
    assert progress.fooled.tolist() == [False, True]


class _Ending(Scripted):
    """Its answers' loss is 2 with the end token, the image's mean without."""

    def answers(self, prompts, answers):
        score = super().answers(prompts, answers)
        return lambda images, rows: score(images, rows)._replace(
            nll=torch.full((len(rows),), 2.0), text_nll=images.flatten(1).mean(1)
        )


@pytest.mark.parametrize(("protocol", "loss"), [(STRICT, -0.25), (PAPER, -2.0)])
def test_only_the_papers_protocol_wants_an_answer_to_end_with_the_target(protocol, loss):
    sample = make_sample(["Reset"])
    victim = Stealth(Dataset("d", (sample,)), protocol).bind(_Ending())
    images, rows = torch.full((1, 3, 4, 4), 0.25), torch.tensor([0])
    assert victim.objective(images, [sample], "target")(images, rows).loss.item() == loss
    without_end = Stealth(Dataset("d", (sample,)), protocol).bind(Scripted()).objective(images, [sample], "target")
    assert without_end(images, rows).loss.item() == -0.25, "a model whose loss knows no end has one loss"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("a red bar and a blue ring and a star", "a red bar and TARGET"),
        ("a red bar", "a red bar and TARGET"),
        ("sand and water", "sand and TARGET"),
        ("", "TARGET"),
    ],
)
def test_the_target_may_follow_what_the_model_says_first_of_the_clean_image(said, wanted):
    sample, model = make_sample(["TARGET"], prompt="describe"), Scripted(said)
    victim = Stealth(Dataset("d", (sample,))).bind(model)
    victim.objective(torch.zeros(1, 3, 4, 4), [sample], "own-words")
    assert model.wanted == [wanted]
    assert model.asked == ["describe"]
    victim.objective(torch.zeros(1, 3, 4, 4), [sample], "target")
    assert model.wanted == ["TARGET"]


class _Axes:
    """A CLIP whose embedding is the first pixel and whose classes lie along the axes."""

    class text:  # noqa: N801 - stands for an attribute
        scale = torch.tensor(10.0)

        @staticmethod
        def classifier(classnames, templates):
            return torch.eye(3)[:, : len(classnames)]

    def __call__(self, images):
        return images[:, :, 0, 0]


def test_zeroshot_takes_the_nearest_class_and_ranks_its_rivals():
    samples = (make_sample(["a"], "1"), make_sample(["b"], "2"))
    task = ZeroShot(Dataset("d", samples, ("a", "b", "c"), ("{c}",)))
    victim = task.bind(_Axes())
    images = torch.zeros(2, 3, 2, 2)
    images[0, 0] = 1.0
    images[1, 2] = 1.0
    assert victim.predict(images, samples) == [Answer("a"), Answer("c")]
    assert task.score("a", samples[0]) == 100
    assert task.broken(0, samples[0])
    progress = victim.objective(images, samples, "untargeted")(images, torch.arange(2))
    assert progress.fooled.tolist() == [False, True]
    assert progress.loss[0].item() == pytest.approx(torch.log(1 + 2 * torch.exp(torch.tensor(-10.0))).item(), rel=1e-3)


def test_targeted_goals_need_four_classes():
    few, many = (ZeroShot(Dataset("d", (), tuple("abcdefgh"[:k]), ("{c}",))) for k in (3, 5))
    assert few.applies("untargeted", make_sample(["a"]))
    assert not few.applies("targeted-1", make_sample(["a"]))
    assert many.applies("targeted-4", make_sample(["a"]))
    assert not many.applies("targeted-5", make_sample(["a"]))
