"""``bench board``: a public leaderboard whose every number has its evidence."""

import sys
from pathlib import Path

import click

from bench.cli.choosing import choosing, chosen
from bench.cli.root import CHECK_FAILED
from bench.cli.say import say, say_line


@click.group()
def board() -> None:
    """Pack runs into entries, check entries, and build a static leaderboard.

    \b
    Examples:
      bench run --encoder my/visual.safetensors --task vqa --save-adversarial
      bench board submit results/runs --title "My encoder" --submitter "Me" -o entries/mine.json
      bench board verify entries/mine.json
      bench board build entries -o site
    """  # noqa: D301


@board.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The entry's file, *.json.")
@click.option("--title", default="", help="What the board calls the encoder. Default: its name.")
@click.option("--submitter", default="", help="Who gets the credit.")
@click.option("--training", default="", help="What the encoder was trained on.")
@click.option("--parameters", type=float, default=None, help="Of the image encoder, in millions.")
@click.option("--licence", default="", help="Of the weights.")
@click.option("--link", default="", help="To a paper, a model card or code.")
@choosing
def submit(
    runs: tuple[Path, ...],
    output: Path,
    title: str,
    submitter: str,
    training: str,
    parameters: float | None,
    licence: str,
    link: str,
    encoder: str | None,
    task: str | None,
    dataset: str | None,
    where: tuple[str, ...],
) -> None:
    """Pack whole runs of one encoder into an entry.

    The entry holds the runs' headers, scores with intervals, what every sample is left with, and the digests of records
    and images; these stay where they are. Runs without --save-adversarial can be entered, as records alone.

    \b
    Example:
      bench board submit results/runs --encoder fare4 --submitter "Me" -o entries/fare4.json
    """  # noqa: D301
    from bench.board.entry import Card, write_entry
    from bench.board.pack import pack
    from bench.records import load_runs
    from bench.records.files import explained

    found = chosen(load_runs(runs), encoder, task, dataset, where)
    card = Card(title, submitter, training, parameters, licence, link)
    with explained("create", output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    entry = pack(found, card, output.parent)
    write_entry(output, entry)
    files = sum(len(claim.files) for claim in entry.claims)
    say(f"{output}: {len(entry.claims)} claims, {files} files of evidence; check it with `bench board verify {output}`")


@board.command()
@click.argument("entries", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--evidence", type=click.Path(path_type=Path), default=None, help="Folder that places are relative to.")
@click.option("--data-root", type=click.Path(path_type=Path), default=None, help="Where the runs' data files lie.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--arch", default=None, help="open_clip architecture of an encoder given as a path, e.g. ViT-L-14.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def verify(
    entries: tuple[Path, ...],
    evidence: Path | None,
    data_root: Path | None,
    device: str,
    arch: str | None,
    quiet: bool,
) -> None:
    """Check entries against their evidence; exits with 1 when one is refused.

    Every file's digest, the header, every score and interval are compared with the records; where the images are there,
    distances, pixel ranges, answers and scores are computed again from them.

    \b
    Example:
      bench board verify entries/mine.json
    """  # noqa: D301
    from bench.board.check import check_entry
    from bench.board.site import find_entries
    from bench.records import Run
    from bench.records.verification import Verification

    def recompute(run: Run) -> Verification:
        from bench import verify as library

        return library.verify(run, data_root=data_root, device=device, arch=arch, progress=not quiet)

    findings = [finding for placed in find_entries(entries) for finding in check_entry(placed, recompute, evidence)]
    for finding in findings:
        for line in finding.lines:
            say_line(line)
    if not all(finding.accepted for finding in findings):
        sys.exit(CHECK_FAILED)


@board.command()
@click.argument("entries", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the site.")
@click.option("--title", default="Robustness board", show_default=True)
def build(entries: tuple[Path, ...], output: Path, title: str) -> None:
    """Write the leaderboard of accepted entries as static pages; open OUTPUT/index.html.

    ENTRIES are files, or folders of them; of several entries on the same weights the first by name stands for the
    encoder, and the others can only lower its best known score. No entry is checked here: see `bench board verify`.

    \b
    Example:
      bench board build entries -o site
    """  # noqa: D301
    from bench.board.site import find_entries, write_board

    say(write_board(find_entries(entries), output, title=title))
