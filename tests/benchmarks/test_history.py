"""The history of ratios: what is added, and that a fall is seen."""

import pytest

from benchmarks import attacks, history


@pytest.fixture
def noted(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    monkeypatch.setattr(history, "code_state", lambda: {"commit": "0123456789abcdef", "dirty": True})
    monkeypatch.setattr(history, "last_two", lambda: last_two(path))
    return path


last_two = history.last_two


def test_a_line_for_each_ratio_with_the_commit_it_was_measured_at(noted):
    history.note({"step, mini": 1.3333, "peers": 44.0}, noted)
    history.note({"peers": 45}, noted)
    assert noted.read_text() == (
        'commit,figure,ratio\n0123456789ab+,"step, mini",1.33\n0123456789ab+,peers,44\n0123456789ab+,peers,45\n'
    )
    assert history.last_two() == {"step, mini": (None, 1.33), "peers": (44, 45)}


@pytest.mark.parametrize(("ratio", "code"), [(1.71, 0), (1.69, 1), (9, 0)])
def test_a_fall_of_15_percent_is_pointed_at(noted, ratio, code, capsys):
    for each in (1, 2.0, ratio):
        history.note({"step": each}, noted)
    with pytest.raises(SystemExit) as end:
        history.main()
    assert end.value.code == code
    assert ("FELL" in capsys.readouterr().out) == bool(code)


def test_what_the_benchmark_of_attacks_keeps():
    row = "clip mini-shape 4/255 200 torchattacks 0.0 0.0 2.1 92.4 44.3x 0.9 24.6 27.1x".split()
    assert attacks.ratios("peers", [row]) == {
        "peers: torchattacks / ours, clip, mini-shape at 4/255, gradients": 44.3,
        "peers: torchattacks / ours, clip, mini-shape at 4/255, seconds": 27.1,
    }
    assert attacks.ratios("overhead", [["vqa", "32", "100", "6.00", "5.40", "+11.1 %"]]) == {
        "overhead: bare passes / engine, vqa, seconds": pytest.approx(0.9)
    }
