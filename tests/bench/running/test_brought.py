"""Images made elsewhere: matched by name, certified, and scored by the ordinary loop."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save_file

import bench
from bench.analysis.compare import attacked_against_clean
from bench.cli import main
from bench.config import Request, request_of, resolve
from bench.data.brought import refuse_surplus
from bench.errors import UsageError
from bench.records import CLEAN, RecordsError
from bench.running.load import prepare
from bench.verify import verify
from tests.bench.runs import in_memory, make_record

ASKED = {"encoder": "clip", "task": "zeroshot", "dataset": "mini-shape", "limit": 6, "device": "cpu"}


@pytest.fixture(scope="module")
def mini():
    (config,) = resolve(Request.of(**ASKED, attack="none"))
    return prepare(config)


def save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8).transpose(1, 2, 0)).save(path)


@pytest.fixture
def folders(tmp_path, mini):
    """Clean images, and those of other samples' classes moved by up to 4/255 towards the next sample's."""
    pixels = (mini.images.pixels * 255).round()
    for k, sample in enumerate(mini.samples):
        save_png(tmp_path / "clean" / f"{sample.id}.png", pixels[k])
        step = (pixels[(k + 1) % len(pixels)] - pixels[k]).clamp(-4, 4)
        save_png(tmp_path / "images" / f"{sample.id}.png", pixels[k] + step)
    return tmp_path


def score(folders, **changes):
    asked = {**ASKED, "images": folders / "images", "clean": folders / "clean", "eps": 4, "output": folders / "out"}
    (run,) = bench.run(**asked | {"save_adversarial": True, "progress": False} | changes).runs
    return run


def test_the_scores_are_those_of_the_images(folders, mini):
    """The answers of the records against those of the model asked by hand."""
    run = score(folders, attack="theirs")
    assert (run.header.attack, run.header.radii, run.header.status) == ("theirs", (4.0,), "complete")
    for step, folder in ((CLEAN, "clean"), ("brought", "images")):
        arrays = [np.asarray(Image.open(folders / folder / f"{s.id}.png")) for s in mini.samples]
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
        wanted = {s.id: a.text for s, a in zip(mini.samples, mini.victim.predict(images, mini.samples), strict=True)}
        assert {r.sample_id: r.prediction for r in run.records if r.step == step} == wanted
    assert {round(r.distance, 3) for r in run.records if r.step != CLEAN} == {4.0}
    assert all(r.loss is None and r.evaluations == 0 for r in run.records)


def test_it_is_a_run_like_any_other(folders):
    run = score(folders)
    assert verify(run, progress=False).outcome == "verified"
    assert score(folders).records == run.records, "the same command resumes: there is nothing left to do"
    request = request_of(run.header)
    assert (request.images, request.clean) == (folders / "images", folders / "clean")
    assert resolve(request)[0].directory.name == run.directory.name
    shown = CliRunner().invoke(main, ["table", str(run.directory)])
    assert shown.exit_code == 0, shown.output
    assert "4/255" in shown.output
    for words in (["report", str(run.directory), "-o", str(folders / "site")], ["compare", *[str(run.directory)] * 2]):
        shown = CliRunner().invoke(main, words)
        assert shown.exit_code == 0, shown.output


def test_other_images_do_not_go_on_in_the_same_run(folders, mini):
    score(folders)
    save_png(folders / "images" / f"{mini.samples[0].id}.png", (mini.images.pixels[0] * 255).round())
    with pytest.raises(RecordsError, match="'images': "):
        score(folders)


def test_exact_tensors_count_before_their_8_bit_copies(folders, mini):
    for k, sample in enumerate(mini.samples):
        exact = (mini.images.pixels[k] + 0.5 / 255).clamp(max=1).numpy()
        save_file({"image": exact}, folders / "images" / f"{sample.id}.safetensors")
    run = score(folders, clean=None, eps=0.5)
    assert [r.distance for r in run.records if r.step != CLEAN] == [pytest.approx(0.5, abs=1e-3)] * 6


def test_the_clean_images_are_the_datasets_own_by_default(folders):
    assert score(folders, clean=None).header.dataset_fingerprint != score(folders).header.dataset_fingerprint


def refused(folders, match, **changes):
    with pytest.raises(UsageError, match=match):
        score(folders, **changes)
    assert not list((folders / "out").rglob("records.jsonl")), "refused before anything is asked"


def spoil_as_jpeg(folders, name):
    with Image.open(folders / "images" / f"{name}.png") as image:
        image.save(folders / "images" / f"{name}.jpg")


def spoil_as_hidden_jpeg(folders, name):
    with Image.open(folders / "images" / f"{name}.png") as image:
        image.save(folders / "images" / f"{name}.png", "JPEG")


def spoil_by_deleting(folders, name):
    (folders / "images" / f"{name}.png").unlink()


def spoil_by_renaming(folders, name):
    path = folders / "images" / f"{name}.png"
    path.rename(path.with_name("other.png"))


def spoil_the_size(folders, name):
    save_png(folders / "images" / f"{name}.png", np.zeros((3, 20, 24)))


def spoil_the_mode(folders, name):
    with Image.open(folders / "images" / f"{name}.png") as image:
        image.convert("RGBA").save(folders / "images" / f"{name}.png")


def spoil_one_pixel(folders, name):
    pixels = np.asarray(Image.open(folders / "images" / f"{name}.png")).transpose(2, 0, 1).copy()
    pixels[0, 3, 3] = 255 if pixels[0, 3, 3] < 128 else 0
    save_png(folders / "images" / f"{name}.png", pixels)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (spoil_as_jpeg, "{name}.jpg: lossy formats move pixels"),
        (spoil_as_hidden_jpeg, "{name}.png is no PNG"),
        (spoil_by_deleting, "1 of 6 files are missing: {name}.png. A file"),
        (spoil_by_renaming, "1 of 6 files are missing: {name}.png; 1 others belong to no sample: other.png"),
        (spoil_the_size, "images must have one size: .*{name}.png is 24 x 20 pixels"),
        (spoil_the_mode, "{name}.png has the mode RGBA"),
        (spoil_one_pixel, "1 of 6 images lie outside linf 4/255 of their clean image .{name} at"),
    ],
)
def test_a_bad_file_is_named(folders, mini, spoil, match):
    name = mini.samples[3].id
    spoil(folders, name)
    refused(folders, match.format(name=name))


def test_surplus_files_are_named(folders, mini):
    """With --limit, the files of the samples that are left out may lie there."""
    save_png(folders / "images" / "stranger.png", np.zeros((3, 8, 8)))
    with pytest.raises(UsageError, match=r"1 files belong to no sample: stranger\.png"):
        refuse_surplus(folders / "images", mini.samples)
    assert score(folders).header.status == "complete"


def test_out_of_range_or_misshapen_tensors_are_named(folders, mini):
    name = mini.samples[0].id
    path = folders / "images" / f"{name}.safetensors"
    for tensor, words in (
        (mini.images.pixels[0].numpy() + 1, r"not in \[0, 1\]"),
        (np.full_like(mini.images.pixels[0].numpy(), np.nan), r"not in \[0, 1\]"),
        (mini.images.pixels[0].numpy().astype(np.float64), "float64"),
        (mini.images.pixels[:2].numpy(), "must hold one float32 tensor"),
    ):
        save_file({"image": tensor}, path)
        refused(folders, words)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"eps": "2,4"}, "certified against one radius, not 2, 4"),
        ({"eps": 3}, "lie outside linf 3/255"),
        ({"surrogate": "fare"}, "these are made already"),
        ({"attack": "apgd"}, "cannot be called 'apgd'"),
        ({"attack": "a/b"}, "letters, digits"),
        ({"images": "nowhere"}, "no folder nowhere"),
        ({"clean": "nowhere"}, "no folder nowhere"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(folders, changes, match):
    refused(folders, match, **changes)


def test_the_paired_test_takes_nothing_at_its_worst():
    """Of four samples one breaks and one is set right: the worst-so-far falls, the images alone change nothing."""
    run = in_memory({0: [100, 100, 0, 0], 4: [0, 100, 100, 0]}, attack="brought")
    change = attacked_against_clean(run, 4.0)
    assert (change.difference, change.p, change.n) == (0.0, 1.0, 4)
    run.records.append(make_record("s9", "brought", 4.0, None, error="refused"))
    assert attacked_against_clean(run, 4.0).n == 4


def test_every_image_is_shown_whatever_the_clean_answer_was(folders, mini):
    run = score(folders)
    clean = {r.sample_id: r.score for r in run.records if r.step == CLEAN}
    assert {r.sample_id for r in run.records if r.step != CLEAN} == set(clean)


def test_the_command_shows_the_paired_test(folders):
    words = (
        f"score {folders}/images --clean {folders}/clean --encoder clip --task zeroshot --dataset mini-shape --eps 4"
    )
    shown = CliRunner().invoke(main, [*words.split(), "--limit", "6", "--output", str(folders / "out"), "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert "adversarial against clean images: " in shown.output
    assert "n = 6 (exact McNemar test)" in shown.output
