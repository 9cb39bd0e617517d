"""The catalogue's rows are well-formed, agree with their sources, and are shown without torch or network."""

import json
import os
import subprocess
import sys

import open_clip
import pytest

from bench.config import suite_names
from bench.models.encoders import catalogue
from tests.bench.models import checkpoints

PAPER = catalogue.rows("paper")


def test_the_encoders_that_the_paper_compares_are_there():
    assert {"clip", "fare2", "fare4", "tecoa2", "tecoa4"} <= PAPER.keys()
    for name, eps in (("fare2", 2), ("fare4", 4), ("tecoa2", 2), ("tecoa4", 4)):
        assert PAPER[name].hub == f"chs20/{name}-clip"
        assert PAPER[name].training["eps_255"] == eps
        assert PAPER[name].activation == "quick_gelu"
    assert set(catalogue.aliases().values()) <= PAPER.keys() & catalogue.rows("mini").keys()


@pytest.mark.parametrize("row", PAPER.values(), ids=PAPER)
def test_facts_agree_with_open_clips_own_lists(row):
    if row.architecture is not None:
        config = open_clip.get_model_config(row.architecture)
        assert config is not None
        assert row.activation == ("quick_gelu" if config.get("quick_gelu") else "gelu")
        assert row.image_size in (None, config["vision_cfg"]["image_size"])
    if row.pretrained is not None:
        tag = open_clip.get_pretrained_cfg(row.architecture, row.pretrained)
        assert tag["hf_hub"] == f"{row.hub}/"
        assert (tuple(tag["mean"]), tuple(tag["std"]), tag["interpolation"]) == (
            row.preprocessing.mean,
            row.preprocessing.std,
            row.preprocessing.interpolation,
        )


@pytest.mark.parametrize("row", PAPER.values(), ids=PAPER)
def test_published_accuracies_fall_with_eps(row):
    scores = [score for _, score in sorted(row.zero_shot.items(), key=lambda item: int(item[0]))]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 100 for score in scores)
    assert row.source


def test_deltaclip_has_its_own_normalisation():
    for name in ("delta-clip-l14", "delta-clip-l14-336", "delta-clip-h14-336"):
        facts = PAPER[name].preprocessing
        assert facts.mean == open_clip.constants.IMAGENET_MEAN
        assert facts.std == open_clip.constants.IMAGENET_STD
        assert facts.interpolation == "bilinear"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"hub": "a/b", "licens": "MIT"}, r"unknown keys \['licens'\]"),
        ({"hub": "a/b", "name": "c"}, r"unknown keys \['name'\]"),
        ({"licence": "MIT"}, "exactly one of model, hub and base"),
        ({"hub": "a/b", "model": "c"}, "exactly one of model, hub and base"),
        ({"base": "nobody", "visual": "x"}, "base 'nobody' is no complete model"),
        ({"base": "good"}, "base goes with visual or url"),
        ({"hub": "a/b", "visual": "x"}, "base goes with visual or url"),
        ({"model": "a", "revision": "b"}, "go with hub"),
        ({"hub": "a/b", "pretrained": "openai"}, "pretrained needs architecture"),
        ({"hub": "a/b", "format": "onnx"}, "format is one of"),
        ({"hub": "a/b", "activation": "relu"}, "activation is one of"),
        ({"hub": "a/b", "preprocessing": "nobody"}, "no .preprocessing.nobody."),
        ({"hub": "a/b", "training": {"epsilon": 2}}, r"unknown keys in training: \['epsilon'\]"),
        ({"hub": "a/b", "sha256": "abc"}, "64 digits"),
    ],
)
def test_a_malformed_row_is_an_error(row, message):
    with pytest.raises(ValueError, match=message) as refusal:
        catalogue.parse({"s": {"good": {"hub": "a/b"}, "bad": row}}, "s")
    assert "bad" in str(refusal.value)


def _list(*arguments, **environment):
    code = (
        "import sys\nfrom bench.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "encoders", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("suite", suite_names())
def test_list_encoders_without_torch(suite):
    rows = json.loads(_list("--suite", suite, "--json"))
    shown = {row["name"]: row for row in rows}
    assert {"clip", "fare4"} <= shown.keys()
    assert all(row["licence"] for row in rows if row["source"])
    text = _list("--suite", suite)
    assert "licence" in text.splitlines()[0]
    assert "on disk" in text.splitlines()[0]
    if suite == "paper":
        fare = next(line for line in text.splitlines() if line.startswith("fare2 "))
        assert "67.0, 2/255: 43.1, 4/255: 20.5" in fare


def test_what_is_on_disk_is_said(tmp_path, monkeypatch):
    """From the hub's cache, and from the folder for files of no hub."""
    repository = tmp_path / "repo"
    repository.mkdir()
    (repository / "open_clip_pytorch_model.bin").write_bytes(b"weights")
    row = PAPER["fare2"]
    snapshot = checkpoints.into_hub_cache(repository, tmp_path / "hf" / "hub", row.hub, row.revision)
    (tmp_path / "vitb32_fare_eps_4.pt").write_bytes(b"weights")
    code = (
        "from bench.models.encoders import catalogue, hub\nrows = catalogue.rows('paper')\n"
        "for name in ('fare2', 'fare4', 'fare4-vit-b-32', 'clip'): print(hub.on_disk(rows[name]))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "BENCH_WEIGHTS": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == [
        str(snapshot / "open_clip_pytorch_model.bin"),
        "None",
        str(tmp_path / "vitb32_fare_eps_4.pt"),
        "None",
    ]


def test_training_is_shown_in_words():
    from bench.cli.listing import _cell

    assert _cell(PAPER["fare4"].training) == "FARE linf 4/255"
    assert _cell({}) == ""
    assert _cell(None) == "-"
