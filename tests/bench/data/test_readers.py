import io
import json
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.config import load_suite
from bench.data.images import fingerprint, open_image
from bench.data.readers import load
from bench.errors import UsageError
from bench.mini import export
from bench.mini.data import NAMES, build
from bench.mini.export import MARKER, STAGE, export_mini
from tasks.base import Dataset, Sample

SIZE = 20
ROWS = load_suite("mini").datasets
KARPATHY = {"format": "karpathy", "annotations": "dataset_coco.json", "images": "coco", "prompt": "describe"}
VQA = {
    "format": "vqa",
    "questions": "v2_OpenEnded_mscoco_val2014_questions.json",
    "annotations": "v2_mscoco_val2014_annotations.json",
    "images": "val2014",
    "max_new_tokens": 5,
}
WDS = {"format": "webdataset", "folder": "wds_toy"}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
HTML = b"\n<!DOCTYPE html><html></html>"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mini")
    export_mini(directory, SIZE, progress=False)
    return directory


def png(colour=(10, 20, 30), size=(4, 3), mode="RGB", kind="png") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(action, *words) -> str:
    with pytest.raises(UsageError) as caught:
        action()
    message = str(caught.value)
    for word in words:
        assert str(word) in message
    return message


# Small datasets in each format, to be damaged.


def entry(cocoid=1, split="test", captions=("a cat",), **changes):
    return {
        "filepath": "val2014",
        "filename": f"COCO_val2014_{cocoid:012d}.jpg",
        "cocoid": cocoid,
        "split": split,
        "sentences": [{"raw": raw, "tokens": raw.split()} for raw in captions],
    } | changes


def make_karpathy(root, entries) -> None:
    write(root / KARPATHY["annotations"], {"images": entries, "dataset": "coco"})
    (root / "coco").mkdir(exist_ok=True)


def make_vqa(root, questions=(10, 20), annotations=(10, 20), answers=("yes",) * 10, image=7) -> None:
    asked = [{"image_id": image, "question": f"q{i}?", "question_id": i} for i in questions]
    given = [{"answer": a, "answer_id": k} for k, a in enumerate(answers)]
    answered = [
        {"question_id": i, "image_id": image, "answers": [{**a, "answer": f"{a['answer']}{i}"} for a in given]}
        for i in annotations
    ]
    write(root / VQA["questions"], {"questions": asked})
    write(root / VQA["annotations"], {"annotations": answered})
    (root / "val2014").mkdir(exist_ok=True)


def tar(path, members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def make_wds(root, members=None, classnames="cat\ndog\n", templates="a {c}.\n", nshards="1\n") -> Path:
    base = root / "wds_toy"
    write(base / "classnames.txt", classnames.encode())
    write(base / "zeroshot_classification_templates.txt", templates.encode())
    write(base / "test" / "nshards.txt", nshards.encode())
    tar(base / "test" / "0.tar", members or [("s0000000.png", png()), ("s0000000.cls", b"1")])
    return base


# Round trip.


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_data_set_reads_back_equal(exported, name):
    built, read = build(name, SIZE), load(name, ROWS[name], exported)
    bare = [replace(dataset, samples=()) for dataset in (built, read)]
    assert bare[0] == bare[1]
    texts = [[(s.id, s.prompt, s.references, s.group) for s in dataset.samples] for dataset in (built, read)]
    assert texts[0] == texts[1]
    for a, b in zip(built.samples, read.samples, strict=True):
        assert np.array_equal(np.asarray(open_image(a.image)), np.asarray(open_image(b.image)))
    assert fingerprint(built) == fingerprint(read)


def test_the_export_holds_the_official_fields(exported):
    caption = json.loads((exported / "mini-caption/dataset_karpathy.json").read_text())["images"][0]
    assert caption.keys() == {"filepath", "sentids", "filename", "imgid", "split", "sentences", "cocoid"}
    assert caption["sentences"][0].keys() == {"tokens", "raw", "imgid", "sentid"}
    coco = json.loads((exported / "mini-caption/captions_val2014.json").read_text())
    of_first = [a["caption"] for a in coco["annotations"] if a["image_id"] == caption["cocoid"]]
    assert of_first == [s["raw"] for s in caption["sentences"]]
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) == 5 * SIZE
    questions = json.loads((exported / ROWS["mini-vqa"]["questions"]).read_text())
    assert questions.keys() == {"info", "license", "data_type", "data_subtype", "task_type", "questions"}
    assert questions["questions"][0].keys() == {"image_id", "question", "question_id"}
    annotation = json.loads((exported / ROWS["mini-vqa"]["annotations"]).read_text())["annotations"][0]
    assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))
    assert {a["answer_confidence"] for a in annotation["answers"]} == {"yes"}
    assert annotation["multiple_choice_answer"] in {a["answer"] for a in annotation["answers"]}
    assert {"question_type", "answer_type", "image_id", "question_id"} < annotation.keys()


