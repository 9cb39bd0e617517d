"""The attack engine beside its peers: gradient evaluations, CPU seconds and the scores that are left.

    pip install -e '.[test]' && pip install --no-deps torchattacks scipy
    OMP_NUM_THREADS=1 python benchmarks/attacks.py            # about 25 minutes on one quiet core
    OMP_NUM_THREADS=1 python benchmarks/attacks.py --quick    # a few minutes
    python benchmarks/attacks.py --only peers --only targeted --write BENCHMARKS.md
    python benchmarks/attacks.py --only peers --device cuda --samples 500 --encoder fare4 --dataset mini-count

Every row is measured in this one process, both sides on the same model, images and radius, one after the other, on one
thread; seconds are those of the processor, so that a busy machine counts less. Our side is the whole run: clean
answers, attack, certificate, verification, records on disk. (torchattacks pins an old requests, hence --no-deps.)
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch

from attacks.apgd import apgd
from attacks.threat import ThreatModel
from bench.config import Request, resolve
from bench.data.bank import Images
from bench.records import load_run
from bench.records.worst import worst_scores
from bench.running.load import Setup, prepare
from bench.running.loop import carry_out
from benchmarks import history
from benchmarks.yardsticks import PlainLoop, counted, pixels_of, pyautoattack, torchattacks
from tasks.protocol import STRICT

MARKS = ("<!-- attacks:{} -->", "<!-- /attacks:{} -->")


@dataclass(frozen=True)
class Cost:
    """What one side spent on all samples, and the mean score it left, in percent."""

    seconds: float
    gradients: int
    score: float


@dataclass(frozen=True)
class Case:
    """One comparison."""

    encoder: str
    task: str
    dataset: str
    attack: str
    eps: float
    samples: int
    device: str = "cpu"


def load(case: Case, output: Path) -> tuple[object, Setup]:
    """The run and what it works with."""
    (config,) = resolve(Request.of(
        encoder=case.encoder, task=case.task, dataset=case.dataset, attack=case.attack, eps=case.eps,
        limit=case.samples, suite="mini-full", output=output, device=case.device,
    ))  # fmt: skip
    return config, prepare(config)


def ours(case: Case, output: Path) -> Cost:
    """The suite's own run, records and all."""
    config, setup = load(case, output)
    return measure(setup, lambda: run_score(config, setup, case.eps))


def run_score(config: object, setup: Setup, eps: float) -> float:
    """Carry out a run and take its mean worst-case score."""
    run = load_run(carry_out(config, setup))  # type: ignore[arg-type]
    scores = worst_scores(run.header, run.records, eps)
    return sum(scores.values()) / len(scores)


def measure(setup: Setup, work: Callable[[], float]) -> Cost:
    """Seconds and gradient evaluations of a piece of work that returns a score."""
    encoder = getattr(setup.victim, "encoder", None) or setup.victim.model.encoder  # type: ignore[attr-defined]
    with counted(encoder.visual) as count:
        began = clock(setup)
        score = work()
        return Cost(clock(setup) - began, count.gradients, score)


def clock(setup: Setup) -> float:
    """Seconds of the processor; on a GPU, elapsed seconds once it has done what it was asked to."""
    if setup.images.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def row(case: Case, peer: str, mine: Cost, other: Cost) -> list[str]:
    """One line of the table."""
    n = case.samples
    return [
        case.encoder, case.dataset, f"{case.eps:g}/255", str(n), peer,
        f"{mine.score:.1f}", f"{other.score:.1f}",
        f"{mine.gradients / n:.1f}", f"{other.gradients / n:.1f}", f"{other.gradients / max(mine.gradients, 1):.1f}x",
        f"{mine.seconds:.1f}", f"{other.seconds:.1f}", f"{other.seconds / mine.seconds:.1f}x",
    ]  # fmt: skip


ENCODERS, DATASETS = ("clip", "fare4"), ("mini-shape", "mini-colour")


def peers_cases(options: argparse.Namespace) -> list[Case]:
    """What both sides attack: plain CLIP on two datasets and FARE on one, unless others are asked for."""
    plain, robust = (32, 4) if options.quick else (200, 12)
    return [
        Case(encoder, "zeroshot", dataset, options.preset, eps, options.samples or n, options.device)
        for encoder, n, datasets in (
            (encoder, plain if encoder == "clip" else robust, DATASETS if encoder == "clip" else DATASETS[:1])
            for encoder in options.encoder or ENCODERS
        )
        for dataset in options.dataset or datasets
        for eps in (4.0, 2.0)
    ]


