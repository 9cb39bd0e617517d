"""Weights files: what is read of each kind, and what is refused, with a remedy that helps."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file
from torch import nn

from bench.errors import UsageError
from bench.models.encoders.checkpoint import read_state_dict, weights_files
from bench.models.encoders.load import load_encoder
from tests.bench.models import checkpoints

pytestmark = pytest.mark.usefixtures("cache")
PIXELS = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """With parameters, buffers, inner modules, and code that an archive would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.last = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(torch.ones([]))
        self.register_buffer("vocab_size", torch.tensor(87))
        self.names = ["a", "b"]

    def forward(self, x):
        return self.last(self.first(x).mean((2, 3))) * self.scale


def _equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


# ---- TorchScript -----------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    model = checkpoints.randomise(Small(), 0).half()
    torch.jit.script(model).save(str(tmp_path / "model.pt"))
    return tmp_path / "model.pt", {k: v for k, v in model.state_dict().items() if k != "vocab_size"}


def test_the_tensors_of_a_torchscript_archive_are_read_and_its_code_is_not(archive, monkeypatch):
    path, expected = archive
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("the archive was loaded"))
    monkeypatch.setattr(torch._C, "import_ir_module", lambda *_: pytest.fail("the archive was loaded"))
    assert _equal(read_state_dict(path), expected)


@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_openais_kind_of_file_is_an_encoder(tmp_path, world, whole):
    """Traced, in half precision, as OpenAI's ViT-*.pt are."""
    source = checkpoints.open_clip_model(checkpoints.open_clip_config(quick_gelu=True), seed=5)
    expected = source.visual.half().float()(torch.zeros(1, 3, 28, 28))
    half = source.half()
    traced = (
        torch.jit.trace_module(half.float(), {"encode_image": PIXELS, "encode_text": torch.ones(1, 16).long()})
        if whole
        else torch.jit.trace(half.visual.float(), PIXELS)
    )
    traced.save(str(tmp_path / "ViT-S.pt"))
    encoder = load_encoder(str(tmp_path / "ViT-S.pt"), "small")
    assert torch.allclose(encoder.visual(torch.zeros(1, 3, 28, 28)), expected, atol=1e-5)
    assert isinstance(encoder.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)


