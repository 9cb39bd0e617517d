"""What a run saves with --save-adversarial: images in the ball, and scores of their 8-bit PNGs."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from PIL import Image
from torchvision.transforms.functional import to_tensor

from attacks.presets import AttackStep
from bench.errors import UsageError
from bench.records import Record
from bench.running.images import ImageStore
from tasks.zeroshot import ZeroShot
from tests.bench.toy_runs import (
    NAMES,
    RADIUS,
    make_setup,
    short,
    victim,
)
from tests.toys import trained_toy


def test_saved_images_lie_in_the_ball_and_the_png_has_a_score_of_its_own(attack):
    found = attack(short("apgd"), save_adversarial=True)
    toy, asked, store = trained_toy(), victim(), ImageStore(found.directory / "adversarial")
    broken = [r for r in found.records if r.step != "clean" and r.score == 0]
    assert broken
    for record in broken:
        row = int(record.sample_id[1:])
        clean = toy.images[row : row + 1]
        exact = store.worst([SimpleNamespace(id=record.sample_id)], clean, RADIUS)
        assert float((exact - clean).abs().max()) <= RADIUS / 255 + 2**-23
        picture = to_tensor(Image.open(store.path(record.sample_id, RADIUS).with_suffix(".png")))[None]
        assert (picture - exact).abs().max() <= 0.5 / 255 + 1e-6
        answers = [asked.predict(images, [None])[0].text for images in (exact, picture)]
        assert answers[0] == record.prediction
        assert record.png_score == (100.0 if answers[1] == NAMES[int(toy.labels[row])] else 0.0)
    assert all(r.png_score is None for r in found.records if r.step == "clean")


def test_rounding_to_8_bits_can_undo_an_attack(attack):
    """A tiny ball between two grey levels: the exact image fools, the PNG is the clean image again."""
    step = AttackStep("apgd", "apgd", 8, "untargeted", "clean", 2.0)
    sharp = victim(spoil=lambda images: 0.5 + 200 * (images - (images * 255).round().detach() / 255) + 0 * images)
    setup = make_setup("toy", asked=sharp, eps=(0.25,))
    grid = replace(setup.images, pixels=(setup.images.pixels * 255).round() / 255)
    setup = replace(setup, images=grid)
    said = sharp.predict(grid.pixels, setup.samples)
    samples = tuple(replace(s, references=(answer.text,)) for s, answer in zip(setup.samples, said, strict=True))
    setup = replace(setup, task=ZeroShot(replace(setup.task.dataset, samples=samples)))
    found = attack([step], setup=setup, eps=(0.25,), save_adversarial=True)
    attacked = [r for r in found.records if r.step != "clean"]
    assert any(r.score == 0 for r in attacked)
    assert all(r.png_score == 100 for r in attacked)


def test_images_of_attacks_that_were_not_kept_are_not_promised(attack, tmp_path):
    once = {"output": tmp_path / "same"}
    attack(short("apgd", 2), **once)
    with pytest.raises(UsageError, match=r"24 attacks .* without --save-adversarial: their images are gone"):
        attack(short("apgd", 2), **once, save_adversarial=True)
    assert attack(short("apgd", 2), **once).header.status == "complete"


def test_records_without_a_png_score_are_written_as_before():
    line = Record("s", "g", "clean", 0.0, "a", 100.0, None, 0.0, 0, None, 0.1).to_json()
    assert "png_score" not in line
    assert Record.from_json(line).png_score is None
    scored = msgspec.structs.replace(Record.from_json(line), png_score=50.0)
    assert Record.from_json(scored.to_json()) == scored
