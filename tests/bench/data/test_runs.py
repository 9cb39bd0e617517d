"""Datasets on their way into a run: bad pictures, native sizes, selection, classes of one name, places."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

import bench
from attacks.presets import PRESETS, AttackStep, Preset
from bench.config import Request, load_suite, resolve
from bench.data.bank import ids_left_out, read_pictures
from bench.data.images import fingerprint
from bench.data.selection import select
from bench.data.specs import parse
from bench.errors import UsageError
from bench.mini.data import build
from bench.mini.export import export_mini
from bench.running.load import load_dataset, prepare
from tasks.base import Dataset, Sample
from tasks.captioning import Captioning
from tasks.protocol import PROTOCOLS
from tasks.zeroshot import ZeroShot, distinct_names
from tests.bench.official import write_questions

CPU = torch.device("cpu")
SIZE = 24


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    export_mini(directory, SIZE, progress=False)
    return directory


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setitem(PRESETS, "brief", Preset("", (AttackStep("one", "apgd", 2, "untargeted", "clean", 2.0),)))


def _run(**options):
    options = {"encoder": "fare", "attack": "brief", "device": "cpu", "jobs": 1, "progress": False} | options
    return bench.run(**options if options["attack"] == "none" else {"eps": 4} | options)


def _pictures(sizes=((4, 4),) * 30, **changes):
    samples = tuple(
        Sample(f"s{i}", Image.new("RGB", size, (i, 0, 0)), "", ("x",), f"s{i}") for i, size in enumerate(sizes)
    )
    return replace(Dataset("toy", samples, ("x", "y")), **changes)


def _broken(dataset, tmp_path, *rows):
    samples = list(dataset.samples)
    for row in rows:
        path = tmp_path / f"bad{row}.jpg"
        path.write_bytes(b"<html>")
        samples[row] = replace(samples[row], image=path)
    return replace(dataset, samples=tuple(samples))


# Pictures.


def test_pictures_lie_in_main_memory_and_move_batch_by_batch():
    found = read_pictures(_pictures(), to_tensor, torch.device("meta"))
    assert found.images.pixels.device == CPU
    assert found.images[[3, 1]].device.type == "meta"
    images = read_pictures(_pictures(), to_tensor, CPU).images
    assert torch.equal(images[[3, 1]][:, 0, 0, 0] * 255, torch.tensor([3.0, 1.0]))
    assert (len(images), found.broken) == (30, {})


def test_the_fingerprint_of_whole_data_is_that_of_the_data(mini):
    assert read_pictures(_pictures(), to_tensor, CPU).fingerprint == fingerprint(_pictures())


def test_a_bad_picture_is_named_and_left_out_of_the_fingerprint(tmp_path):
    whole, bad = _pictures(), _broken(_pictures(), tmp_path, 7)
    found = read_pictures(bad, to_tensor, CPU)
    assert found.broken.keys() == {"s7"}
    assert all(word in found.broken["s7"] for word in ("sample s7", str(tmp_path / "bad7.jpg"), "download it again"))
    assert ids_left_out(found.fingerprint) == {"s7"}
    fixed = read_pictures(whole, to_tensor, CPU, left_out={"s7"})
    assert (fixed.fingerprint, fixed.broken) == (found.fingerprint, {})
    assert found.fingerprint != fingerprint(whole)
    assert ids_left_out(fingerprint(whole)) == frozenset()


def test_many_bad_pictures_are_a_wrong_folder(tmp_path):
    read_pictures(_broken(_pictures(), tmp_path, 1, 2, 3), to_tensor, CPU)
    with pytest.raises(UsageError, match=r"4 of 30 images of toy.*sample s1.*bad1\.jpg"):
        read_pictures(_broken(_pictures(), tmp_path, 1, 2, 3, 4), to_tensor, CPU)
    with pytest.raises(UsageError, match="1 of 1 images"):
        read_pictures(_broken(_pictures([(4, 4)]), tmp_path, 0), to_tensor, CPU)


def test_pictures_of_several_sizes_keep_them():
    images = read_pictures(_pictures([(4, 4), (5, 4), (4, 4)]), to_tensor, CPU).images
    assert images.sizes == [(4, 4), (4, 5), (4, 4)]
    assert images[[0, 2]].shape == (2, 3, 4, 4)
    assert images[[1]].shape == (1, 3, 4, 5)
    assert images.by_size([0, 1, 2]) == [0, 2, 1]
    assert images.by_size([1, 0, 2]) == [1, 0, 2]
    assert (images.alike([0, 2, 1]), images.alike([1, 0])) == ([0, 2], [1])


def test_exif_is_followed_or_not_as_the_protocol_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.png", exif=exif)
    dataset = Dataset("toy", (Sample("a", tmp_path / "turned.png", "", ("x",), "a"),))
    shapes = {
        name: tuple(read_pictures(dataset, to_tensor, CPU, upright=protocol.upright).images.pixels.shape[2:])
        for name, protocol in PROTOCOLS.items()
    }
    assert shapes == {"strict": (4, 2), "paper": (2, 4)}


# In a run.


@pytest.fixture
def damaged(mini, tmp_path):
    """The mini questions with one truncated image; its file and its question's id."""
    folder = tmp_path / "data" / "mini-vqa"
    shutil.copytree(mini / "mini-vqa", folder)
    asked = json.loads((folder / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"][2]
    file = folder / "val2014" / f"COCO_val2014_{asked['image_id']:012d}.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    return file, whole, str(asked["question_id"])


def test_a_bad_picture_is_an_error_row_and_the_run_goes_on_once_it_is_mended(damaged, tmp_path, brief):
    file, whole, bad = damaged
    options = {"task": "vqa", "attack": "answers", "data_root": tmp_path / "data", "limit": 12, "output": tmp_path}
    (run,) = _run(**options | {"attack": "none"}).runs
    assert run.header.status == "failed"
    (row,) = [r for r in run.records if r.error]
    assert (row.sample_id, row.score, row.step) == (bad, None, "clean")
    assert str(file) in row.error
    assert len([r for r in run.records if r.score is not None]) == 11
    file.write_bytes(whole)
    (run,) = _run(**options | {"attack": "none"}).runs
    assert run.header.status == "complete"
    assert len({r.sample_id for r in run.records if r.score is not None}) == 12


def test_a_broken_sample_is_never_attacked(damaged, tmp_path, brief):
    _, _, bad = damaged
    (run,) = _run(task="vqa", data_root=tmp_path / "data", limit=6, output=tmp_path).runs
    assert [r.step for r in run.records if r.sample_id == bad] == ["clean"]
    assert {r.step for r in run.records} == {"clean", "one"}


def test_a_run_at_native_size_attacks_the_files_pixels(mini, tmp_path):
    base = tmp_path / "wds_vtab-cifar10"
    shutil.copytree(mini / "wds_mini-shape", base)
    config = resolve(
        Request.of(encoder="clip", task="zeroshot", suite="mini", dataset=f"webdataset:{base}", attack="none", limit=4)
    )[0]
    native = replace(config, place=replace(config.place, row={**config.place.row, "native_size": True}))
    assert torch.equal(prepare(native).images.pixels, prepare(config).images.pixels)  # 48 pixels, as the encoder's
    assert prepare(native).header.dataset_fingerprint != prepare(config).header.dataset_fingerprint


def test_images_of_native_size_reach_the_attack_as_they_are(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), (7, 8, 9)).save(tmp_path / name / "1.png")
    config = resolve(Request.of(encoder="clip", task="zeroshot", dataset=f"imagefolder:{tmp_path}", attack="none"))[0]
    native = replace(config, place=replace(config.place, row={**config.place.row, "native_size": True}))
    assert prepare(config).images.pixels.shape == (2, 3, 48, 48)
    assert prepare(native).images.pixels.shape == (2, 3, 32, 32)
    Image.new("RGB", (24, 24), (7, 8, 9)).save(tmp_path / "cat" / "2.png")
    assert sorted(prepare(native).images.sizes) == [(24, 24), (32, 32), (32, 32)]
    Image.new("RGB", (32, 24)).save(tmp_path / "cat" / "2.png")
    with pytest.raises(UsageError, match=r"an image is 32 x 24 pixels; only square ones.*remove native_size"):
        prepare(native)


def test_the_preprocessing_is_the_vision_language_models_if_it_has_one(mini, monkeypatch):
    from bench.models.victims.llava.model import Llava

    config = resolve(Request.of(encoder="clip", task="vqa", attack="none", limit=2))[0]
    monkeypatch.setattr(Llava, "preprocess", lambda self, picture: torch.full((3, 8, 8), 0.5), raising=False)
    assert prepare(config).images.pixels.shape == (2, 3, 8, 8)


def test_data_that_does_not_suit_the_task_is_refused(mini, tmp_path):
    path = tmp_path / "row.toml"
    path.write_text(f'format = "karpathy"\nannotations = "a.json"\nimages = "{mini}"\nprompt = ""\n')
    (tmp_path / "a.json").write_text((mini / "mini-caption/dataset_karpathy.json").read_text())
    with pytest.raises(UsageError, match="without a prompt"):
        prepare(resolve(Request.of(encoder="clip", task="captioning", dataset=str(path), attack="none"))[0])
    with pytest.raises(UsageError, match="does not suit"):
        resolve(Request.of(encoder="clip", task="vqa", dataset=str(path)))


def test_a_set_of_files_asks_for_the_data_root():
    config = resolve(Request.of(encoder="clip", task="vqa", suite="paper", dataset="textvqa"))[0]
    with pytest.raises(UsageError, match=r"--data-root DIR.*bench data check --dataset textvqa"):
        prepare(config)


# Selection.


@pytest.mark.parametrize("seed", [42, 2015])
def test_a_seeded_selection_is_numpys_choice(seed):
    dataset = _pictures()
    np.random.seed(seed)
    drawn = np.random.choice(30, 9, replace=False)
    assert [s.id for s in select(dataset, f"seed-{seed}", 9).samples] == [f"s{i}" for i in drawn]
    assert select(dataset, f"seed-{seed}", 4).samples == select(dataset, f"seed-{seed}", 9).samples[:4]
    assert select(dataset, "first", 2).samples == dataset.samples[:2]


def test_a_selection_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="has 30 samples, 31 are asked for; use --limit 30"):
        select(_pictures(), "first", 31)
    for wrong in ("last", "seed-", "seed-x", "42"):
        with pytest.raises(UsageError, match=f"'{wrong}' is neither 'first' nor 'seed-N'"):
            select(_pictures(), wrong, 1)


