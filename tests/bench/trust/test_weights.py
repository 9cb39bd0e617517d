"""No weights file runs code, by whatever loader it is read: a pickle that would leave a mark leaves none."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.models.encoders.checkpoint import read_state_dict
from bench.models.encoders.load import load_encoder
from bench.models.victims.llava.model import load_llava
from bench.train.base import load_base
from tests.bench.models import checkpoints, llava_checkpoint


class _Planted:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


def _planted(path: Path, mark: Path) -> Path:
    torch.save({"weight": torch.ones(2), "code": _Planted(mark)}, path)
    return path


def _of_state_dict(tmp, mark):
    load_encoder(str(_planted(tmp / "visual.pt", mark)))


def _of_plain_pickle(tmp, mark):
    (tmp / "visual.pt").write_bytes(pickle.dumps(_Planted(mark)))
    load_encoder(str(tmp / "visual.pt"))


def _of_torchscript(tmp, mark):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp / "whole.pt"))
    with zipfile.ZipFile(tmp / "whole.pt") as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(tmp / "visual.pt", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, pickle.dumps(_Planted(mark), 2) if name.endswith("/data.pkl") else content)
    load_encoder(str(tmp / "visual.pt"))


def _of_open_clip_folder(tmp, mark):
    checkpoints.open_clip_folder(tmp / "evil", weights="open_clip_pytorch_model.bin")
    _planted(tmp / "evil" / "open_clip_pytorch_model.bin", mark)
    load_encoder(str(tmp / "evil"))


def _of_clip_model(tmp, mark):
    checkpoints.clip_model_folder(tmp / "evil")
    (tmp / "evil" / "model.safetensors").unlink()
    _planted(tmp / "evil" / "pytorch_model.bin", mark)
    load_encoder(str(tmp / "evil"))


def _of_shards(tmp, mark):
    checkpoints.clip_model_folder(tmp / "evil")
    (tmp / "evil" / "model.safetensors").unlink()
    _planted(tmp / "evil" / "part.bin", mark)
    index = {"metadata": {"total_size": 8}, "weight_map": {"logit_scale": "part.bin"}}
    (tmp / "evil" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    load_encoder(str(tmp / "evil"))


def _of_llava(tmp, mark):
    folder = llava_checkpoint.write_llava(tmp / "evil")
    (folder / "model.safetensors.index.json").unlink()
    _planted(folder / "pytorch_model.bin", mark)
    load_llava(str(folder), llava_checkpoint.small_encoder())


def _of_training(tmp, mark):
    load_base("ViT-B-32", str(_planted(tmp / "visual.pt", mark)))


LOADERS = [value for name, value in sorted(globals().items()) if name.startswith("_of_")]


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__.removeprefix("_of_"))
def test_no_loader_of_weights_runs_code(tmp_path, load):
    mark = tmp_path / "code-was-run"
    with pytest.raises(UsageError, match=str(tmp_path)) as error:
        load(tmp_path, mark)
    assert not mark.exists()
    assert "weights_only" not in str(error.value)


def test_the_planted_pickle_would_leave_its_mark(tmp_path):
    """Without the policy it does: the test above can fail."""
    path = _planted(tmp_path / "x.pt", tmp_path / "mark")
    torch.load(path, weights_only=False)
    assert (tmp_path / "mark").exists()
    with pytest.raises(UsageError, match="could run code"):
        read_state_dict(path)