def test_shards_hold_so_many_images_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "IMAGES_PER_SHARD", 3)
    export_mini(tmp_path, 7, progress=False)
    base = tmp_path / "wds_mini-shape" / "test"
    assert (base / "nshards.txt").read_text() == "3\n"
    assert sorted(p.name for p in base.glob("*.tar")) == ["0.tar", "1.tar", "2.tar"]
    assert fingerprint(load("mini-shape", ROWS["mini-shape"], tmp_path)) == fingerprint(build("mini-shape", 7))


def test_an_export_is_the_same_bytes_again_and_replaces_an_earlier_one(tmp_path):
    def content(directory):
        return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    export_mini(tmp_path / "a", 2, progress=False)
    paths = export_mini(tmp_path / "b", 3, progress=False)
    assert paths[0] == tmp_path / "b" / "mini-caption"
    assert all(path.is_dir() for path in paths)
    export_mini(tmp_path / "b", 2, progress=False)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_an_export_that_was_cut_short_does_not_look_whole_and_can_be_given_again(tmp_path, monkeypatch):
    real = export._WRITERS["vqa"]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(export._WRITERS, "vqa", stop)
    with pytest.raises(KeyboardInterrupt):
        export_mini(tmp_path, 2, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [STAGE]
    refused(lambda: load("mini-caption", ROWS["mini-caption"], tmp_path), "dataset_karpathy.json")
    monkeypatch.setitem(export._WRITERS, "vqa", real)
    export_mini(tmp_path, 2, progress=False)
    assert (tmp_path / MARKER).is_file()
    assert not (tmp_path / STAGE).exists()


def test_an_export_cut_short_while_moving_can_be_given_again(tmp_path, monkeypatch):
    export_mini(tmp_path, 2, progress=False)
    rename, moved = Path.rename, []

    def fail(self, target):
        moved.append(target)
        if len(moved) == 3:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    refused(lambda: export_mini(tmp_path, 3, progress=False), tmp_path, "No space left", "make room")
    assert not (tmp_path / MARKER).exists()
    monkeypatch.setattr(Path, "rename", rename)
    export_mini(tmp_path, 3, progress=False)
    assert len(load("mini-vqa", ROWS["mini-vqa"], tmp_path).samples) == 3


@pytest.mark.parametrize("thing", ["thesis.tex", "mini-vqa/notes.txt"])
def test_an_export_never_touches_other_things(tmp_path, thing):
    mine = write(tmp_path / thing, b"mine")
    refused(lambda: export_mini(tmp_path, 2, progress=False), tmp_path, thing.split("/")[0], "empty folder")
    assert mine.read_bytes() == b"mine"
    refused(lambda: export_mini(mine, 2, progress=False), mine, "choose a new folder")
    refused(lambda: export_mini(tmp_path / "new", 0, progress=False), "at least 1")


# Karpathy JSON.


def test_karpathy_reads_the_test_split_in_the_order_of_the_file(tmp_path):
    entries = [entry(9), entry(3, split="restval"), entry(4, captions=("b", "a", "b"), filepath="train2014")]
    make_karpathy(tmp_path, entries)
    dataset = load("coco", KARPATHY, tmp_path)
    assert [s.id for s in dataset.samples] == ["9", "4"]
    assert dataset.samples[1] == Sample(
        "4", tmp_path / "coco/train2014/COCO_val2014_000000000004.jpg", "describe", ("b", "a", "b"), "4"
    )
    assert dataset.max_new_tokens == 20


def test_flickr_has_neither_folders_nor_coco_ids(tmp_path):
    absent = {k: v for k, v in entry(filename="1007129816.jpg").items() if k not in ("filepath", "cocoid")}
    empty = {**entry(), "filename": "36979.jpg", "filepath": "", "cocoid": None}
    make_karpathy(tmp_path, [absent, empty])
    samples = load("flickr30k", KARPATHY, tmp_path).samples
    assert [(s.id, s.group, s.image) for s in samples] == [
        ("1007129816", "1007129816", tmp_path / "coco/1007129816.jpg"),
        ("36979", "36979", tmp_path / "coco/36979.jpg"),
    ]


def test_targets_are_dealt_out_in_turn(tmp_path):
    make_karpathy(tmp_path, [entry(i, captions=()) for i in (1, 2, 3)])
    row = {**KARPATHY, "targets": ["x", "y"]}
    assert [s.references for s in load("stealth", row, tmp_path).samples] == [("x",), ("y",), ("x",)]
    refused(lambda: load("stealth", {**KARPATHY, "targets": "x"}, tmp_path), "list of texts", "fix")
    refused(lambda: load("stealth", {**KARPATHY, "targets": []}, tmp_path), "list of texts", "fix")


def test_captions_are_kept_to_the_letter(tmp_path):
    captions = ("Ein Café – naïve 猫\n", "two\nlines ", "emoji 🐈", "")
    make_karpathy(tmp_path, [entry(captions=captions)])
    assert load("coco", KARPATHY, tmp_path).samples[0].references == captions


@pytest.mark.parametrize("encode", [
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.encode("utf-16"),
], ids=["BOM", "CRLF", "UTF-16"])  # fmt: skip
def test_json_of_other_systems_is_accepted(tmp_path, encode):
    make_karpathy(tmp_path, [])
    text = json.dumps({"images": [entry(captions=("café",))]}, indent=1, ensure_ascii=False)
    write(tmp_path / KARPATHY["annotations"], encode(text))
    assert load("coco", KARPATHY, tmp_path).samples[0].references == ("café",)


@pytest.mark.parametrize(("content", "words"), [
    (b"", ["is empty", "download it again"]),
    (HTML, ["HTML", "download the file itself"]),
    (LFS, ["git-lfs pointer", "git lfs pull"]),
    (b'{"images": [{"split": "te', ["not whole JSON", "line 1 column", "download again"]),
    (b"\x1f\x8b\x08\x00\xff\xfe", ["UTF-8", "unpacked"]),
    (b"[]", ["a JSON list", "Karpathy annotations"]),
    (b"{}", ["no field 'images'", "official file"]),
    (b'{"images": {}}', ["'images' is {}, not list", "official file"]),
    (b'{"images": [1]}', ["no field 'split' in 1", "official file"]),
], ids=["empty", "html", "lfs", "truncated", "gzip", "list", "no-key", "wrong-type", "no-entry"])  # fmt: skip
def test_damaged_json_is_named(tmp_path, content, words):
    make_karpathy(tmp_path, [entry()])
    path = write(tmp_path / KARPATHY["annotations"], content)
    refused(lambda: load("coco", KARPATHY, tmp_path), path, *words)


@pytest.mark.parametrize(("entries", "words"), [
    ([entry(1), entry(2), entry(1)], ["image id 1 comes twice", "remove one"]),
    ([entry(5, captions=())], ["image 5 has no sentences", "remove the image"]),
    ([entry(5, sentences=[{"tokens": []}])], ["image 5: no field 'raw'", "official file"]),
    ([entry(5, filepath=3)], ["'filepath' is 3", "official file"]),
    ([entry(1, split="Test"), entry(2, split="val")], ["'test'", "splits: Test, val", "official split file"]),
    ([], ["splits: none", "official split file"]),
], ids=["twice", "no-captions", "no-raw", "filepath", "unknown-split", "no-images"])  # fmt: skip
def test_contradictions_in_karpathy_json_are_named(tmp_path, entries, words):
    make_karpathy(tmp_path, entries)
    refused(lambda: load("coco", KARPATHY, tmp_path), tmp_path / KARPATHY["annotations"], *words)


@pytest.mark.parametrize("row", [KARPATHY, VQA, WDS], ids=lambda row: row["format"])
def test_a_missing_root_is_named(tmp_path, row):
    refused(lambda: load("x", row, tmp_path / "nowhere"), tmp_path / "nowhere", "'x'", "--data-root")


@pytest.mark.parametrize(("row", "key", "name"), [
    (KARPATHY, "annotations", "dataset_coco.json"),
    (VQA, "questions", "v2_OpenEnded_mscoco_val2014_questions.json"),
    (VQA, "annotations", "v2_mscoco_val2014_annotations.json"),
], ids=["karpathy", "questions", "annotations"])  # fmt: skip
def test_a_missing_annotation_file_is_named(tmp_path, row, key, name):
    make_karpathy(tmp_path, [entry()])
    make_vqa(tmp_path)
    (tmp_path / row[key]).unlink()
    refused(lambda: load("x", row, tmp_path), tmp_path / name, f"download {name}", "--data-root")


@pytest.mark.parametrize(("row", "folder"), [(KARPATHY, "coco"), (VQA, "val2014")])
def test_a_missing_image_folder_is_named(tmp_path, row, folder):
    make_karpathy(tmp_path, [entry()])
    make_vqa(tmp_path)
    (tmp_path / folder).rmdir()
    refused(lambda: load("x", row, tmp_path), tmp_path / folder, "put it there")


def test_a_directory_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / KARPATHY["annotations"]).mkdir()
    refused(lambda: load("x", KARPATHY, tmp_path), tmp_path / KARPATHY["annotations"], "check the path")


