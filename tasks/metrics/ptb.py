"""English captions as words, split as the Stanford PTBTokenizer 3.4.1 splits them for the official caption scorers.

A maximal munch scanner: at every position the rule with the longest match wins, the earlier one on ties. Context that
a rule looks at without taking it counts towards that length, as it does in the official scanner. The rules were worked
out from the outputs of the official tokenizer and are tested against it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

# What the scorers delete, apart from what the rules below drop on sight (. , : ; - -- ...). They also list brackets,
# but as -LRB-, while tokens are in lower case by then: -lrb- and the like survive into every published CIDEr, and here.
PUNCTUATION = frozenset(["''", "'", "``", "`", "?", "!"])

SPELLED = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": ""},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"£": "#", "¢": "cents", "€": "$", "¤": "$", "₠": "$", "\x80": "$"},
}

# --- characters: the rules see one ASCII letter or stand-in for each character --------------------------------------

QUOTES = {"`": "`", "‘": "`", "‹": "`", "’": "'", "›": "'", "“": "``", "”": "''"}
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u3000\u2028\u2029" + "".join(map(chr, range(0x2000, 0x200B)))
STAND_INS = {
    **dict.fromkeys("\u2019\x92", "’"),
    **dict.fromkeys("\u2018\u201b\x91", "‘"),
    **dict.fromkeys("\u201c\u00ab\x93", "“"),
    **dict.fromkeys("\u201d\u00bb\x94", "”"),
    **dict.fromkeys("\u2013\u2014\u2015\x96\x97", "—"),
    **dict.fromkeys("\u058a\u2010\u2011", "‐"),
    **dict.fromkeys(SPACES, " "),
    **dict.fromkeys("⁰¹²³⁴⁵⁶⁷⁸⁹", "²"),
    **dict.fromkeys("₀₁₂₃₄₅₆₇₈₉", "₂"),
    "\u00ad": "λ",
    **{character: character for character in "‹›…⁄"},
}
SYMBOL = re.compile(
    "[¡-¿×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f"
    "\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017\u201a\u201e-\u2023"
    "\u2030-\u2038\u203b\u203e-\u2042\u207a-\u207e\u208a-\u208e\u20a0\u20a4\u20ac\u2100-\u214f\u2153-\u215e"
    "\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1"
    "\uffe5\uffe6\x80]"
)
LAST_MARK = "\u0ecd"  # marks of later scripts are unknown to the official tokenizer


@cache
def _stand_in(character: str) -> str:
    """One character for the rules: λ any other letter or mark, δ any other digit, § any symbol, NUL what is dropped."""
    if character in STAND_INS:
        return STAND_INS[character]
    if "!" <= character <= "~":
        return character
    if character > "\uffff":
        return "\0"
    if character.isalpha():
        return "λ"
    if character.isdecimal():
        return "δ"
    if unicodedata.category(character) in {"Mn", "Mc", "Sk"} and "\u02c2" <= character <= LAST_MARK:
        return "λ"
    return "§" if SYMBOL.match(character) else "\0"


# --- rules ----------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """Take group 1 of `pattern`; the whole match is its length. `spell` turns (text, stand-ins) into tokens."""

    pattern: re.Pattern[str]
    spell: Callable[[str, str], list[str]]


def _plain(text: str, shadow: str) -> list[str]:
    return [text.lower().replace("\u00ad", "")]


def _company(text: str, shadow: str) -> list[str]:
    return [text.lower().replace("&amp;", "&")]


def _spelled(text: str, shadow: str) -> list[str]:
    """Parentheses inside a token (smileys, telephone numbers) are spelled out."""
    return [text.lower().replace("(", "-lrb-").replace(")", "-rrb-")]


def _normal(text: str, shadow: str) -> list[str]:
    """Quotes and contractions get plain quotation marks."""
    return ["".join(QUOTES.get(character, character) for character in shadow.lower().replace("&apos;", "'"))]


def _halves(text: str, shadow: str) -> list[str]:
    return [text[:3].lower(), text[3:].lower()]


def _table(text: str, shadow: str) -> list[str]:
    return [SPELLED[text.lower()]]


def _nothing(text: str, shadow: str) -> list[str]:
    return []


def _words(names: str) -> str:
    """Alternatives, longest first, in any case."""
    return "(?i:" + "|".join(sorted(names.split(), key=len, reverse=True)) + ")"


A, D, L, X = "[A-Za-z]", "[0-9δ]", "[A-Za-zλ]", "[A-Za-zλ0-9δ]"
APOS = "(?:['’]|&apos;)"
MARK = "(?:['’‘`]|&apos;)"
PART = rf"(?:[dloDLO]{MARK}(?={X}{X}))?{X}+"
THING = rf"{PART}(?:[-_‐]{PART})*"
WORD = rf"{L}{X}*(?:[.!?]{L}{X}*)*"
HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,]*+(?:-(?:{A}(?:\.{A})+\.|[A-Za-z0-9]+))+"
COMPANIES = r"[A-Z]+(?:(?:&amp;|[&+])[A-Z]+)+"
SIDE = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
NUMBER = rf"(?:{D}+(?:[.:,]{D}+)*|(?:[.:,]{D}+)+)"
SUFFIX = rf"{APOS}(?i:[msd]|re|ve|ll)"
NAME = "[A-Za-z][A-Za-z0-9:._-]*"  # of a tag or an attribute
TAG = rf"<(?:[!?][A-Za-z-][^>]*|/?{NAME}(?: +{NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"))?)* */?)>"
BREAK = r" \"<>|(){}"  # ends an address
URL = rf"[^{BREAK}]+[^{BREAK},.!?-]"

CLOSING = (  # never glued to what follows
    "al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq est etc ext feb fla fri inc ind jan jul"
    " jun kan ltd mar mon neb nev nov oct plc pte pty sep seq sys tel thu tue wed wis wyo bancorp calif thurs ariz assn"
    " bldg blvd bros colo conn corp intl kans mich minn mont okla penn ppte ppty ptes ptys sept tenn tues univ wisc"
    " ph\\.d"
)
CAPITALISED_CLOSING = "|".join(f"{w[0]}(?i:{w[1:]})" for w in "Az La Pa Ark Del Ill Ore Tex Mass Miss Wash".split())
TITLES = (
    "cf dr ft lt mr ms mt ph st vs wm adj adm adv ave cie col cpl det drs ens gen gov hon jos maj mfg mme mrs mtg pfc"
    " pvt rep rev sen sfc sgt spc ste assoc lieut messrs profs treas alex asst atty brig capt cmdr dept elec govs insp"
    " invt mlle msgr natl pres prof reps sens supt"
)
BEFORE_NUMBERS = "ca no nos op pp art fig figs prop"
SENTENCE_STARTS = (  # after a single letter and a period
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once One"
    " Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You Mr\\. Ms\\."
)
WHOLE = "e'er ev'ry li'l nat'l s'more s'mores"
CLIPPED = "c?mon cap?n ?cause ?em ?til ?till dunkin? somethin? ol?".replace("?", APOS)
FILE_TYPES = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql"
    " tar txt wav x xml zip wma wmv"
)

TABLE: list[tuple[str, Callable[[str, str], list[str]]]] = [
    # markup and addresses
    (rf"({TAG})", _plain),
    (rf"((?i:https?)://{URL})", _plain),
    (rf"((?i:www)\.(?:[^{BREAK},.!?]+\.)+[A-Za-z]{{2,4}}(?:/{URL})?)", _plain),
    (rf"((?:[^{BREAK}\"'`!$,-_]+\.)+(?:com|net|org|edu)(?:/{URL})?)", _plain),
    (rf"(<?[A-Za-z0-9][^{BREAK}]*@(?:[^{BREAK}.]+\.)*[^{BREAK}.]+>?)", _plain),
    (r"(&#[0-9]+;)", _plain),
    (r"(@[A-Za-z_][A-Za-z_0-9]*)", _plain),
    (rf"(#{L}+)", _plain),
    # contractions
    (rf"({_words('cannot gonna gotta gimme lemme wanna')})", _halves),
    (rf"([A-Za-z]*[A-MO-Za-mo-z])[nN]{MARK}[tT]", _plain),
    (rf"([nN]{MARK}[tT])", _normal),
    (rf"({WORD}){SUFFIX}", _plain),
    (rf"({SUFFIX})[^A-Za-z]", _normal),
    (r"('[tT])(?i:is|was)", _plain),
    (rf"({L}+[aeiouyAEIOUY]{MARK}[aeiouA-Z]{L}*)", _plain),
    (rf"({APOS}[nN]{APOS}?|[ldjLDJ]{APOS}|{APOS}[2-9]0[sS]|{_words(WHOLE)}|{_words(CLIPPED)})", _plain),
    (rf"({APOS}[0-9][0-9]) ", _plain),
    (rf"([A-HJ-XZn]{MARK}{L}{L}+)", _plain),
    (rf"([yY]{APOS}){L}", _plain),
    (rf"([oO]{MARK}[oO])", _plain),
    # words
    (rf"({WORD})", _plain),
    (rf"((?:{_words(CLOSING)}|{CAPITALISED_CLOSING})\.)..", _plain),
    (rf"({THING})", _plain),
    (rf"({HYPHENATED})", _plain),
    (rf"((?:{WORD}|{THING}|{HYPHENATED}|{COMPANIES})\.)[,;:]", _plain),
    (rf"({COMPANIES})", _company),
    (rf"({SIDE}(?:\\?/{SIDE}){{1,2}})", _plain),
    (r"([cC](?:\+\+|#)|[fF]#)", _plain),
    # abbreviations keep their period
    (rf"({_words(TITLES)}\.)", _plain),
    (rf"({_words(BEFORE_NUMBERS)}\.) ?[0-9]", _plain),
    (rf"({A}(?:\.{A})*\.)", _plain),
    (rf"({A})\. (?:(?=[A-Z]){_words(SENTENCE_STARTS)}|{TAG}) ", _plain),
    (r"((?i:pro|anti)-)", _plain),
    (rf"({X}+(?:\.{X}+)*\.{_words(FILE_TYPES)})[ .?!,]", _plain),
    # numbers and money
    (rf"([-+]?{NUMBER})", _plain),
    (rf"((?:{D}{{1,4}}[- ])?{D}{{1,4}}(?:\\?/|⁄){D}{{1,4}})", _plain),
    (rf"({D}{{1,2}}[-/]{D}{{1,2}}[-/]{D}{{2,4}})", _plain),
    (
        r"((?:\([0-9]{2,3}\) ?|(?:\+\+?)?(?:[0-9]{2,4}[- ])?[0-9]{2,4}[- ])[0-9]{3,4}[- ]?[0-9]{3,5})",
        _spelled,
    ),
    (r"([A-Z]*\$)", _plain),
    # faces and ornaments
    (r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _spelled),
    (r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([-^x=~<>']-[-^x=~<>'`]\))", _spelled),
    (r"(\*+|#{2,}|@{2,}|_+|<<|>>|\\\*)", _plain),
    (r"(²+|₂+)", _plain),
    # punctuation
    (r"(')[A-Za-z][^ ]", _nothing),
    (rf"({SUFFIX})", _normal),
    (r"([`‘’‹›“”]{1,2})", _normal),
    (r"(-----+|[!?]+)", _plain),
    (r"(-{1,4}|—+|\.{3,5}|(?:\. ){2,4}\.|…|''|[\"'.,;:]|&(?:apos|quot|[mn]dash);)", _nothing),
    (r"((?i:&(?:amp|lt|gt|nbsp);))", _table),
    (r"([\0‐])", _nothing),
    (r"([^ ])", lambda text, shadow: [SPELLED.get(text, text.lower())]),
]
RULES = [Rule(re.compile(pattern, re.DOTALL), spell) for pattern, spell in TABLE]

EASY = re.compile(r"([A-Za-z]+) +")  # most of a caption: a plain word and a space
HARD_WORDS = frozenset("cannot gonna gotta gimme lemme wanna".split())


def tokenize(caption: str) -> list[str]:
    """Split an English caption into the lower-case words that CIDEr counts.

    Equals the official chain: Stanford PTBTokenizer 3.4.1 with -preserveLines -lowerCase, removal of the punctuation
    list of the COCO caption evaluation, and the scorers' own split at white space. Known differences: accented letters
    written as HTML entities (&eacute;), scripts and letters that Unicode gained after 2011, and what the official chain
    lets leak from one caption into the next (a caption that ends in "No." before one that starts with a digit).

    Args:
        caption: any text; line breaks count as spaces.

    Returns:
        Words without white space; empty for a caption without any.

    >>> tokenize("Two dogs don't run, they sleep.")
    ['two', 'dogs', 'do', "n't", 'run', 'they', 'sleep']
    """
    # The official input is one caption a line: rules may look at the line break and, past it, at one character more.
    shadow = "".join(map(_stand_in, caption)) + "  "
    return [word for token in _scan(caption, shadow) if token not in PUNCTUATION for word in token.split()]


def _scan(text: str, shadow: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        easy = EASY.match(shadow, at)
        if easy and (word := easy[1].lower()) not in HARD_WORDS:
            yield word
            at = easy.end()
        elif shadow[at] == " ":
            at += 1
        else:
            end, spell = _longest(shadow, at)
            yield from spell(text[at:end], shadow[at:end])
            at = end


def _longest(shadow: str, at: int) -> tuple[int, Callable[[str, str], list[str]]]:
    """Where the token at `at` ends, and how it is spelled."""
    matches = ((found, rule.spell) for rule in RULES if (found := rule.pattern.match(shadow, at)))
    best, spell = max(matches, key=lambda match: match[0].end())  # the first of the longest
    return best.end(1), spell
