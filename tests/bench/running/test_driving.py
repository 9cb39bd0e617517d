"""Driving a sweep with made-up workers: failures, kills, room on devices."""

import os
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.errors import UsageError
from bench.progress import Silent
from bench.running.engines.devices import devices_for, usual_jobs
from bench.running.engines.driving import Drive
from bench.running.engines.places import Device, Place, Places

GB = 10**9


class Killed(Exception):  # noqa: N818 - what a made-up worker's death is called
    pass


class Workers:
    """Each run ends as its script says, one entry a start; a run's "configuration" is its name."""

    killed = (Killed,)

    def __init__(self, scripts=()):
        self.scripts = {name: list(ends) for name, ends in dict(scripts).items()}
        self.started, self.now, self.most, self.stopped = [], {}, 0, False

    def start(self, config, place):
        self.started.append((config, place))
        self.now[config] = place
        self.most = max(self.most, len(self.now))
        return Handle(self, config, (self.scripts.get(config) or [Path(config)]).pop(0))

    def stop(self):
        self.stopped = True


class Handle:
    """Ends at the second look."""

    def __init__(self, workers, name, end):
        self.workers, self.name, self.end, self.looks = workers, name, end, 0

    def done(self):
        self.looks += 1
        return self.looks > 1

    def result(self):
        del self.workers.now[self.name]
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


class Run(str):
    """Stands for a configuration."""

    @property
    def folder(self):
        return Path(self)

    directory = folder


def drive(workers, names, places=None, need=None):
    runs = [Run(name) for name in names]
    options = {} if need is None else {"need": need}
    return Drive(workers, runs, places or Places(2), **options).carry_out(Silent())


def test_a_run_that_fails_does_not_stop_the_others_and_is_said_at_once(capsys):
    wrong, bug = UsageError("no such file"), ZeroDivisionError("in a plugin")
    workers = Workers({"b": [wrong], "d": [bug]})
    assert drive(workers, "abcde") == [Path("a"), wrong, Path("c"), bug, Path("e")]
    assert workers.stopped
    said = capsys.readouterr().err
    assert "failed: b: no such file" in said
    assert "failed: d: in a plugin" in said


def test_an_error_that_is_returned_rather_than_raised_counts_the_same():
    wrong = UsageError("no such file")
    assert drive(Workers({"a": [wrong]}), "ab") == [wrong, Path("b")]


def test_a_run_whose_worker_is_killed_is_begun_again_once():
    workers = Workers({"b": [Killed(), Path("b")], "c": [Killed(), Killed(), Path("never")]})
    a, b, c = drive(workers, "abc")
    assert (a, b) == (Path("a"), Path("b"))
    assert "a worker process was killed" in str(c)
    assert [name for name, _ in workers.started].count("c") == 2


def test_ctrl_c_stops_all():
    workers = Workers({"b": [KeyboardInterrupt()]})
    with pytest.raises(KeyboardInterrupt):
        drive(workers, "abcdef")
    assert workers.stopped
    assert len(workers.started) < 6


def test_no_more_runs_at_once_than_there_are_slots_and_each_slot_is_used_by_one():
    workers = Workers()
    drive(workers, "abcdefgh", Places(3))
    assert workers.most == 3
    assert {place.slot for _, place in workers.started} == {0, 1, 2}


def test_a_finished_future_is_a_handle():
    future = Future()
    future.set_result(Path("a"))
    workers = Workers()
    workers.start = lambda config, place: future
    assert drive(workers, ["a"]) == [Path("a")]


def two(memory=80 * GB):
    return [Device("cuda:0", memory), Device("cuda:1", memory)]


def take_all(places, need):
    """Places for as many runs as there is room for."""
    found = []
    while (place := places.take(need)) is not None:
        found.append(place)
    return found


@pytest.mark.parametrize(
    ("need", "on_each", "share"),
    [(GB, 4, 0.25), (30 * GB, 2, 0.375), (50 * GB, 1, 0.625), (None, 1, 1.0), (200 * GB, 1, 1.0)],
)
def test_small_runs_share_a_device_and_large_or_unknown_ones_do_not(need, on_each, share):
    found = take_all(Places(16, two()), need)
    assert sorted(place.device for place in found) == ["cuda:0"] * on_each + ["cuda:1"] * on_each
    assert {place.share for place in found} == {share}


def test_memory_that_is_given_back_is_used_again_and_a_large_run_waits_for_it():
    places = Places(8, two())
    small = take_all(places, 10 * GB)
    assert len(small) == 8
    places.leave(small[0])
    assert places.take(60 * GB) is None
    for place in small[1:]:
        places.leave(place)
    assert len(take_all(places, 60 * GB)) == 2


def test_slots_are_the_limit_where_memory_is_not():
    assert len(take_all(Places(3, two()), GB)) == 3
    assert take_all(Places(1), None) == [Place(0)]


@pytest.mark.parametrize(
    ("name", "there", "devices", "jobs"),
    [
        ("auto", 2, ["cuda:0", "cuda:1"], 8),
        ("cuda", 2, ["cuda:0", "cuda:1"], 8),
        ("cuda:1", 2, ["cuda:1"], 8),
        ("cuda:7", 2, [], 1),
        ("auto", 0, [], 8),
        ("cpu", 2, [], 8),
        ("mps", 0, [], 1),
    ],
)
def test_the_devices_of_a_machine_that_is_made_up(monkeypatch, name, there, devices, jobs):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    facts = SimpleNamespace(total_memory=80 * GB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: facts)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    found = devices_for(name)
    assert [device.name for device in found] == devices
    assert usual_jobs(name, found) == jobs


def test_a_sweep_packs_devices_and_lets_a_small_run_go_past_a_large_one_that_waits():
    needs = {"a": 60 * GB, "b": 60 * GB, "c": 60 * GB, "d": 10 * GB}
    workers = Workers()
    drive(workers, "abcd", Places(8, two()), needs.__getitem__)
    assert [name for name, _ in workers.started] == ["a", "b", "d", "c"]
