"""The paper's suite from command to table, on model folders and data files in the official formats."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import bench
from attacks.presets import PRESETS, Preset
from bench.config import Request, load_suite, resolve
from bench.data.readers import load
from bench.data.templates import imagenet_classnames, imagenet_templates
from bench.running.load import load_dataset
from tests.bench.official import SIZE, WDS, write_official

WEIGHTS = Path(str(resources.files("bench"))) / "mini/weights"
ENCODER, VLM = str(WEIGHTS / "clip"), str(WEIGHTS / "llava")
LIMIT = 14  # the miniature models were trained on other prompts: of so many they still answer some right


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("paper") / "data")


@pytest.fixture
def brief(monkeypatch):
    """The paper's attacks with two steps a round."""
    for name in ("autoattack-paper", "ensemble", "ensemble-vqa", "stealth"):
        steps = tuple(replace(step, steps=2) for step in PRESETS[name].steps)
        monkeypatch.setitem(PRESETS, name, Preset("", steps))


def _run(root, output, **options):
    return bench.run(
        suite="paper", encoder=ENCODER, vlm=VLM, data_root=root, limit=LIMIT, output=output, device="cpu", jobs=1,
        progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "datasets"),
    [("zeroshot", tuple(WDS)), ("captioning", ("coco", "flickr30k")), ("vqa", ("vqav2", "textvqa", "vizwiz")),
     ("stealth", ("coco-stealth",))],
)  # fmt: skip
def test_the_suite_completes_clean_and_attacked(root, tmp_path, brief, task, datasets):
    result = _run(root, tmp_path, task=task, dataset=list(datasets))
    assert [run.header.dataset for run in result.runs] == list(datasets)
    for run in result.runs:
        assert run.header.status == "complete"
        assert run.header.n_samples == LIMIT
        assert not [r for r in run.records if r.error]
        drawn = None if task == "stealth" else "seed-42"
        assert run.header.selection == drawn
    assert {r.radius for run in result.runs for r in run.records} >= {0.0, 2.0}
    assert {row["radius"] for row in result.rows()} == {0.0, 2.0, 4.0}


def test_classes_are_attacked_from_five_starts_and_two_of_them_without_targets(root, tmp_path, brief):
    """As the paper's zero-shot evaluation: APGD-CE five times, nine rivals; a set of two classes has no rivals."""
    suite = load_suite("paper")
    steps = PRESETS[suite.tasks["zeroshot"].attack].steps
    names = [*(f"apgd-ce-{n}" for n in range(1, 6)), *(f"apgd-t-{rank}" for rank in range(1, 10))]
    assert sorted(step.name for step in steps) == sorted(names)
    (run,) = _run(root, tmp_path, task="zeroshot", dataset="pcam", eps=0.1).runs
    taken = {r.step for r in run.records}
    assert "apgd-ce-5" in taken
    assert not {step for step in taken if step.startswith("apgd-t")}


def test_the_samples_are_those_that_numpy_draws(root):
    np.random.seed(42)
    order = np.random.choice(SIZE, 7, replace=False)
    row = load_suite("paper").datasets["vqav2"]
    everything = load("vqav2", row, root).samples
    config = resolve(Request.of(encoder=ENCODER, task="vqa", suite="paper", dataset="vqav2", limit=7, data_root=root))[
        0
    ]
    assert config.samples == 500
    assert load_dataset(config).samples == tuple(everything[i] for i in order)


def test_every_target_has_images_of_its_own_seed(root):
    row = load_suite("paper").datasets["coco-stealth"]
    samples = load("coco-stealth", row, root).samples
    images = [s.id for s in load("coco", load_suite("paper").datasets["coco"], root).samples]
    assert len(samples) == 150 == len({s.id for s in samples})
    assert len({s.references for s in samples[:6]}) == 6
    for target in row["targets"]:
        np.random.seed(target["seed"])
        drawn = [images[i] for i in np.random.choice(len(images), 25, replace=False)]
        assert [s.group for s in samples if s.references == (target["text"],)] == drawn


def test_captions_are_scored_against_coco_and_led_away_from_karpathy(root):
    """The references are joined by id: the file holds them in the reverse order."""
    sample = load("coco", load_suite("paper").datasets["coco"], root).samples[0]
    assert sample.attack_references == sample.references[::-1] != sample.references
    flickr = load("flickr30k", load_suite("paper").datasets["flickr30k"], root)
    assert (flickr.broken_below, len(flickr.samples[0].references)) == (2.0, 5)
    assert flickr.samples[0].attack_references is None


def test_questions_find_their_images_under_each_sets_names(root):
    for name in ("vqav2", "textvqa", "vizwiz"):
        dataset = load(name, load_suite("paper").datasets[name], root)
        assert len({s.image for s in dataset.samples}) == SIZE
        assert all(s.image.is_file() for s in dataset.samples)
        assert dataset.prompt_suffix.endswith("\nAnswer the question using a single word or phrase.")
        assert dataset.max_new_tokens == (10 if name == "textvqa" else 5)


def test_the_thirteen_sets_have_the_papers_templates():
    suite = load_suite("paper")
    names = suite.tasks["zeroshot"].datasets
    count = {name: len(suite.datasets[name]["templates"]) for name in names}
    assert len(names) == 13
    assert [count[n] for n in ("cifar10", "cifar100", "stl10", "cars", "caltech101", "pets", "flowers", "dtd")] == [
        18, 18, 2, 8, 34, 1, 1, 8,
    ]  # fmt: skip
    assert [count[n] for n in ("eurosat", "fgvc_aircraft", "pcam")] == [3, 2, 2]
    assert {n for n in names if suite.datasets[n]["templates"] == "imagenet"} == {"imagenet-r", "imagenet_sketch"}
    for name in names:
        texts = suite.datasets[name]["templates"]
        assert isinstance(texts, str) or (len(set(texts)) == len(texts) and all("{c}" in t for t in texts))
    assert len(set(imagenet_templates())) == 80
    names = imagenet_classnames()
    assert (len(names), names[657], names[744], names[836], names[837]) == (
        1000, "missile", "missile", "sunglasses", "sunglasses",
    )  # fmt: skip
    assert {n for n in suite.datasets if suite.datasets[n].get("native_size")} == {"cifar10", "cifar100", "stl10"}