# Classes of one name.


def test_classes_of_one_name_are_told_apart():
    names = ("missile", "cat", "missile")
    assert distinct_names(names) == ("missile #0", "cat", "missile #2")
    task = ZeroShot(Dataset("toy", (), names, ("a {c}",)))
    second = Sample("a", Path("x"), "", ("missile",), "a", label=2)
    assert (task.score("missile #2", second), task.score("missile #0", second)) == (100, 0)
    assert task.score("cat", Sample("b", Path("x"), "", ("cat",), "b")) == 100
    assert fingerprint(_pictures(classnames=("x", "x"))) != fingerprint(
        _pictures(classnames=("x", "x"), samples=tuple(replace(s, label=1) for s in _pictures().samples))
    )


def test_a_predicted_class_is_its_own_even_where_names_repeat(mini, tmp_path, brief):
    base = tmp_path / "wds_birds"
    shutil.copytree(mini / "wds_mini-shape", base)
    names = (base / "classnames.txt").read_text().split("\n")[:-1]
    plain = _run(task="zeroshot", dataset=f"webdataset:{base}", attack="none", output=tmp_path / "a").records
    (base / "classnames.txt").write_text("\n".join([*names[:-1], names[0]]) + "\n")
    doubled = _run(task="zeroshot", dataset=f"webdataset:{base}", attack="none", output=tmp_path / "b").records
    assert {r.prediction for r in plain} <= set(names)
    assert {r.prediction for r in doubled} <= {f"{names[0]} #0", f"{names[0]} #{len(names) - 1}", *names[1:-1]}


