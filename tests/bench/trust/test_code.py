"""No way to load a checkpoint runs code of its own: a planted module leaves no mark, and the refusal names the file."""

import json
import os
import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from transformers import dynamic_module_utils

from bench.cli import main
from bench.errors import UsageError
from bench.models.encoders.catalogue import EncoderRow
from bench.models.encoders.load import load_encoder, load_row
from bench.models.victims.llava.model import load_llava
from bench.train.base import load_base
from bench.trust import code as trust
from tests.bench.models import checkpoints, llava_checkpoint
from tests.bench.runs import make_run

CUSTOM = {
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"},
    "processor_config.json": {"auto_map": {"AutoProcessor": "planted.Planted"}, "processor_class": "Planted"},
    "preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "planted.Planted"}},
}
TRUSTING = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"the user was asked: {prompt}"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "code-was-run"


def _change(path: Path, **keys) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | keys))


def _plant(folder: Path, marker: Path, file: str) -> None:
    """A module that leaves a mark when it is imported, and a configuration that leads to it."""
    (folder / "planted.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Planted: pass\n")
    _change(folder / file, **CUSTOM[file])


def _open_clip(folder: Path, marker: Path, **text) -> Path:
    checkpoints.open_clip_folder(folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(checkpoints.TOKENIZER / "tokenizer.json", folder)
    _plant(folder, marker, "tokenizer_config.json")
    return folder


def _clip_model(folder: Path, marker: Path) -> Path:
    checkpoints.clip_model_folder(folder)
    _plant(folder, marker, "tokenizer_config.json")
    return folder


def _vision_model(folder: Path, marker: Path) -> Path:
    checkpoints.vision_model_folder(folder)
    _plant(folder, marker, "preprocessor_config.json")
    return folder


def _cached(folder: Path) -> str:
    """The hub id of a folder that was laid into the cache."""
    checkpoints.into_hub_cache(folder, Path(huggingface_hub.constants.HF_HUB_CACHE), "someone/evil")
    return "someone/evil"


def _architecture(folder: Path, **text) -> str:
    """One of open_clip's own architectures that names another folder or hub id."""
    config = checkpoints.open_clip_config()
    config["text_cfg"] |= text
    (folder / "small-naming.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "small-naming.json")
    return "small-naming"


def _of_open_clip_folder(tmp, marker):
    load_encoder(str(_open_clip(tmp / "evil", marker, **TRUSTING)))


def _of_open_clip_folder_without_kwargs(tmp, marker):
    load_encoder(str(_open_clip(tmp / "evil", marker, hf_tokenizer_name="x")))


def _of_clip_model(tmp, marker):
    load_encoder(str(_clip_model(tmp / "evil", marker)))


def _of_vision_model(tmp, marker):
    load_encoder(str(_vision_model(tmp / "evil", marker)))


def _of_open_clip_hub_row(tmp, marker):
    load_row(EncoderRow("evil", hub=_cached(_open_clip(tmp / "repo", marker, **TRUSTING))), {})


def _of_transformers_hub_row(tmp, marker):
    load_row(EncoderRow("evil", hub=_cached(_clip_model(tmp / "repo", marker)), format="transformers"), {})


def _of_text_tower(tmp, marker):
    tower = _clip_model(tmp / "repo", marker)
    _change(tower / "config.json", auto_map={"AutoConfig": "planted.Planted"}, model_type="planted")
    checkpoints.open_clip_folder(tmp / "fine")
    config = json.loads((tmp / "fine" / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": _cached(tower)}
    _change(tmp / "fine" / "open_clip_config.json", **config)
    load_encoder(str(tmp / "fine"))


def _of_llava(tmp, marker):
    folder = llava_checkpoint.write_llava(tmp / "evil")
    _plant(folder, marker, "processor_config.json")
    load_llava(str(folder), llava_checkpoint.small_encoder())


def _of_llava_hub_id(tmp, marker):
    folder = llava_checkpoint.write_llava(tmp / "repo")
    _plant(folder, marker, "tokenizer_config.json")
    load_llava(_cached(folder), llava_checkpoint.small_encoder())


def _of_training(tmp, marker):
    load_base(str(_open_clip(tmp / "evil", marker, **TRUSTING)), None)


def _of_training_with_schema(tmp, marker):
    load_base(f"local-dir:{_open_clip(tmp / 'evil', marker, **TRUSTING)}", "random")


def _of_training_hub_id(tmp, marker):
    load_base(f"hf-hub:{_cached(_open_clip(tmp / 'repo', marker, **TRUSTING))}", None)


def _of_training_hub_id_without_open_clip_config(tmp, marker):
    folder = _clip_model(tmp / "repo", marker)
    load_base(f"hf-hub:{_cached(folder)}", None)


def _of_tokenizer_folder(tmp, marker):
    evil = _clip_model(tmp / "evil", marker)
    load_base(_architecture(tmp, **(TRUSTING | {"hf_tokenizer_name": str(evil)})), "random")


def _of_tokenizer_hub_id(tmp, marker):
    evil = _cached(_clip_model(tmp / "repo", marker))
    load_base(_architecture(tmp, **(TRUSTING | {"hf_tokenizer_name": evil})), "random")


LOADERS = [value for name, value in sorted(globals().items()) if name.startswith("_of_")]


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__.removeprefix("_of_"))
def test_no_loader_runs_code_and_the_refusal_names_the_file(tmp_path, marker, load):
    with pytest.raises(UsageError, match=r"config\.json: .*(auto_map|trust_remote_code) asks for code"):
        load(tmp_path, marker)
    assert not marker.exists()


def _invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", ["run", "train", "verify", "report"])
def test_no_command_runs_code(tmp_path, marker, command):
    evil = _open_clip(tmp_path / "evil", marker, **TRUSTING)
    run = make_run(tmp_path / "runs", {0: [100.0], 4: [0.0]}, encoder=str(evil), dataset="mini-shape", task="zeroshot")
    (run.directory / "adversarial").mkdir()
    for number in range(8):
        (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), (9 * number, 0, 0)).save(tmp_path / "images" / "a" / f"{number}.png")
    words = {
        "run": [
            "run",
            "--encoder",
            evil,
            "--task",
            "zeroshot",
            "--attack",
            "none",
            "--limit",
            "2",
            "--jobs",
            "1",
            "--output",
            tmp_path / "out",
        ],
        "train": [
            "train",
            "fare",
            "--arch",
            evil,
            "--data",
            f"imagefolder:{tmp_path / 'images'}",
            "--output",
            tmp_path / "out",
        ],
        "verify": ["verify", run.directory],
        "report": ["report", run.directory, "--output", tmp_path / "out"],
    }
    said = _invoke(*words[command])
    assert not marker.exists()
    if command == "report":  # which reads no checkpoint at all
        assert said.exit_code == 0
        return
    assert re.search(r"config\.json: .* asks for code", said.output)
    assert said.exit_code == 2


@pytest.mark.parametrize(
    ("file", "keys", "refused"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}, "model_type": "mpt"}, None),
        ("config.json", {"auto_map": {"AutoConfig": "m.C"}, "model_type": "unheard-of"}, "auto_map"),
        ("config.json", {"auto_map": {"AutoConfig": "m.C"}}, "auto_map"),
        ("config.json", {"auto_map": {"AutoTokenizer": ["m.T", None]}, "model_type": "clip"}, "auto_map"),
        (
            "config.json",
            {"model_type": "llava", "text_config": {"auto_map": {"AutoModel": "m.M"}}},
            "text_config.auto_map",
        ),
        ("config.4.0.0.json", {"auto_map": {"AutoConfig": "m.C"}, "model_type": "clip"}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["m.T", None]}, "model_type": "clip"}, "auto_map"),
        (
            "processor_config.json",
            {"image_processor": {"auto_map": {"AutoImageProcessor": "m.P"}}},
            "image_processor.auto_map",
        ),
        ("inner/tokenizer_config.json", {"auto_map": {"AutoTokenizer": "m.T"}}, "auto_map"),
        (
            "open_clip_config.json",
            {"model_cfg": {"a": [{"b": {"trust_remote_code": True}}]}},
            r"model_cfg.a.0.b.trust_remote_code",
        ),
        ("tokenizer_config.json", {"trust_remote_code": False, "auto_map": None}, None),
        ("config.json", {"custom_pipelines": {"p": {"impl": "m.P"}}}, "custom_pipelines"),
        (
            "config.json",
            {"vision_config": {"attn_implementation": "someone/kernel"}},
            "vision_config.attn_implementation",
        ),
        ("config.json", {"attn_implementation": "sdpa"}, None),
        ("words.json", {"auto_map": {"AutoTokenizer": "m.T"}}, None),
    ],
)
def test_the_rule(tmp_path, file, keys, refused):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(keys))
    if refused is None:
        trust.check(tmp_path)
        return
    with pytest.raises(UsageError) as error:
        trust.check(tmp_path)
    assert str(error.value).startswith(f"{path}: {refused} asks for code")


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "merges_file", "spm_file"])
def test_no_file_outside_a_checkpoint_is_read(tmp_path, monkeypatch, key):
    """transformers opens what such a key names, wherever it lies, in the place of the folder's own file."""
    folder, secret = tmp_path / "model", tmp_path / "secret.txt"
    folder.mkdir()
    secret.write_text("secret")
    (folder / "vocab.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    for name in (str(secret), "secret.txt", "model/../secret.txt"):
        (folder / "tokenizer_config.json").write_text(json.dumps({key: name}))
        with pytest.raises(UsageError, match=f"{key} is .*a place outside the checkpoint's folder"):
            trust.check(folder)
    for name in (str(folder / "vocab.txt"), "model/vocab.txt", "/nowhere/vocab.txt", "absent.txt", None):
        (folder / "tokenizer_config.json").write_text(json.dumps({key: name}))
        trust.check(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"special_tokens_map_file": str(secret)}))
    trust.check(folder)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("timm_model_name", "local-dir:/home/other"),
        ("timm_model_name", "hf-hub:someone/model"),
        ("hf_model_name", "/home/other"),
        ("hf_tokenizer_name", "../other"),
    ],
)
def test_no_tower_or_tokenizer_outside_a_checkpoint_is_read(tmp_path, key, place):
    part = "vision_cfg" if "timm" in key else "text_cfg"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {part: {key: place}}}))
    with pytest.raises(UsageError, match=f"{part}.{key} is '{place}', a place outside"):
        trust.check(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {part: {key: "convnext_atto"}}}))
    trust.check(tmp_path)


def test_adapters_are_refused_and_not_left_out(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/home/other"}))
    with pytest.raises(UsageError, match=r"adapter_config\.json: adapters .* merge them"):
        trust.check(tmp_path)


def test_a_pipe_among_the_configurations_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    trust.check(tmp_path)


def test_a_folder_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(UsageError, match=r"config\.json is nested too deeply"):
        trust.check(tmp_path)


def test_an_auto_map_that_is_never_read_changes_nothing(tmp_path, marker):
    checkpoints.clip_model_folder(tmp_path / "mine")
    expected = load_encoder(str(tmp_path / "mine"))
    (tmp_path / "mine" / "planted.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    _change(tmp_path / "mine" / "config.json", auto_map={"AutoConfig": "planted.C", "AutoModel": "planted.M"})
    pixels = torch.rand(2, 3, 28, 28)
    assert torch.equal(load_encoder(str(tmp_path / "mine"))(pixels), expected(pixels))
    assert not marker.exists()
