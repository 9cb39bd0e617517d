"""Compare plain CLIP with FARE on one zero-shot dataset: a table, a plot, and the samples that FARE saves.

Run it with ``python examples/evaluate_encoders.py``.
"""

import sys
from pathlib import Path

import bench


def main(output: Path = Path("results/runs"), limit: int = 40) -> None:
    """Run both encoders (resumable), print the table, write ``robustness.png`` beside the records."""
    result = bench.run(encoder="clip,fare4", task="zeroshot", dataset="mini-shape", limit=limit, output=output)
    table = result.table()
    print(table[["encoder", "dataset", "radius", "value", "low", "high", "n"]].to_string(index=False))

    figure = result.plot()
    figure.savefig(output / "robustness.png")

    broken = {run.header.encoder: {r.sample_id for r in run.records if r.score == 0} for run in result.runs}
    print(f"{len(broken['clip'] - broken['fare4'])} samples are broken for clip and robust for fare4")


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:2]))
