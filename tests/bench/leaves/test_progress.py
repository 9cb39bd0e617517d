"""What is shown while a run is under way."""

import contextlib
import io
import os
import queue

import pytest

from bench.progress import Bars, Lines, Relay, Silent, choose, no_bars_in_logs, relayed


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _stage(display, clock, seconds=6.0):
    display.begin("fare4 mini-vqa apgd 4/255", 40)
    for standing in (9, 6, 3, 0):
        clock.now += seconds
        display.advance(10, f"{standing} standing")
    display.end()


def test_lines_come_now_and_then_with_the_time_left():
    stream, clock = io.StringIO(), Clock()
    _stage(Lines(stream, clock), clock)
    assert stream.getvalue().splitlines() == [
        "fare4 mini-vqa apgd 4/255: 20 of 40, 6 standing, about 12 s left",
        "fare4 mini-vqa apgd 4/255: 40 of 40, 0 standing, took 24 s",
    ]


def test_a_short_stage_gets_one_line_and_an_empty_one_none():
    stream, clock = io.StringIO(), Clock()
    display = Lines(stream, clock)
    _stage(display, clock, seconds=0.1)
    display.begin("nothing to do", 0)
    display.end()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(("seconds", "words"), [(25, "1 min 40 s"), (1800, "2 h 0 min")])
def test_long_times_are_readable(seconds, words):
    stream, clock = io.StringIO(), Clock()
    _stage(Lines(stream, clock), clock, seconds)
    assert stream.getvalue().endswith(f"took {words}\n")


def test_bars_show_what_stands():
    stream, clock = io.StringIO(), Clock()
    _stage(Bars(stream), clock)
    assert "fare4 mini-vqa apgd 4/255" in stream.getvalue()
    assert "standing" in stream.getvalue()


def test_the_display_fits_its_stream():
    assert isinstance(choose(True, Terminal()), Bars)
    assert isinstance(choose(True, io.StringIO()), Lines)
    assert isinstance(choose(False, Terminal()), Silent)


def _two_at_once(stream):
    events = queue.Queue()
    with relayed(events, stream):
        one, other = Relay(events.put, 1), Relay(events.put, 2)
        one.begin("clip mini-vqa apgd 4/255", 4)
        other.begin("fare4 mini-vqa apgd 4/255", 4)
        for standing in (3, 1):
            one.advance(2, f"{standing} of 4 standing")
            other.advance(2, "4 of 4 standing")
        one.end()
        other.end()
    return stream.getvalue()


def test_other_processes_have_a_line_each_in_a_log():
    assert [line.split(", took")[0] for line in _two_at_once(io.StringIO()).splitlines()] == [
        "clip mini-vqa apgd 4/255: 4 of 4, 1 of 4 standing",
        "fare4 mini-vqa apgd 4/255: 4 of 4, 4 of 4 standing",
    ]


def test_other_processes_have_a_bar_each_on_a_terminal():
    shown = _two_at_once(Terminal())
    for words in ("clip mini-vqa apgd 4/255: 2/4 |", "3 of 4 standing", "fare4 mini-vqa apgd 4/255: 2/4 |"):
        assert words in shown
    assert "\n\n" in shown  # the second stands below the first, both below the bar of the whole


def test_a_terminal_that_does_not_know_its_size_has_a_bar():
    """As under some remote shells and containers: 0 columns, 0 rows."""
    parent, child = os.openpty()
    os.set_blocking(parent, False)
    with os.fdopen(child, "w") as stream:
        _stage(Bars(stream), Clock())
        stream.flush()
        shown = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(parent, 10_000):
                shown += part
    os.close(parent)
    assert b"6 standing" in shown


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_other_libraries_bars_are_kept_off_logs_and_put_back(monkeypatch, terminal, enabled):
    done = []
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with no_bars_in_logs(enabled, lambda: done.append("off"), lambda: done.append("on")):
        assert done == (["off"] if enabled and not terminal else [])
    assert done == (["off", "on"] if enabled and not terminal else [])


@pytest.mark.parametrize(
    "label", ["fare4 mini-vqa apgd 4/255", "/a/very/long/path/to/some/checkpoint.pt mini-vqa apgd 2/255"]
)
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_score_is_shown_whole_or_not_at_all(label, columns, monkeypatch):
    stream = Terminal()
    bars = Bars(stream)
    bars.size = {"ncols": columns, "nrows": 24}
    bars.begin(label, 500)
    for done in range(5):
        bars.advance(100, f"{400 - done} of 500 robust, accuracy (%) {12.3 + done}")
    bars.end()
    lines = [line for line in stream.getvalue().replace("\n", "\r").split("\r") if "/500" in line]
    assert all(len(line) <= columns for line in lines)
    for line in lines:
        assert "accuracy" not in line or line.rstrip()[-4:] in {f"{12.3 + done:.1f}" for done in range(5)}, line
    assert any("accuracy" in line for line in lines) == (columns >= (80 if len(label) < 30 else 120)), lines
