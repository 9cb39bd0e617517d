"""Caption tokens against the official Java tokenizer: stored in the default run, live under the marker java."""

import json
import random
from pathlib import Path

import pytest

from bench.mini import data
from tasks.metrics.ptb import tokenize

GOLDEN = Path(__file__).with_name("golden_ptb.json")
CAPTIONS = [
    "A man riding a wave on top of a surfboard.",
    "a woman's dog isn't sitting on the couch",
    "Two people can't decide; they're waiting at a bus-stop!",
    "The children's toys -- all of them -- are on the floor...",
    'A sign reads "STOP" (in red) near the road',
    "A well-dressed man in a T-shirt holds a 12-inch pizza, at 10:30 a.m.",
    "it's a black & white photo of the U.S. flag",
    "people cannot swim here , i'm gonna wanna leave",
    "Mr. Smith's $3.50 hot dog / soda",
    "1/2 of an orange and 3,000 bananas #1 @ home 50%",
    "rock 'n' roll players in the '90s",
    "a café with naïve décor",
    "visit http://example.com or mail me@example.com",
    "",
    "   ",
    "?!...",
    "🎈🎈 balloons",
    "a\nnew\tline",
    "man , woman ; child : dog - cat",
    "the dogs' bowls aren't theirs",
    "A red/blue umbrella",
    "she'd've gone; y'all should've too",
    "a [sic] {curly} <angle> bracket",
    "no. 5 train at 5th ave. and st. james st.",
]


def official(captions):
    """Tokens by the official wrapper of the Stanford tokenizer, which needs Java."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    keyed = {i: [{"caption": caption}] for i, caption in enumerate(captions)}
    found = PTBTokenizer().tokenize(keyed)
    return [found[i][0].split() for i in range(len(captions))]


@pytest.mark.parametrize(("caption", "tokens"), json.loads(GOLDEN.read_text()) if GOLDEN.exists() else [])
def test_tokens_equal_the_stored_official_ones(caption, tokens):
    assert tokenize(caption) == tokens


def test_every_golden_caption_is_stored():
    assert [caption for caption, _ in json.loads(GOLDEN.read_text())] == CAPTIONS


@pytest.mark.java
def test_tokens_equal_the_official_ones_live():
    rng = random.Random(0)
    words = sorted({word for caption in CAPTIONS for word in caption.split() if word.isascii()})
    words.remove("no.")  # at the end of a line, the official tokenizer looks on to the next caption
    made = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(1500)]
    mini = [text for s in data.build("mini-caption", 200).samples for text in s.references]
    captions = [c for c in [*CAPTIONS, *made, *mini] if c.strip() and "\n" not in c]
    wrong = [
        (caption, tokenize(caption), tokens)
        for caption, tokens in zip(captions, official(captions), strict=True)
        if tokenize(caption) != tokens
    ]
    assert wrong == []


if __name__ == "__main__":  # python -m tests.tasks.test_ptb: make the stored tokens again
    kept = [c for c in CAPTIONS if c.strip()]
    tokens = dict(zip(kept, official(kept), strict=True))
    rows = [[caption, tokens.get(caption, [])] for caption in CAPTIONS]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
