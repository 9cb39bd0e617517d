"""Small datasets in each format, to be damaged."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.images import Stored
from bench.errors import UsageError

KARPATHY = {"format": "karpathy", "annotations": "dataset_coco.json", "images": "coco", "prompt": "describe"}
VQA = {
    "format": "vqa",
    "questions": "v2_OpenEnded_mscoco_val2014_questions.json",
    "annotations": "v2_mscoco_val2014_annotations.json",
    "images": "val2014",
    "max_new_tokens": 5,
}
WDS = {"format": "webdataset", "folder": "wds_toy"}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
HTML = b"\n<!DOCTYPE html><html></html>"


def png(colour=(10, 20, 30), size=(4, 3), mode="RGB", kind="png") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(action, *words) -> str:
    with pytest.raises(UsageError) as caught:
        action()
    message = str(caught.value)
    for word in words:
        assert str(word) in message
    return message


def entry(cocoid=1, split="test", captions=("a cat",), **changes):
    return {
        "filepath": "val2014",
        "filename": f"COCO_val2014_{cocoid:012d}.jpg",
        "cocoid": cocoid,
        "split": split,
        "sentences": [{"raw": raw, "tokens": raw.split()} for raw in captions],
    } | changes


def make_karpathy(root, entries) -> None:
    write(root / KARPATHY["annotations"], {"images": entries, "dataset": "coco"})
    (root / "coco").mkdir(exist_ok=True)


def make_vqa(root, questions=(10, 20), annotations=(10, 20), answers=("yes",) * 10, image=7) -> None:
    asked = [{"image_id": image, "question": f"q{i}?", "question_id": i} for i in questions]
    given = [{"answer": a, "answer_id": k} for k, a in enumerate(answers)]
    answered = [
        {"question_id": i, "image_id": image, "answers": [{**a, "answer": f"{a['answer']}{i}"} for a in given]}
        for i in annotations
    ]
    write(root / VQA["questions"], {"questions": asked})
    write(root / VQA["annotations"], {"annotations": answered})
    (root / "val2014").mkdir(exist_ok=True)


def tar(path, members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def make_wds(root, members=None, classnames="cat\ndog\n", templates="a {c}.\n", nshards="1\n") -> Path:
    base = root / "wds_toy"
    write(base / "classnames.txt", classnames.encode())
    write(base / "zeroshot_classification_templates.txt", templates.encode())
    write(base / "test" / "nshards.txt", nshards.encode())
    tar(base / "test" / "0.tar", members or [("s0000000.png", png()), ("s0000000.cls", b"1")])
    return base


def noise(kind, mode="RGB", size=(32, 32)) -> bytes:
    buffer = io.BytesIO()
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (*size, bands), np.uint8)
    Image.frombytes(mode, size, pixels.tobytes()).save(buffer, kind)
    return buffer.getvalue()


def stored(label: str, content: bytes) -> Stored:
    return Stored(label, lambda: content)


def picture(path: Path, colour=(9, 8, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), colour).save(path)
    return path