# Captions.


def test_a_caption_is_broken_below_the_data_sets_own_threshold():
    sample = Sample("a", Path("x"), "p", ("a cat",), "a")
    coco, flickr = (Captioning(Dataset("d", (sample,), broken_below=bound)) for bound in (10.0, 2.0))
    assert (coco.broken(5, sample), flickr.broken(5, sample), flickr.broken(1.9, sample)) == (True, False, True)


def test_attacks_lead_away_from_their_own_captions_and_scores_use_the_references():
    """The references and what is led away from differ in number and in text."""
    asked = []
    model = SimpleNamespace(answers=lambda prompts, answers: asked.append((prompts, answers)))
    sample = Sample("a", Path("x"), "p", ("a cat on a mat",), "a", attack_references=("first", "second"))
    other = Sample("b", Path("y"), "p", ("two dogs by the sea",), "b")
    task = Captioning(Dataset("d", (sample, other)))
    assert task.score("a cat on a mat", sample) > task.score("first", sample)
    assert [task.applies(f"reference-{n}", sample) for n in range(3)] == [True, True, False]
    task.bind(model).objective(torch.zeros(1, 3, 2, 2), [sample], "reference-1")
    assert asked == [(["p"], ["second"])]


# Places: third-party data that no suite knows.


def test_a_third_party_vqa_set_runs(mini, tmp_path, brief):
    folder = tmp_path / "harbour"
    write_questions(
        mini / "mini-vqa",
        folder,
        folder / "pictures",
        "harbour_questions_test.json",
        "harbour_annotations_test.json",
        lambda i: f"cam-{i}",
        lambda i: f"cam-{i}.jpg",
    )
    (run,) = _run(task="vqa", dataset="vqa:harbour", data_root=tmp_path, output=tmp_path / "runs").runs
    assert run.header.status == "complete"
    assert (run.header.dataset, run.header.n_samples, run.header.limit) == ("harbour", SIZE, None)
    assert run.header.protocol == {"precision": "float32", "data": f"vqa:{folder}", "selection": "seed-42"}
    assert {r.step for r in run.records} == {"clean", "one"}


