import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pycocoevalcap.cider.cider import Cider as OfficialCider

from tasks.metrics import Cider, tokenize

GOLDEN = json.loads((Path(__file__).parent / "golden_cider.json").read_text())
Corpus = dict[str, list[str]]


def _official(references: Corpus, predictions: dict[str, str]) -> tuple[float, dict[str, float]]:
    """Scores x 100 of the official scorer, on our words."""
    scorer = OfficialCider()
    words = {i: [" ".join(tokenize(caption)) for caption in captions] for i, captions in references.items()}
    mean, scores = scorer.compute_score(words, {i: [" ".join(tokenize(predictions[i]))] for i in references})
    return 100 * float(mean), dict(zip(references, (100 * scores).tolist(), strict=True))


def _random_corpus(seed: int, images: int) -> tuple[Corpus, dict[str, str]]:
    draw = random.Random(seed)
    vocabulary = ["a", "a", "a", "the", "dog", "cat", "red", "isn't", "(x)", "!", "U.S.", *(f"w{i}" for i in range(20))]

    def caption() -> str:
        return " ".join(draw.choices(vocabulary, k=draw.randint(0, 14)))

    references = {str(i): ["a dog", *(caption() for _ in range(draw.randint(0, 5)))] for i in range(images)}
    predictions = {
        i: draw.choice([caption(), draw.choice(references[i]), references[i][-1] + " " + caption()]) for i in references
    }
    return references, predictions


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['image']}-{case['caption'][:20]}")
def test_golden_scores(case: dict[str, str]) -> None:
    scorer = Cider(GOLDEN["references"])
    assert scorer.score(case["image"], case["caption"]) == pytest.approx(case["score"], rel=1e-9, abs=1e-9)


def test_golden_scores_are_not_trivial() -> None:
    scores = [case["score"] for case in GOLDEN["cases"]]
    assert min(scores) == 0
    assert max(scores) > 100
    assert len(set(scores)) > 8


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_official_scorer(seed: int) -> None:
    references, predictions = _random_corpus(seed, images=random.Random(seed).randint(1, 30))
    scorer = Cider(references)
    ours = {i: scorer.score(i, predictions[i]) for i in references}
    corpus, official = _official(references, predictions)
    assert ours == pytest.approx(official, rel=1e-9, abs=1e-9)
    assert sum(ours.values()) / len(ours) == pytest.approx(corpus, rel=1e-9, abs=1e-9)


def test_one_image_scores_nothing() -> None:
    assert Cider({"x": ["a cat on a mat"]}).score("x", "a cat on a mat") == 0


def test_a_perfect_caption_of_distinct_words() -> None:
    scorer = Cider({"x": ["one two three four five"], "y": ["six seven eight nine ten"]})
    assert scorer.score("x", "one two three four five") == pytest.approx(1000)
    assert scorer.score("x", "six seven eight nine ten") == 0


def test_length_penalty() -> None:
    scorer = Cider({"x": ["p q r s t"], "y": ["z"]})
    longer = "p q r s t v"  # one bigram more; its n-grams of length n: 6 - n + 1, of which 5 - n + 1 are shared
    cosines = [math.sqrt((5 - n + 1) / (6 - n + 1)) for n in (1, 2, 3, 4)]
    assert scorer.score("x", longer) == pytest.approx(1000 * sum(cosines) / 4 * math.exp(-1 / 72))


@pytest.mark.parametrize("caption", ["", " \n", "?!", "...", "😀😀", "-", "dog " * 10_000])
def test_odd_captions_have_a_score(caption: str) -> None:
    score = Cider({"x": ["a dog", "."], "y": ["", "a cat"]}).score("x", caption)
    assert 0 <= score <= 1000


def test_an_answer_without_words_scores_nothing() -> None:
    scorer = Cider({"x": ["a dog", ""], "y": ["a cat"]})
    assert [scorer.score("x", caption) for caption in ("", " ", "...", "😀")] == [0, 0, 0, 0]


def test_case_and_final_period_do_not_matter() -> None:
    scorer = Cider(GOLDEN["references"])
    assert scorer.score("beach", "Two dogs run on the beach.") == scorer.score("beach", "two dogs run on the beach")


def test_document_frequency_is_of_all_images() -> None:
    whole = Cider(GOLDEN["references"])
    part = Cider({name: GOLDEN["references"][name] for name in ("beach", "pizza")})
    assert whole.score("beach", "two dogs") != pytest.approx(part.score("beach", "two dogs"))


@pytest.mark.parametrize("references", [[], ()])
def test_an_image_without_references_is_named(references: list[str]) -> None:
    with pytest.raises(ValueError, match="'lonely'"):
        Cider({"x": ["a dog"], "lonely": references})


def test_an_unknown_image_raises() -> None:
    with pytest.raises(KeyError):
        Cider({"x": ["a dog"]}).score("y", "a dog")


def test_same_bits_in_every_process() -> None:
    code = (
        "from tasks.metrics import Cider; r={str(i):[f'a b{i} c d{i%3} e f g', 'a c e g'] for i in range(7)};"
        "print(Cider(r).score('3', 'a b3 c d0 e g f a c e').hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


@pytest.mark.java
def test_golden_scores_are_up_to_date() -> None:
    from tests.tasks.metrics.make_golden import MINI_CORPUS, official_cider

    first = {name: (references, said[0]) for name, (references, said) in MINI_CORPUS.items()}
    expected = {case["image"]: case["score"] for case in GOLDEN["cases"][: len(first)]}
    assert official_cider(first) == pytest.approx(expected, rel=1e-12)


@pytest.mark.java
def test_a_large_varied_corpus_scores_as_the_official_chain_scores_it() -> None:
    """Tokenizer and scorer together: 2,500 captions with odd punctuation, numbers, contractions, unicode, nothing."""
    from tests.tasks.metrics.make_golden import captions, official_cider

    draw, texts = random.Random(3), captions()
    pieces = [word for text in texts for word in text.split()]
    while len(texts) < 2_500:
        texts.append(" ".join(draw.choices(pieces, k=draw.randint(0, 14))))
    draw.shuffle(texts)
    images = {}
    for i in range(500):
        *references, other = texts[5 * i : 5 * i + 5]
        said = draw.choice([other, references[0], f"{references[1]} {other}", " ".join(references[2].split()[:5])])
        images[str(i)] = (references, said)
    scorer = Cider({name: references for name, (references, _) in images.items()})
    ours = {name: scorer.score(name, said) for name, (_, said) in images.items()}
    assert len({round(score, 3) for score in ours.values()}) > 100
    assert ours == pytest.approx(official_cider(images), rel=1e-6, abs=1e-6)
