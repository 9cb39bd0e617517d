"""No test of victims asks a network, nor waits for one: the hub's client reads its setting when it is imported."""

import huggingface_hub.constants
import pytest


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
