"""Text from outside, made harmless for the place where it is shown: terminal, Markdown, LaTeX, CSV.

HTML is escaped by jinja2's autoescape. Names, answers, paths and errors all come from outside: from a checkpoint's
folder, a dataset's classes, a model's answer, a results file that somebody sent.
"""

import re

# C0 and C1 controls begin terminal commands (ESC, CSI, OSC), marks of direction turn a line round, and lone surrogates,
# which stand for bytes of a file's name that are no UTF-8, cannot be written at all.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*_\[\]|~$@]|(?<=www)\.|:(?=//)", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_FORMULA = ("=", "+", "-", "@")


def for_terminal(text: str) -> str:
    r"""Text without control characters; each is shown as its escape, such as ``\x1b``. Newlines and tabs stay.

    >>> for_terminal("a\x1b]0;b")
    'a\\x1b]0;b'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def on_one_line(text: str) -> str:
    r"""Text for a terminal in one line, as for a cell of a table.

    >>> on_one_line("a\nb")
    'a b'
    """
    return for_terminal(re.sub(r"\s", " ", text))


def for_markdown(text: str) -> str:
    r"""Text as GitHub Markdown that shows it as it is: no link, image, tag or cell of its own.

    >>> for_markdown("![a|b](https://c) <b>")
    '!\\[a\\|b\\](https\\://c) &lt;b&gt;'
    """
    plain = "".join(_ENTITIES.get(character, character) for character in on_one_line(text))
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", plain)


def for_latex(text: str) -> str:
    r"""Text as LaTeX that sets it as it is; in one line, so that it cannot leave a comment.

    After the end of a table's row a bracket or a star would belong to that.

    >>> for_latex("a_b & 50%")
    'a\\_b \\& 50\\%'
    """
    plain = "".join(_LATEX.get(character, character) for character in on_one_line(text))
    return f"{{}}{plain}" if plain.lstrip().startswith(("[", "*")) else plain


def for_csv(text: str) -> str:
    """Text as a CSV cell that no spreadsheet takes for a formula; a leading apostrophe says that it is text.

    >>> for_csv("=1+1")
    "'=1+1"
    """
    plain = for_terminal(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain
