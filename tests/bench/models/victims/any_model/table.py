"""Write the table of the manual that says which kinds of models are proven: measured here, not written by hand.

python -m tests.bench.models.victims.any_model.table --write docs/models.md
"""

import tempfile
from pathlib import Path

import click
from transformers import AutoConfig, CLIPVisionModel, SiglipVisionModel

from bench.errors import UsageError
from bench.models.victims.any_model.load import read_any_model
from tests.bench.models.victims.any_model.kinds import KINDS
from tests.bench.models.victims.any_model.measure import Measures, measure
from tests.bench.models.victims.any_model.walk import walk

BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
HEAD = [
    "kind", "model_type", "VQA and captions, clean and attacked", "gradient", "four at a time", "8-bit gap",
    "says what `generate` says", "takes an encoder",
]  # fmt: skip


def row(kind: str, folder: Path) -> list[str]:
    """One kind, or why it fails."""
    try:
        found = measure(kind, folder / "model")
        values = [one["value"] for one in walk(folder / "model", folder / "data")]
    except (RuntimeError, UsageError) as error:
        return [kind, "", f"no: {error}", "", "", "", "", ""]
    attacked = values[0] > values[1] and values[2] > values[3]
    return [kind, _model_type(folder / "model"), "yes" if attacked else "no", *_cells(found), _tower(folder / "model")]


def _cells(found: Measures) -> list[str]:
    same = "yes" if found.same_text and found.same_batch else "no"
    return [_short(found.gradient), _short(found.batch), f"{found.pixels:.1f}/255", same]


def _short(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def _model_type(folder: Path) -> str:
    return str(AutoConfig.from_pretrained(folder).model_type)


def _tower(folder: Path) -> str:
    model, _ = read_any_model(str(folder))
    kinds = {CLIPVisionModel: "CLIP", SiglipVisionModel: "SigLIP"}
    return next((name for kind, name in kinds.items() if any(isinstance(m, kind) for m in model.modules())), "no")


def table() -> str:
    """The whole, as Markdown."""
    lines = [HEAD, ["---"] * len(HEAD)]
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(kind, Path(folder)))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


@click.command()
@click.option("--write", type=click.Path(exists=True, path_type=Path), required=True)
def main(write: Path) -> None:
    """Measure every kind and put the table between its marks in a page."""
    before, rest = write.read_text().split(BEGIN)
    write.write_text(before + BEGIN + table() + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
