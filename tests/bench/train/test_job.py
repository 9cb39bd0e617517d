"""A whole training job from the command line: killed and resumed, refused, exported, described, used."""

import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event
from transformers import CLIPVisionModel

from bench import api
from bench.cli import main
from bench.mini import world
from bench.models.encoders.load import load_encoder
from bench.train.base import _model_config, load_base
from bench.train.checkpoint import prepare_directory
from bench.train.export import export
from bench.train.job import Job, class_names, suite_to_score
from bench.train.loop import Hooks, Schedule, TrainingError, Update, fit, train
from bench.train.recipe import Recipe
from bench.train.stream import skipped_names

ARCH = Path(__file__).parents[3] / "bench" / "mini" / "weights" / "clip"
COMMON = ["--steps", "8", "--batch", "4", "--inner-steps", "2", "--inner-step", "4", "--lr", "1e-4"]
RARE = ["--eval-images", "2", "--eval-every", "4", "--checkpoint-every", "1", "--device", "cpu"]


@pytest.fixture(name="images", scope="module")
def _images(tmp_path_factory):
    """Scenes in two folders, one of them unreadable."""
    root = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(world.render(world.draw_scenes("train", 48, start=10**6))):
        folder = root / ("circle" if number % 2 else "square")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (root / "circle" / "broken.png").write_bytes(b"no image")
    return root


def _words(images, output, *more, method="fare"):
    return ["train", method, "--arch", str(ARCH), "--data", f"imagefolder:{images}", "--output", str(output),
            *COMMON, *RARE, *more]  # fmt: skip


def _invoke(words):
    return CliRunner().invoke(main, words)


