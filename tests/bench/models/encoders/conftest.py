"""A hub cache and a suite of a test's own."""

import huggingface_hub.constants
import pytest

from bench.models.encoders import catalogue
from tests.bench.models import checkpoints


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A suite of its own whose "clip" is a small open_clip model with QuickGELU."""
    config = checkpoints.open_clip_config(quick_gelu=True)
    plain = checkpoints.open_clip_folder(tmp_path / "plain", config)
    table = {"small": {"clip": {"model": str(tmp_path / "plain"), "activation": "quick_gelu"}}}
    monkeypatch.setattr(catalogue, "_catalogue", lambda: {"aliases": {}, **table})
    return plain
