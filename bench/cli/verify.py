"""``bench verify``: a run's numbers, recomputed from its saved images."""

import json
import sys
from pathlib import Path

import click

from bench.cli.root import CHECK_FAILED, DONE, USAGE
from bench.cli.say import say
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
    """Recompute runs from their saved adversarial images. Exits with 1 when anything is not as recorded.

    Without any attack code: the distance of each saved image to its clean image in float32, that its pixels lie in
    [0, 1], what the model answers, and the score; the answers to the clean images, the weights and the data, too. Each
    mismatch is named by sample, radius and field. RUNS are run directories, or folders of them, made with
    `bench run --save-adversarial`; a run without saved images cannot be verified (exit code 2).

    \b
    Example:
      bench run --encoder fare --task vqa --save-adversarial && bench verify results/runs
    """  # noqa: D301
    from dataclasses import asdict

    from bench.records import load_runs

    found = load_runs(runs)
    from bench import verify as library

    done, impossible = [], []
    for run in found:
        try:
            result = library.verify(run, data_root=data_root, device=device, arch=arch, progress=not quiet)
        except UsageError as error:
            impossible.append(error)
            say(f"bench: {error}", err=True)
            continue
        done.append(result)
        if not as_json:
            _show(result)
    if as_json:
        say(json.dumps([asdict(result) for result in done], indent=1))
    if any(result.mismatches for result in done):
        sys.exit(CHECK_FAILED)
    sys.exit(USAGE if impossible else DONE)


def _show(result: object) -> None:
    from bench.verify import Verification

    assert isinstance(result, Verification)
    for mismatch in result.mismatches:
        say(f"mismatch  {mismatch}")
    verdict = f"{len(result.mismatches)} mismatches" if result.mismatches else "verified"
    say(
        f"{verdict}: {result.run}: {result.images} adversarial and {result.clean} clean images judged again; "
        f"{result.unkept} attacks made nothing worse, or a later one did, and left no image"
    )
