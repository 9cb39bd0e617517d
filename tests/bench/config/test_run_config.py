"""Requests: radii, names, suites."""

import pytest

from bench.config import Request, Suite, load_suite, parse_eps, preset, resolve, resolve_all, suite_names
from bench.errors import UsageError
from bench.models.encoders import catalogue


@pytest.mark.parametrize(
    ("text", "radii"),
    [("2,4", (2.0, 4.0)), ("4/255", (4.0,)), ("4 2/255", (2.0, 4.0)), (4, (4.0,)), ([2, "4/255", 2], (2.0, 4.0))],
)
def test_eps_is_counted_in_255ths(text, radii):
    assert parse_eps(text) == radii


@pytest.mark.parametrize(
    ("text", "message"),
    [("two", "not a number"), ("-2", "above 0"), ("0", "above 0"), ("nan", "above 0"), ("0.0157", "did you mean 4"),
     ("300", "pixel range"), ("", "no eps"), ("4/256", "not a number")],
)  # fmt: skip
def test_a_bad_eps_says_what_to_write(text, message):
    with pytest.raises(UsageError, match=message):
        parse_eps(text)


def test_every_suite_loads_and_names_known_things():
    for name in suite_names():
        for task, plan in load_suite(name).tasks.items():
            assert set(plan.datasets) <= load_suite(name).datasets.keys()
            request = Request.of(encoder="clip", task=task, suite=name)
            if expected := list(plan.datasets or plan.optional):
                assert [c.dataset for c in resolve(request)] == expected
                continue
            with pytest.raises(UsageError, match=f"suite {name!r} has no dataset of its own for task {task!r}"):
                resolve(request)


def test_every_run_behind_the_mini_tables_is_asked_for_at_once():
    configs = resolve_all(Request.of(suite="mini-full", limit=3))
    suite, flamingo = load_suite("mini-full"), "mini-openflamingo"
    plain = [c for c in configs if c.surrogate is None and c.attack != "noise"]
    shown = suite.tasks.keys() - {"scienceqa"}  # of three encoders
    datasets = [dataset for task in shown for dataset in suite.tasks[task].datasets]
    encoders = [e for e in catalogue.rows(suite.encoders) if "-seed" not in e]  # those stand in mini-transfer
    direct = {(e, d, None) for e in encoders for d in datasets}
    direct |= {(encoder, "mini-vqa", flamingo) for encoder in ("clip", "tecoa4", "fare4")}
    direct |= {(e, "mini-stealth-unseen", None) for e in ("clip", "fare4")}
    direct |= {(encoder, "mini-scienceqa", None) for encoder in ("clip", "tecoa4", "fare4")}
    direct.add(("native", "mini-vqa", "mini-qwen2vl"))
    assert {(c.encoder, c.dataset, c.vlm) for c in plain} == direct
    assert [(c.encoder, c.vlm, c.surrogate, c.surrogate_vlm) for c in configs if c.surrogate] == [
        ("fare4", None, "clip", None), ("clip", None, "clip", flamingo), ("clip", flamingo, "clip", "mini-llava"),
    ]  # fmt: skip
    assert [(c.encoder, c.vlm, c.task) for c in configs if c.attack == "noise"] == [
        ("clip", None, "vqa"), ("clip", flamingo, "vqa"),
    ]  # fmt: skip
    assert {c.eps for c in configs} == {(2.0, 4.0)}
    assert len({c.directory for c in configs}) == len(configs) == len(direct) + 5
    assert {c.limit for c in configs} == {3}


def test_a_suite_without_runs_says_so(monkeypatch):
    bare = Suite("bare", "", "mini", "", "linf", (2.0,), 0, {}, {})
    monkeypatch.setattr("bench.config.run_config.load_suite", lambda name: bare)
    with pytest.raises(UsageError, match="does not say which runs"):
        resolve_all(Request.of(suite="bare"))


