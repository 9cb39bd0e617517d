"""``bench compare``: two runs, sample by sample."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.analysis.compare import ALL, ALLOWABLE
from bench.cli.say import say, say_line

if TYPE_CHECKING:
    from bench.analysis.compare import Comparison


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--flips",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Show up to N of the samples that scored differently, with both answers.",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(ALLOWABLE),
    metavar="FIELD",
    help=f"Compare although this differs; may be repeated. One of {', '.join(ALLOWABLE)}.",
)
@click.option("--allow-differences", is_flag=True, help="The same as --allow all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout, with every flip.")
def compare(a: Path, b: Path, flips: int, allow: tuple[str, ...], allow_differences: bool, as_json: bool) -> None:
    """Compare run B with run A, sample by sample; each is a run or a directory of runs.

    Shows B - A with its 95 % interval, and the p-value of a paired test: McNemar's exact test for right-or-wrong scores
    of one question an image, else the exact sign-flip test by image; the interval is a paired bootstrap by image. Runs
    on other data, or under another protocol or threat model, are refused unless the difference is allowed by name.

    \b
    Examples:
      cd results/mini/vqa && bench compare tecoa4_mini-vqa_apgd_linf_2+4_seed0 fare4_mini-vqa_apgd_linf_2+4_seed0
      bench compare results/mini results/runs/mini-full --flips 5
    Exit codes: 0 compared, 2 refused or usage.
    """  # noqa: D301
    from bench.analysis.compare import compare as compare_runs
    from bench.records import load_runs

    results = compare_runs(load_runs([a]), load_runs([b]), (ALL,) if allow_differences else allow)
    if as_json:
        say(json.dumps([result.to_dict() for result in results], indent=1))
        return
    for result in results:
        _show(result, flips)


def _show(result: "Comparison", flips: int) -> None:
    from bench.analysis.stats import p_label

    change, fell = result.change, len(result.flips) - result.rose
    corrected = f"; corrected {p_label(result.p_holm)}" if result.p_holm != change.p else ""
    say_line(f"{_sides(result)}{result.name}: {result.a_value:.1f} -> {result.b_value:.1f}")
    say_line(f"  difference {change.in_words()}{corrected} ({change.test})")
    say(f"  samples: {result.rose} score more, {fell} less, {change.n - len(result.flips)} the same")
    if result.left_out:
        say(f"  left out: {result.left_out} samples that only one of the two has scored")
    for label, run in (("first", result.a), ("second", result.b)):
        if run.header.partial:
            say_line(f"  the {label} run is partial ({run.header.partial}): do not quote this")
    for flip in result.flips[:flips]:
        scores = f"{flip.a_score:.1f} -> {flip.b_score:.1f}"
        say_line(f"    {flip.sample_id}: {scores}  {flip.a_answer!r} -> {flip.b_answer!r}")


def _sides(result: "Comparison") -> str:
    names = list(dict.fromkeys((result.a.header.encoder, result.b.header.encoder)))
    return f"{' -> '.join(names)} / "
