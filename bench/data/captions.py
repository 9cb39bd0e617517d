"""Captioned images in Karpathy's JSON, with references in COCO's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data.discover import image_folder, one_file
from bench.data.files import existing_folder, field, identifier, read_json, refuse_twice
from bench.data.reader import Reader, Row, existing
from bench.data.settings import COUNT, PATH, TARGETS, TEXT, Setting
from bench.errors import UsageError
from bench.trust.places import inside
from tasks.base import Dataset, Sample

_BEGINNING = 1 << 16  # bytes; an image's entry in Karpathy's JSON takes one or two thousand


def karpathy(
    name: str,
    root: Path,
    *,
    annotations: str,
    images: str,
    prompt: str,
    max_new_tokens: int = 20,
    references: str | None = None,
    targets: Sequence[str] | Sequence[Mapping[str, Any]] | None = None,
    images_per_target: int = 25,
    split: str = "test",
) -> Dataset:
    """A split of Karpathy's JSON for COCO and Flickr30k (Karpathy & Fei-Fei 2015).

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        annotations: the JSON file.
        images: folder under which ``filepath/filename`` lies; Flickr30k has no ``filepath``.
        prompt: asked of every image.
        max_new_tokens: limit of a caption.
        references: COCO's JSON with the captions to score against, joined by image id; attacks lead away from
            Karpathy's sentences even so. By default those sentences serve for both.
        targets: texts to make the model say, in the place of captions. A list of texts is dealt out in turn; a list
            of ``{text, seed}`` gives each text ``images_per_target`` images of its own.
        images_per_target: how many images numpy draws for a target that has a seed.
        split: "test", "val" or "train".

    Raises:
        UsageError: a file is missing or damaged, no image is in the split, or an image comes twice or has no
            caption.
    """
    path = root / annotations
    entries = field(read_json(path, "Karpathy annotations"), "images", list, str(path))
    chosen = [entry for entry in entries if field(entry, "split", str, str(path)) == split]
    if not chosen:
        splits = ", ".join(sorted({entry["split"] for entry in entries})) or "none"
        raise UsageError(f"{path} has no image in split {split!r} (splits: {splits}); use the official split file")
    base = existing_folder(root / images, f"images of dataset {name!r}")
    pictures = [_picture(entry, base, path) for entry in chosen]
    refuse_twice([picture.id for picture in pictures], "image id", path)
    if targets is not None:
        samples = _targeted(name, pictures, targets, prompt, images_per_target)
    else:
        scored = _references(root / references) if references is not None else None
        samples = [_captioned(picture, prompt, path, scored) for picture in pictures]
    return Dataset(name, tuple(samples), max_new_tokens=max_new_tokens)


class _Picture(NamedTuple):
    id: str
    file: Path
    captions: tuple[str, ...]


def _picture(entry: Any, base: Path, path: Path) -> _Picture:
    filename = field(entry, "filename", str, str(path))
    filepath = field({"filepath": None, **entry}, "filepath", str | None, str(path))
    image_id = Path(filename).stem if entry.get("cocoid") is None else identifier(entry, "cocoid", path)
    where = f"{path}, image {image_id}"
    folder = inside(base, filepath, f"{where}: filepath") if filepath else base
    captions = tuple(field(s, "raw", str, where) for s in field({"sentences": [], **entry}, "sentences", list, where))
    return _Picture(image_id, inside(folder, filename, f"{where}: filename"), captions)


def _captioned(picture: _Picture, prompt: str, path: Path, scored: "_References | None") -> Sample:
    sentences = picture.captions
    if not sentences:
        raise UsageError(
            f"{path}, image {picture.id} has no sentences to score against; use the official file, or remove the image"
        )
    if scored is None:
        return Sample(picture.id, picture.file, prompt, sentences, picture.id)
    if picture.id not in scored.captions:
        raise UsageError(
            f"{scored.path} has no caption of image {picture.id} of {path}; use the two files of the same dataset"
        )
    references = tuple(scored.captions[picture.id])
    led_away_from = None if references == sentences else sentences
    return Sample(picture.id, picture.file, prompt, references, picture.id, attack_references=led_away_from)


class _References(NamedTuple):
    path: Path
    captions: dict[str, list[str]]  # of each image, in the order of the file


def _references(path: Path) -> _References:
    """COCO's annotations: {"annotations": [{image_id, id, caption}]}."""
    entries = field(read_json(path, "reference captions"), "annotations", list, str(path))
    captions: dict[str, list[str]] = {}
    for entry in entries:
        image_id = identifier(entry, "image_id", path)
        captions.setdefault(image_id, []).append(field(entry, "caption", str, f"{path}, image {image_id}"))
    return _References(path, captions)


def _targeted(
    name: str, pictures: Sequence[_Picture], targets: Sequence[Any], prompt: str, per_target: int
) -> list[Sample]:
    """Samples whose reference is a target; those with seeds in turn, so that any first few hold every target."""
    if all(isinstance(target, str) for target in targets):
        return [
            Sample(p.id, p.file, prompt, (targets[i % len(targets)],), p.id, captions=p.captions)
            for i, p in enumerate(pictures)
        ]
    if per_target > len(pictures):
        raise UsageError(
            f"dataset {name!r} has {len(pictures)} images, {per_target} are asked for each target; "
            "lower images_per_target"
        )
    drawn = [np.random.RandomState(t["seed"]).permutation(len(pictures))[:per_target] for t in targets]
    return [
        _led_to(target, pictures[indices[k]], prompt)
        for k in range(per_target)
        for target, indices in zip(targets, drawn, strict=True)
    ]


def _led_to(target: Mapping[str, Any], picture: _Picture, prompt: str) -> Sample:
    key = f"{target['seed']}-{picture.id}"
    return Sample(key, picture.file, prompt, (target["text"],), picture.id, captions=picture.captions)


def _find(root: Path, place: Path, given: Row) -> dict[str, Any]:
    base = existing(root, place)
    pattern = "*karpathy*.json" if list(base.glob("*karpathy*.json")) else "dataset_*[!e].json"
    annotations = given.get("annotations") or one_file(base, place, pattern, "annotations")
    found = {"annotations": annotations}
    if "images" in given:
        return found
    return {**found, "images": str(place if _names_folders(root / annotations) else place / image_folder(base))}


def _names_folders(path: Path) -> bool:
    """Whether Karpathy's JSON says of each image in which folder it lies, as COCO's does and Flickr30k's does not."""
    try:
        with path.open("rb") as file:
            return b'"filepath"' in file.read(_BEGINNING)
    except OSError:
        return False  # reading it says what is wrong with it


KARPATHY = Reader(
    about="Karpathy's JSON and images, as for COCO and Flickr30k; with targets for stealth",
    settings={
        "annotations": Setting(PATH, required=True),
        "images": Setting(PATH, required=True),
        "prompt": Setting(TEXT, required=True),
        "max_new_tokens": Setting(COUNT),
        "references": Setting(PATH),
        "targets": Setting(TARGETS),
        "images_per_target": Setting(COUNT),
        "split": Setting(TEXT),
    },
    read=karpathy,
    tasks=lambda row: ("stealth",) if "targets" in row else ("captioning",),
    find=_find,
)
