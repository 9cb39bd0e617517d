"""Every kind of evidence is looked at, and every sample of the run accounted for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file, save_file

from bench.cli import main
from bench.records import load_run
from bench.records.images import path_of
from bench.records.worst import kept_records, worst_scores
from bench.verify import verify
from tests.bench.runs import make_run
from tests.bench.verify.tampering import edit, fields_of, image_of


def checked(run):
    return verify(load_run(run.directory), progress=False)


def command(*words):
    return CliRunner().invoke(main, ["verify", "--quiet", *map(str, words)])


def robust_record(run):
    """The attack on a sample that is robust at the smaller radius, and was not spared it."""
    left = worst_scores(run.header, run.records, 2.0)
    return next(r for r in run.records if r.radius == 2 and left[r.sample_id] == 100)


def test_an_honest_run_is_accounted_for_in_one_line(run):
    result, kept = checked(run), len(kept_records(run.header, run.records))
    assert (result.outcome, result.errors, result.missing, result.surrogate) == ("verified", (), (), False)
    assert (result.samples, result.clean, result.images, result.pngs, result.originals) == (16, 16, kept, kept, 16)
    assert str(result) == (
        f"verified: {run.directory}: 16 of 16 clean answers, {kept} adversarial images with what the model answers, "
        f"{kept} PNGs, 16 saved clean images; not verified: {len(run.records) - 16 - kept} attacks that left no image "
        "(nothing got worse, or a later one did it), losses and times"
    )


# ---- every sample ----------------------------------------------------------------------------------------


def test_a_clean_record_missing_in_the_middle_is_named(run):
    lost = [r for r in run.records if r.step == "clean"][7]
    edit(run, lost)
    assert (lost.sample_id, 0.0, "record") in fields_of(run.directory)
    assert command(run.directory).exit_code == 1


def test_all_records_of_a_sample_missing_is_named(run):
    sample = run.records[3].sample_id
    for record in run.records:
        if record.sample_id == sample:
            edit(run, record)
    result = checked(run)
    assert result.missing == (sample,)
    assert (sample, 0.0, "record") in {(m.sample_id, m.radius, m.field) for m in result.mismatches}
    assert f"1 sample without a record ({sample})" in str(result)


def test_an_attack_left_out_of_the_records_is_named_by_its_step(run):
    """The sample would pass for robust without having been attacked."""
    lost = robust_record(run)
    edit(run, lost)
    (mismatch,) = checked(run).mismatches
    assert (mismatch.sample_id, mismatch.radius, mismatch.field) == (lost.sample_id, 2.0, "record")
    assert mismatch.recomputed == lost.step


def test_a_success_left_out_with_its_image_is_named(run):
    path, record = image_of(run)
    edit(run, record)
    for suffix in (".safetensors", ".png"):
        path.with_suffix(suffix).unlink()
    assert fields_of(run.directory) == {(record.sample_id, 4.0, "record")}


def test_a_run_that_is_not_finished_says_what_it_has_not_come_to(run):
    sample = run.records[15].sample_id
    for record in run.records:
        if record.sample_id == sample:
            edit(run, record)
    path = run.directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "partial"}))
    result = checked(run)
    assert (result.outcome, result.missing, result.mismatches) == ("incomplete", (sample,), ())
    assert command(run.directory).exit_code == 1


def test_a_sample_with_an_error_is_named_and_the_run_incomplete(run):
    record = robust_record(run)
    edit(run, record, score=None, error="out of memory", prediction="", png_score=None)
    result = checked(run)
    assert (result.outcome, result.errors, result.mismatches) == ("incomplete", (record.sample_id,), ())
    assert f"1 sample with errors ({record.sample_id})" in str(result)
    assert command(run.directory).exit_code == 1


# ---- PNGs and clean images -------------------------------------------------------------------------------


def test_another_png_is_found(run):
    path, record = image_of(run)
    pixels = np.asarray(Image.open(path.with_suffix(".png"))).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    assert fields_of(run.directory) == {(record.sample_id, 4.0, "png")}


@pytest.mark.parametrize("kind", ["gone", "torn", "grey", "link"])
def test_a_lost_or_damaged_png_is_named(run, tmp_path, kind):
    path, record = image_of(run)
    png = path.with_suffix(".png")
    if kind == "torn":
        png.write_bytes(png.read_bytes()[:60])
    elif kind == "grey":
        Image.open(png).convert("L").save(png)
    else:
        png.rename(tmp_path / "moved.png")
        if kind == "link":
            png.symlink_to(tmp_path / "moved.png")
    assert fields_of(run.directory) == {(record.sample_id, 4.0, "png")}


def test_a_score_of_the_png_that_the_model_does_not_give_is_found(run):
    _, record = image_of(run)
    edit(run, record, png_score=100.0 - record.png_score)
    (mismatch,) = checked(run).mismatches
    assert (mismatch.sample_id, mismatch.field) == (record.sample_id, "png_score")
    assert (mismatch.recorded, mismatch.recomputed) == (100.0 - record.png_score, record.png_score)


@pytest.mark.parametrize("change", ["pixel", "gone", "stranger"])
def test_a_clean_image_that_is_not_that_of_the_data_is_found(run, change):
    sample = run.records[0].sample_id
    path = path_of(run.directory / "adversarial", sample, 0.0)
    if change == "pixel":
        image = load_file(path)["image"]
        image[0, 0, 0] = 1 - image[0, 0, 0] / 2
        save_file({"image": image}, path)
        assert fields_of(run.directory) == {(sample, 0.0, "clean image")}
    elif change == "gone":
        path.unlink()
        assert fields_of(run.directory) == {(sample, 0.0, "image")}
    else:
        path.with_stem("stranger").write_bytes(path.read_bytes())
        assert fields_of(run.directory) == {("stranger", 0.0, "image")}


def test_an_image_that_is_a_link_is_not_followed(run, tmp_path):
    path, record = image_of(run)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    mismatch = checked(run).mismatches[0]
    assert (mismatch.sample_id, mismatch.field) == (record.sample_id, "image")
    assert "link" in mismatch.recomputed


def test_a_run_from_before_clean_images_were_saved_is_verified_all_the_same(run):
    for path in (run.directory / "adversarial" / "0").iterdir():
        path.unlink()
    (run.directory / "adversarial" / "0").rmdir()
    result = checked(run)
    assert (result.outcome, result.originals) == ("verified", 0)
    assert "clean images" not in str(result)


# ---- the command -----------------------------------------------------------------------------------------


def test_many_runs_without_images_are_one_line(tmp_path):
    for number in range(20):
        make_run(tmp_path / f"run {number:02}", {0: [100.0], 4: [0.0]})
    result = command(tmp_path)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line == (
        f"bench: 20 runs ({tmp_path / 'run 00'}, {tmp_path / 'run 01'}, ...) kept no adversarial images, so there is "
        "nothing to verify; make them again with --save-adversarial"
    )


def test_runs_with_and_without_images_are_told_apart(run, tmp_path):
    make_run(tmp_path / "bare", {0: [100.0], 4: [0.0]})
    result = command(tmp_path)
    assert result.exit_code == 2
    assert result.output.splitlines()[0].startswith(f"verified: {run.directory}: 16 of 16")
    assert "bare kept no adversarial images" in result.output.splitlines()[1]
    data = json.loads(command(tmp_path, "--json").stdout)
    assert [(one["outcome"], one["samples"], one["missing"]) for one in data] == [("verified", 16, [])]


def test_a_stored_question_that_is_not_that_of_the_data_is_found(run):
    path = run.directory / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["references"] = ["another answer"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert fields_of(run.directory) == {(lines[2]["id"], 0.0, "question")}
