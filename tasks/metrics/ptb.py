"""English captions as words, split as the Stanford PTBTokenizer 3.4.1 splits them for the official caption scorers.

The tokenizer is a maximal munch scanner: at every position the rule with the longest match wins, the earlier one on
ties. Context that a rule looks at without consuming it counts as part of that length. The rules below were worked out
from the outputs of the official tokenizer (flags -preserveLines -lowerCase) and are tested against it.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

# What the scorers delete, as they spell it. Their bracket names are in upper case while tokens are in lower case, so
# brackets survive as -lrb-, -rrb-, ...: so it is in every published CIDEr, so it stays.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."])

BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " "}
FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
CURRENCIES = {"£": "#", "¢": "cents", "$": "$", "€": "$", "¤": "$", "₠": "$", "\x80": "$"}