def test_annotators_who_spell_otherwise_than_the_model_do_not_shield_their_question(mini, tmp_path):
    """The model says "red", they wrote "the red", which counts as the same: the attack must take its steps."""
    folder = tmp_path / "spelled"
    shutil.copytree(mini / "mini-vqa", folder)
    file = folder / "v2_mscoco_val2014_annotations.json"
    file.write_text(file.read_text().replace('"answer": "', '"answer": "the '))
    (run,) = _run(task="vqa", dataset=f"vqa:{folder}", attack="pgd", eps=4, limit=6, output=tmp_path / "runs").runs
    attacked = [r for r in run.records if r.step == "pgd"]
    assert len(attacked) >= 4
    assert min(r.evaluations for r in attacked) > 1
    assert any(r.score == 0 for r in attacked)


def test_a_third_party_imagefolder_and_webdataset_run(mini, tmp_path, brief):
    dataset = prepare(
        resolve(Request.of(encoder="clip", task="zeroshot", dataset="mini-shape", attack="none", limit=9))[0]
    )
    for sample in dataset.samples:
        folder = tmp_path / "photos" / sample.references[0]
        folder.mkdir(parents=True, exist_ok=True)
        sample.image.save(folder / f"{sample.id}.png")
    shutil.copytree(mini / "wds_mini-colour", tmp_path / "wds_strange")
    specs = f"imagefolder:{tmp_path / 'photos'},webdataset:{tmp_path / 'wds_strange'}"
    runs = _run(task="zeroshot", dataset=specs, output=tmp_path / "runs").runs
    assert [(r.header.dataset, r.header.status, r.header.n_samples) for r in runs] == [
        ("photos", "complete", 9),
        ("wds_strange", "complete", SIZE),
    ]
    assert any(r.score == 100 for r in runs[0].records)


