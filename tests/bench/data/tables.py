"""Small tables in parquet."""

from pathlib import Path

import datasets

from bench.data.readers import load
from tests.bench.data.small import png


def parquet(path: Path, columns: dict, **features) -> Path:
    rows = datasets.Dataset.from_dict(columns)
    for column, feature in features.items():
        rows = rows.cast_column(column, feature)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(str(path))
    return path


PICTURES = [{"bytes": png((k, 0, 0), (5, 4)), "path": f"{k}.png"} for k in range(3)]
QUESTIONS = {
    "image": PICTURES,
    "question": ["a?", "b?", "c?"],
    "answers": [["yes", "no"], ["x"], ["y", "y"]],
    "question_id": [7, 5, 6],
    "photo": ["p", "q", "p"],
}


def table(root, **row):
    return load("t", {"format": "table", "source": "t.parquet", **row}, root)
