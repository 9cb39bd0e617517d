"""What a shell completes, and how it is told to ask."""

import os
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bench.cli import main


def completed(words: str, typed: str, tmp_path=None) -> list[str]:
    """What bash would be offered for ``bench WORDS TYPED``."""
    line = f"bench {words} {typed}"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - (1 if typed else 0))}
    done = CliRunner().invoke(main, [], env={"_BENCH_COMPLETE": "bash_complete", **asked}, prog_name="bench")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "typed", "wanted"),
    [
        ("run --encoder", "fa", ["fare", "fare2", "fare4"]),
        ("run --encoder", "clip,te", ["clip,tecoa", "clip,tecoa2", "clip,tecoa4"]),
        ("run --encoder", "fare,fa", ["fare,fare2", "fare,fare4"]),
        ("run --surrogate", "cl", ["clip", "clip-seed1", "clip-seed2"]),
        ("run --task", "v", ["vqa"]),
        ("run --task", "vqa,zero", ["vqa,zeroshot"]),
        ("run --task", "vqa,v", []),
        ("run --attack", "ens", ["ensemble", "ensemble-vqa"]),
        ("run --attack", "no", ["none", "noise"]),
        ("run --suite", "mini", ["mini", "mini-full", "mini-openflamingo", "mini-transfer"]),
        ("run --dataset", "mini-shape,mini-sk", ["mini-shape,mini-sketch"]),
        ("run --suite paper --dataset", "viz", ["vizwiz"]),
        ("run --suite no-such.toml --dataset", "mini-v", ["mini-vqa"]),
        ("ru", "", ["run"]),
        ("run", "--enc", ["--encoder"]),
    ],
)
def test_a_shell_completes_the_names_there_are(words, typed, wanted):
    assert completed(words, typed) == wanted if typed else completed("", words) == wanted


def test_a_suite_of_ones_own_gives_its_names(tmp_path):
    (tmp_path / "own.toml").write_text(
        'base = "mini"\n[attacks.slow]\ndescription = ""\n'
        'steps = [{name = "a", kind = "pgd", steps = 1, goal = "untargeted", start = "random", first_step = 1}]\n'
    )
    assert completed(f"run --suite {tmp_path}/own.toml --attack", "sl") == ["slow"]


def test_completing_never_imports_torch():
    code = (
        "import os, sys\n"
        "os.environ |= {'_BENCH_COMPLETE': 'bash_complete', 'COMP_WORDS': 'bench run --encoder f', 'COMP_CWORD': '3'}\n"
        "from bench.cli import main\n"
        "try: main([], prog_name='bench')\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "fare4" in done.stdout


@pytest.mark.parametrize(("shell", "place"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish")])
def test_completion_is_installed_once_and_keeps_what_was_there(tmp_path, shell, place):
    if shell != "fish":
        (tmp_path / place).write_text("alias x=y")
    command = [sys.executable, "-m", "bench", "--install-completion", shell]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HOME": str(tmp_path)})
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert str(written).startswith(str(tmp_path / place))
    lines = written.read_text().splitlines()
    assert sum("_BENCH_COMPLETE" in line for line in lines) == 1
    assert shell == "fish" or lines[0] == "alias x=y"


def test_nothing_of_what_was_there_is_written_again(tmp_path):
    """A disk that is full halfway must not take it: it is added to. Line ends of other kinds stay, too."""
    before = "alias x=y\x0c\r\n# caf\u00e9\u2028end\n"
    (tmp_path / ".bashrc").write_bytes(before.encode())
    inode = (tmp_path / ".bashrc").stat().st_ino
    done = CliRunner().invoke(main, ["--install-completion", "bash"], env={"HOME": str(tmp_path)})
    assert done.exit_code == 0, done.output
    after = (tmp_path / ".bashrc").read_bytes().decode()
    assert after.startswith(before)
    assert len(after.removeprefix(before).splitlines()) == 1
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / ".bashrc").write_bytes(before.encode())
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before.encode()), limit[1]))
    try:
        full = CliRunner().invoke(main, ["--install-completion", "bash"], env={"HOME": str(tmp_path)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert full.exit_code == 2
    assert (tmp_path / ".bashrc").read_bytes() == before.encode()
    assert (tmp_path / ".bashrc").stat().st_ino == inode


def test_where_it_cannot_be_installed_the_line_is_shown(tmp_path):
    (tmp_path / ".bashrc").mkdir()
    done = CliRunner().invoke(main, ["--install-completion", "bash"], env={"HOME": str(tmp_path)})
    assert done.exit_code == 2
    assert "add this line by hand: eval" in done.output
