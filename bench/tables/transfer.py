"""Transfer matrices: images made on one encoder, scored on others. Never imports torch."""

from collections.abc import Iterable

import pandas as pd

from bench.records import Run
from bench.tables import flat as tables


def transfer_matrices(runs: Iterable[Run]) -> list[tuple[str, pd.DataFrame]]:
    """A matrix a dataset, attack and radius that have several surrogates: encoders by rows, surrogates by columns.

    Returns:
        Titles such as "vqa mini-vqa 4/255, transfer" with frames of scores; a pair that was not run is missing.
    """
    cells: dict[tuple[str, float], dict[str, dict[str, float]]] = {}
    for run in runs:
        source = run.header.surrogate
        if source is None:
            continue
        attack = run.header.attack.removesuffix(f"-from-{source}")
        for row in tables.summary([run]):
            if row["radius"] > 0:
                title = f"{row['task']} {row['dataset']} {tables.eps_label(row['radius'], run.header.norm)}, {attack}"
                columns = cells.setdefault((title, row["radius"]), {})
                columns.setdefault(str(source), {})[row["encoder"]] = row["value"]
    return [(title, pd.DataFrame(columns)) for (title, _), columns in cells.items() if len(columns) > 1]
