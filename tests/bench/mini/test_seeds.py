"""The claims over training seeds: the runs that they need, the spread, and the whole command at a tiny scale."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from bench.errors import UsageError
from bench.mini import recipes
from bench.mini.claims import CLAIMS, ClaimResult, claims_block, evaluate_claims
from bench.models.encoders.load import load_encoder
from bench.records import load_runs
from bench.train.checkpoint import TrainingError
from benchmarks import seeds

NAMES = ("C1 clean VQA", "C5 CLIP's images on FARE4")
ALL = seeds.asked_of_encoders(CLAIMS)
FEW = tuple(claim for claim in CLAIMS if claim.name in NAMES)


def test_the_models_of_the_claims_are_trained_in_order():
    assert seeds.models_of(ALL) == ["clip", *recipes.FINETUNING, "llava", "openflamingo"]
    assert seeds.models_of(FEW) == ["clip", "fare4", "llava"]


def test_the_runs_of_the_claims_suffice_for_them(tmp_path):
    """Of the committed runs, those that would be carried out for a seed give the very claims of all."""
    asked = {
        (config.suite, seeds.Path(config.encoder).name, config.task, config.dataset, bool(config.surrogate))
        for config in seeds.runs_of(tmp_path, ALL)
    }
    committed = load_runs([seeds.COMMITTED])
    kept = [run for run in committed if _key(run.header) in asked and not run.header.surrogate_model]
    assert len({_key(run.header) for run in kept}) >= 15
    assert evaluate_claims(kept, ALL) == evaluate_claims(committed, ALL)
    assert len(asked) < len(committed) / 2


def _key(header):
    suite = "mini-openflamingo" if "openflamingo" in (header.model or "") else "mini-full"
    return suite, header.encoder, header.task, header.dataset, bool(header.surrogate)


def test_the_spread_is_told_by_seed():
    claim, other = FEW[0], FEW[1]
    found = {
        seed: [ClaimResult(claim.name, value >= 85, "", value, 85.0), ClaimResult(other.name, False, "not measured: x")]
        for seed, value in {0: 90.0, 1: 84.0, 2: 87.0}.items()
    }
    rows = seeds.spread((claim, other), found).splitlines()
    assert rows[2] == "| C1 clean VQA | 90.0 >= 85.0 | **84.0** >= 85.0 | 87.0 >= 85.0 | 87.0 (3.0) | 2 of 3 |"
    assert rows[3].endswith("| not measured: x | not measured: x | not measured: x | - | 0 of 3 |")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A suite of two samples and two steps, whose claims are held against one seed of hardly trained models."""
    folder = tmp_path_factory.mktemp("seeds")
    attack = 'name = "apgd"\nkind = "apgd"\nsteps = 2\ngoal = "untargeted"\nstart = "random"\nfirst_step = 2.0\n'
    suite = f'base = "mini-full"\n[attacks.tiny]\ndescription = ""\n[[attacks.tiny.steps]]\n{attack}'
    (folder / "tiny.toml").write_text(suite + '[tasks.vqa]\nsamples = 2\nattack = "tiny"\n')
    (folder / "doc.md").write_text("# x\n\n<!-- bench:seeds -->\n<!-- /bench:seeds -->\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "SUITES", dict.fromkeys(seeds.SUITES, str(folder / "tiny.toml")))
        for name in ("zeroshot_numbers", "vqa_numbers"):
            patch.setattr(recipes, name, lambda *_: {})
        words = ["--output", str(folder / "out"), "--seeds", "0,1", "--steps", "1", "--jobs", "1", "--threads", "1"]
        seeds.main([*words, "--write", str(folder / "doc.md")], FEW)
        trained = []
        patch.setattr(seeds, "train_model", lambda name, *_, **__: trained.append(name))
        seeds.main(words, FEW)
    return folder, trained


def test_one_command_trains_measures_and_writes_the_spread(tiny):
    folder, trained = tiny
    rows = (folder / "doc.md").read_text().splitlines()
    (row,) = (line for line in rows if line.startswith("| C1 clean VQA |"))
    assert row.startswith("| C1 clean VQA | 97.1 >= 85.0 | **")
    assert row.endswith("| 1 of 2 |")
    told = json.loads((folder / "out" / "claims.json").read_text())
    assert [result[0] for result in told["1"]] == list(NAMES)
    assert all(result[2] is not None for result in told["1"])
    assert trained == [], "what is trained is not trained again"


def test_everything_of_a_seed_is_made_from_its_own_clip(tiny):
    models, encoders = (tiny[0] / "out" / "seed1" / name for name in ("models", "encoders"))
    clip, shipped = load_encoder(str(models / "clip")), load_encoder("clip")
    tuned = load_encoder(str(encoders / "fare4"))
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    texts = ["a photo of a circle"]
    with torch.no_grad():
        assert not torch.allclose(clip(images), shipped(images), atol=1e-2)
        assert torch.equal(tuned.text.embed(texts), clip.text.embed(texts))
        assert 0 < (tuned(images) - clip(images)).norm() < 0.5 * clip(images).norm()
    written = load_file(models / "fare4" / "visual.safetensors")
    whole = load_file(encoders / "fare4" / "open_clip_model.safetensors")
    assert all(torch.equal(whole[f"visual.{name}"], tensor) for name, tensor in written.items())
    assert json.loads((models / "fare4" / "card.json").read_text())["recipe"]["seed"] == 1


def test_a_checkpoint_from_another_clip_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "vqa_numbers", lambda *_: {})
    base = tiny[0] / "out" / "seed1" / "models" / "clip"
    recipes.train_model("llava", tmp_path / "work", tmp_path / "out", base=base, steps=1)
    with pytest.raises(TrainingError, match="clip"):
        recipes.train_model("llava", tmp_path / "work", tmp_path / "out", steps=1)


def test_seeds_block_and_claims_of_the_committed_runs_agree():
    """Seed 0 is what BENCHMARKS.md says."""
    results = seeds.results_of(0, seeds.Path("nowhere"), ALL, None, None)
    block = claims_block(load_runs([seeds.COMMITTED]))
    assert all(result.statement in block for result in results)
    assert all(replace(result, statement="").value is not None for result in results)


def test_an_unknown_model_has_no_recipe(tmp_path):
    with pytest.raises(UsageError, match="no recipe for 'fare3'"):
        recipes.train_model("fare3", tmp_path, tmp_path)