def test_two_places_of_one_name_both_run(mini, tmp_path, capfd):
    for parent in ("a", "b"):
        for sample in build("mini-shape", 4).samples:
            folder = tmp_path / parent / "val" / sample.references[0]
            folder.mkdir(parents=True, exist_ok=True)
            sample.image.save(folder / f"{sample.id}.png")
    (tmp_path / "a" / "val" / "none").mkdir()
    specs = f"imagefolder:{tmp_path}/a/val,imagefolder:{tmp_path}/b/val"
    runs = _run(task="zeroshot", dataset=specs, attack="none", output=tmp_path / "runs").runs
    assert [(run.header.dataset, run.header.status) for run in runs] == [("a-val", "complete"), ("b-val", "complete")]
    assert "a-val: the class 'none' has no images" in capfd.readouterr().err


def test_samples_of_a_place_that_the_suite_leaves_out_are_counted(mini, capfd):
    spec = f"vqa:{mini / 'mini-vqa'}?samples="
    for samples, said in (("9", True), (str(SIZE), False)):
        (config,) = resolve(Request.of(encoder="clip", task="vqa", dataset=spec + samples, attack="none"))
        assert len(load_dataset(config).samples) == int(samples)
        assert (f"9 of {SIZE} samples are taken" in capfd.readouterr().err) == said


def test_two_places_of_one_name_have_directories_of_their_own(mini, tmp_path):
    directories = set()
    for parent in ("a", "b"):
        shutil.copytree(mini / "wds_mini-shape", tmp_path / parent / "birds")
        config = resolve(
            Request.of(encoder="clip", task="zeroshot", dataset=f"webdataset:{tmp_path / parent / 'birds'}")
        )[0]
        assert config.dataset == "birds"
        directories.add(config.directory)
    assert len(directories) == 2


def test_a_place_runs_as_the_suites_row_does(mini, tmp_path):
    """The same files by name and by place: the same samples, the same answers."""
    options = {"task": "vqa", "attack": "none"}
    by_name = _run(**options, data_root=mini, limit=SIZE, output=tmp_path / "a").records
    by_place = _run(**options, dataset=f"vqa:{mini / 'mini-vqa'}", output=tmp_path / "b").records
    assert {r.sample_id: r.prediction for r in by_name} == {r.sample_id: r.prediction for r in by_place}


def test_what_the_header_says_of_a_place_leads_back_to_it(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(mini / "mini-vqa", tmp_path / "deep" / "harbour")
    config = resolve(Request.of(encoder="clip", task="vqa", dataset="vqa:harbour", data_root=Path("deep")))[0]
    then = fingerprint(load_dataset(config))
    monkeypatch.chdir("/")
    again = parse(config.place.where, None, load_suite("mini").tasks["vqa"].defaults)
    now = load_dataset(replace(config, place=again, data_root=again.root))
    assert fingerprint(now) == then


def test_mini_runs_say_nothing_new():
    config = resolve(Request.of(encoder="clip", task="zeroshot", dataset="mini-shape", attack="none", limit=2))[0]
    assert prepare(config).header.protocol == {"precision": "float32"}
    assert load_suite("mini").tasks["vqa"].samples == 200


def test_a_config_of_a_place_can_be_sent_to_another_process(mini):
    import pickle

    config = resolve(Request.of(encoder="clip", task="vqa", dataset=f"vqa:{mini / 'mini-vqa'}"))[0]
    assert pickle.loads(pickle.dumps(config)) == config
