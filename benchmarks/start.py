"""What a start costs: two runs in workers that are forked, or begin as fresh processes; and a further run of a process.

    OMP_NUM_THREADS=1 python benchmarks/start.py [--rounds 3] [--note]

Both ways in turn, in elapsed seconds of the whole command; nothing is attacked. A further run loads its data and model
again and writes its records: processor seconds, beside those of importing the libraries.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

from bench.config import Request, resolve
from benchmarks import history

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
from bench.running import forks
forks.CAN_FORK = forks.CAN_FORK and sys.argv[1] == "forked"
import bench
bench.run("clip,fare", "zeroshot", dataset="mini-shape", limit=2, attack="none", jobs=2, device="cpu", progress=False,
          output=sys.argv[2])
"""
TASKS = {"zeroshot": "mini-shape", "vqa": "mini-vqa"}


def command(way: str) -> float:
    """Elapsed seconds of a command with two workers."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", PROGRAM, way, folder], cwd=ROOT, check=True)
        return time.perf_counter() - began


def further_run(task: str, rounds: int) -> float:
    """Processor seconds of a run of a process that has carried out one like it."""
    from bench.running.engines import execute_all

    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            asked = {"task": task, "dataset": TASKS[task], "attack": "none", "limit": 1, "device": "cpu"}
            configs = resolve(Request.of(encoder="fare", output=Path(folder) / str(number), **asked))
            began = time.process_time()
            execute_all(configs, jobs=1, progress=False)
            taken.append(time.process_time() - began)
    return median(taken[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    history.add_option(parser)
    asked = parser.parse_args()
    pairs = [(command("fresh"), command("forked")) for _ in range(asked.rounds)]
    ratio = median(fresh / forked for fresh, forked in pairs)
    print(f"two workers, fresh and forked: {pairs[-1][0]:.1f} and {pairs[-1][1]:.1f} s elapsed, ratio {ratio:.2f}")
    began = time.process_time()
    import_module("bench.running.engines")
    libraries = time.process_time() - began
    further = {task: further_run(task, asked.rounds) for task in TASKS}
    for task, seconds in further.items():
        print(f"a further run, {task}: {seconds:.2f} s of processor time; importing the libraries: {libraries:.2f} s")
    if asked.note:
        ratios = {f"start: imports / further run, {task}": libraries / seconds for task, seconds in further.items()}
        history.note({"start: fresh / forked workers, elapsed": ratio, **ratios})


if __name__ == "__main__":
    main()