def against_peers(options: argparse.Namespace) -> list[list[str]]:
    """Zero-shot classification: APGD-CE and APGD-T, ours and the peers' that are installed."""
    rows = []
    for case in peers_cases(options):
        _, setup = load(case, Path())
        threat = ThreatModel("linf", case.eps / 255)
        peers = {
            peer.__name__: lambda s=setup, t=threat, attack=peer: attack(s, t, 100)
            for peer in (pyautoattack, torchattacks)
            if find_spec(peer.__name__)
        }
        costs = [
            [repeated_ours(case), *(measure(setup, work) for work in peers.values())] for _ in range(options.repeat)
        ]
        mine, *others = (total(column) for column in zip(*costs, strict=True))
        for name, other in zip(peers, others, strict=True):
            rows.append(row(case, name, mine, other))
            show(rows[-1])
    return rows


def repeated_ours(case: Case) -> Cost:
    """Our run in a directory of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        return ours(case, Path(scratch))


def total(costs: list[Cost]) -> Cost:
    """Mean over repetitions, so that a ratio of two of them is a ratio of sums."""
    n = len(costs)
    return Cost(sum(c.seconds for c in costs) / n, round(sum(c.gradients for c in costs) / n), costs[-1].score)


def against_plain_loop(options: argparse.Namespace) -> list[list[str]]:
    """The VQA ensemble, ours and one image at a time."""
    rows = []
    for encoder, n in (("clip", 4 if options.quick else 96), ("fare4", 2 if options.quick else 16)):
        case = Case(encoder, "vqa", "mini-vqa", "ensemble-vqa", 4.0, n)
        mine = repeated_ours(case)
        _, setup = load(case, Path())
        loop = PlainLoop(setup, case.eps / 255, 100)
        other = measure(setup, lambda loop=loop: loop.run(loop.ensemble))
        rows.append(row(case, "ensemble-vqa", mine, other))
        show(rows[-1])
    return rows


def targeted(options: argparse.Namespace) -> list[list[str]]:
    """Targeted attacks that succeed: ours leave when the target is said, the plain loop takes all steps.

    The loop's cost does not depend on the image: it is measured on a few, and multiplied where ours fill a batch.
    """
    preset, steps, few, many = ("stealth-500", 500, 1, 4) if options.quick else ("stealth", 10_000, 2, 32)
    case = Case("clip", "stealth", "mini-stealth", preset, 4.0, many)
    won = successes(replace(case, attack="stealth-500"))
    mine, other = stealth_of(case, won[:few]), plain_stealth_of(case, won[:few], steps)
    scale = len(won) / len(won[:few])
    everyone = Cost(other.seconds * scale, round(other.gradients * scale), other.score)
    rows = [
        row(replace(case, samples=len(won[:few])), preset, mine, other),
        row(replace(case, samples=len(won)), f"{preset}; the loop's cost multiplied", stealth_of(case, won), everyone),
    ]
    for line in rows:
        show(line)
    return rows


def successes(case: Case) -> list[int]:
    """Which samples an attack wins that it has to work for."""
    with tempfile.TemporaryDirectory() as scratch:
        config, setup = load(case, Path(scratch))
        run = load_run(carry_out(config, setup))  # type: ignore[arg-type]
    won = {r.sample_id for r in run.records if r.step != "clean" and r.score == 100}
    return [k for k, sample in enumerate(setup.samples) if sample.id in won]


def part_of(case: Case, rows: list[int], output: Path) -> tuple[object, Setup]:
    """As of `load`, some samples only."""
    config, setup = load(case, output)
    dataset = replace(setup.task.dataset, samples=tuple(setup.samples[k] for k in rows))  # type: ignore[attr-defined]
    images = Images(setup.images[rows], setup.images.device)
    return config, replace(setup, task=type(setup.task)(dataset, STRICT), images=images)


def stealth_of(case: Case, rows: list[int]) -> Cost:
    """Our run on some samples."""
    with tempfile.TemporaryDirectory() as scratch:
        config, setup = part_of(case, rows, Path(scratch))
        return measure(setup, lambda: run_score(config, setup, case.eps))


def plain_stealth_of(case: Case, rows: list[int], steps: int) -> Cost:
    """The plain loop on the same samples."""
    _, setup = part_of(case, rows, Path())
    loop = PlainLoop(setup, case.eps / 255, steps)
    return measure(setup, lambda: loop.run(loop.stealth))


def overhead(options: argparse.Namespace) -> list[list[str]]:
    """APGD that never stops early, against as many bare forward and backward passes: the median of several rounds."""
    rows = []
    steps, rounds = (10, 3) if options.quick else (100, 5)
    for task, dataset, goal in (("zeroshot", "mini-shape", "untargeted"), ("vqa", "mini-vqa", "reference-0")):
        case = Case("fare4", task, dataset, "apgd", 4.0, 32)
        _, setup = load(case, Path())
        pixels = pixels_of(setup)
        objective = setup.victim.objective(pixels, setup.samples, goal)
        every = torch.arange(len(pixels))

        def engine(objective=objective, images=pixels) -> None:
            apgd(objective, images, ThreatModel("linf", 4 / 255), steps=steps, stop_when_fooled=False)

        def bare(objective=objective, images=pixels, every=every) -> None:
            for _ in range(steps):
                leaf = images.clone().requires_grad_()
                torch.autograd.grad(objective(leaf, every).loss.sum(), leaf)
            with torch.no_grad():
                objective(images, every)

        spent: dict[Callable[[], None], list[float]] = {engine: [], bare: []}
        for _ in range(rounds):
            for work, times in spent.items():
                began = time.process_time()
                work()
                times.append(time.process_time() - began)
        ours, least = (median(times) for times in spent.values())
        rows.append([task, "32", str(steps), f"{ours:.2f}", f"{least:.2f}", f"{100 * (ours / least - 1):+.1f} %"])
        show(rows[-1])
    return rows


PARTS: dict[str, tuple[list[str], Callable[[argparse.Namespace], list[list[str]]]]] = {
    "peers": (
        ["encoder", "dataset", "radius", "n", "peer", "score, ours", "peer's", "gradients per sample, ours", "peer's",
         "ratio", "CPU seconds, ours", "peer's", "ratio"],
        against_peers,
    ),
    "plain-loop": (
        ["encoder", "dataset", "radius", "n", "yardstick", "score, ours", "loop's", "gradients per sample, ours",
         "loop's", "ratio", "CPU seconds, ours", "loop's", "ratio"],
        against_plain_loop,
    ),
    "targeted": (
        ["encoder", "dataset", "radius", "n", "attack", "success, ours", "loop's", "gradients per sample, ours",
         "loop's", "ratio", "CPU seconds, ours", "loop's", "ratio"],
        targeted,
    ),
    "overhead": (
        ["task", "batch", "steps", "CPU seconds, engine", "bare passes", "overhead"],
        overhead,
    ),
}  # fmt: skip


def ratios(name: str, rows: list[list[str]]) -> dict[str, float]:
    """What the history keeps of a part: how many times what ours costs the others cost."""
    if name == "overhead":
        return {f"overhead: bare passes / engine, {row[0]}, seconds": float(row[4]) / float(row[3]) for row in rows}
    found = {}
    for encoder, dataset, radius, _, other, *_, gradients, _, _, seconds in rows:
        case = f"{name}: {other} / ours, {encoder}, {dataset} at {radius}"
        found[f"{case}, gradients"], found[f"{case}, seconds"] = (float(r.rstrip("x")) for r in (gradients, seconds))
    return found


def show(cells: list[str]) -> None:
    """Print one row as it is measured."""
    print("  ".join(cells), flush=True)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write(path: Path, name: str, text: str) -> None:
    """Put a table between its marks."""
    begin, end = (mark.format(name) for mark in MARKS)
    before, rest = path.read_text().split(begin)
    path.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end)[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few samples: shows that it runs")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, help="measure the peers' part so often")
    parser.add_argument("--encoder", action="append", help="of the peers' part; may be repeated")
    parser.add_argument("--dataset", action="append", help="of the peers' part; may be repeated")
    parser.add_argument("--samples", type=int, help="of the peers' part")
    parser.add_argument("--preset", default="autoattack", help="our side of the peers' part")
    parser.add_argument("--device", default="cpu", help="of the peers' part; others are measured on the CPU")
    parser.add_argument("--write", type=Path, help="write the tables between their marks in this document")
    history.add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only or PARTS:
        head, part = PARTS[name]
        print(f"\n{name}: {', '.join(head)}")
        rows = part(options)
        if options.write:
            write(options.write, name, markdown(head, rows))
        if options.note and not options.quick:
            history.note(ratios(name, rows))


if __name__ == "__main__":
    main()
