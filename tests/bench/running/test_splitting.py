"""A single run over the cores of the machine: when it is split, and that the records are those of one piece."""

from dataclasses import replace

import pytest

from bench.config import Request, resolve
from bench.records import load_run
from bench.running.engines import execute_all, splitting
from bench.running.engines.devices import Device
from bench.running.engines.splitting import WORTH, split_over_cores
from tests.bench.toy_runs import bare


def config(**options):
    (found,) = resolve(
        Request.of(**{"suite": "mini-full", "encoder": "fare2", "task": "zeroshot", "dataset": "mini-shape"} | options)
    )
    return found


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(splitting, "devices_for", lambda name: [])


@pytest.mark.parametrize(
    ("options", "jobs", "shards"),
    [
        ({"limit": 10 * WORTH}, None, 4),
        ({"limit": 10 * WORTH}, 3, 3),
        ({"limit": 3 * WORTH - 1}, None, 2),
        ({"limit": 2 * WORTH - 1}, None, None),
        ({"limit": 10 * WORTH}, 1, None),
        ({"limit": 10 * WORTH, "shards": 1}, None, 1),  # somebody said so
        ({"limit": 10 * WORTH, "shards": 7}, None, 7),
        ({"limit": 10 * WORTH, "force": True}, None, None),
        ({"limit": 10 * WORTH, "task": "vqa", "dataset": "mini-vqa"}, None, 4),
    ],
)
def test_small_models_get_a_part_per_core(options, jobs, shards, four_cores):
    assert split_over_cores(config(**options), jobs).shards == shards


def test_large_models_endpoints_and_accelerators_are_left_in_one_piece(four_cores, monkeypatch):
    whole = config(limit=10 * WORTH)
    endpoint = replace(whole, task="vqa", dataset="mini-vqa", vlm="openai:http://127.0.0.1:1/v1#x")
    assert split_over_cores(endpoint, None) is endpoint
    for need in (None, splitting.SMALL + 1):
        monkeypatch.setattr(splitting, "need_of", lambda config, need=need: need)
        assert split_over_cores(whole, None) is whole
    monkeypatch.setattr(splitting, "need_of", lambda config: 1)
    assert split_over_cores(whole, None).shards == 4
    monkeypatch.setattr(splitting, "devices_for", lambda name: [Device("cuda:0", 1 << 40)])
    assert split_over_cores(whole, None) is whole


def test_a_single_run_is_split_and_records_the_same_as_in_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(splitting, "WORTH", 3)
    options = {"attack": "pgd", "eps": 2, "limit": 7, "device": "cpu"}
    whole, parts = (config(output=tmp_path / name, **options) for name in ("whole", "parts"))
    started = []
    original = splitting.split_over_cores
    monkeypatch.setattr(
        splitting, "split_over_cores", lambda *words: started.append(original(*words).shards) or original(*words)
    )
    found = [load_run(*execute_all([one], jobs=jobs, progress=False)) for one, jobs in ((whole, 1), (parts, 2))]
    assert started == [None, 2]
    assert bare(found[0].records) == bare(found[1].records)
    assert {check["name"] for check in found[0].header.checks} == {check["name"] for check in found[1].header.checks}
    assert not (parts.directory / "shards").exists()
