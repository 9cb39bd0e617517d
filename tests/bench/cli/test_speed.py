"""The showing commands answer at once: without torch, in a fraction of the time that importing it takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VQA = "results/mini/vqa"
COMMANDS = {
    "help": "--help",
    "list": "list encoders",
    "compare": f"compare {VQA}/tecoa4_mini-vqa_apgd_linf_2+4_seed0 {VQA}/fare4_mini-vqa_apgd_linf_2+4_seed0 --flips 3",
    "compare all": "compare results/mini results/mini",
    "check": "check --rerun 0 --baseline results/mini/zeroshot",  # a part: all of it grows with every committed run
    "layouts": "table",
    "table": "table results/mini",
    "status": "status results/mini",
}


def processor_seconds(code: str, *arguments: str) -> float:
    """User and system time of a Python process: unlike the clock's, not longer on a busy machine."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def import_of_torch():
    return min(processor_seconds("import torch") for _ in range(2))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_showing_command_takes_less_than_importing_torch_and_does_not(name, import_of_torch):
    code = "\n".join(
        [
            "import sys",
            "from bench.cli import main",
            "try:",
            "    main(sys.argv[1:])",
            "except SystemExit as end:",
            "    assert not end.code, end.code",
            "assert 'torch' not in sys.modules",
        ]
    )
    taken = min(processor_seconds(code, *COMMANDS[name].split()) for _ in range(2))
    assert taken < 0.7 * import_of_torch
