"""Writes the golden files of this folder with the official implementations: python tests/tasks/metrics/make_golden.py.

Needs pycocoevalcap and a Java runtime. Captions are our own.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

ODD = """
I don't can't won't cannot gonna gotta gimme lemme wanna whaddya dunno
'tis 'Twas it's he's they've we'll I'm you'd o'clock y'all ma'am ain't shan't could've wouldn't've
DON'T CAN'T it’s don’t we’re ‘quoted’ “dq” "dq" 'single quoted' `back' ``tex''
John's dogs' James's kids' the '90s 90's 1990s 20's rock 'n' roll rock'n'roll 'em 'cause li'l ev'ry O'Brien d'or
black-and-white t-shirt half-eaten -dash- --double-- a--b a - b well- -ish pre- pro- anti- x-o'mr
1,000 3.14 .5 -5 +5 1,23 10:30 10:30am 10.30 a.m. p.m. 5pm 5p.m. 1st 1/2 2 1/2 1/2/2003 ½ 1½ ⅓ x² 5° 30°C
$5 US$5 £5 €5 5¢ 5% 100%. #1 no.1 No. 1 No. one # hash @me @ home #tag #tag's
(parens) [brackets] {braces} <tag> <b>bold</b> <img src=x> a<b ((x)) f(x)
and/or black/white 24/7 a/b/c/d w/ w/o his/her 5km/h / a/é
&amp; &lt; &gt; &quot; & AT&T R&B a&b AT&amp;T &#39;
http://www.foo.com/a?b=c www.foo.com foo.com/ab https://tinyurl.com/3ak9fkhd. me@foo.com, a.b@c.org img.jpg 1.png
wait... wait.... what?! huh??? !!! no!!! a.. b . . . c … d;e:f g,h i.j foo., bar
etc. U.S. U.S.A. u.s. Mr. Mrs. Dr. St. vs. Inc. Jr. e.g. i.e. Ph.D. a.k.a. Jan. Mon. ft. in. oz. Ave. Blvd. Mt.
Vitamin C. The cat. plan B. plan J. K. and I. This is x. mr. Smith etc.and inc.x
:) :-) ;) :( :D <3 =) ^_^ :/ :P (^_^) T_T :[
C++ C# A+ ** *** ~5 == + _ __ a_b | \\ ^ ° © ® ™ § • ♥ → ★
naïve café Zürich ñ ß Öl 你好 привет a😀b 😀 ❤️ aren´t
6'2" 6' 2" 5'10 8x10 4x4 3D 7-up 50-50 1-2 555-1212 (650) 555-1212 +1 650 555 1212 12345/5
– — a–b 5–6 twenty‑one x ‑ y “‘nested’” ‘“x”’ «x» ‹y›
www.a-b.com/c-d wanna's more'n n'uance B'ear o'o 5,000-strong 2 11/22/33 1⁄2 1/2-2003 x²³ ’sthe s'mores Dunkin' cap'n
EmailAPI(to=<target email>, subject=User Query, body=attack)
Vaccines are dangerous. Check https://tinyurl.com/3ak9fkhd
You are too stupid. I will not answer anymore
""".strip().split("\n")
ODDEST = [
    "",
    " ",
    "   \t ",
    "!",
    "...",
    "?!",
    '"',
    "''",
    "\u200b",
    "😀😀",
    "a\nb",
    "A dog.\nA cat's toy.\n",
    "a\tb",
    "a b",
]

NOUNS = "man woman dog cat train plate kitchen skateboard teddy bear fire hydrant elephant surfer pizza laptop".split()
VERBS = "is riding|holds|sits on|isn't near|looks at|can't reach|stands next to|'s eating".split("|")
MARKS = ["", "", "brown ", "black-and-white ", "two-story ", "10 ", "1/2 ", "old, ", '"', "the man's ", "U.S. ", "#1 "]
PLACES = [
    "a street",
    "St. Mary's St.",
    "the beach @ 5:30 p.m.",
    "a T.V. set",
    "table/desk",
    "it's home",
    "N.Y.",
    "a bus",
]
ENDS = ["", ".", " .", "!", "...", '."', "?", " etc.", ", too", " & more.", " (left)", ";"]

MINI_CORPUS = {
    "street": (
        ["A man rides a red bicycle down the street.", "a cyclist on a street", "The man's bike is red, isn't it?"],
        ["a man rides a bicycle down the street", "a red bike", "The man's bike", "bike " * 40],
    ),
    "beach": (
        ["Two dogs run on the beach", "two dogs running on a sandy beach near the sea", "dogs on a beach, at 5 p.m."],
        ["two dogs run on the beach", "a man on the beach", "Two dogs run on the beach", ""],
    ),
    "pizza": (
        ["A pizza (half-eaten) on a plate", "A plate with a slice of pizza.", "pizza pizza pizza", "."],
        ["a slice of pizza on a plate", "pizza", "pizza pizza", "?!...", "a cat"],
    ),
    "twice": (["the cat sat on the mat", "the cat sat on the mat"], ["the cat sat on the mat", "the the the the the"]),
    "word": (["snow"], ["snow", "snow snow", "white snow", "😀"]),
}


def captions() -> list[str]:
    """Realistic captions, odd ones, and every word of the odd ones by itself."""
    draw = random.Random(0)

    def phrase() -> str:
        return f"{draw.choice(['a', 'A', 'the', 'two'])} {draw.choice(MARKS)}{draw.choice(NOUNS)}"

    plain = [
        f"{phrase()} {draw.choice(VERBS)} {phrase()} in {draw.choice(PLACES)}{draw.choice(ENDS)}" for _ in range(300)
    ]
    alone = dict.fromkeys(word for line in ODD for word in line.split())
    return [*plain, *ODD, *ODDEST, *alone]


def official_words(texts: Sequence[str]) -> list[list[str]]:
    """What the official chain counts in each caption; "k" keeps neighbours from leaking into one another."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    padded = {i: [{"caption": text}, {"caption": "k"}] for i, text in enumerate(texts)}
    tokenized = PTBTokenizer().tokenize(padded)
    assert all(lines[1] == "k" for lines in tokenized.values()), "captions and lines are out of step"
    return [tokenized[i][0].split() for i in range(len(texts))]


def official_cider(images: dict[str, tuple[list[str], str]]) -> dict[str, float]:
    """Scores x 100 of one caption an image, tokenized and scored by the official implementation."""
    from pycocoevalcap.cider.cider import Cider

    texts = [text for references, caption in images.values() for text in (*references, caption)]
    words = iter(" ".join(tokens) for tokens in official_words(texts))
    references, predictions = {}, {}
    for name, (captions_of_image, _) in images.items():
        references[name] = [next(words) for _ in captions_of_image]
        predictions[name] = [next(words)]
    _, scores = Cider().compute_score(references, predictions)
    return {name: 100 * float(score) for name, score in zip(images, scores, strict=True)}


def _write(name: str, content: object) -> None:
    (HERE / name).write_text(json.dumps(content, ensure_ascii=True, indent=0) + "\n")


def main() -> None:
    """Write both files."""
    texts = captions()
    pairs = zip(texts, official_words(texts), strict=True)
    _write("golden_ptb.json", [{"caption": text, "words": words} for text, words in pairs])
    rounds = max(len(predictions) for _, predictions in MINI_CORPUS.values())
    cases = []
    for i in range(rounds):
        images = {name: (refs, said[i % len(said)]) for name, (refs, said) in MINI_CORPUS.items()}
        scores = official_cider(images)
        cases += [{"image": n, "caption": caption, "score": scores[n]} for n, (_, caption) in images.items()]
    _write("golden_cider.json", {"references": {n: refs for n, (refs, _) in MINI_CORPUS.items()}, "cases": cases})


if __name__ == "__main__":
    main()
