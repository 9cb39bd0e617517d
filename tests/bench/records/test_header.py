"""What a header answers, whatever its protocol and request leave out."""

import json

import pytest

from bench.records import RecordsError, RunHeader, former_ceiling
from bench.records.header import differences
from tests.bench.runs import make_header


@pytest.mark.parametrize(
    ("name", "absent", "protocol", "present"),
    [
        ("surrogate", None, {"surrogate": "clip"}, "clip"),
        ("protocol_name", "strict", {"name": "paper"}, "paper"),
        ("precision", "float32", {"precision": "bf16"}, "bf16"),
        ("half_verdicts", False, {"half_verdicts": True}, True),
        ("radii_order", "ascending", {"radii_order": "adaptive"}, "adaptive"),
        ("compiled", False, {"compiled": True}, True),
        ("tower", "encoder", {"tower": "native"}, "native"),
        ("defence", None, {"defence": "smoothing"}, "smoothing"),
        ("selection", None, {"selection": "seed-42"}, "seed-42"),
        ("data", None, {"data": "vqa:/data/harbour"}, "vqa:/data/harbour"),
    ],
)
def test_a_header_answers_what_its_protocol_says(name, absent, protocol, present):
    assert getattr(make_header(protocol={}), name) == absent
    assert getattr(make_header(protocol=protocol), name) == present


def test_the_steps_whose_answers_may_be_in_half_precision():
    steps = [{"name": "apgd-ce", "precision": "search"}, {"name": "final", "precision": "float32"}, {"name": "old"}]
    assert make_header(attack_steps=steps).half_steps == {"clean", "apgd-ce"}


@pytest.mark.parametrize(("metric", "ceiling"), [("VQA accuracy (%)", 100.0), ("CIDEr", None)])
def test_a_header_from_before_ceilings_were_kept_has_the_one_of_its_metric(metric, ceiling):
    data = json.loads(make_header(metric=metric).to_json())
    assert data.pop("ceiling") == ceiling
    assert RunHeader.from_json(json.dumps(data)).ceiling == ceiling == former_ceiling(metric)


@pytest.mark.parametrize("ceiling", [1.0, None])
def test_a_ceiling_that_is_kept_is_the_one_that_counts(ceiling):
    header = make_header(metric="VQA accuracy (%)", ceiling=ceiling)
    assert RunHeader.from_json(header.to_json()).ceiling == ceiling


def test_notes_are_kept_and_absent_in_older_headers():
    header = make_header(notes=("few annotators",))
    assert RunHeader.from_json(header.to_json()).notes == ("few annotators",)
    data = json.loads(header.to_json())
    del data["notes"]
    assert RunHeader.from_json(json.dumps(data)).notes == ()


def test_the_order_that_an_adaptive_run_chose_is_kept_and_of_other_runs_nothing_is_said():
    header = make_header(chosen_order="descending")
    assert RunHeader.from_json(header.to_json()) == header
    assert "chosen_order" not in json.loads(make_header().to_json())
    assert RunHeader.from_json(make_header().to_json()) == make_header()
    with pytest.raises(RecordsError, match="chosen_order"):
        RunHeader.from_json(header.to_json().replace("descending", "adaptive"))


def test_what_a_protocol_does_not_say_is_the_same_as_its_usual_value():
    unsaid, said = make_header(protocol={}), make_header(protocol={"radii_order": "ascending", "precision": "float32"})
    assert differences(unsaid, said, ("protocol",)) == []
    other = make_header(protocol={"radii_order": "adaptive"})
    assert differences(unsaid, other, ("protocol",)) == [("protocol.radii_order", "ascending", "adaptive")]
