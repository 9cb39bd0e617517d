"""A real run with saved images, and everything that can be tampered with."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import bench
from bench.cli import main
from bench.errors import UsageError
from bench.records import load_run
from bench.records.worst import kept_records
from bench.running.load import prepare
from bench.verify import _Evidence, models_of, verify
from tasks.base import Answer
from tests.bench.runs import make_record, make_run
from tests.bench.verify.tampering import edit, fields_of, image_of


def test_an_honest_run_is_verified(run):
    result = verify(run, progress=False)
    assert result.mismatches == ()
    assert result.images == len(kept_records(run.header, run.records)) > 8
    assert {eps for _, eps in kept_records(run.header, run.records)} == {2.0, 4.0}
    assert result.clean == 16
    assert result.images + result.unkept + result.clean == len(run.records)


def test_a_moved_pixel_is_found(run):
    path, record = image_of(run)
    image = load_file(path)["image"]
    image[0, 0, 0] = (image[0, 0, 0] + 0.5) % 1.0
    save_file({"image": image}, path)
    found = fields_of(run.directory)
    assert {(record.sample_id, 4.0, "distance"), (record.sample_id, 4.0, "radius")} <= found
    assert {sample for sample, _, _ in found} == {record.sample_id}


def test_another_image_inside_the_ball_is_found(run):
    """The clean image itself: nearer than recorded, and the model gets it right."""
    path, record = image_of(run)
    setup = prepare(models_of(run.header))
    row = [sample.id for sample in setup.samples].index(record.sample_id)
    save_file({"image": setup.images[[row]][0].contiguous()}, path)
    found = fields_of(run.directory)
    assert {(record.sample_id, 4.0, field) for field in ("distance", "prediction", "score", "worst score")} <= found


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_pixel_out_of_range_is_found(run, value):
    path, record = image_of(run)
    image = load_file(path)["image"]
    image[1, 2, 3] = value
    save_file({"image": image}, path)
    assert (record.sample_id, 4.0, "range") in fields_of(run.directory)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"score": 50.0}, "score"), ({"prediction": "a lie"}, "prediction"), ({"distance": 3.99}, "distance")],
)
def test_a_changed_record_is_found(run, changes, field):
    _, record = image_of(run)
    edit(run, record, **changes)
    found = verify(load_run(run.directory), progress=False).mismatches
    assert (record.sample_id, 4.0, field) in {(m.sample_id, m.radius, m.field) for m in found}
    (mismatch,) = [m for m in found if m.field == field]
    key = next(iter(changes))
    assert mismatch.recorded == changes[key]
    assert mismatch.recomputed == pytest.approx(getattr(record, key), abs=1e-6)
    assert repr(changes[key]) in str(mismatch)


def test_a_survivor_made_a_victim_and_a_victim_made_a_survivor_are_found(run):
    attacked = {r.sample_id for r in run.records if r.radius == 4}
    fell = {sample for sample, _ in kept_records(run.header, run.records)}
    survivor = next(r for r in run.records if r.sample_id in attacked - fell and r.radius == 4)
    edit(run, survivor, score=0.0)
    assert (survivor.sample_id, 4.0, "image") in fields_of(run.directory)  # no image bears it out
    _, victim = image_of(run)
    edit(run, victim, score=100.0)
    found = fields_of(run.directory)
    assert (victim.sample_id, 4.0, "image") in found  # an image without a record of a fall
    assert (survivor.sample_id, 4.0, "image") in found


def test_a_clean_record_is_checked_too(run):
    record = next(r for r in run.records if r.step == "clean" and r.score == 100)
    edit(run, record, score=0.0)
    assert (record.sample_id, 0.0, "score") in fields_of(run.directory)


@pytest.mark.parametrize("kind", ["gone", "torn", "half", "shape"])
def test_a_lost_or_damaged_image_is_named(run, kind):
    path, record = image_of(run)
    if kind == "gone":
        path.unlink()
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        image = load_file(path)["image"]
        save_file({"image": image.half() if kind == "half" else image[:, 1:].contiguous()}, path)
    assert (record.sample_id, 4.0, "image") in fields_of(run.directory)


def test_any_single_flipped_bit_is_found(run):
    """Also the lowest of a pixel that is far from the largest change: it moves neither the distance nor the answer."""
    path, record = image_of(run)
    content = bytearray(path.read_bytes())
    setup = prepare(models_of(run.header))
    row = [sample.id for sample in setup.samples].index(record.sample_id)
    change = (load_file(path)["image"] - setup.images[[row]][0]).flatten()
    content[len(content) - 4 * (len(change) - int(change.abs().argmin()))] ^= 1
    path.write_bytes(content)
    assert fields_of(run.directory) == {(record.sample_id, 4.0, "pixels")}


def test_two_images_that_changed_places_are_found(run):
    first, second = sorted((run.directory / "adversarial" / "4").glob("*.safetensors"))[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    found = fields_of(run.directory)
    assert {(path.stem, 4.0, "distance") for path in (first, second)} <= found
    assert {(path.stem, 4.0, "radius") for path in (first, second)} <= found


def test_images_from_before_there_was_a_digest_are_judged_by_everything_else(run):
    path, _ = image_of(run)
    save_file(load_file(path), path)
    assert fields_of(run.directory) == set()


def test_other_weights_and_data_are_named_first(run):
    path = run.directory / "run.json"
    header = json.loads(path.read_text())
    header["weights"]["encoder"] = "0" * 64
    header["dataset_fingerprint"] = "1" * 64
    path.write_text(json.dumps(header))
    assert fields_of(run.directory) == {("", 0.0, "weights.encoder"), ("", 0.0, "dataset_fingerprint")}


def test_a_run_without_images_says_what_to_do(tmp_path):
    run = make_run(tmp_path, {0: [100.0], 4: [0.0]})
    with pytest.raises(UsageError, match=r"kept no adversarial images.*--save-adversarial"):
        verify(run)


def test_verdicts_that_a_protocol_takes_in_half_precision_are_asked_for_there(tmp_path):
    result = bench.run(
        encoder="clip",
        task="zeroshot",
        dataset="mini-shape",
        limit=6,
        attack="pgd",
        eps=4,
        save_adversarial=True,
        output=tmp_path,
        protocol="paper",
        precision="bf16",
        jobs=1,
        progress=False,
    )
    run = result.runs[0]
    assert models_of(run.header).precision == "bf16"
    assert verify(run, progress=False).mismatches == ()
    asked = _Evidence(run, prepare(models_of(run.header)), False)
    asked.setup = replace(asked.setup, half=SimpleNamespace(victim=_Says("half")), victim=_Says("full"))
    first = asked.setup.samples[0].id
    records = [make_record(first, step) for step in ("clean", "pgd", "again")]
    said = asked._ask(records, asked.setup.images[[0, 1, 2]])
    assert [one.answer.text for one in said] == ["half", "half", "full"]


class _Says:
    def __init__(self, word):
        self.word = word

    def predict(self, images, samples):
        assert len(images) == len(samples)
        return [Answer(self.word)] * len(images)


# ---- the command -----------------------------------------------------------------------------------------


def _verify(*words):
    return CliRunner().invoke(main, ["verify", "--quiet", *map(str, words)])


def test_exit_codes_and_words(run, tmp_path):
    assert _verify(run.directory).exit_code == 0
    _, record = image_of(run)
    edit(run, record, distance=1.0)
    result = _verify(run.directory)
    assert result.exit_code == 1
    assert f"sample {record.sample_id} at 4: distance is 1.0 in the records" in result.stdout
    data = json.loads(_verify(run.directory, "--json").stdout)
    assert [m["field"] for m in data[0]["mismatches"]] == ["distance"]
    bare = make_run(tmp_path / "bare", {0: [100.0], 4: [0.0]})
    assert _verify(bare.directory).exit_code == 2
    assert "--save-adversarial" in _verify(bare.directory).output


def test_no_attack_code_is_imported(original):
    code = (
        f"import sys\nfrom bench.cli import main\ntry: main(['verify', '--quiet', {str(original)!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' in sys.modules and not {'attacks.apgd', 'attacks.pgd', 'bench.running.loop'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
