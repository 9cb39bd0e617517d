"""The official datasets' files, in small: the mini world's pictures under the names that the paper suite looks for."""

import json
import shutil
from pathlib import Path

from PIL import Image

from bench.config import load_suite
from bench.mini.export import export_mini

SIZE = 30  # samples per set: a stealth target takes 25 images
WDS = {"cifar10": "mini-shape", "cars": "mini-colour", "pcam": "mini-count"}


def write_official(root: Path) -> Path:
    """COCO, Flickr30k, VQAv2, TextVQA, VizWiz, POPE, ScienceQA and three clip-benchmark folders under ``root``."""
    mini = root.parent / f"{root.name}-mini"
    export_mini(mini, SIZE, progress=False)
    _write_coco(mini / "mini-caption", root)
    _write_flickr(mini / "mini-caption", root / "flickr30k")
    source = mini / "mini-vqa"
    write_questions(source, root / "vqav2", root / "coco/val2014", "v2_OpenEnded_mscoco_val2014_questions.json",
                    "v2_mscoco_val2014_annotations.json", lambda i: 5000 + i,
                    lambda i: f"COCO_val2014_{5000 + i:012d}.jpg")  # fmt: skip
    vqa_format = ("val_questions_vqa_format.json", "val_annotations_vqa_format.json")
    write_questions(source, root / "textvqa", root / "textvqa/train_images", *vqa_format, lambda i: f"00af{i:012x}",
                    lambda i: f"00af{i:012x}.jpg")  # fmt: skip
    write_questions(source, root / "vizwiz", root / "vizwiz/val", *vqa_format, lambda i: f"VizWiz_val_{i:08d}.jpg",
                    lambda i: f"VizWiz_val_{i:08d}.jpg")  # fmt: skip
    for name in ("random", "popular", "adversarial"):
        shutil.copytree(mini / f"mini-pope-{name}/val2014", root / "coco/val2014", dirs_exist_ok=True)
        (root / "pope").mkdir(exist_ok=True)
        shutil.copy(mini / f"mini-pope-{name}/coco_pope_{name}.json", root / "pope")
    shutil.copytree(mini / "mini-scienceqa", root / "scienceqa")
    for name, world in WDS.items():
        shutil.copytree(mini / f"wds_{world}", root / load_suite("paper").datasets[name]["folder"])
    return root


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _jpeg(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).convert("RGB").save(target, "jpeg", quality=95)


def _write_coco(source: Path, root: Path) -> None:
    karpathy = json.loads((source / "dataset_karpathy.json").read_text())
    for entry in karpathy["images"]:
        picture = source / "val2014" / entry["filename"]
        entry["filename"] = entry["filename"].replace(".png", ".jpg")
        _jpeg(picture, root / "coco" / "val2014" / entry["filename"])
    elsewhere = [
        {**karpathy["images"][0], "split": split, "cocoid": 900 + k} for k, split in enumerate(("train", "val"))
    ]
    write(root / "mscoco_karpathy/karpathy_coco.json", {**karpathy, "images": [*elsewhere, *karpathy["images"]]})
    coco = json.loads((source / "captions_val2014.json").read_text())
    coco["annotations"] = coco["annotations"][::-1]  # joined by id, not by position
    write(root / "mscoco_karpathy/annotations/captions_val2014.json", coco)


def _write_flickr(source: Path, folder: Path) -> None:
    karpathy = json.loads((source / "dataset_karpathy.json").read_text())
    images, annotations = [], []
    for entry in karpathy["images"]:
        image_id = 1000092795 + entry["cocoid"]
        _jpeg(source / "val2014" / entry["filename"], folder / "flickr30k-images" / f"{image_id}.jpg")
        images.append(
            {k: entry[k] for k in ("sentids", "imgid", "sentences", "split")} | {"filename": f"{image_id}.jpg"}
        )
        annotations += [{"image_id": str(image_id), "id": s["sentid"], "caption": s["raw"]} for s in entry["sentences"]]
    write(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    write(folder / "dataset_flickr30k_coco_style.json", {"images": [], "annotations": annotations})


def write_questions(source: Path, folder: Path, images: Path, questions: str, annotations: str, image_id, file) -> None:
    """The mini questions with image ids and file names as a dataset has them; the annotations in another order."""
    asked = json.loads((source / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())
    answered = json.loads((source / "v2_mscoco_val2014_annotations.json").read_text())
    for entry in asked["questions"]:
        _jpeg(source / "val2014" / f"COCO_val2014_{entry['image_id']:012d}.png", images / file(entry["image_id"]))
    for entry in [*asked["questions"], *answered["annotations"]]:
        entry["image_id"] = image_id(entry["image_id"])
    answered["annotations"].reverse()
    write(folder / questions, asked)
    write(folder / annotations, answered)