def test_a_suite_builds_on_its_base():
    mini, full = load_suite("mini"), load_suite("mini-full")
    assert full.datasets == mini.datasets
    assert full.tasks["vqa"].datasets == mini.tasks["vqa"].datasets
    assert full.tasks["vqa"].samples == 500


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"task": "vqaa"}, "did you mean 'vqa'"),
        ({"suite": "mimi"}, "did you mean 'mini'"),
        ({"attack": "autoatack"}, "did you mean 'autoattack'"),
        ({"limit": 0}, "at least 1"),
        ({"protocol": "papers"}, "did you mean 'paper'"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"tower": "own"}, "known: encoder, native"),
        ({"dataset": "mini-shape"}, r"no task asked for \(vqa\) has dataset"),
        ({"encoder": ""}, "no name"),
    ],
)
def test_unknown_names_suggest_the_nearest(request_, message):
    with pytest.raises(UsageError, match=message):
        resolve(Request.of(**({"encoder": "clip", "task": "vqa"} | request_)))


def test_all_means_every_task_and_lists_may_be_text():
    configs = resolve(Request.of(encoder="clip,fare", task="all"))
    assert {c.task for c in configs} == {task for task, plan in load_suite("mini").tasks.items() if plan.datasets}
    assert {c.encoder for c in configs} == {"clip", "fare4"}
    assert len({c.directory for c in configs}) == len(configs)


def test_data_sets_can_be_chosen():
    chosen = resolve(Request.of(encoder="clip", task="all", dataset="mini-sketch,mini-vqa"))
    assert [c.dataset for c in chosen] == ["mini-sketch", "mini-vqa"]


def test_whatever_moves_a_score_moves_the_directory():
    base = {"encoder": "clip", "task": "vqa"}
    changes = ({}, {"eps": 2}, {"attack": "pgd"}, {"attack": "none"}, {"seed": 1}, {"limit": 5}, {"surrogate": "fare2"},
               {"suite": "mini-full"}, {"encoder": "fare2"}, {"encoder": "a/visual.pt"},
               {"encoder": "b/visual.pt"}, {"protocol": "paper"}, {"precision": "bf16"}, {"tower": "native"},
               {"vlm": "a/llava"}, {"arch": "ViT-B-32"})  # fmt: skip
    directories = [resolve(Request.of(**(base | change)))[0].directory for change in changes]
    assert len(set(directories)) == len(directories)


def test_presets_have_distinct_step_names():
    from attacks.presets import PRESETS

    for name in PRESETS:
        steps = [step.name for step in preset(name).steps]
        assert len(set(steps)) == len(steps) > 0


@pytest.mark.parametrize(("text", "radii"), [("0.5", (0.5,)), ("0.05,2", (0.05, 2.0)), (300, (300.0,))])
def test_an_l2_radius_is_a_plain_number(text, radii):
    assert parse_eps(text, "l2") == radii


def test_a_norm_other_than_the_suites_needs_radii():
    (config,) = resolve(Request.of(encoder="clip", task="vqa", norm="l2", eps="0.5"))
    assert (config.norm, config.eps) == ("l2", (0.5,))
    assert "_l2_0.5_" in config.directory.name
    with pytest.raises(UsageError, match=r"radii of suite 'mini' are for linf; give --eps, in plain l2 units"):
        resolve(Request.of(encoder="clip", task="vqa", norm="l2"))
    with pytest.raises(UsageError, match=r"unknown norm 'l1'; .*known: linf, l2"):
        resolve(Request.of(encoder="clip", task="vqa", norm="l1", eps=1))
    with pytest.raises(UsageError, match=r"'4/255' is not a number; write it in plain l2 units"):
        resolve(Request.of(encoder="clip", task="vqa", norm="l2", eps="4/255"))


def test_a_path_may_hold_spaces_and_commas(tmp_path):
    path = tmp_path / "my models, old" / "tower.pt"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert [c.encoder for c in resolve(Request.of(encoder=str(path), task="vqa"))] == [str(path)]
    assert [c.encoder for c in resolve(Request.of(encoder="clip, fare4", task="vqa"))] == ["clip", "fare4"]


def test_a_compiled_run_lies_apart_and_says_so(monkeypatch, tmp_path):
    from bench.running import load as setup

    compiled = []
    monkeypatch.setattr(setup, "compile_blocks", lambda model: compiled.append(type(model).__name__))
    plain, other = (
        resolve(Request.of(encoder="clip", task="vqa", limit=1, output=tmp_path, compiled=choice))[0]
        for choice in (False, True)
    )
    assert plain.directory != other.directory
    assert not setup.prepare(plain).header.compiled
    assert compiled == []
    assert setup.prepare(other).header.compiled
    assert set(compiled) == {"Encoder", "Llava"}
