import io
import sys

from bench.progress import Stage


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_plain_lines_now_and_then_and_at_the_end():
    now = [0.0]
    log = io.StringIO()
    with Stage("fare4 mini-vqa apgd 4/255", 40, log, lambda: now[0]) as stage:
        for _ in range(4):
            now[0] += 20.0
            stage.advance(10, standing=30 - stage.done // 2, score=61.25)
    assert log.getvalue().splitlines() == [
        "fare4 mini-vqa apgd 4/255: 20/40 samples, 25 standing, robust score 61.2, 0:40 left",
        "fare4 mini-vqa apgd 4/255: 40/40 samples, 15 standing, robust score 61.2, took 1:20",
    ]


def test_a_clean_stage_has_no_standing_samples_and_hours_are_shown():
    now = [0.0]
    stage = Stage("clean", 100, io.StringIO(), lambda: now[0])
    now[0] = 100.0
    stage.advance(1, score=80.0)
    assert stage.line() == "clean: 1/100 samples, score 80.0, 2:45:00 left"
    stage.advance(1)
    assert stage.line() == "clean: 2/100 samples, 1:21:40 left"


def test_a_terminal_has_a_live_bar_that_is_wiped_at_the_end():
    terminal = Terminal()
    with Stage("apgd", 4, terminal) as stage:
        stage.advance(4, standing=3, score=75.0)
    shown = terminal.getvalue()
    assert "apgd" in shown
    assert "\r" in shown
    assert "\n" not in shown


def test_quiet_writes_nothing_and_nothing_goes_to_stdout(capsys):
    with Stage("apgd", 4, None) as stage:
        stage.advance(4)
    with Stage("apgd", 4, sys.stderr) as stage:
        stage.advance(4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("apgd: 4/4 samples, took ")
    assert captured.err.count("\n") == 1
