"""Every kind of model that people use, tiny: gradients, batches, the 8-bit path, generation, and the command line."""

from pathlib import Path

import pytest

from tests.bench.models.victims.any_model.kinds import KINDS, write
from tests.bench.models.victims.any_model.measure import Measures, measure
from tests.bench.models.victims.any_model.table import BEGIN, END, HEAD, row
from tests.bench.models.victims.any_model.walk import walk

PAGE = Path(__file__).parents[5] / "docs" / "models.md"
WALKED = ("Qwen2.5-VL",)  # in the default run; the others are slow tests


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_attacked_as_it_is_deployed(kind, tmp_path):
    found: Measures = measure(kind, tmp_path)
    assert found.gradient < 1e-3
    assert found.batch < 1e-5
    assert found.batch_gradient < 1e-4
    assert found.decoding < 1e-5
    assert found.pixels < 2
    assert found.loss < 0.05
    assert found.same_text
    assert found.same_batch


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in WALKED else pytest.mark.slow) for kind in KINDS]
)
def test_a_kind_goes_the_whole_way_through_the_command_line(kind, tmp_path):
    found = walk(write(kind, tmp_path / "model"), tmp_path / "data")
    values = {(one["task"], one["radius"]): one["value"] for one in found}
    assert values["vqa", 0.0] == 100, "the right answers are what the model says of the clean pictures"
    assert values["captioning", 0.0] > 100
    assert values["vqa", 16.0] < 100, "an attack changes what a random model says"
    assert values["captioning", 16.0] < values["captioning", 0.0]


def _rows_of_the_page():
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_manual_has_every_kind_and_what_was_measured_of_it():
    head, _, *rows = _rows_of_the_page()
    assert head == HEAD
    assert [cells[0] for cells in rows] == list(KINDS)
    for _, _, works, gradient, batch, gap, same, _ in rows:
        assert (works, same) == ("yes", "yes")
        assert float(gradient) < 1e-3
        assert float(batch) < 1e-5
        assert float(gap.removesuffix("/255")) < 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_manual_says_what_is_measured_now(kind, tmp_path):
    (stored,) = [cells for cells in _rows_of_the_page() if cells[0] == kind]
    found = row(kind, tmp_path)
    words = [0, 1, 2, 6, 7]  # rounding may move the others
    assert [found[k] for k in words] == [stored[k] for k in words]
