"""The command that the tests of whole training jobs give, and what it leaves behind."""

import json
import struct
from pathlib import Path

import torch
from click.testing import CliRunner
from tensorboardX.proto.event_pb2 import Event

from bench.cli import main

ARCH = Path(__file__).parents[3] / "bench" / "mini" / "weights" / "clip"
COMMON = ["--steps", "8", "--batch", "4", "--inner-steps", "2", "--inner-step", "4", "--lr", "1e-4"]
RARE = ["--eval-images", "2", "--eval-every", "4", "--checkpoint-every", "1", "--device", "cpu"]


def train_command(images, output, *more, method="fare"):
    given = ["--arch", str(ARCH), "--data", f"imagefolder:{images}", "--output", str(output)]
    return ["train", method, *given, *COMMON, *RARE, *more]


def invoke(command, **options):
    return CliRunner().invoke(main, command, **options)


def steps(directory):
    return [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


def same_weights(one, other):
    first, second = (torch.load(d / "visual.pt", weights_only=True) for d in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def events(path):
    """TFRecords: length, its checksum, data, its checksum."""
    content, position = path.read_bytes(), 0
    while position < len(content):
        (length,) = struct.unpack("<Q", content[position : position + 8])
        yield Event.FromString(content[position + 12 : position + 12 + length])
        position += 16 + length
