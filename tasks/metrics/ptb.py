"""Penn Treebank tokens of a caption, as the official caption evaluation makes them before scoring."""

import re

_DROPPED = frozenset("'' ' `` ` -lrb- -rrb- -lcb- -rcb- . ? ! , : - -- ... ;".split())
_TOKEN = re.compile(
    r"""
    \.\.\.|--+
    | [a-z]\.(?:[a-z]\.)+                      # u.s.
    | \$?\d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?![a-z])
    | (?:'(?:s|m|d|ll|re|ve|t)|n't)(?![a-z])   # clitics, once split off
    | [^\W_]+(?:[-'_][^\W_]+)*                 # words, hyphenated ones whole
    | \S
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"(?<=[a-z0-9])(n't|'(?:s|m|d|ll|re|ve))(?![a-z])")
_JOINED = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me", "lemme": "lem me"}


def tokenize(caption: str) -> list[str]:
    """Lower-case tokens of a caption, without the punctuation that the evaluation drops."""
    text = " ".join(caption.replace("\u2019", "'").replace("&amp;", "&").lower().split())
    text = _CLITIC.sub(r" \1", text)
    tokens = (part for token in _TOKEN.findall(text) for part in _JOINED.get(token, token).split())
    return [token for token in tokens if token not in _DROPPED and token not in '"()[]{}']
