"""A run is known by the places it names, not by how they are spelled."""

import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import bench
from attacks.presets import PRESETS, Preset
from bench.config import Request, resolve
from bench.errors import UsageError
from bench.records import RecordsError

WEIGHTS = Path(str(resources.files("bench"))) / "mini/weights"


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A working folder with an encoder and a vision-language model in it."""
    shutil.copytree(WEIGHTS / "clip", tmp_path / "mine")
    shutil.copytree(WEIGHTS / "llava", tmp_path / "llava")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def directory(**options):
    return resolve(Request.of(**{"encoder": "clip", "task": "vqa"} | options))[0].directory


@pytest.mark.parametrize("option", ["encoder", "surrogate", "vlm"])
def test_the_directory_of_a_run_does_not_depend_on_the_spelling(models, option):
    spelled = ["./mine", str(models / "mine"), "../" + models.name + "/mine", "mine/", Path("mine").absolute()]
    assert len({directory(**{option: one}) for one in spelled}) == 1
    (models / "other").mkdir()
    shutil.copytree(WEIGHTS / "clip", models / "other" / "mine")
    assert directory(**{option: "./mine"}) != directory(**{option: "other/mine"})


def test_a_folder_in_the_working_folder_needs_no_slash(models):
    assert directory(encoder="mine") == directory(encoder="./mine") == directory(encoder=models / "mine")
    (models / "clip").mkdir()
    assert directory(encoder="clip").name.startswith("clip_"), "a name of the catalogue comes first"


def test_a_run_goes_on_however_its_models_are_spelled(models):
    def run(encoder, vlm, surrogate, limit=2):
        return bench.run(
            encoder, "vqa", vlm=vlm, surrogate=surrogate, attack="transfer", eps=2, limit=limit, jobs=1,
            output="runs", progress=False,
        ).runs[0]  # fmt: skip

    first = run("./mine", "./llava", "./mine")
    again = run(str(models / "mine"), str(models / "llava"), str(models / "mine"))
    assert again.directory == first.directory
    assert again.records == first.records
    weights = next(Path("mine").rglob("*.safetensors"))
    state = load_file(weights)
    key = next(name for name in state if name.startswith("visual.") and state[name].is_floating_point())
    save_file(state | {key: state[key] + 1}, weights)
    with pytest.raises(RecordsError, match=r"weights is .* there"):
        run("mine", "llava", "mine")


def test_a_native_tower_needs_no_encoder_and_embedding_attacks_attack_it(tmp_path, monkeypatch):
    steps = tuple(replace(step, steps=2) for step in PRESETS["embedding"].steps)
    monkeypatch.setitem(PRESETS, "embedding", Preset("", steps))
    named = {"none": None, "clip": "clip", "fare4": "fare4"}
    results = {
        name: bench.run(
            encoder, "vqa", tower="native", attack="embedding", eps=2, limit=3, jobs=1, output=tmp_path, progress=False
        ).runs[0]
        for name, encoder in named.items()
    }
    assert results["none"].header.encoder == "native"
    assert not {"encoder", "text"} & results["none"].header.weights.keys()

    def found(run):
        return [(r.sample_id, r.step, r.loss, r.score, r.prediction) for r in run.records]

    assert found(results["none"]) == found(results["clip"]) == found(results["fare4"])
    assert any(r.step == "embedding" for r in results["none"].records)


def test_without_an_encoder_only_a_native_tower_is_run():
    with pytest.raises(UsageError, match="give --encoder, or --all"):
        resolve(Request.of(task="vqa"))
    with pytest.raises(UsageError, match="leave one of them out"):
        resolve(Request.of(task="vqa", tower="native", surrogate="clip"))
    with pytest.raises(UsageError, match="'zeroshot' asks an encoder, not a vision-language model: give --encoder"):
        bench.run(task="zeroshot", tower="native", dataset="mini-shape", limit=1, attack="none", progress=False)


def test_names_longer_than_a_file_system_takes_are_cut_and_told_apart(tmp_path):
    folder = tmp_path / ("x" * 200)
    options = {"encoder": f"{folder}/tower.pt", "vlm": f"{tmp_path}/{'é' * 100}", "arch": "ViT-B-32"}
    one, other = directory(**options), directory(**options, seed=1)
    assert one != other
    assert max(len(part.encode()) for part in one.parts) <= 240
    one_of_200 = directory(encoder="a/" + "y" * 250)
    (tmp_path / one_of_200.name).mkdir()


def test_an_output_name_that_no_file_system_takes_is_one_error(tmp_path):
    with pytest.raises(RecordsError, match="name too long"):
        bench.run(
            "clip", "zeroshot", dataset="mini-shape", limit=1, attack="none", jobs=1, output=tmp_path / ("z" * 300)
        )