# VQA.


def test_vqa_joins_by_question_id_and_keeps_the_order_of_the_questions(tmp_path):
    make_vqa(tmp_path, questions=(20, 10, 30), annotations=(10, 30, 99, 20), answers=("no", "yes", "no"))
    dataset = load("vqav2", {**VQA, "prompt_suffix": "\nShort."}, tmp_path)
    assert [s.id for s in dataset.samples] == ["20", "10", "30"]
    assert dataset.samples[0].references == ("no20", "yes20", "no20")
    assert {s.group for s in dataset.samples} == {"7"}
    assert (dataset.prompt_suffix, dataset.max_new_tokens) == ("\nShort.", 5)
    assert dataset.samples[1].prompt == "q10?"


@pytest.mark.parametrize(("present", "expected"), [((), "jpg"), (("png",), "png"), (("jpg", "png"), "jpg")])
def test_vqa_finds_images_by_their_official_name(tmp_path, present, expected):
    make_vqa(tmp_path)
    for extension in present:
        write(tmp_path / f"val2014/COCO_val2014_000000000007.{extension}", png())
    image = load("vqav2", VQA, tmp_path).samples[0].image
    assert image == tmp_path / f"val2014/COCO_val2014_000000000007.{expected}"
    if not present:
        refused(lambda: open_image(image), image, "download the images")


