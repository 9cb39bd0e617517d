"""The paper's suite from command to table, on model folders and data files in the official formats."""

import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import bench
from attacks.presets import PRESETS, Preset
from bench.config import Request, load_suite, resolve
from bench.config.facts import SUITE_FACTS
from bench.data.readers import load
from bench.data.templates import imagenet_classnames, imagenet_templates
from bench.errors import UsageError
from bench.records.samples import read_samples
from bench.running.load import load_dataset, prepare
from bench.tables import layouts
from tests.bench.official import SIZE, WDS, write_official, write_questions

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


def _run(root, output, *, task, **options):
    common = {"data_root": root, "limit": LIMIT, "output": output, "device": "cpu", "jobs": 1, "progress": False}
    vlm = None if task == "zeroshot" else VLM
    return bench.run(ENCODER, task, suite="paper", vlm=vlm, **common, **options)


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
    assert {r.radius for run in result.runs for r in run.records} >= {0.0, 4.0}
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


def test_hallucination_and_reasoning_are_measured_without_an_attack(root, tmp_path):
    names = [f"pope-{name}" for name in ("random", "popular", "adversarial")]
    runs = _run(root, tmp_path, task="pope,scienceqa").runs
    assert [run.header.dataset for run in runs] == [*names, "scienceqa"]
    assert {(run.header.status, run.header.n_samples, run.header.radii) for run in runs} == {("complete", LIMIT, ())}
    assert [run.header.answer_kind for run in runs] == ["yes-no"] * 3 + ["choice"]
    parts = {m.part for m in layouts.find("pope").measures(runs, SUITE_FACTS)}
    assert {"accuracy", "recall", "yes-rate"} <= parts
    assert {m.part for m in layouts.find("scienceqa").measures(runs, SUITE_FACTS)} == {"all"}, "alike"
    asked = read_samples(runs[0].directory)
    assert {one.references for one in asked.values()} == {("yes",), ("no",)}
    configs = resolve(Request.of(encoder=ENCODER, suite="paper", task="pope,scienceqa", data_root=root))
    assert [config.samples for config in configs] == [2910, 3000, 3000, 2017]


def test_openflamingos_examples_come_from_the_training_split(root, tmp_path, monkeypatch):
    """What is missing is named; without images only the questions and answers are read."""
    folder = tmp_path / "flamingo"
    shutil.copytree(WEIGHTS / "openflamingo", folder)
    (folder / "demonstrations.json").unlink()
    (config,) = resolve(
        Request.of(suite="paper", encoder=ENCODER, vlm=str(folder), task="vqa", dataset="vqav2", data_root=root,
                   limit=2, attack="none", protocol="paper", device="cpu", output=tmp_path)
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"vqav2/v2_OpenEnded_mscoco_train2014_questions\.json"):
        prepare(config)
    train = tmp_path / "train"
    shutil.copytree(root, train)
    write_questions(root.parent / f"{root.name}-mini/mini-vqa", train / "vqav2", tmp_path / "elsewhere",
                    "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json",
                    lambda i: 9000 + i, lambda i: f"COCO_train2014_{9000 + i:012d}.jpg")  # fmt: skip
    setup = prepare(replace(config, data_root=train))
    asked = json.loads((train / "vqav2/v2_OpenEnded_mscoco_train2014_questions.json").read_text())["questions"]
    *shown, _ = setup.victim.model.prompt(setup.victim.prompts(setup.samples)[0]).text.split("<|endofchunk|>")
    questions = {entry["question"] for entry in asked}
    assert len(shown) == 2
    assert {text.removeprefix("Question:").partition(" Short answer:")[0] for text in shown} <= questions
    assert setup.header.victim_settings == {"beams": "3", "length_counts": "prompt"}
    with pytest.raises(UsageError, match=r"train2014"):
        prepare(replace(config, data_root=train, vlm=f"{folder}?shots=4"))
    captions = resolve(replace(config.request, task=("captioning",), dataset=("flickr30k",)))[0]
    with pytest.raises(UsageError, match="has no image in split 'train'"):
        prepare(captions)


def test_a_dataset_that_names_no_training_split_says_what_to_do(tmp_path):
    folder = tmp_path / "flamingo"
    shutil.copytree(WEIGHTS / "openflamingo", folder)
    (folder / "demonstrations.json").unlink()
    (config,) = resolve(Request.of(encoder="clip", vlm=str(folder), task="vqa", attack="none", limit=2))
    with pytest.raises(UsageError, match=r"add demonstrations = NAME to its row.*\?demonstrations=FILE"):
        prepare(config)


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