def _rewrite(path, name, change):
    """Replace one entry of an archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (full,) = (entry for entry in entries if entry.endswith(name))
    entries[full] = change(entries[full])
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)


class _Planted:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (Path(self.mark),))


@pytest.mark.parametrize(
    "change",
    [
        lambda content, mark: pickle.dumps(_Planted(mark), protocol=2),
        lambda content, mark: content.replace(b"_rebuild_tensor_v2", b"_rebuild_wrapper_v2"),
        lambda content, mark: content[:50],
        lambda content, mark: b"",
    ],
)
def test_an_archive_that_names_anything_else_is_refused(archive, tmp_path, change):
    path, _ = archive
    _rewrite(path, "data.pkl", lambda content: change(content, str(tmp_path / "mark")))
    with pytest.raises(UsageError, match=r"model\.pt is not a checkpoint that can be read"):
        read_state_dict(path)
    assert not (tmp_path / "mark").exists()


def test_a_tensor_that_is_cut_short_is_refused(archive):
    path, _ = archive
    _rewrite(path, "data/0", lambda content: content[:-2])
    with pytest.raises(UsageError, match=r"model\.pt is not a checkpoint that can be read"):
        read_state_dict(path)


# ---- State dicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"])
def test_the_prefixes_of_wrappers_are_taken_off(tmp_path, wrapped):
    state = checkpoints.randomise(Small(), 1).state_dict()
    torch.save({wrapped.format(name): value for name, value in state.items()}, tmp_path / "x.pt")
    assert _equal(read_state_dict(tmp_path / "x.pt"), state)


def test_an_inner_module_that_was_compiled(tmp_path):
    state = checkpoints.randomise(Small(), 1).state_dict()
    torch.save({name.replace("first.", "first._orig_mod."): value for name, value in state.items()}, tmp_path / "x.pt")
    assert _equal(read_state_dict(tmp_path / "x.pt"), state)


def test_safetensors_under_another_name(tmp_path):
    state = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    save_file(state, tmp_path / "weights.pt")
    assert _equal(read_state_dict(tmp_path / "weights.pt"), state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "is not a state dict of tensors"),
        ({}, "is not a state dict of tensors"),
        ({1: torch.ones(2)}, "is not a state dict of tensors"),
        ({"a": 1}, r"save its model's state_dict\(\)"),
        ({"a": torch.ones(2).to_sparse()}, "is not a state dict of tensors"),
        ({"a": torch.ones(2, device="meta")}, "is not a state dict of tensors"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "is not a state dict of tensors"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, "is not a state dict of tensors"),
        ({"state_dict": {"a": [torch.ones(2)]}}, "is not a state dict of tensors"),
        ({"a": torch.tensor([1.0, torch.nan])}, r"NaN or infinite weights in \['a'\]"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "names differ in module"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match=rf"checkpoint\.pt .*{message}"):
        read_state_dict(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32])
def test_quantised_weights_are_not_read_as_they_stand(tmp_path, kind):
    whole = {"a.weight": torch.ones(2, 2, dtype=kind), "a.position_ids": torch.arange(2), "a.bias": torch.ones(2)}
    save_file(whole, tmp_path / "model.safetensors")
    torch.save(whole, tmp_path / "tower.pt")
    for read in (
        lambda: read_state_dict(tmp_path / "model.safetensors"),
        lambda: read_state_dict(tmp_path / "tower.pt"),
        lambda: weights_files(tmp_path),
    ):
        with pytest.raises(
            UsageError, match=r"whole numbers for weights in \['a.weight'\].*before they were quantised"
        ):
            read()
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    assert len(weights_files(tmp_path)) == 1
    save_file(whole | {"a.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    assert len(read_state_dict(tmp_path / "model.safetensors")) == 3


def test_no_refusal_advises_to_trust_a_file(tmp_path):
    torch.save({"a": nn.Linear(1, 1)}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="could run code") as error:
        read_state_dict(tmp_path / "x.pt")
    assert "weights_only" not in str(error.value)


# ---- Folders ---------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    """A CLIPModel folder whose weights lie in two shards."""
    model = checkpoints.clip_model_folder(tmp_path / "sharded")
    folder = tmp_path / "sharded"
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, table = sorted(state), {}
    for number in range(2):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in names[number::2]}, folder / file, metadata={"format": "pt"})
        table |= dict.fromkeys(names[number::2], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder, model


@torch.no_grad()
def test_shards_are_read_through_their_index(sharded):
    folder, model = sharded
    assert len(weights_files(folder)) == 2
    encoder = load_encoder(str(folder))
    expected = model.get_image_features((PIXELS - encoder.mean) / encoder.std)
    expected = getattr(expected, "pooler_output", expected)
    assert torch.allclose(encoder(PIXELS), expected, atol=1e-4)


def test_a_merged_file_counts_whatever_an_index_beside_it_says(sharded, tmp_path):
    folder, _ = sharded
    checkpoints.clip_model_folder(tmp_path / "merged", seed=3)
    shutil.copy(tmp_path / "merged" / "model.safetensors", folder)
    for shard in folder.glob("*-of-*"):
        shard.unlink()
    assert torch.equal(load_encoder(str(folder))(PIXELS), load_encoder(str(tmp_path / "merged"))(PIXELS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"weight_map": {"a"', r"index\.json cannot be read"),
        ("{}", "has no weight_map"),
        ("[]", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "has no weight_map from tensors to files beside it"),
        ('{"weight_map": {"a": 3}}', "has no weight_map"),
        ('{"weight_map": {"a": "gone.safetensors"}}', r"lacks 1 of 1 shards .*: gone\.safetensors"),
        ('{"a":' * 5000, r"index\.json cannot be read"),
    ],
)
def test_a_damaged_index_is_named(sharded, content, message):
    folder, _ = sharded
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        load_encoder(str(folder))
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("architectures", [None, "CLIPVisionModel", 3, [None]])
def test_architectures_may_be_anything(tmp_path, world, architectures):
    checkpoints.vision_model_folder(tmp_path / "v", "quick_gelu")
    config = json.loads((tmp_path / "v" / "config.json").read_text())
    (tmp_path / "v" / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
    assert load_encoder(str(tmp_path / "v"), "small")(PIXELS).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_a_local_folder_serves_as_the_base_of_a_tower(tmp_path, kind):
    """--arch ARCHITECTURE,FOLDER: text tower, activation and pixels are the folder's."""
    if kind == "open_clip":
        checkpoints.open_clip_folder(tmp_path / "base")
    else:
        checkpoints.clip_model_folder(tmp_path / "base", "gelu")
    (tmp_path / "ViT-small.json").write_text(json.dumps(checkpoints.open_clip_config()))
    open_clip.add_model_config(tmp_path / "ViT-small.json")
    tuned = load_encoder(str(tmp_path / "base"))
    checkpoints.randomise(tuned.visual, 9)
    torch.save(tuned.visual.state_dict(), tmp_path / "tuned.pt")
    found = load_encoder(str(tmp_path / "tuned.pt"), "mini", f"ViT-small,{tmp_path / 'base'}")
    assert torch.equal(found(PIXELS), tuned(PIXELS))
    assert torch.equal(found.text.embed(["red star"]), tuned.text.embed(["red star"]))
    if kind == "transformers":  # does not say of which of open_clip's architectures it is
        return
    with pytest.raises(UsageError, match=r"ViT-B-32.*says .*, but these weights were trained with"):
        load_encoder(str(tmp_path / "tuned.pt"), "mini", f"ViT-B-32,{tmp_path / 'base'}")