@pytest.mark.parametrize(("changes", "file", "words"), [
    ({"questions": (10, 20, 10)}, "questions", ["question_id 10 comes twice", "remove one"]),
    ({"annotations": (10, 20, 20)}, "annotations", ["question_id 20 comes twice", "remove one"]),
    ({"annotations": (10,)}, "annotations", ["no annotation for question_id 20", "same release"]),
    ({"questions": ()}, "questions", ["no questions", "official file"]),
    ({"answers": ()}, "annotations", ["question_id 10 has no answers", "split with answers"]),
], ids=["question-twice", "annotation-twice", "unanswered", "none", "no-answers"])  # fmt: skip
def test_contradictions_in_vqa_json_are_named(tmp_path, changes, file, words):
    make_vqa(tmp_path, **changes)
    refused(lambda: load("vqav2", VQA, tmp_path), tmp_path / VQA[file], *words)


def test_an_annotation_about_another_image_is_named(tmp_path):
    make_vqa(tmp_path)
    path = tmp_path / VQA["annotations"]
    path.write_text(path.read_text().replace('"image_id": 7', '"image_id": 8'))
    refused(lambda: load("vqav2", VQA, tmp_path), path, "image 8", "image 7", "same release")


# WebDataset shards.


def test_webdataset_reads_all_shards_in_order(tmp_path):
    base = make_wds(tmp_path, classnames="cat\r\nhot dog \r\n\r\n", templates="\ufeffa {c}.\nthe {c}.", nshards="2")
    later = [
        ("s0000002.cls", b"0\n"), ("s0000002.jpg", png(kind="jpeg")),
        ("s0000001.webp", png(kind="webp")), ("s0000001.cls", b"1"), ("s0000001.json", b"{}"), (".hidden", b""),
    ]  # fmt: skip
    tar(base / "test" / "1.tar", later)
    dataset = load("toy", WDS, tmp_path)
    assert [(s.id, s.references, s.group, s.prompt) for s in dataset.samples] == [
        ("s0000000", ("hot dog",), "s0000000", ""),
        ("s0000002", ("cat",), "s0000002", ""),
        ("s0000001", ("hot dog",), "s0000001", ""),
    ]
    assert dataset.classnames == ("cat", "hot dog")
    assert dataset.templates == ("a {c}.", "the {c}.")
    assert dataset.chance == 50
    assert all(open_image(s.image).size == (4, 3) for s in dataset.samples)


