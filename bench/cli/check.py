"""``bench check``: the regression gate."""

import json
import sys
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.root import CHECK_FAILED, DONE
from bench.cli.say import say, say_line
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.regression.compare import Finding


@click.command()
@click.option("--baseline", type=click.Path(path_type=Path), default=None, help="Default: results/mini.")
@click.option("--runs", "roots", type=click.Path(path_type=Path), multiple=True, help="Compare the runs under here.")
@click.option(
    "--rerun",
    type=click.IntRange(min=0),
    default=40,
    show_default=True,
    help="Without --runs: samples to run again of each guarded run; 0 checks the committed files only.",
)
@click.option(
    "--document",
    type=click.Path(path_type=Path),
    default=None,
    help="Whose tables must agree with the records. Default: BENCHMARKS.md, for results/mini.",
)
@click.option("--update", is_flag=True, help="Take the runs of --runs as the new baseline, and show what changes.")
@click.option(
    "--max-gradient-rise",
    "rise",
    type=click.FloatRange(min=0),
    metavar="PERCENT",
    default=None,
    help="Fail too if a run needs so many percent more gradient evaluations per sample than its baseline.",
)
@click.option("--jobs", type=int, default=None, help="Runs at once. Default: one per core on the CPU, else 1.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON array on stdout.")
def check(
    baseline: Path | None,
    roots: tuple[Path, ...],
    rerun: int,
    document: Path | None,
    update: bool,
    rise: float | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Has anything fallen below the baseline?

    Compares sample by sample, and fails only on a significant drop: p < 0.01, corrected for the number of comparisons
    (of 12 comparisons, one with 11 samples broken, none gained). So does what cannot be compared: a missing baseline, a
    missing or partial run, other data, an unscored sample. The committed files must agree with each other, too.

    \b
    Examples:
      bench check                                     run a part of results/mini again
      bench check --rerun 0                           only: do the committed files agree?
      bench check --max-gradient-rise 15              and has any attack become slower?
      bench check --baseline DIR --runs results/runs  compare finished runs
      bench check --baseline DIR --runs results/runs --update
    Exit codes:
      0  nothing fell (with --update: the baseline is rewritten)
      1  something fell, costs more gradients than allowed, is missing, partial, stale or not comparable
      2  the command itself is wrong, or a file cannot be written
    """  # noqa: D301
    from bench.records import load_runs
    from bench.regression import baseline as committed
    from bench.regression import rerun as gate
    from bench.regression.compare import Finding

    if rise is not None and not isfinite(rise):
        raise UsageError(f"--max-gradient-rise takes a percentage, not {rise}")
    if update and not roots:
        raise UsageError("--update needs the new runs: give them with --runs DIR")
    default = baseline is None or baseline.resolve() == committed.BASELINE.resolve()
    baseline = baseline or committed.BASELINE
    document = document or (committed.DOCUMENT if default else None)
    before = gate.load_baseline(baseline)
    if update:
        changes = gate.changes([] if isinstance(before, Finding) else before, roots)
        written = committed.update(baseline, roots)
        if document:
            committed.write(document, load_runs([baseline]))
        _print(changes, as_json)
        say(f"{baseline} rewritten: {len(written)} runs; review the change with git diff", err=True)
        sys.exit(DONE)
    if isinstance(before, Finding):
        findings = [before]
    else:
        findings = gate.check_integrity(before, document)
        if roots:
            findings += gate.check_runs(before, roots, rise)
        elif rerun:
            findings += gate.rerun(before, rerun, jobs, rise)
    _print(findings, as_json)
    failed = [finding for finding in findings if not finding.ok]
    say(f"check failed: {len(failed)} of {len(findings)}" if failed else "check passed", err=as_json)
    sys.exit(CHECK_FAILED if failed else DONE)


def _print(findings: "list[Finding]", as_json: bool) -> None:
    """What failed comes last, next to the summary, where a reader of a log looks."""
    findings = sorted(findings, key=lambda finding: not finding.ok)
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    width = max((len(finding.outcome) for finding in findings), default=0)
    for finding in findings:
        say_line(f"{finding.outcome.upper() if not finding.ok else finding.outcome:<{width}}  {finding.words}")
