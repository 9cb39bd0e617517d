"""What benchmarks measured, commit by commit: ratios in history.csv, so that a slowdown is seen.

    python benchmarks/history.py        each figure's last ratio beside the one before; exit code 1 if one fell by 15 %

A benchmark that is given ``--note`` adds its lines. A ratio compares two sides of one measurement, so that it depends
little on the machine; of all ratios, more is better. A commit with "+" had changes on top.
"""

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

from bench.provenance import code_state

HISTORY = Path(__file__).with_name("history.csv")
COLUMNS = ["commit", "figure", "ratio"]
FALL = 0.15  # share of a ratio whose loss is pointed at


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be asked to note its ratios."""
    parser.add_argument("--note", action="store_true", help="add the ratios to benchmarks/history.csv")


def note(ratios: Mapping[str, float], path: Path = HISTORY) -> None:
    """Add a line for each ratio of a figure, as measured with the code as it is."""
    code = code_state()
    commit = f"{code['commit'] or 'unknown'}"[:12] + ("+" if code["dirty"] else "")
    begun = path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(COLUMNS)
        writer.writerows([commit, figure, f"{ratio:.3g}"] for figure, ratio in ratios.items())


def last_two(path: Path = HISTORY) -> dict[str, tuple[float | None, float]]:
    """Of each figure the last ratio but one, if there is one, and the last."""
    found: dict[str, tuple[float | None, float]] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            before = found.get(line["figure"])
            found[line["figure"]] = (None if before is None else before[1], float(line["ratio"]))
    return found


def main() -> None:
    """Print what has changed."""
    fallen = False
    for figure, (before, now) in last_two().items():
        fell = before is not None and now < before * (1 - FALL)
        fallen |= fell
        print(f"{now:8.3g}  {'was ' + format(before, '.3g') if before else 'new':12}{'FELL' if fell else '':6}{figure}")
    sys.exit(fallen)


if __name__ == "__main__":
    main()