IMAGE = ("s0000000.png", png())


@pytest.mark.parametrize(("changes", "file", "words"), [
    ({"members": [IMAGE, ("s0000000.cls", b"2")]}, "test/0.tar",
     ["key s0000000", "label 2 is out of range", "classnames.txt has 2 classes", "same set"]),
    ({"members": [IMAGE, ("s0000000.cls", b"-1")]}, "test/0.tar", ["label -1 is out of range", "same set"]),
    ({"members": [IMAGE, ("s0000000.cls", b"\xff cat")]}, "test/0.tar", ["not a number", "download it again"]),
    ({"members": [IMAGE]}, "test/0.tar", ["key s0000000", "no label (.cls)", "download it again"]),
    ({"members": [("s0000000.cls", b"0")]}, "test/0.tar", ["key s0000000", "no image (.webp", "download it again"]),
    ({"members": [IMAGE, ("s0000000.cls", b"0")] * 2}, "test/0.tar", ["key s0000000 comes twice", "again"]),
    ({"members": [(".hidden", b"")]}, "test", ["no images", "download them again"]),
    ({"classnames": "cat\n\ndog\n"}, "classnames.txt", ["line 2 is blank", "restore or remove"]),
    ({"classnames": " \n"}, "classnames.txt", ["is empty", "download it again"]),
    ({"templates": "a {c}.\na photo of {}.\n"}, "zeroshot_classification_templates.txt",
     ["line 2", "'a photo of {}.'", "{c}", "add it"]),
    ({"nshards": "two"}, "test/nshards.txt", ["'two'", "write their number"]),
    ({"nshards": "0"}, "test/nshards.txt", ["'0'", "write their number"]),
    ({"nshards": "3"}, "test/1.tar", ["2 of 3 are missing", "download"]),
], ids=["class-high", "class-negative", "class-text", "no-label", "no-image", "key-twice",
        "no-images", "name-blank", "no-names", "template", "nshards", "nshards-0",
        "no-shard"])  # fmt: skip
def test_contradictions_in_shards_are_named(tmp_path, changes, file, words):
    base = make_wds(tmp_path, **changes)
    refused(lambda: load("toy", WDS, tmp_path), base / file, *words)


@pytest.mark.parametrize("file", ["classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"])
def test_a_missing_file_beside_the_shards_is_named(tmp_path, file):
    base = make_wds(tmp_path)
    (base / file).unlink()
    refused(lambda: load("toy", WDS, tmp_path), base / file, f"download {Path(file).name}")


def test_extensions_in_shards_may_be_in_capitals(tmp_path):
    make_wds(
        tmp_path, [("s0000000.JPG", noise("jpeg")), ("s0000000.CLS", b"1"), ("a/s1.PnG", png()), ("a/s1.cls", b"0")]
    )
    dataset = load("toy", WDS, tmp_path)
    assert [s.label for s in dataset.samples] == [1, 0]
    assert all(open_image(s.image).mode == "RGB" for s in dataset.samples)


