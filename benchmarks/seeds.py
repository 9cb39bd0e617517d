"""Do the claims of the mini suite hold for other training seeds, too?

Usage: python benchmarks/seeds.py --output FOLDER [--seeds 0,1,2] [--jobs 2] [--write BENCHMARKS.md]

Trains every model that the claims speak of, CLIP first, once for each seed, carries out the runs behind the claims, and
prints the claims with their spread over seeds. Seed 0 is the shipped models and the records in results/mini. Everything
resumes: a model whose card is there is not trained again, and runs go on where they stopped. A CLIP that was trained
elsewhere goes to FOLDER/seed1/models/clip. With --write the table also replaces the block "seeds" of a document.

A seed takes about two and a half core-hours: 1.6 to train, by 0.35 to 0.9 s of processor time an update, and three
quarters of an hour for the runs.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from safetensors.torch import load_file, save_file

from bench.config import Request, RunConfig, resolve
from bench.mini.claims import CLAIMS, FLAMINGO, LLAVA, Claim, ClaimResult, Quantity, evaluate_claims
from bench.mini.recipes import FINETUNING, MODELS, WEIGHTS, train_model
from bench.records import Run, load_runs
from bench.running.engines import execute_all
from bench.tables.blocks import write_block
from bench.tables.render import markdown_table

SHIPPED, COMMITTED, BLOCK = 0, Path("results/mini"), "seeds"
SUITES = {"": "mini-full", LLAVA: "mini-full", FLAMINGO: "mini-openflamingo"}  # by the family that is asked
CARD = "card.json"  # beside a model that is done
MODEL = "open_clip_model.safetensors"


def asked_of_encoders(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Those claims that are about encoders, alone or in one of the families above."""
    return tuple(claim for claim in claims if all(one.family in SUITES for one in quantities([claim])))


def quantities(claims: Iterable[Claim]) -> list[Quantity]:
    """What the claims speak of."""
    return [quantity for claim in claims for quantity in (claim.left, claim.right) if quantity is not None]


def models_of(claims: Iterable[Claim]) -> list[str]:
    """The models behind the claims, in the order in which they are trained."""
    asked = quantities(claims)
    named = {"clip"} | {name for one in asked for name in (one.encoder, one.surrogate, one.family)}
    return [model for model in MODELS if model in named]


def train(seed: int, folder: Path, claims: Sequence[Claim], steps: int | None = None) -> None:
    """Train what is not there yet, and put each fine-tuned image tower into a CLIP of its own."""
    clip = folder / "models" / "clip"
    for name in models_of(claims):
        output = folder / "models" / name
        if not (output / CARD).exists():
            base = None if name == "clip" else clip
            train_model(name, folder / "work" / name, output, seed=seed, base=base, steps=steps)
        if name in FINETUNING:
            assemble(clip, output / WEIGHTS, folder / "encoders" / name)


def assemble(clip: Path, tower: Path, output: Path) -> None:
    """A folder of a whole CLIP with another image tower."""
    shutil.copytree(clip, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CARD))
    visual = {f"visual.{name}": tensor for name, tensor in load_file(tower).items()}
    save_file(load_file(clip / MODEL) | visual, output / MODEL)


def runs_of(folder: Path, claims: Iterable[Claim], device: str = "cpu") -> list[RunConfig]:
    """The runs behind the claims, of the models in a seed's folder."""

    def place(encoder: str) -> str:
        return str((folder / ("encoders" if encoder in FINETUNING else "models") / encoder).resolve())

    found = {}
    for one in quantities(claims):
        request = Request.of(
            suite=SUITES[one.family],
            encoder=[place(one.encoder)],
            task=one.task,
            dataset=one.dataset,
            surrogate=None if one.surrogate is None else [place(one.surrogate)],
            vlm=[str((folder / "models" / one.family).resolve())] if one.family else None,
            output=folder / "runs",
            device=device,
        )
        found |= {config.directory: config for config in resolve(request)}
    return list(found.values())


def named(run: Run) -> Run:
    """A run whose header calls the models by their names, as the claims do."""
    header = run.header
    protocol = dict(header.protocol)
    if header.surrogate is not None:
        protocol["surrogate"] = Path(header.surrogate).name
    model = header.model and Path(header.model).name
    changed = replace(header, encoder=Path(header.encoder).name, model=model, protocol=protocol)
    return Run(run.directory, changed, run.records)


def spread(claims: Sequence[Claim], by_seed: Mapping[int, Sequence[ClaimResult]]) -> str:
    """The claims as a Markdown table with a column per seed: the number, and what it is held against."""
    head = ["claim", *(f"seed {seed}" for seed in by_seed), "mean (SD over seeds)", "holds"]
    rows = []
    for claim, results in zip(claims, zip(*by_seed.values(), strict=True), strict=True):
        values = [result.value for result in results if result.value is not None]
        holding = sum(result.holds for result in results)
        deviation = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
        mean = f"{statistics.mean(values):.1f}{deviation}" if values else "-"
        cells = [_cell(claim, result) for result in results]
        rows.append([claim.name, *cells, mean, f"{holding} of {len(results)}"])
    return markdown_table([head, *rows]) + "\n"


def _cell(claim: Claim, result: ClaimResult) -> str:
    if result.value is None or result.bound is None:
        return result.statement
    number = f"{result.value:.1f}" if result.holds else f"**{result.value:.1f}**"
    return f"{number} {claim.relation} {result.bound:.1f}"


def results_of(
    seed: int, output: Path, claims: Sequence[Claim], jobs: int | None, steps: int | None, device: str = "cpu"
) -> list[ClaimResult]:
    """The claims held against a seed's runs, which are carried out, and its models trained, where they are not."""
    if seed == SHIPPED:
        return evaluate_claims(load_runs([COMMITTED]), claims)
    folder = output / f"seed{seed}"
    train(seed, folder, claims, steps)
    execute_all(runs_of(folder, claims, device), jobs=jobs)
    return evaluate_claims(map(named, load_runs([folder / "runs"])), claims)


def main(arguments: Sequence[str] | None = None, claims: Sequence[Claim] = CLAIMS) -> None:
    """Train, measure, print."""
    claims = asked_of_encoders(claims)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=None, help="runs at once")
    parser.add_argument("--device", default="cpu", help="of the runs; models are trained on the CPU")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads while training")
    parser.add_argument("--steps", type=int, default=None, help="fewer updates, to try the command out")
    parser.add_argument("--write", type=Path, default=None, help='a document with a block "seeds"')
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    by_seed = {}
    for seed in map(int, asked.seeds.split(",")):
        by_seed[seed] = results_of(seed, asked.output, claims, asked.jobs, asked.steps, asked.device)
        asked.output.mkdir(parents=True, exist_ok=True)
        told = {s: [[r.name, r.holds, r.value, r.bound] for r in results] for s, results in by_seed.items()}
        (asked.output / "claims.json").write_text(json.dumps(told, indent=1) + "\n")
    table = spread(claims, by_seed)
    print(table)
    if asked.write is not None:
        write_block(asked.write, BLOCK, table)


if __name__ == "__main__":
    main()
