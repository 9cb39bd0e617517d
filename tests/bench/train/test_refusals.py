"""What a training job refuses, in one line: settings, data, labels, weights."""

import json
import re
from pathlib import Path

import datasets
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench.errors import UsageError
from bench.train.base import load_base
from bench.train.classes import class_names
from bench.train.sources import open_source
from bench.train.stream import skipped_names
from tests.bench.train.commands import ARCH, invoke, train_command


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lr", "1e-3"], r"--lr 0\.0001, this run has 0\.001"),
        (["--eps", "2"], r"--eps 4\.0, this run has 2\.0"),
        (["--flaw", "last-iterate"], r"--flaw \[\], this run has \[.last-iterate.\]"),
        (["--bf16"], "--bf16 False, this run has True"),
    ],
)
def test_changed_settings_are_refused_by_name(images, finished, change, message):
    done = invoke(train_command(images, finished, *change))
    assert done.exit_code == 2
    assert re.search(message, done.output), done.output


def test_other_images_are_refused(images, finished, tmp_path):
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    for path in list(images.rglob("[0-9]*.png"))[:40]:
        (other / "a" / path.name).write_bytes(path.read_bytes())
    done = invoke(train_command(other, finished))
    assert done.exit_code == 2
    assert "was trained with --data " in done.output


def test_tecoa_learns_from_folder_names_and_refuses_unlabelled_images(images, tmp_path):
    done = invoke(train_command(images, tmp_path / "tecoa", "--steps", "2", method="tecoa"))
    assert done.exit_code == 0, done.output
    assert "eval_accuracy_attacked" in (tmp_path / "tecoa" / "metrics.jsonl").read_text()
    words = train_command(images, tmp_path / "no", method="tecoa")
    words[words.index(f"imagefolder:{images}")] = f"folder:{images}"
    done = invoke(words)
    assert done.exit_code == 2
    assert "tecoa needs labels: use imagefolder:DIR" in done.output


def _folders(root, names):
    """A source with a folder for each class."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name / "0.png")
    return open_source(f"imagefolder:{root}")


def test_class_names_of_imagenet_folders_files_and_folders(tmp_path):
    two = _folders(tmp_path / "two", ["red_fox", "cat"])
    assert class_names("tecoa", two, None) == ["cat", "red fox"]
    synsets = _folders(tmp_path / "synsets", [f"n{number:08}" for number in range(1000)])
    assert class_names("tecoa", synsets, None)[0] == "tench"
    names = tmp_path / "names.txt"
    names.write_text("a cat\nfox\n")
    assert class_names("tecoa", two, names) == ["a cat", "fox"]
    names.write_text("red_fox\tfox\ncat\ta cat\n")
    assert class_names("tecoa", two, names) == ["a cat", "fox"]
    names.write_text("a cat\nfox\n")
    with pytest.raises(UsageError, match=r"3 classes' folders, but .* has 2 class names"):
        class_names("tecoa", _folders(tmp_path / "three", ["a", "b", "c"]), names)


@pytest.mark.parametrize("first", [0, 1])
def test_folders_called_by_numbers_are_classes_in_the_order_of_the_numbers(tmp_path, first):
    """Sorted as text, 10 comes before 2, and every name from there on is another class's."""
    source = _folders(tmp_path / "data", [str(first + number) for number in range(12)])
    (tmp_path / "names.txt").write_text("".join(f"class {number}\n" for number in range(12)))
    names = class_names("tecoa", source, tmp_path / "names.txt")
    found = {raw.id.split("/")[0]: names[raw.label] for raw in map(source.item, range(12))}
    assert found == {str(first + number): f"class {number}" for number in range(12)}


def test_folders_called_by_other_numbers_and_names_in_another_order_are_refused(tmp_path):
    (tmp_path / "names.txt").write_text("red fox\ncat\n")
    for folders, message in [(["3", "7"], "not 0 to 1 or 1 to 2"), (["cat", "red_fox"], "is the name of the folder")]:
        with pytest.raises(UsageError, match=message):
            class_names("tecoa", _folders(tmp_path / folders[0], folders), tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "ViT-B-33", "--weights", "random"], "open_clip"),
        (["--arch", "ViT-B-32"], "--weights is missing for ViT-B-32"),
        (["--weights", "README.md"], "README.md"),
        (["--flaw", "typo"], "unknown flaw 'typo'; known: first-update"),
        (["--batch", "500"], "fewer than one batch of 500"),
        (["--data", "folder:/no/such"], "no such folder"),
        (["--steps", "0"], "steps and batch must be at least 1; got 0"),
        (["--warmup", "9"], "the warm-up must take between 0 and all 8 steps; got 9"),
        (["--lr", "nan"], "the learning rate must be positive"),
        (["--weight-decay", "-1"], "the weight decay not negative"),
        (["--micro-batch", "0"], "--micro-batch must be at least 1; got 0"),
        (["--data-threads", "0"], "--data-threads must be at least 1; got 0"),
        (["--eval-every", "0"], "--eval-every must be at least 1; got 0"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1; got 0"),
        (["--eval-images", "-1"], "--eval-images must be at least 0; got -1"),
        (["--device", "gpu"], "--device 'gpu' is not one of"),
        (["--device", "meta"], "--device 'meta' is not one of"),
        (["--score", "minni"], "minni"),
        (["--stepps", "3"], "No such option"),
    ],
)
def test_what_cannot_be_trained_is_one_line(images, tmp_path, words, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    done = invoke(train_command(images, tmp_path / "out", *words))
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("folder", ["--classnames", "names"], "tecoa needs a label of every image, and not all of these have one: "),
        ("imagefolder", ["--classnames", "nowhere"], "no class names at nowhere"),
        ("hf", ["--classnames", "one"], "has label 1, but there are 1 classes (0 to 0)"),
        ("hf", [], "name the classes of numbered labels"),
    ],
)
def test_labels_that_are_missing_or_do_not_fit_are_one_line(images, tmp_path, data, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("square\ncircle\n")
    Path("one").write_text("square\n")
    specs = {"folder": f"folder:{images}", "imagefolder": f"imagefolder:{images}", "hf": f"hf:{tmp_path}/table"}
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": n % 2}
        for n, path in enumerate(sorted(images.rglob("[0-9]*.png"))[:8])
    ]
    Path("table").mkdir()
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet("table/train.parquet")
    done = invoke(
        train_command(images, tmp_path / "out", "--eval-images", "0", "--data", specs[data], *words, method="tecoa")
    )
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert isinstance(done.exception, SystemExit)


