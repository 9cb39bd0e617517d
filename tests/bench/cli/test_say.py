"""No text from outside reaches the terminal as a command."""

import ast
import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from tests.bench.runs import make_run

COMMANDS = Path(__file__).parents[3] / "bench" / "cli"
EVIL = "\x1b]8;;https://evil.example\x07click\x1b]8;;\x07\x9b2J\u202e\r"


def _spoilt(place: Path, **scores) -> Path:
    """A run of which every text is hostile."""
    doubt = {"name": EVIL, "ok": False, "detail": EVIL}
    run = make_run(place, {0: [100.0, 0.0], 4: [0.0, 0.0]} | scores, encoder=EVIL, dataset=EVIL, metric=EVIL)
    header = replace(run.header, checks=[doubt])
    (place / "run.json").write_text(header.to_json())
    lines = [json.loads(line) for line in (place / "records.jsonl").read_text().splitlines()]
    lines = [{**line, "prediction": EVIL, "sample_id": line["sample_id"] + EVIL} for line in lines]
    (place / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture
def runs(tmp_path):
    return _spoilt(tmp_path / "a"), _spoilt(tmp_path / "b", **{})


@pytest.mark.parametrize(
    "words",
    [
        ["table", "A"],
        ["table", "A", "--format", "json"],
        ["table", "A", "--format", "csv"],
        ["table", "A", "--format", "html"],
        ["table", "A", "--where", "encoder=x"],
        ["compare", "A", "B", "--flips", "9"],
        ["compare", "A", "B", "--json"],
        ["check", "--baseline", "A", "--runs", "B"],
        ["report", "A", "-o", "R", "--quiet"],
        ["run", "--encoder", EVIL, "--task", "vqa"],
        ["run", "--encoder", "clip", "--task", EVIL],
        ["table", EVIL],
        ["list", "encoders", "--suite", EVIL],
    ],
    ids=lambda words: " ".join(words[:4]).encode("ascii", "replace").decode(),
)
def test_what_is_printed_holds_no_control_character(runs, tmp_path, words):
    places = {"A": str(runs[0]), "B": str(runs[1]), "R": str(tmp_path / "report")}
    result = CliRunner().invoke(main, [places.get(word, word) for word in words])
    assert result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    left = [c for c in result.output if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]
    assert left == []


LINES = "x\nspoofed\r\n  spoofed\u2028spoofed\x85spoofed"


def _of_its_own(output: str) -> list[str]:
    """What looks like a line of the command's and is the end of a name."""
    return [line for line in output.splitlines() if line.lstrip().startswith("spoofed")]


def _two_lines(place: Path, encoder: str, protocol: str) -> str:
    """A run with line ends in every text of its header."""
    checks = [{"name": LINES, "ok": False, "detail": LINES}]
    names = {"dataset": LINES, "metric": LINES, "attack": LINES, "model": LINES, "task": LINES, "notes": (LINES,)}
    protocol_of = {"name": protocol, "precision": "float32"}
    make_run(place, {0: [100.0, 0.0], 4: [0.0, 0.0]}, checks=checks, encoder=encoder, protocol=protocol_of, **names)
    return str(place)


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_no_name_begins_a_line_of_a_table(tmp_path, style):
    """Nor of the heading above it, which names the protocol where there are several."""
    for name in ("a", "b"):
        _two_lines(tmp_path / name, f"{name}{LINES}", f"{name}{LINES}")
    ended = CliRunner().invoke(main, ["table", str(tmp_path), "--format", style])
    assert ended.exit_code == 0, ended.output
    assert "spoofed" in ended.output
    assert _of_its_own(ended.output) == []


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--baseline", "A", "--runs", "A"],
        ["check", "--baseline", "A", "--runs", "B"],
        ["compare", "A", "B", "--flips", "9"],
        ["compare", "A", "B", "--allow-differences"],
        ["verify", "A"],
        ["table", "A", "--where", f"encoder={LINES}"],
        ["run", "--encoder", LINES, "--task", "vqa"],
        ["table", LINES],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_name_begins_a_line_of_a_command(tmp_path, words):
    places = {name: _two_lines(tmp_path / name, name, LINES) for name in "AB"}
    ended = CliRunner().invoke(main, [places.get(word, word) for word in words])
    assert ended.output
    assert _of_its_own(ended.output) == []


def test_every_command_prints_through_say():
    """Anything else would print text as it comes."""
    for path in COMMANDS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path.name != "say.py":
                assert ast.unparse(node.func) not in ("click.echo", "click.secho", "print"), (
                    f"{path.name}: {node.lineno}"
                )
