"""What the cells of a table say."""

import pytest

from bench.data import cells
from tests.bench.data.small import refused

OPTIONS = ("red", "blue", "12")


@pytest.mark.parametrize(("said", "index"), [("1", 1), ("B", 1), ("b", 1), ("blue", 1), (0, 0), ("12", 2), (" 2 ", 2)])
def test_the_right_option_is_told_in_three_ways(said, index):
    assert cells.right_option(said, OPTIONS, "t, row 0") == index


@pytest.mark.parametrize("said", ["3", "9" * 5000, "-1", "0x1", True, 1.0, "green", "AB"])
def test_what_names_no_option_is_refused(said):
    """Python reads no number of 5,000 digits."""
    refused(lambda: cells.right_option(said, OPTIONS, "t, row 0"), "t, row 0", "names none of its 3 choices")


def test_an_empty_cell_in_a_column_of_numbers_is_no_option():
    nothing = float("nan")
    assert cells.choices([1.0, 2.5, nothing], "t, row 0") == ("1.0", "2.5")
    refused(lambda: cells.choices([1.0, nothing, 2.5], "t, row 0"), "t, row 0", "one of the choices", "not a text")
