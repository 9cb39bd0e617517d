"""``bench audit``: could a stronger attack have broken more?"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.root import CHECK_FAILED, DONE
from bench.cli.say import say

if TYPE_CHECKING:
    from bench.verify.audit import Audit


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Robust samples to try.")
@click.option("--eps", "radius", type=float, default=None, help="Radius, as recorded. Default: the run's largest.")
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Where the run's data files lie.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--no-save", is_flag=True, help="Do not write audit.json beside the run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout and nothing else.")
def audit(
    runs: tuple[Path, ...],
    samples: int,
    radius: float | None,
    data_root: Path | None,
    device: str,
    no_save: bool,
    as_json: bool,
) -> None:
    """Try stronger attacks on samples that a run left robust. Exits with 1 where one could still win.

    On a random part of the robust samples: twice the steps, more restarts, a black-box attack, random images of the
    ball, and a ball that holds every image; beside them the gradient against differences of the loss, and whether the
    loss was still rising. RUNS are run directories, or folders of them.

    \b
    Example:
      bench audit results/mini/zeroshot/fare4_mini-shape_apgd_linf_2+4_seed0 --samples 20
    """  # noqa: D301
    from bench.records import load_runs
    from bench.verify import audit as library

    found = []
    for run in load_runs(runs):
        one = library.audit(run, samples=samples, radius=radius, device=device, data_root=data_root)
        found.append(one)
        if not no_save:
            library.save(one)
        if not as_json:
            say(_in_words(one))
    if as_json:
        say(json.dumps([one.as_json() for one in found], indent=1))
    sys.exit(CHECK_FAILED if any(one.wins for one in found) else DONE)


def _in_words(found: "Audit") -> str:
    """A line for the run, and one for each thing that was tried."""
    head = (
        f"{found.run} at {found.radius:g}: {found.score:.1f}, {found.robust} robust; {found.wins} of "
        f"{found.looked} say that a stronger attack could still win ({found.seconds:g} s, "
        f"{found.evaluations} gradients)"
    )
    lines = [f"  {'COULD WIN' if one.wins else 'ok':<9}  {one.name}: {one.detail}" for one in found.findings]
    return "\n".join([head, *lines])
