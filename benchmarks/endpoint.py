"""The endpoint rows of BENCHMARKS.md: the miniature LLaVA behind `transformers serve`, and on this machine.

    pip install -e '.[openai,serve]'
    python benchmarks/endpoint.py results/runs/endpoint --archive results/endpoint --write BENCHMARKS.md    # minutes

Images are made once, away from plain CLIP's own view of each image, and rounded to 8 bits; the same files are then
shown to the model behind the endpoint and to the same model loaded here. With ``--samples N`` only the first N are.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder would hide the package "attacks"

import torch
from PIL import Image
from torch import Tensor

import bench
from attacks.apgd import apgd
from attacks.threat import ThreatModel
from bench.config import Request, resolve
from bench.config.facts import SUITE_FACTS
from bench.records import Run, load_runs, write_atomically
from bench.regression import baseline
from bench.running.load import Setup, prepare
from bench.tables import layouts, render
from bench.tables.blocks import write_block
from tasks.embedding import EmbeddingDistance

WEIGHTS = Path(bench.__file__).parent / "mini" / "weights"
MODEL, RADIUS, STEPS, PORT = "llava", 8.0, 100, 8765
PATIENCE = 300.0  # seconds for the server to come up


@contextmanager
def served(port: int, model: str = MODEL, folder: Path = WEIGHTS) -> Iterator[str]:
    """Within it, `transformers serve` answers for a model; yields how the endpoint is named."""
    program = str(Path(sys.executable).with_name("transformers"))
    words = [
        program,
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:  # no pipe: it would be full some time, and the server wait
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", said)
            yield f"openai:http://127.0.0.1:{port}/v1#{model}"
        finally:
            server.terminate()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", address: str, said: BinaryIO) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            if server.poll() is not None or time.monotonic() > until:
                said.seek(0)
                words = said.read().decode(errors="replace")
                raise SystemExit(f"transformers serve did not come up; pip install -e '.[serve]'?\n{words}") from None
            time.sleep(0.5)


def attacked(setup: Setup, clean: Tensor) -> Tensor:
    """Images in 8 bits, away from what plain CLIP sees of each clean one."""
    threat = ThreatModel("linf", RADIUS / 255)
    streams = [torch.Generator().manual_seed(row) for row in range(len(clean))]
    start = threat.random_start(clean, streams)
    goal = EmbeddingDistance(setup.encoder, clean)
    found = apgd(goal, clean, threat, steps=STEPS, init=start, first_step=2.0, stop_when_fooled=False)
    return (found.images * 255).round() / 255


def save(images: Tensor, names: list[str], folder: Path) -> None:
    """A PNG per sample."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")


def forget_places(run: Run) -> None:
    """Let a header that is to be committed not say where the images lay on this machine."""
    places = {"images": "images", "clean": "clean", "output": "."}
    write_atomically(run.directory / "run.json", replace(run.header, config={**run.header.config, **places}).to_json())


def table(archive: Path) -> str:
    """The block of BENCHMARKS.md."""
    return render.markdown(layouts.build("brought", load_runs([archive]), SUITE_FACTS))


def main() -> None:
    """Make the images, and score them twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--archive", type=Path, help="where whole runs go: a baseline of `bench check`")
    parser.add_argument("--write", type=Path, help="the document with the block")
    given = parser.parse_args()
    asked = {"task": "vqa", "dataset": "mini-vqa", "limit": given.samples, "device": "cpu", "suite": "mini-full"}
    (config,) = resolve(Request.of(**asked, encoder="clip", attack="none"))
    setup = prepare(config)
    names = [sample.id for sample in setup.samples]
    if not (given.output / "images").is_dir():  # the command goes on where it stopped
        clean = (setup.images.pixels * 255).round() / 255
        save(clean, names, given.output / "clean")
        save(torch.cat([attacked(setup, batch) for batch in clean.split(100)]), names, given.output / "images")
    brought = {"images": given.output / "images", "clean": given.output / "clean", "eps": RADIUS}
    brought |= {"attack": "embedding-clip", "output": given.output / "runs", "save_adversarial": True}
    with served(PORT) as vlm:
        there = bench.run(**asked, **brought, vlm=vlm, repeats=1).runs[0]
    here = bench.run(**asked, **brought, tower="native").runs[0]
    answers = [{r.key: (r.prediction, r.score) for r in run.records} for run in (there, here)]
    same = sum(answers[0][key] == answer for key, answer in answers[1].items())
    for run in (there, here):
        forget_places(run)
    if given.archive:
        baseline.update(given.archive, [there.directory, here.directory])
    if given.archive and given.write:
        write_block(given.write, "brought", table(given.archive))
    print(f"{same} of {len(answers[1])} answers are the same; runs: {there.directory} {here.directory}")


if __name__ == "__main__":
    main()
