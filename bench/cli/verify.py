"""``bench verify``: a run's numbers, recomputed from its saved images."""

import json
import sys
from pathlib import Path

import click

from bench.cli.root import CHECK_FAILED, DONE, USAGE
from bench.cli.say import say, say_line
from bench.errors import UsageError


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Where the run's data files lie.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--arch", default=None, help="open_clip architecture of an encoder given as a path, e.g. ViT-L-14.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def verify(
    runs: tuple[Path, ...], data_root: Path | None, device: str, arch: str | None, as_json: bool, quiet: bool
) -> None:
    """Recompute runs from what they saved. Exits with 1 when anything is not as recorded.

    Without any attack code: the distance of each saved image to its clean image in float32, that its pixels lie in
    [0, 1] and are those that were saved, what the model answers to it and to its 8-bit PNG, and the scores; the same
    for the clean images; the weights, the data, and that no sample and no attack step is missing. Each mismatch is
    named by sample, radius and field, and one line per run says what was verified and what was not. RUNS are run
    directories, or folders of them, made with `bench run --save-adversarial`; others cannot be verified.

    \b
    Example:
      bench run --encoder fare --task vqa --save-adversarial && bench verify results/runs
    Exit codes:
      0  every sample of every run is borne out
      1  something is not as recorded, or samples have no record or an error
      2  a run kept no images or cannot be loaded, or usage
    """  # noqa: D301
    from dataclasses import asdict

    from bench.records import load_runs
    from bench.records.verification import VERIFIED

    found = load_runs(runs)
    from bench import verify as library

    bare = [str(run.directory) for run in found if not library.has_evidence(run)]
    done, impossible = [], [_without_images(bare)] if bare else []
    for run in found:
        if str(run.directory) in bare:
            continue
        try:
            result = library.verify(run, data_root=data_root, device=device, arch=arch, progress=not quiet)
        except UsageError as error:
            impossible.append(str(error))
            continue
        done.append(result)
        if not as_json:
            for line in (*(f"mismatch  {mismatch}" for mismatch in result.mismatches), result):
                say_line(line)
    if as_json:
        say(json.dumps([asdict(result) | {"outcome": result.outcome} for result in done], indent=1))
    for message in impossible:
        say_line(f"bench: {message}", err=True)
    if any(result.outcome != VERIFIED for result in done):
        sys.exit(CHECK_FAILED)
    sys.exit(USAGE if impossible else DONE)


def _without_images(places: list[str]) -> str:
    """One line for all runs that left nothing to verify."""
    some = ", ".join(places[:2]) + (", ..." if len(places) > 2 else "")
    runs = some if len(places) == 1 else f"{len(places)} runs ({some})"
    return f"{runs} kept no adversarial images, so there is nothing to verify; make them again with --save-adversarial"
