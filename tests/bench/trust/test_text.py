"""Text from outside, made harmless for its place."""

import unicodedata

import pytest

from bench.trust.text import for_csv, for_latex, for_markdown, for_terminal, on_one_line

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
TURNING = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize("character", [*CONTROLS, *TURNING, "\u2028", "\u2029", "\udce9"], ids=ascii)
def test_no_control_character_is_left_anywhere(character):
    for escape in (for_terminal, on_one_line, for_markdown, for_latex, for_csv):
        left = [c for c in escape(f"a{character}b") if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert left == ([character] if character in "\n\t" and escape in (for_terminal, for_csv) else [])
        escape(f"a{character}b").encode("utf-8")


def test_text_in_any_script_stays_as_it_is():
    text = "na\u00efve \u03b5 = 4/255, \u4e2d\u6587 \U0001f431"
    assert for_terminal(text) == on_one_line(text) == for_csv(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mini-vqa 4/255 (n = 5)", "mini-vqa 4/255 (n = 5)"),
        ("[a](b)", r"\[a\](b)"),
        ("![a](b)", r"!\[a\](b)"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("`x` *y* _z_ ~w~ $v$", r"\`x\` \*y\* \_z\_ \~w\~ \$v\$"),
        ("https://x www.x WWW.x a@b.c", r"https\://x www\.x WWW\.x a\@b.c"),
        ("hf:owner/name", "hf:owner/name"),
        ("a\nb", "a b"),
    ],
)
def test_markdown_means_nothing(text, shown):
    assert for_markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\\input{x}", r"a \textbackslash{}input\{x\}"),
        ("50% & #1 $x_y^z$ ~<>", r"50\% \& \#1 \$x\_y\textasciicircum{}z\$ \textasciitilde{}\textless{}\textgreater{}"),
    ],
)
def test_latex_is_set_as_it_is(text, shown):
    assert for_latex(text) == shown


@pytest.mark.parametrize("text", ["[2pt]", "*", " [x", "*[x"])
def test_latex_takes_no_cell_for_the_end_of_the_row_before(text):
    r"""As an argument of the ``\\`` before it, for which line ends and spaces are nothing."""
    assert for_latex(text) == f"{{}}{text}"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", " =1", "\t=1", "\n=1"])
def test_a_spreadsheet_computes_nothing(text):
    assert for_csv(text).startswith("'")


@pytest.mark.parametrize("text", ["", "clip", "4/255", "a=1", "'"])
def test_other_cells_are_left_alone(text):
    assert for_csv(text) == text
