"""What is asked: exact texts, demonstrations drawn by id, and what is kept of an answer."""

import random

import numpy as np
import pytest
import torch

from bench.errors import UsageError
from bench.models.victims.openflamingo.prompts import (
    CAPTION,
    OKVQA,
    VQA,
    Asker,
    Demonstrations,
    Prompt,
    without_colons,
)
from tasks.base import Sample
from tests.bench.models.victims.openflamingo.released import random_model


def sample(number: int, prompt: str = "", references: tuple[str, ...] = ("",)) -> Sample:
    return Sample(str(number), f"{number}.png", prompt, references, str(number))  # type: ignore[arg-type]


SEEN = [sample(n, f"Is it {n}: yes?", (f" at {n}:30 ", "no")) for n in range(20)]


def asker(style, shots, seed=0, samples=SEEN) -> Asker:
    return Asker(style, Demonstrations(samples, seed), shots, lambda s: torch.full((3, 2, 2), int(s.id) / 100))


@pytest.mark.parametrize("style", [CAPTION, VQA])
@pytest.mark.parametrize("shots", [0, 4, 8])
def test_prompts_are_the_published_ones(style, shots):
    """Colons leave demonstrations' answers, not their questions; answers are stripped; the first annotator's count."""
    drawn = Demonstrations(SEEN).draw("q7", shots or 2)
    tag = "<image>" if shots else ""
    asked = {CAPTION: "Output:", VQA: "Question:Is it {0}: yes? Short answer:"}[style]
    context = "".join(f"{tag}{asked.format(s.id)}at {s.id}30<|endofchunk|>" for s in drawn)
    query = {CAPTION: "<image>Output:", VQA: "<image>Question:What: where? Short answer:"}[style]
    prompt = asker(style, shots).prompt("q7", "What: where?")
    assert prompt.text == context + query
    assert [round(float(image[0, 0, 0]) * 100) for image in prompt.images] == [int(s.id) for s in drawn if shots]


def test_demonstrations_depend_on_seed_and_id_alone():
    pool = Demonstrations(SEEN, seed=3)
    first = {str(n): [s.id for s in pool.draw(str(n), 4)] for n in range(100, 140)}
    random.seed(0)  # no other generator has a say
    assert {k: [s.id for s in pool.draw(k, 4)] for k in reversed(first)} == first
    assert len({tuple(ids) for ids in first.values()}) == 40
    assert all(len(set(ids)) == 4 for ids in first.values())
    assert [s.id for s in Demonstrations(SEEN, seed=4).draw("100", 4)] != first["100"]
    shown = {n for ids in first.values() for n in ids}
    assert len(shown) == len(SEEN)


def test_a_sample_is_never_its_own_demonstration():
    for seed in range(10):
        assert "3" not in [s.id for s in Demonstrations(SEEN, seed).draw("3", 19)]
    with pytest.raises(UsageError, match="20 demonstrations are asked for, there are 19"):
        Demonstrations(SEEN).draw("3", 20)


def test_the_pool_is_the_published_one():
    samples = [sample(n) for n in range(5000)]
    np.random.seed(42)
    wanted = np.random.choice(5000, 2048, replace=False)
    assert [int(s.id) for s in Demonstrations.of(samples).samples] == wanted.tolist()
    assert len(Demonstrations.of(samples[:100]).samples) == 100


@pytest.mark.parametrize("tag", ["<image>", "<|endofchunk|>"])
def test_texts_with_tags_are_refused(tag):
    with pytest.raises(UsageError, match=r"holds .* which means something"):
        asker(VQA, 0).prompt("q", f"What is {tag}?")
    with pytest.raises(UsageError, match=r"holds .* which means something"):
        asker(CAPTION, 0, samples=[sample(1, "", (f"a{tag}",)), sample(2)]).prompt("q")


@pytest.mark.parametrize(
    ("style", "said", "kept"),
    [
        (CAPTION, ' two "big" cats Output:a dog', "two big cats"),
        (CAPTION, "a question, an Answer", "a question, an Answer"),
        (VQA, "red, blue", "red"),
        (VQA, "yes Question:no", "yes"),
        (VQA, "redShort answer:x", "red"),
        (VQA, "1,000Answer", "1,000"),
        (OKVQA, "red, blue Question: no", "red, blue"),
        (OKVQA, "an answer", "an answer"),
    ],
)
def test_what_is_kept_of_an_answer(style, said, kept):
    assert style.finish(said) == kept


def test_penalties_are_the_published_ones():
    assert (CAPTION.length_penalty, VQA.length_penalty, OKVQA.length_penalty) == (-2.0, 0.0, 0.0)
    assert without_colons("https://a:b") == "https//ab"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("Output:"), "0 <image> tags for 1 images"),
        (Prompt("<image>Output:a<image>Output:"), "2 <image> tags for 1 images"),
        (Prompt("<image>Output:", (torch.zeros(3, 48, 48),)), "1 <image> tags for 2 images"),
    ],
)
def test_tags_and_images_must_match(prompt, said):
    model = random_model("neox")
    with pytest.raises(UsageError, match=said):
        model.answers([prompt], ["a"])
    with pytest.raises(UsageError, match=said):
        model.generate(torch.zeros(1, 3, 48, 48), [prompt], max_new_tokens=2)
