"""The door for families of victims: who reads a checkpoint, what is refused, and a family from outside."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import registry
from bench.cli import main
from bench.errors import UsageError
from bench.models.encoders.load import load_encoder
from bench.models.victims.load import family_of, load_victim
from bench.records import read_header, read_records

PLUGIN = Path(__file__).parents[3] / "plugin"
WORDS = ["blue", "hexagon", "two", "no", "top", "pink", "star", "one"]
LLAVA = "package:mini/weights/llava"


@pytest.fixture(scope="module")
def clip():
    return load_encoder("clip")


def _plug(monkeypatch, group, **values):
    """Entry points as an installed package would have them."""
    found = {name: EntryPoint(name, value, group) for name, value in values.items()}
    own = registry.plugins
    monkeypatch.setattr(registry, "plugins", lambda asked: found if asked == group else own(asked))


@pytest.fixture
def parrot(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    _plug(monkeypatch, "bench.victims", parrot="example_models:Parrot")
    (tmp_path / "parrot").mkdir()
    config = {"model_type": "parrot", "words": WORDS}
    (tmp_path / "parrot" / "config.json").write_text(json.dumps(config))
    yield tmp_path / "parrot"
    for module in ("example_models", "example_parrot"):
        sys.modules.pop(module, None)


def test_llava_is_chosen_by_its_config_and_says_what_moves_a_number(clip):
    plain = load_victim(LLAVA, clip)
    assert (type(plain).__name__, dict(plain.settings)) == ("Llava", {})
    native = load_victim(LLAVA, clip, {"tower": "native", "image_aspect_ratio": "pad"})
    assert dict(native.settings) == {"tower": "native", "image_aspect_ratio": "pad"}
    assert dict(native.at("bf16").settings) == dict(native.settings)
    assert plain.digests()["language"] != native.digests()["language"]  # the native tower is part of it


def test_without_an_encoder_a_victim_keeps_its_own_tower(clip):
    own = load_victim(LLAVA, None, {"tower": "native"})
    assert type(own.encoder).__name__ == "NativeTower"
    assert own.digests() == load_victim(LLAVA, clip, {"tower": "native"}).digests()
    with pytest.raises(UsageError, match="around an encoder; give one, or --tower native"):
        load_victim(LLAVA, None)


@pytest.mark.parametrize(
    ("place", "settings", "message"),
    [
        (LLAVA, {"manner": "loud"}, "unknown setting of the victim family 'llava' 'manner'.*known: conversation"),
        (LLAVA, {"conversation": "vicuna"}, "unknown conversation 'vicuna'; did you mean 'vicuna_v1'"),
        (LLAVA, {"tower": "own"}, "unknown tower 'own'"),
        ("./no-such-folder", {}, "no such model folder: ./no-such-folder"),
        ("nobody/no-such-model", {}, "no folder nobody/no-such-model, and the hub's cache .* `hf download"),
    ],
)
def test_what_is_not_known_is_named(clip, monkeypatch, place, settings, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=message):
        load_victim(place, clip, settings)


def test_a_model_of_no_family_is_refused_with_the_families(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UsageError, match=r"holds a model of type 'gpt2'; the victims that can be loaded are: llava"):
        family_of(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": ["llava"]}')
    with pytest.raises(UsageError, match=r"lacks a config\.json with a model_type"):
        family_of(str(tmp_path))


def test_a_broken_family_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_family.py").write_text("def raising(): raise RuntimeError('no licence')\nclass Empty: pass\n")
    places = {"raising": "broken_family:raising", "empty": "broken_family:Empty", "gone": "no_such_module:Gone"}
    _plug(monkeypatch, "bench.victims", **places)
    assert family_of("bench/mini/weights/llava")[0] == "llava"
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UsageError, match=r"raising.* is broken: .*no licence.*") as error:
        family_of(str(tmp_path))
    assert "gives a Empty, not what Family asks for" in str(error.value)
    assert "'gone'" in str(error.value)
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(main, ["list", "victims", "--json"]).stdout)}
    assert rows["llava"]["settings"].keys() == {"conversation", "image_aspect_ratio", "tower"}
    assert all(rows[name]["about"].startswith("broken: the plugin") for name in places)


def test_a_family_from_outside_is_measured(parrot, clip, tmp_path):
    words = f"run --encoder clip --task vqa --vlm {parrot} --attack pgd --eps 4 --limit 8 --jobs 1 --quiet --output"
    said = CliRunner().invoke(main, [*words.split(), str(tmp_path / "out")], catch_exceptions=False)
    (folder,) = {path.parent for path in (tmp_path / "out").rglob("run.json")}
    header, records = read_header(folder), read_records(folder)
    assert (header.model, header.weights["language"]) == (str(parrot), ",".join(WORDS)), said.output
    assert {record.prediction for record in records} <= set(WORDS)
    assert len({record.radius for record in records}) == 2
    loud = load_victim(f"parrot:{parrot}", clip, {"manner": "loud"})
    assert dict(loud.settings) == {"manner": "loud"}