@pytest.fixture(name="finished", scope="module")
def _finished(images, tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("runs") / "fare8"
    done = _invoke(_words(images, output))
    assert done.exit_code == 0, done.output
    return output


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
KILLS = [  # moment, and its which visit; every line is the same command again
    ("attacking", 3), ("saving", 1), ("updating", 2), ("replacing", 2), ("resuming", 1), ("forgetting", 1),
    ("resumed", 1), ("updated", 1), ("evaluating", 1), ("replaced", 3), ("exporting", 1), ("none", 0),
]  # fmt: skip


def _steps(directory):
    return [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


def _same_weights(one, other):
    first, second = (torch.load(d / "visual.pt", weights_only=True) for d in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def _killed(plan):
    """How real processes end that give commands and die at planned moments."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.train.kills", json.dumps(plan)], env=ENVIRONMENT,
                          stdout=subprocess.PIPE, check=True, timeout=600)  # fmt: skip
    return json.loads(done.stdout)


def test_killed_again_and_again_it_ends_with_the_same_bits(images, finished, tmp_path):
    """While attacking, updating, writing, resuming, evaluating, exporting."""
    words = _words(images, tmp_path / "out")
    ends = _killed([[words, moment, nth] for moment, nth in KILLS])
    assert ends == [-signal.SIGKILL] * (len(KILLS) - 1) + [0]
    assert _same_weights(finished, tmp_path / "out")
    assert _steps(finished) == _steps(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in finished.iterdir())
    tags = [event for path in (tmp_path / "out" / "tensorboard").iterdir() for event in _events(path)]
    assert any(event.HasField("session_log") for event in tags)  # where TensorBoard drops the steps taken twice


def test_killed_at_random_moments_it_ends_with_the_same_bits(images, finished, tmp_path):
    """At whatever the process is about after a random time on the processor, in milliseconds."""
    words = _words(images, tmp_path / "out")
    plan = [[words, "timer", random.randint(300, 2500)] for _ in range(6)] + [[words, "none", 0]]
    ends = _killed(plan)
    assert ends[-1] == 0, plan
    assert -signal.SIGPROF in ends
    assert _same_weights(finished, tmp_path / "out"), plan
    assert _steps(finished) == _steps(tmp_path / "out"), plan


def _in_two_processes(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "tests.bench.train.kills", *arguments]  # fmt: skip
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def test_two_processes_of_which_one_dies_end_as_one_process_does(images, finished, tmp_path):
    """The whole command under torchrun, over gloo: killed at step 5 in one of them, resumed, equal up to rounding."""
    words = _words(images, tmp_path / "out")
    died = _in_two_processes("1", "attacking", "6", *words)
    assert died.returncode != 0
    assert not (tmp_path / "out" / "visual.pt").exists()
    done = _in_two_processes("1", "none", "0", *words)
    assert done.returncode == 0, done.stderr
    assert _steps(finished) == _steps(tmp_path / "out")
    assert skipped_names(tmp_path / "out" / "skipped.jsonl") == skipped_names(finished / "skipped.jsonl")
    assert "2 process(es)" in (tmp_path / "out" / "README.md").read_text()
    pixels = torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two, start = (load_encoder(str(d))(pixels) for d in (finished, tmp_path / "out", ARCH))
    assert (one - two).norm() < 0.02 * (one - start).norm()


def test_every_form_of_the_result_gives_equal_embeddings(finished):
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    encoder = load_encoder(str(finished))
    original = load_encoder("clip")
    with torch.no_grad():
        expected = encoder(images)
        assert (expected - original(images)).norm() > 1e-3 * expected.norm()
        assert torch.allclose(load_encoder(str(finished / "visual.pt"))(images), expected, atol=1e-5)
        whole, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{finished}")
        pixels = (images - encoder.mean) / encoder.std
        assert torch.allclose(whole.eval().encode_image(pixels), expected, atol=1e-4)
        photo = Image.fromarray(np.arange(90 * 60 * 3, dtype=np.uint8).reshape(90, 60, 3))
        ours = (encoder.preprocess(photo) - encoder.mean[0]) / encoder.std[0]
        assert torch.allclose(preprocess(photo), ours, atol=1e-5)
        vision = CLIPVisionModel.from_pretrained(finished / "clip_vision_model").eval()
        pooled = vision(pixel_values=pixels).pooler_output
        assert torch.allclose(pooled @ encoder.visual.proj, expected, atol=1e-4)
    texts = encoder.text.embed(["a photo of a red circle"])
    assert torch.allclose(texts, original.text.embed(["a photo of a red circle"]), atol=1e-6)


def test_the_run_directory_is_an_encoder_and_its_scores_enter_the_card(finished, tmp_path):
    assert "None yet" in (finished / "README.md").read_text()
    words = ["run", "--encoder", str(finished), "--task", "zeroshot", "--limit", "2", "--attack", "none", "--jobs", "1"]
    done = _invoke([*words, "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert _invoke(["train", "card", str(finished), "--results", str(tmp_path)]).exit_code == 0
    card = (finished / "README.md").read_text()
    assert "| zeroshot | mini-shape | 0/255 |" in card
    assert "(partial: --limit 2)" in card


@pytest.mark.parametrize(
    ("asked", "steps", "expected"),
    [(None, 20_000, "mini"), (None, 8, None), ("none", 20_000, None), ("paper", 8, "paper")],
)  # fmt: skip
def test_scores_for_the_card_are_measured_where_they_are_asked_for_or_cheap(asked, steps, expected):
    recipe = Recipe("fare", 4, Schedule(steps, 128, 1e-5))
    assert suite_to_score(Job("a", None, "folder:x", recipe, Path("out"), score=asked)) == expected


def test_training_ends_with_the_scores_of_a_suite(images, tmp_path, monkeypatch):
    """Two samples a set, so that it takes no time."""
    run = api.run
    monkeypatch.setattr(api, "run", lambda **named: run(**named, limit=2, attack="none", jobs=1, progress=False))
    words = ["--steps", "1", "--warmup", "0", "--score", "mini", "--results", str(tmp_path / "results")]
    done = _invoke(_words(images, tmp_path / "out", *words))
    assert done.exit_code == 0, done.output
    assert "| zeroshot | mini-shape | 0/255 |" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_tells_recipe_data_and_course(finished):
    card = (finished / "README.md").read_text()
    for part in ("8 updates of 4 images", "4/255", "49 files, sha256", "2 images held out",
                 "1 images could not be read", "| cosine to the original |", "curves.png"):  # fmt: skip
        assert part in card, part
    assert np.asarray(Image.open(finished / "curves.png").convert("L")).std() > 5
    assert json.loads((finished / "skipped.jsonl").read_text().splitlines()[0])["id"] == "circle/broken.png"


def _events(path):
    """TFRecords: length, its checksum, data, its checksum."""
    content, position = path.read_bytes(), 0
    while position < len(content):
        (length,) = struct.unpack("<Q", content[position : position + 8])
        yield Event.FromString(content[position + 12 : position + 12 + length])
        position += 16 + length


def test_metrics_and_tensorboard_events_say_the_same(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert {"cosine_clean", "cosine_attacked", "rate", "images_per_second", "data_wait"} <= logged[0].keys()
    assert all(0 <= row["data_wait"] <= 1 for row in logged)
    assert [row["step"] for row in rows if "eval_cosine_attacked" in row] == [3, 7]
    (path,) = (finished / "tensorboard").iterdir()
    found = {(v.tag, event.step): v.simple_value for event in _events(path) for v in event.summary.value}
    for row in logged:
        assert found["loss", row["step"]] == pytest.approx(row["loss"], rel=1e-5)
    assert ("eval/cosine_clean", 7) in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lr", "1e-3"], r"schedule\.learning_rate = 0\.0001, this run has 0\.001"),
        (["--eps", "2"], r"recipe\.eps_255 = 4\.0, this run has 2\.0"),
        (["--flaw", "last-iterate"], r"recipe\.flaws"),
        (["--bf16"], "bfloat16 = False, this run has True"),
    ],
)
def test_changed_settings_are_refused_by_name(images, finished, change, message):
    done = _invoke(_words(images, finished, *change))
    assert done.exit_code == 2
    assert re.search(message, done.output), done.output


def test_other_images_are_refused(images, finished, tmp_path):
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    for path in list(images.rglob("[0-9]*.png"))[:40]:
        (other / "a" / path.name).write_bytes(path.read_bytes())
    done = _invoke(_words(other, finished))
    assert done.exit_code == 2
    assert "was trained with data = " in done.output


def test_tecoa_learns_from_folder_names_and_refuses_unlabelled_images(images, tmp_path):
    done = _invoke(_words(images, tmp_path / "tecoa", "--steps", "2", method="tecoa"))
    assert done.exit_code == 0, done.output
    assert "eval_accuracy_attacked" in (tmp_path / "tecoa" / "metrics.jsonl").read_text()
    words = _words(images, tmp_path / "no", method="tecoa")
    words[words.index(f"imagefolder:{images}")] = f"folder:{images}"
    done = _invoke(words)
    assert done.exit_code == 2
    assert "tecoa needs labels: use imagefolder:DIR" in done.output


def test_class_names_of_imagenet_folders_files_and_folders(tmp_path):
    assert class_names(("red_fox", "cat"), None) == ["red fox", "cat"]
    synsets = tuple(f"n{number:08}" for number in range(1000))
    assert class_names(synsets, None)[0] == "tench"
    (tmp_path / "names.txt").write_text("fox\n\ncat\n")
    assert class_names(("a", "b"), tmp_path / "names.txt") == ["fox", "cat"]
    with pytest.raises(ValueError, match="names 2 classes, the data has 3"):
        class_names(("a", "b", "c"), tmp_path / "names.txt")


def test_blend_lies_between_original_and_trained(finished, tmp_path):
    words = ["train", "blend", "--arch", str(ARCH), "--trained", str(finished), "--output"]
    for share in ("0", "0.25", "1"):
        done = _invoke([*words, str(tmp_path / share), "--share", share])
        assert done.exit_code == 0, done.output
    start = load_base(str(ARCH), None).encoder.visual.state_dict()
    end = torch.load(finished / "visual.pt", weights_only=True)
    for share in (0, 0.25, 1):
        found = torch.load(tmp_path / f"{share}" / "visual.pt", weights_only=True)
        assert all(torch.allclose(found[k], (1 - share) * start[k] + share * end[k], atol=1e-6) for k in found)
    assert load_encoder(str(tmp_path / "0.25"))(torch.zeros(1, 3, 48, 48)).shape == (1, 96)
    assert "not empty" in _invoke([*words, str(tmp_path / "1")]).output
    assert "must lie in [0, 1]" in _invoke([*words, str(tmp_path / "x"), "--share", "1.5"]).output


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
        (["--score", "minni"], "minni"),
        (["--stepps", "3"], "No such option"),
    ],
)
def test_what_cannot_be_trained_is_one_line(images, tmp_path, words, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    done = _invoke(_words(images, tmp_path / "out", *words))
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("folder", ["--classnames", "names"], "tecoa needs a label of every image, and not all of these have one: "),
        ("imagefolder", ["--classnames", "nowhere"], "--classnames nowhere cannot be read"),
        ("hf", ["--classnames", "one"], "has label 1, but there are 1 classes (0 to 0)"),
        ("hf", [], "name the classes of numbered labels"),
    ],
)
def test_labels_that_are_missing_or_do_not_fit_are_one_line(images, tmp_path, data, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("square\ncircle\n")
    Path("one").write_text("square\n")
    specs = {"folder": f"folder:{images}", "imagefolder": f"imagefolder:{images}", "hf": f"hf:{tmp_path}/table"}
    rows = [{"image": str(path), "label": n % 2} for n, path in enumerate(sorted(images.rglob("[0-9]*.png"))[:8])]
    Path("table").mkdir()
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet("table/train.parquet")
    done = _invoke(
        _words(images, tmp_path / "out", "--eval-images", "0", "--data", specs[data], *words, method="tecoa")
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
    words = _words(images, tmp_path / "out", "--eval-data", f"imagefolder:{held_out}", "--eval-images", "256")
    words = [*words, "--steps", "1", "--warmup", "0"]
    assert _invoke(words).exit_code == 0
    assert "eval_cosine_attacked" in (tmp_path / "out" / "metrics.jsonl").read_text()
    assert len([name for name in skipped_names(tmp_path / "out" / "skipped.jsonl") if "broken" not in name]) == 1
    (held_out / "circle").rename(held_out / "oval")
    done = _invoke([*words, "--output", str(tmp_path / "other")])
    assert done.exit_code == 2
    assert f"the classes of imagefolder:{held_out} are not those of imagefolder:{images}" in done.output


def test_other_weights_under_the_same_name_are_refused_on_resume(images, tmp_path):
    state = {k: v for k, v in load_file(ARCH / "open_clip_model.safetensors").items() if k.startswith("visual.")}
    words = _words(images, tmp_path / "out", "--weights", str(tmp_path / "w.pt"), "--steps", "1", "--warmup", "0")
    for scale in (1.0, 1.01):
        torch.save({k.removeprefix("visual."): v * scale for k, v in state.items()}, tmp_path / "w.pt")
        done = _invoke(words)
        assert (done.exit_code == 0) == (scale == 1.0), done.output
    assert "was trained with weights_sha256 = " in done.output


def test_weights_of_another_architecture_are_refused(tmp_path):
    state = load_file(ARCH / "open_clip_model.safetensors")
    torch.save({k.removeprefix("visual."): v[..., :2] for k, v in state.items() if "visual" in k}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit the architecture"):
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


def test_the_activation_of_the_weights_is_written_into_the_configuration():
    """OpenAI's weights come with QuickGELU, which open_clip's configuration of ViT-B-32 does not name."""
    assert "quick_gelu" not in _model_config("ViT-B-32", None, torch.nn.Sequential(torch.nn.GELU()))
    assert _model_config("ViT-B-32", None, torch.nn.Sequential(QuickGELU()))["quick_gelu"] is True


def _fit(directory, width=2, steps=4, loss=None, hooks=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(width, 1)

    def gradients(step):
        value = model(torch.ones(1, width)).square().sum() if loss is None else loss(model, step)
        value.backward()
        return Update(value.item(), {})

    train(
        "t", {"m": model}, gradients, Schedule(steps, 1, 1e-3), directory, settings={}, checkpoint_every=1, hooks=hooks
    )
    return model


def test_a_full_disk_keeps_the_older_checkpoint_and_resumes(tmp_path):
    """A real write error: the kernel refuses files above a size."""
    whole = _fit(tmp_path / "whole", 20_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def tighten(model, step):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        return model(torch.ones(1, 20_000)).square().sum()

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(
            TrainingError, match=r"cannot write .*checkpoint\.pt after step 3.*the one before it is whole"
        ):
            _fit(tmp_path / "full", 20_000, loss=tighten)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert [p.name for p in (tmp_path / "full").glob("*.tmp")] == []
    resumed = _fit(tmp_path / "full", 20_000)
    assert torch.equal(resumed.weight, whole.weight)


def test_too_little_room_is_seen_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(TrainingError, match=r"0\.0 GB free; two checkpoints"):
        prepare_directory(tmp_path, {"m": torch.nn.Linear(2, 2)})


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cannot write in .*file/run"):
        prepare_directory(tmp_path / "file" / "run", {})


def test_a_damaged_checkpoint_and_another_architecture_are_named(tmp_path):
    _fit(tmp_path)
    with pytest.raises(TrainingError, match="does not fit the architecture of m"):
        _fit(tmp_path, width=3)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match="is damaged"):
        _fit(tmp_path)


def test_an_exploding_loss_and_a_gradient_that_is_not_finite_stop_the_run_before_its_weights(tmp_path):
    def exploding(model, step):
        return model(torch.ones(1, 2)).square().sum() * (1e4 if step == 15 else 1)

    hooks = Hooks(describe=lambda step: "a.jpg, b.jpg")
    with pytest.raises(
        TrainingError, match=r"exploded to .* at step 15 .*checkpoint\.pt\. Images of that step: a\.jpg"
    ):
        _fit(tmp_path / "a", steps=20, loss=exploding, hooks=hooks)

    def infinite(model, step):
        return (model(torch.ones(1, 2)) * (0 if step == 2 else 1)).abs().sqrt().sum()  # slope of the root at 0

    with pytest.raises(TrainingError, match=r"the gradient has norm (inf|nan) at step 2"):
        _fit(tmp_path / "b", loss=infinite)
    saved = torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 2
    assert all(v.isfinite().all() for v in saved["modules"]["m"].values())


def test_a_run_that_exploded_explodes_again_when_resumed(tmp_path):
    """The losses by which the next one is judged lie in the checkpoint."""

    def exploding(model, step):
        return model(torch.ones(1, 2)).square().sum() * (1e4 if step == 15 else 1)

    for _ in range(2):
        with pytest.raises(TrainingError, match=r"exploded to .* at step 15"):
            _fit(tmp_path, steps=20, loss=exploding)


def test_random_states_are_part_of_a_checkpoint(tmp_path):
    """A model that draws from the global generators resumes as if nothing had happened."""

    def noisy(model, step):
        if step == stop:
            raise KeyboardInterrupt
        noise = torch.randn(1, 2) + random.random() + float(np.random.rand())
        return model(noise).square().sum()

    def seeded(directory):
        random.seed(1)
        np.random.seed(1)
        return _fit(directory, steps=8, loss=noisy)

    stop = None
    whole = seeded(tmp_path / "whole")
    stop = 5
    with pytest.raises(KeyboardInterrupt):
        seeded(tmp_path / "cut")
    stop = None
    assert torch.equal(seeded(tmp_path / "cut").weight, whole.weight)


def test_an_export_that_cannot_be_written_says_how_to_go_on(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="goes on from the checkpoint"):
        export(load_base(str(ARCH), None), tmp_path / "file" / "out")


def test_fit_is_the_loop_for_a_plain_loss(tmp_path):
    model = torch.nn.Linear(1, 1)
    fit("t", {"m": model}, lambda step: (model(torch.ones(1, 1)).square().sum(), {}), Schedule(2, 1, 0.1), tmp_path,
        settings={})  # fmt: skip
    assert (tmp_path / "checkpoint.pt").exists()