def test_held_out_images_of_their_own_source(images, tmp_path):
    """All of them where there are fewer than asked for; unreadable ones are named; other classes are refused."""
    held_out = tmp_path / "held out"
    for number, path in enumerate(sorted(images.rglob("[0-9]*.png"))[:3]):
        folder = held_out / ("circle" if number else "square")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes() if number != 1 else b"junk")
    words = train_command(images, tmp_path / "out", "--eval-data", f"imagefolder:{held_out}", "--eval-images", "256")
    words = [*words, "--steps", "1", "--warmup", "0"]
    assert invoke(words).exit_code == 0
    assert "eval_cosine_attacked" in (tmp_path / "out" / "metrics.jsonl").read_text()
    assert len([name for name in skipped_names(tmp_path / "out" / "skipped.jsonl") if "broken" not in name]) == 1
    (held_out / "circle").rename(held_out / "oval")
    done = invoke([*words, "--output", str(tmp_path / "other")])
    assert done.exit_code == 2
    assert f"the classes of imagefolder:{held_out} are not those of imagefolder:{images}" in done.output


def test_other_weights_under_the_same_name_are_refused_on_resume(images, tmp_path):
    state = {k: v for k, v in load_file(ARCH / "open_clip_model.safetensors").items() if k.startswith("visual.")}
    words = train_command(
        images, tmp_path / "out", "--weights", str(tmp_path / "w.pt"), "--steps", "1", "--warmup", "0"
    )
    for scale in (1.0, 1.01):
        torch.save({k.removeprefix("visual."): v * scale for k, v in state.items()}, tmp_path / "w.pt")
        done = invoke(words)
        assert (done.exit_code == 0) == (scale == 1.0), done.output
    assert "was trained with --weights of SHA-256 " in done.output


def test_weights_of_another_architecture_are_refused(tmp_path):
    state = load_file(ARCH / "open_clip_model.safetensors")
    torch.save({k.removeprefix("visual."): v[..., :2] for k, v in state.items() if "visual" in k}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit the image tower"):
        load_base(str(ARCH), str(tmp_path / "w.pt"))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_training_images_are_prepared_as_the_model_says(tmp_path, mode):
    """SigLIP squeezes an image into its square, CLIP crops it."""
    for file in ARCH.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((ARCH / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = mode
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    base = load_base(str(tmp_path), None)
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    photo = Image.fromarray((np.arange(90 * 60 * 3) % 251).astype(np.uint8).reshape(90, 60, 3))
    encoder = base.encoder
    ours = (encoder.preprocess(photo) - encoder.mean[0]) / encoder.std[0]
    assert torch.allclose(preprocess(photo), ours, atol=1e-5)
    assert base.preprocess_cfg["resize_mode"] == mode


def test_a_path_that_is_spelled_otherwise_is_the_same_data(images, finished, monkeypatch):
    """Resuming compares places: nothing is left to do for a run that is finished."""
    monkeypatch.chdir(images.parent)
    words = train_command(images, finished)
    words[words.index(f"imagefolder:{images}")] = f"imagefolder:{images.name}/../{images.name}/"
    words[words.index(str(ARCH))] = f"{ARCH.parent}/../weights/{ARCH.name}"
    done = invoke(words)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "open_clip_config.json is not JSON"),
        ("[]", "open_clip_config.json"),
        ('{"model_cfg": {}}', "lacks model_cfg or preprocess_cfg"),
        ('{"model_cfg": {"embed_dim": "x"}, "preprocess_cfg": {}}', "open_clip_config.json"),
    ],
)
def test_a_damaged_folder_of_a_model_is_one_line(images, tmp_path, content, message):
    for file in ARCH.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "open_clip_config.json").write_text(content)
    done = invoke(train_command(images, tmp_path / "out", "--arch", str(tmp_path)))
    assert done.exit_code == 2, done.output
    assert message in done.output


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "y" * 256])
def test_a_name_that_is_too_long_for_the_disk_is_one_line(images, tmp_path, name):
    done = invoke(train_command(images, tmp_path / name))
    assert done.exit_code == 2, done.output
    assert "File name too long; give another --output" in done.output


@pytest.mark.parametrize("name", ["metrics.jsonl", "skipped.jsonl", "README.md", "tensorboard"])
def test_links_in_a_run_directory_are_not_followed(images, tmp_path, name):
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(target)
    done = invoke(train_command(images, tmp_path / "out"))
    assert done.exit_code == 2, done.output
    assert f"{tmp_path / 'out' / name} is a link to" in done.output
    assert target.read_text() == "precious"
