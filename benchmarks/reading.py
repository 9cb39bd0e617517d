"""How long the showing commands take on a million records, and how much memory, in processor seconds.

    python benchmarks/reading.py [--records 1000000]

Five made-up runs of 50,000 samples each (as ImageNet has), clean and attacked at two radii, and a second set to compare
with; each command in a process of its own, beside the time that importing torch takes on this machine.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

from bench.records import SCHEMA_VERSION, RunHeader
from benchmarks import history

RUNS = 5
STEPS = (("clean", 0.0), ("apgd-ce", 2.0), ("apgd-ce", 4.0), ("apgd-dlr", 4.0))


def make_runs(root: Path, samples: int, seed: int) -> None:
    """Runs whose scores are drawn at random."""
    for number in range(RUNS):
        rng = random.Random(f"{seed} {number}")
        directory = root / f"encoder{number}"
        directory.mkdir(parents=True)
        header = RunHeader(
            schema_version=SCHEMA_VERSION, suite="mini", encoder=f"encoder{number}", task="zeroshot", task_version=1,
            dataset="many", metric="accuracy (%)", worst="min", norm="linf", attack="apgd", radii=(2.0, 4.0), seed=0,
            n_samples=samples, limit=None, model=None, dataset_fingerprint="d", weights={"encoder": str(number)},
            attack_steps=[], protocol={"precision": "float32"}, code={}, packages={}, device="cpu",
            started="2026-01-01T00:00:00+00:00", ended="2026-01-01T01:00:00+00:00", status="complete", ceiling=100.0,
        )  # fmt: skip
        (directory / "run.json").write_text(header.to_json())
        with (directory / "records.jsonl").open("w") as file:
            for sample in range(samples):
                for step, radius in STEPS:
                    name = f"val/n{sample % 1000:08d}/{sample}"
                    record = {
                        "sample_id": name, "group": name,
                        "step": step, "radius": radius, "prediction": "golden retriever",
                        "score": 100.0 * (rng.random() < 0.8 - 0.1 * radius), "loss": rng.random(),
                        "distance": radius, "evaluations": 100 * (radius > 0), "error": None, "seconds": 0.01,
                    }  # fmt: skip
                    file.write(json.dumps(record) + "\n")


def measured(*words: str) -> tuple[float, float, str]:
    """Processor seconds, peak memory in MB, and the last line that a command printed."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed = process.stdout.read().strip().splitlines()
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed[-1] if printed else ""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    history.add_option(parser)
    asked = parser.parse_args()
    samples, taken = asked.records // (RUNS * len(STEPS)), {}
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "old", Path(folder) / "new"
        make_runs(old, samples, 0)
        make_runs(new, samples, 0)
        commands = {
            "import torch": ["-c", "import torch"],
            "table": ["-m", "bench", "table", str(old)],
            "check": ["-m", "bench", "check", "--baseline", str(old), "--runs", str(new)],
            "compare": ["-m", "bench", "compare", str(old), str(new)],
            "report": ["-m", "bench", "report", str(old), "-o", str(Path(folder) / "report"), "--quiet"],
        }
        print(f"{'command':14}{'seconds':>9}{'MB':>8}")
        for name, words in commands.items():
            seconds, memory, last = measured(*words)
            taken[name] = seconds
            print(f"{name:14}{seconds:9.1f}{memory:8.0f}  {last[:80]}")
        pages = [path.stat().st_size for path in (Path(folder) / "report").rglob("*.*") if path.is_file()]
        print(f"the report: {len(pages)} files, the largest of {max(pages) / 1e6:.2f} MB")
    if asked.note:
        torch = taken.pop("import torch")
        history.note(
            {f"reading: import of torch / {name}, {asked.records} records": torch / s for name, s in taken.items()}
        )


if __name__ == "__main__":
    main()
