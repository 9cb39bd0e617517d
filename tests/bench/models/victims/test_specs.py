"""What --vlm may say, and which settings count."""

from dataclasses import replace

import pytest

from bench.config import Request, load_suite, resolve
from bench.errors import UsageError
from bench.models.victims.load import settings_of
from bench.models.victims.specs import VictimSpec, parse
from tests.bench.models.victims.test_door import _plug, parrot  # noqa: F401  (a fixture)

OF = "mini-openflamingo"


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("mini-llava", "mini-llava", {}),
        (f"{OF}?shots=4&beams=3", OF, {"shots": "4", "beams": "3"}),
        ("openai:https://host/v1#m?repeats=2", "openai:https://host/v1#m", {"repeats": "2"}),
        ("a?demonstrations=/x%20y/d%26e.json", "a", {"demonstrations": "/x y/d&e.json"}),
        ("a?empty=", "a", {"empty": ""}),
    ],
)
def test_a_spec_is_a_name_and_settings_and_is_written_as_it_is_read(text, name, settings):
    assert parse(text) == VictimSpec(name, settings) == parse(str(parse(text)))


@pytest.mark.parametrize("text", ["?shots=4", "", "a?shots", "a?=4", "a?x=1&x=2"])
def test_what_is_no_spec_is_refused_with_the_notation(text):
    with pytest.raises(UsageError, match=r"write NAME, or NAME\?|write OPTION=VALUE|names an option twice"):
        parse(text)


def test_the_users_settings_count_before_the_suites_and_those_before_the_protocols():
    of_suite = {"openflamingo": {"beams": "5", "shots": "4"}, "llava": {"conversation": "vicuna_v1"}}
    assert settings_of(OF, "paper", {}, {}) == {"beams": "3", "length_counts": "prompt"}
    assert settings_of(OF, "strict", {}, {}) == {}
    assert settings_of(OF, "strict", of_suite, {}) == {"beams": "5", "shots": "4"}
    assert settings_of(OF, "paper", of_suite, {"shots": "8"}) == {"beams": "5", "length_counts": "prompt", "shots": "8"}
    assert settings_of("mini-llava", "paper", of_suite, {}) == {"conversation": "vicuna_v1"}


def test_a_family_from_outside_has_settings_of_a_protocol_and_of_a_suite(parrot, tmp_path):  # noqa: F811
    (tmp_path / "own.toml").write_text('base = "mini"\n[victim.parrot]\nmanner = "plain"\n')
    suite = load_suite(str(tmp_path / "own.toml"))
    assert settings_of(str(parrot), "paper", {}, {}) == {"manner": "loud"}
    assert settings_of(str(parrot), "paper", suite.victim, {}) == {"manner": "plain"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[victim.llavaa]\nx = 1", r"\[victim.llavaa\]: unknown family of victims 'llavaa'; did you mean 'llava'"),
        ("[victim]\nllava = 3", r"\[victim.llava\] must be a table, not 3"),
        ("[victim.llava]\nconversation = true", "conversation must be text or a number, not True"),
    ],
)
def test_a_wrong_table_of_victims_is_named(tmp_path, table, message):
    (tmp_path / "own.toml").write_text(f'base = "mini"\n{table}\n')
    with pytest.raises(UsageError, match=message):
        load_suite(str(tmp_path / "own.toml"))


def test_numbers_in_the_table_are_texts_to_the_family(tmp_path):
    (tmp_path / "own.toml").write_text('base = "mini"\n[victim.openflamingo]\nshots = 4\nlength_penalty = -1.5\n')
    assert load_suite(str(tmp_path / "own.toml")).victim["openflamingo"] == {"shots": "4", "length_penalty": "-1.5"}


def test_a_suite_changes_the_settings_of_its_base_key_by_key(tmp_path):
    (tmp_path / "own.toml").write_text('base = "paper"\n[victim.llava]\nimage_aspect_ratio = "crop"\n')
    changed = {"conversation": "vicuna_v1", "image_aspect_ratio": "crop"}
    assert load_suite(str(tmp_path / "own.toml")).victim == {"llava": changed}


def resolved(**options):
    return resolve(Request.of(**{"encoder": "clip", "task": "vqa"} | options))


def test_shots_are_a_setting_of_the_victim_however_they_are_written():
    (plain,), (spelled,) = resolved(vlm=OF, shots=4), resolved(vlm=f"{OF}?shots=4")
    assert plain == spelled
    assert plain.vlm == f"{OF}?shots=4"
    with pytest.raises(UsageError, match="contradict each other"):
        resolved(vlm=f"{OF}?shots=4", shots=8)
    assert resolved(vlm=f"{OF}?shots=4&beams=3")[0].directory == resolved(vlm=f"{OF}?beams=3&shots=4")[0].directory
    assert len({resolved(vlm=OF, shots=n)[0].directory for n in (0, 4, 8)} | {resolved(vlm=OF)[0].directory}) == 4


def test_the_suites_own_victim_by_another_name_is_the_same_run():
    assert resolved(vlm="mini-llava") == resolved(vlm="package:mini/weights/llava") == resolved()


def test_several_victims_give_a_run_each_and_encoders_alone_one():
    configs = resolved(task="vqa,zeroshot", dataset="mini-vqa,mini-shape", vlm=f"mini-llava,{OF}")
    assert [(c.task, c.vlm) for c in configs] == [("vqa", None), ("vqa", OF), ("zeroshot", None)]


def test_a_run_comes_back_from_its_request_with_its_victim(tmp_path):
    (tmp_path / "shown.json").write_text("{}")
    (config,) = resolved(
        vlm=f"{OF}?demonstrations={tmp_path}/shown.json", surrogate_vlm="mini-llava", surrogate="fare4"
    )
    assert resolve(config.request) == [config]
    assert (config.surrogate, config.surrogate_vlm) == ("fare4", "mini-llava")
    assert replace(config, surrogate_vlm=None).directory != config.directory
