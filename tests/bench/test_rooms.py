"""Imports point one way: no room imports a room above it, and no two rooms import each other."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("bench.errors", "bench.registry", "bench.progress", "bench.provenance", "bench.batch_size"),
    ("bench.trust",),
    ("attacks", "bench.sinks"),
    ("tasks",),
    ("bench.records",),
    ("bench.data", "bench.analysis"),
    ("bench.models", "bench.tables"),
    ("bench.config",),
    ("bench.train", "bench.running", "bench.report"),
    ("bench.regression", "bench.mini", "bench.board"),
    ("bench.verify",),
    ("bench.api",),
    ("bench",),
    ("bench.cli",),
    ("bench.__main__",),
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LEAVES, SHOWING = FLOORS[0], ("bench.analysis", "bench.tables", "bench.report", "bench.board", "bench.regression")


def room_of(module: str) -> str:
    """The room a dotted module lies in."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "bench" and ".".join(parts[:2]) in FLOOR else parts[0]


def imports_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


def wrong_imports(root: Path) -> list[str]:
    """Every import that does not point to a lower floor."""
    wrong = []
    for path in sorted(p for package in ("attacks", "tasks", "bench") for p in (root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        here = room_of(module)
        for name in imports_of(path):
            there = room_of(name)
            if there in FLOOR and there != here and FLOOR[there] >= FLOOR[here] and FLOOR[here] > 0:
                wrong.append(f"{module} imports {name}")
            if there in FLOOR and FLOOR[here] == 0 and FLOOR[there] > 0:
                wrong.append(f"{module} imports {name}")
            if (here, there) == ("bench.running", "bench.analysis"):
                wrong.append(f"{module} imports {name}")
            if here in SHOWING and name.split(".")[0] == "torch":
                wrong.append(f"{module} imports torch")
    return wrong


def test_no_room_imports_a_room_above_or_beside_it():
    assert wrong_imports(ROOT) == []


def test_planted_imports_are_found(tmp_path):
    """Upwards, sideways (of two that import each other, one does), out of a leaf, running to analysis, and torch."""
    planted = {
        "bench/records/store.py": "from bench.tables import layouts\n",
        "bench/data/readers.py": "from bench.analysis.stats import wilson\n",
        "bench/errors.py": "import tasks.base\n",
        "bench/running/loop.py": "from bench.analysis.stats import paired\n",
        "bench/tables/render.py": "import torch\nfrom bench.records import Run\n",
        "attacks/pgd.py": "from attacks.outcome import Outcome\n",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrong_imports(tmp_path) == [
        "bench.data.readers imports bench.analysis.stats.wilson",
        "bench.errors imports tasks.base",
        "bench.records.store imports bench.tables.layouts",
        "bench.running.loop imports bench.analysis.stats.paired",
        "bench.tables.render imports torch",
    ]
