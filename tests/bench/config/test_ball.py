"""The order of radii: where it is a choice, what it is called, and what is refused."""

import pytest

from bench.config import Request, ball, request_of, resolve, resolve_all, run_config
from bench.config.choices import check_asked
from bench.errors import UsageError
from bench.running import header as headers
from tasks.protocol import RADII_ORDERS
from tests.bench.runs import make_header


def orders(**options):
    return {c.radii_order for c in resolve(Request.of(**{"encoder": "fare4", "task": "vqa"} | options))}


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "adaptive"),
        ({"radii_order": "ascending"}, "ascending"),
        ({"radii_order": "descending"}, "descending"),
        ({"radii_order": "adaptive", "eps": 4}, None),  # one radius has no order
        ({"radii_order": "adaptive", "surrogate": "clip"}, None),  # what fails on another model tells nothing
        ({"radii_order": "adaptive", "attack": "none"}, None),
        ({"radii_order": "adaptive", "attack": "noise"}, None),  # one random image tells nothing either
        ({"protocol": "paper"}, None),
        ({"protocol": "paper", "radii_order": "ascending"}, None),
    ],
)
def test_an_order_is_that_of_attacks_that_count_at_other_radii(options, order):
    assert orders(**options) == {order}


@pytest.mark.parametrize("order", ["descending", "adaptive"])
def test_a_protocol_that_counts_each_radius_by_itself_refuses_an_order(order):
    with pytest.raises(UsageError, match="--protocol paper attacks every radius by itself: leave --radii-order out"):
        orders(protocol="paper", radii_order=order)


def test_an_order_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="unknown order of radii 'descend'; did you mean 'descending'"):
        orders(radii_order="descend")


def test_a_user_who_asks_for_an_order_of_images_made_elsewhere_is_told():
    request = Request.of(encoder="fare4", task="vqa", surrogate="clip", radii_order="adaptive")
    with pytest.raises(UsageError, match="--radii-order is for attacks on the victim itself"):
        check_asked(request, resolve(request))
    every = resolve_all(Request.of(suite="mini-full", radii_order="adaptive"))
    assert {c.radii_order for c in every if c.surrogates} == {None}, "beside others they keep their own"
    assert "adaptive" in {c.radii_order for c in every}


USUAL = "fare4_mini-vqa_apgd_linf_2+4_seed0"


@pytest.mark.parametrize(
    ("order", "name"),
    [
        (None, USUAL),
        ("adaptive", USUAL),
        ("ascending", f"{USUAL}_ascending"),
        ("descending", f"{USUAL}_descending"),
    ],
)
def test_a_run_in_another_order_than_the_usual_lies_apart(order, name):
    (config,) = resolve(Request.of(encoder="fare4", task="vqa", radii_order=order))
    assert config.directory.name == name


@pytest.mark.parametrize(("order", "said"), [("ascending", {}), (None, {"radii_order": "adaptive"})])
def test_a_header_says_the_order_unless_it_is_ascending(order, said):
    (config,) = resolve(Request.of(encoder="fare4", task="vqa", radii_order=order))
    found = headers._protocol(config)
    assert {key: value for key, value in found.items() if key == "radii_order"} == said


@pytest.mark.parametrize(
    "options", [{"eps": 4}, {"surrogate": "clip"}, {"attack": "none"}, {"attack": "noise"}, {"protocol": "paper"}]
)
def test_runs_without_an_order_are_what_they_were_when_ascending_was_the_usual_one(monkeypatch, options):
    request = Request.of(**{"encoder": "fare4", "task": "vqa"} | options)
    (now,) = resolve(request)
    name = now.directory.name
    for module in (ball, run_config):
        monkeypatch.setattr(module, "default_radii_order", lambda task: "ascending")
    (before,) = resolve(request)
    assert before == now
    assert before.directory.name == name
    assert not name.endswith(RADII_ORDERS)
    assert headers._protocol(before) == headers._protocol(now)
    assert "radii_order" not in headers._protocol(now)


def test_another_usual_order_moves_no_directory_and_no_finished_run(monkeypatch):
    """What was made before says so, and is made again as it was."""
    configs = resolve_all(Request.of(suite="mini-full"))
    assert {c.radii_order for c in configs if c.task != "captioning"} == {"adaptive", None}
    assert {c.radii_order for c in configs if c.task == "captioning"} == {"ascending"}
    places = [c.directory for c in configs]
    for module in (ball, run_config):
        monkeypatch.setattr(module, "default_radii_order", lambda task: "ascending")
    assert [c.directory for c in resolve_all(Request.of(suite="mini-full"))] == places
    monkeypatch.undo()
    old = make_header(protocol={"precision": "float32"}, attack="apgd", model=None)
    assert [c.radii_order for c in resolve(request_of(old))] == ["ascending"]
