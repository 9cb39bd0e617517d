"""Does a sweep give the same records wherever it is carried out, workers killed on the way?

Usage: python benchmarks/sweep.py --output FOLDER [--limit 4]

Carries out 24 runs of the mini suite (three encoders on eight datasets), the last twelve in two shards each, on the
default engine, on a Ray cluster of this machine of which one worker is killed with SIGKILL in mid-run, and on
submitit's local executor of which one job is killed likewise. Exits with 1 unless all records are those of the default
engine to the bit, seconds aside. Needs the extras [ray] and [slurm]; about ten minutes on two idle cores.
"""

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import msgspec

from bench.config import Request, RunConfig, resolve
from bench.records import Record, load_run
from bench.running.engines import execute_all

ENCODERS = "clip,fare2,fare4"
FIRST = {"task": "zeroshot", "dataset": "mini-shape,mini-colour,mini-count,mini-texture"}
LAST = {"task": "zeroshot,vqa,captioning,pope", "dataset": "mini-sketch,mini-vqa,mini-caption,mini-pope-random"}
ENGINES = {"processes": False, "ray": True, "slurm?cluster=local&cpus=1": True}  # and whether a worker is killed
BATCH = 2  # small, so that runs have a middle


def configs(output: Path, limit: int) -> list[RunConfig]:
    """The 24 runs."""
    common = {"encoder": ENCODERS, "limit": limit, "output": output, "batch_size": BATCH, "device": "cpu"}
    runs = [*resolve(Request.of(**FIRST, **common)), *resolve(Request.of(**LAST, **common, shards=2))]
    assert len(runs) == 24, f"{len(runs)} runs"
    return runs


def kill_one(output: Path, killed: list[int]) -> None:
    """Wait for a run that has recorded something and goes on; kill its process."""
    while not killed:
        for records in output.rglob("records.jsonl"):
            with suppress(OSError, IndexError, ValueError):
                pid = int((records.parent / "lock").read_text().split()[1])
                is_amid = records.stat().st_size > 0 and '"started"' in (records.parent / "run.json").read_text()
                if is_amid and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
        time.sleep(0.02)


def records_of(directories: list[Path]) -> list[list[Record]]:
    """What each run recorded, by sample, seconds aside."""
    runs = [load_run(directory) for directory in directories]
    assert all(run.header.status == "complete" for run in runs)
    bare = [[msgspec.structs.replace(record, seconds=0.0) for record in run.records] for run in runs]
    return [sorted(records, key=lambda record: record.sample_id) for records in bare]


def carry_out(engine: str, kills: bool, output: Path, limit: int) -> list[list[Record]]:
    """The records of the sweep on one engine."""
    killed: list[int] = []
    if kills:
        threading.Thread(target=kill_one, args=(output, killed), daemon=True).start()
    began = time.monotonic()
    found = records_of(execute_all(configs(output, limit), jobs=2, on=engine))
    count = sum(map(len, found))
    print(f"{engine}: {len(found)} runs, {count} records, {time.monotonic() - began:.0f} s, killed: {killed or 'none'}")
    if kills and not killed:
        raise SystemExit(f"{engine}: no worker was killed, so that nothing was shown; take a larger --limit")
    return found


def main() -> None:
    """Compare the engines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=4)
    asked = parser.parse_args()
    found = {
        engine: carry_out(engine, kills, asked.output / str(number), asked.limit)
        for number, (engine, kills) in enumerate(ENGINES.items())
    }
    wanted, *others = found.values()
    different = [engine for engine, records in zip(list(found)[1:], others, strict=True) if records != wanted]
    print(f"records that differ from the default engine's: {', '.join(different) or 'none'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