def test_a_missing_webdataset_folder_is_named(tmp_path):
    refused(lambda: load("toy", WDS, tmp_path), tmp_path / "wds_toy", "'toy'", "--data-root")


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: LFS, lambda content: HTML * 50, lambda content: content[:700],
    lambda content: content[:1024], lambda content: content[:1800], lambda content: content[:2048],
    lambda content: content[:512] + b"\x01" * 512 + content[1024:1536],
], ids=["empty", "lfs", "html", "cut-image", "cut-at-member", "cut-header", "cut-before-end", "junk"])  # fmt: skip
def test_a_damaged_shard_is_named(tmp_path, damage):
    shard = make_wds(tmp_path) / "test" / "0.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    refused(lambda: load("toy", WDS, tmp_path), shard, "not a whole tar file", "download it again")


@pytest.mark.parametrize(("damage", "word"), [
    (lambda whole: whole[: len(whole) // 2], "cannot be decoded"), (lambda whole: b"", "empty (0 bytes)"),
    (lambda whole: HTML, "not an image"),
], ids=["cut", "empty", "html"])  # fmt: skip
def test_a_bad_image_in_a_shard_is_named_when_it_is_opened(tmp_path, damage, word):
    base = make_wds(tmp_path, [("s0000000.jpg", damage(noise("jpeg"))), ("s0000000.cls", b"1")])
    sample = load("toy", WDS, tmp_path).samples[0]
    refused(lambda: open_image(sample.image), f"{base / 'test' / '0.tar'}:s0000000.jpg", word, "download it again")


@pytest.mark.parametrize("kind", ["retrieval", "multilabel"])
def test_other_types_of_webdataset_are_refused(tmp_path, kind):
    path = write(make_wds(tmp_path) / "dataset_type.txt", f"{kind}\n".encode())
    refused(lambda: load("toy", WDS, tmp_path), path, kind, "only classification")


# Rows.


def test_an_unknown_format_gets_a_suggestion(tmp_path):
    refused(lambda: load("x", {**KARPATHY, "format": "karpaty"}, tmp_path), "'karpaty'", "did you mean 'karpathy'?")
    refused(lambda: load("x", {}, tmp_path), "'x'", "known: karpathy, vqa, webdataset")


def test_a_row_with_a_key_too_many_or_too_few_is_refused(tmp_path):
    refused(lambda: load("x", {**WDS, "foldr": 1}, tmp_path), "'x'", "'foldr'", "fix its row")
    refused(lambda: load("x", {"format": "vqa", "questions": "q"}, tmp_path), "'annotations'", "fix its row")


# Images.


def noise(kind, mode="RGB", size=(32, 32)) -> bytes:
    buffer = io.BytesIO()
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (*size, bands), np.uint8)
    Image.frombytes(mode, size, pixels.tobytes()).save(buffer, kind)
    return buffer.getvalue()


def test_images_that_cannot_be_read_are_named(tmp_path):
    absent = tmp_path / "absent.jpg"
    refused(lambda: open_image(absent), absent, "no image at", "download the images")
    empty = write(tmp_path / "empty.jpg", b"")
    refused(lambda: open_image(empty), empty, "empty (0 bytes)", "download it again")
    for name, content in (("page.jpg", HTML), ("pointer.jpg", LFS), ("text.jpg", b"hello")):
        path = write(tmp_path / name, content)
        refused(lambda path=path: open_image(path), path, "not an image", "download it again")
    refused(lambda: open_image(tmp_path), tmp_path, "cannot be decoded")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_named(tmp_path, kind, share):
    content = noise(kind)
    path = write(tmp_path / f"cut.{kind}", content[: int(len(content) * share)])
    refused(lambda: open_image(path), path, "download it again")


def test_a_damaged_png_is_named(tmp_path):
    content = bytearray(noise("png"))
    content[60:70] = bytes(10)
    path = write(tmp_path / "damaged.png", bytes(content))
    refused(lambda: open_image(path), path, "cannot be decoded", "download it again")


def test_cmyk_becomes_rgb(tmp_path):
    path = write(tmp_path / "cmyk.jpg", png((0, 255, 255, 0), (16, 16), "CMYK", "jpeg"))
    image = open_image(path)
    assert image.mode == "RGB"
    red, green, blue = image.getpixel((8, 8))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, kind):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = tmp_path / f"deep.{kind}"
    Image.fromarray(values).save(path)
    pixels = np.asarray(open_image(path))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()
    in_memory = Image.fromarray(values.astype(np.int32))
    assert np.array_equal(np.asarray(open_image(in_memory)), pixels)


