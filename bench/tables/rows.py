"""Measured numbers as plain data: JSON-able rows, and a DataFrame."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bench.analysis.cells import Measure

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
COLUMNS = ("encoder", "task", "dataset", "attack", "radius", "value", "low", "high", "n", "partial", "checks")


def rows(measures: Iterable[Measure]) -> list[Row]:
    """One JSON-able dict per number.

    Value, low (2.5 %) and high (97.5 %) are on the metric's scale, radius is 0.0 for clean, and `n` counts scored
    samples. "partial" says whether the number is not to be quoted, "checks" names the sanity checks that failed.
    "run_dir" is the run's directory, those behind an average joined by `os.pathsep`.
    """
    return [_row(measure) for measure in measures]


def frame(measures: Iterable[Measure]) -> "pd.DataFrame":
    """The columns `COLUMNS`: text for names, floats for numbers, bool for partial; "checks" is empty where none failed.

    ``attrs["lower_is_better"]`` lists the tasks where the attacker pushes the score up.
    """
    import pandas as pd

    measures = list(measures)
    data = [{**row, "checks": ", ".join(row["checks"])} for row in rows(measures)]
    made = pd.DataFrame(data, columns=list(COLUMNS))
    made.attrs["lower_is_better"] = sorted({m.header.task for m in measures if m.header.worst == "max"})
    return made


def _row(measure: Measure) -> Row:
    header, estimate = measure.header, measure.estimate
    return {
        "suite": header.suite,
        "encoder": header.encoder,
        "task": header.task,
        "dataset": measure.dataset,
        "metric": header.metric,
        "attack": header.attack,
        "radius": measure.radius,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "partial": not measure.whole,
        "checks": list(measure.doubts),
        "run_dir": os.pathsep.join(map(str, measure.directories)),
    }