def test_pixels_without_a_known_range_are_refused(tmp_path):
    for name, values in (
        ("float.tiff", np.zeros((2, 2), np.float32)),
        ("deep.tiff", np.full((2, 2), 1 << 20, np.int32)),
    ):
        path = tmp_path / name
        Image.fromarray(values).save(path)
        refused(lambda path=path: open_image(path), path, "range is not known", "convert it to 8 bits")


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_counts(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"animated.{kind}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)
    with Image.open(path) as image:
        assert image.n_frames == 3
        image.seek(2)
        assert open_image(image).getpixel((4, 4)) == (255, 0, 0)


# How a camera stores an upright scene, by the value of the EXIF tag; PIL turns counter-clockwise.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    upright = Image.frombytes("RGB", (3, 2), bytes(range(18)))
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    image = open_image(path)
    assert image.size == upright.size
    assert image.tobytes() == upright.tobytes() == open_image(image).tobytes()


def test_damaged_exif_says_nothing(tmp_path):
    path = tmp_path / "exif.jpg"
    Image.new("RGB", (3, 2)).save(path, exif=b"Exif\x00\x00junk and more junk")
    assert open_image(path).size == (3, 2)


@pytest.mark.parametrize(("mode", "colour", "expected"), [
    ("L", 7, (7, 7, 7)),
    ("1", 1, (255, 255, 255)),
    ("LA", (9, 0), (9, 9, 9)),
    ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
], ids=["grey", "bilevel", "grey-alpha", "alpha"])  # fmt: skip
def test_other_modes_become_rgb(tmp_path, mode, colour, expected):
    path = write(tmp_path / "x.png", png(colour, mode=mode))
    assert open_image(path).getpixel((0, 0)) == expected


def test_a_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 40, 50, 60])
    path = tmp_path / "palette.png"
    image.save(path, transparency=b"\xff\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path).getpixel((1, 1)) == (40, 50, 60)


def test_one_pixel_is_an_image(tmp_path):
    path = write(tmp_path / "dot.png", png(size=(1, 1)))
    assert open_image(path).size == (1, 1)


def test_opening_an_rgb_picture_gives_a_copy():
    image = Image.new("RGB", (2, 2))
    open_image(image).putpixel((0, 0), (1, 1, 1))
    assert image.getpixel((0, 0)) == (0, 0, 0)


# Fingerprint.


def toy() -> Dataset:
    samples = (
        Sample("a", Image.new("RGB", (2, 3), "red"), "p", ("r", "s"), "g"),
        Sample("b", Image.new("RGB", (2, 3), "blue"), "p", ("t",), "g"),
    )
    return Dataset("toy", samples, ("x", "y"), ("a {c}",), "!", 5, 50.0)


@pytest.mark.parametrize("change", [
    {"name": "other"}, {"classnames": ("y", "x")}, {"templates": ("the {c}",)}, {"prompt_suffix": "?"},
    {"max_new_tokens": 6}, {"samples": toy().samples[:1]}, {"samples": toy().samples[::-1]},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_the_fingerprint_tells_data_sets_apart(change):
    assert fingerprint(replace(toy(), **change)) != fingerprint(toy())


@pytest.mark.parametrize("change", [
    {"id": "c"}, {"prompt": "q"}, {"references": ("rs",)}, {"group": "h"},
    {"image": Image.new("RGB", (3, 2), "red")}, {"image": Image.new("RGB", (2, 3), (254, 0, 0))},
], ids=["id", "prompt", "references", "group", "size", "pixel"])  # fmt: skip
def test_the_fingerprint_tells_samples_apart(change):
    first, second = toy().samples
    assert fingerprint(replace(toy(), samples=(replace(first, **change), second))) != fingerprint(toy())


def test_the_fingerprint_is_stable_and_takes_opened_images():
    dataset = toy()
    images = [open_image(s.image) for s in dataset.samples]
    assert fingerprint(dataset) == fingerprint(toy()) == fingerprint(dataset, images)
    assert fingerprint(dataset, images[::-1]) != fingerprint(dataset)
    with pytest.raises(ValueError, match="zip"):
        fingerprint(dataset, images[:1])
