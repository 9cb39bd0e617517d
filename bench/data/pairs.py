"""Pairs of an image and the target that it should be taken for, as M-Attack and others publish them for NIPS'17."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.discover import IMAGE_TYPES
from bench.data.files import check_text, existing_folder, read_bytes
from bench.data.reader import Reader, Row, existing
from bench.data.settings import COUNT, PATH, TEXT, Setting
from bench.errors import UsageError
from tasks.base import Dataset, Sample, Target

IMAGE, TARGET, WORDS, CAPTION = "ImageId", "TargetId", "keywords", "caption"


def pairs(
    name: str,
    root: Path,
    *,
    images: str,
    targets: str,
    prompt: str,
    pairs: str | None = None,
    keywords: str | None = None,
    captions: str | None = None,
    max_new_tokens: int = 100,
) -> Dataset:
    """Images with targets.

    Args:
        name: of the dataset.
        root: the folder that the paths are relative to.
        images: folder of the images.
        targets: folder of the target images. Without ``pairs``, an image has the target of the same name; if the two
            folders share no name, the targets are a set that is dealt out in turn, both in the order of their names.
        prompt: asked of every image.
        pairs: CSV with the columns ImageId and TargetId, names of files with or without their endings.
        keywords: JSON list of {"image": name of a target, "keywords": texts}.
        captions: JSON list of {"image": name of a target, "caption": a text, or texts of which the first counts}.
        max_new_tokens: limit of a caption.

    Raises:
        UsageError: a folder or file is missing or damaged, or names something that is not there.
    """
    sources, wanted = _pictures(root / images, "images"), _pictures(root / targets, "target images")
    chosen = _matched(sources, wanted) if pairs is None else _listed(root / pairs, sources, wanted)
    said = _facts(root / captions, CAPTION) if captions is not None else {}
    listed = _facts(root / keywords, WORDS) if keywords is not None else {}
    samples = []
    for source, target in chosen.items():
        texts, words = said.get(target, ()), listed.get(target, ())
        goal = Target(wanted[target], texts[0] if texts else "", words)
        samples.append(Sample(source, sources[source], prompt, (), source, target=goal))
    return Dataset(name, tuple(samples), max_new_tokens=max_new_tokens)


def _pictures(folder: Path, what: str) -> dict[str, Path]:
    """Pictures by name without ending, numbers in their order."""
    base = existing_folder(folder, what)
    files = [path for path in base.iterdir() if path.suffix.lower() in IMAGE_TYPES]
    if not files:
        raise UsageError(f"{base} holds no {what} ({', '.join(IMAGE_TYPES)})")
    found = {path.stem: path for path in sorted(files, key=_order)}
    if len(found) < len(files):
        raise UsageError(f"{base} holds several {what} of one name; give each its own")
    return found


def _order(path: Path) -> tuple[int, int, str]:
    number = path.stem.isascii() and path.stem.isdecimal() and len(path.stem) < 18
    return (0, int(path.stem), path.name) if number else (1, 0, path.name)


def _matched(sources: Mapping[str, Path], wanted: Mapping[str, Path]) -> dict[str, str]:
    if not sources.keys() & wanted.keys():
        names = list(wanted)
        return {source: names[number % len(names)] for number, source in enumerate(sources)}
    if missing := next((source for source in sources if source not in wanted), None):
        raise UsageError(
            f"image {missing!r} has no target image of its name; add it, or say which with ?pairs=FILE.csv"
        )
    return {source: source for source in sources}


def _listed(path: Path, sources: Mapping[str, Path], wanted: Mapping[str, Path]) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(path, "pair list").decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV: {error}") from None
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not isinstance(row.get(IMAGE), str) or not isinstance(row.get(TARGET), str):
            raise UsageError(f"{path}, line {number}: the columns {IMAGE} and {TARGET} are needed")
        source, target = _known(row[IMAGE], sources), _known(row[TARGET], wanted)
        if source is None or target is None:
            gone = row[IMAGE] if source is None else row[TARGET]
            raise UsageError(f"{path}, line {number}: there is no image {gone!r}")
        if source in found:
            raise UsageError(f"{path}, line {number}: image {source!r} comes twice")
        found[source] = target
    if not found:
        raise UsageError(f"{path} lists no pair")
    return found


def _known(name: str, there: Mapping[str, Path]) -> str | None:
    return name if name in there else Path(name).stem if Path(name).stem in there else None


def _facts(path: Path, key: str) -> dict[str, tuple[str, ...]]:
    """Texts of a JSON list by the name of the image that they are about."""
    raw = read_bytes(path, f"{key} of the targets")
    try:
        entries: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    found = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
        image = entry.get("image") if isinstance(entry, dict) else None
        texts = entry.get(key) if isinstance(entry, dict) else None
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(image, str) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise UsageError(f'{path}, entry {number}: {{"image": NAME, "{key}": TEXTS}} is needed')
        for one in texts:
            check_text(one, f"{path}, entry {number}")
        found[Path(image).stem] = tuple(texts)
    return found


def _find(root: Path, place: Path, given: Row) -> dict[str, Any]:
    base = existing(root, place)
    found = {key: str(place / key) for key in ("images", "targets")}
    optional = {"pairs": "pairs.csv", "keywords": "keywords.json", "captions": "captions.json"}
    found |= {key: str(place / file) for key, file in optional.items() if (base / file).is_file()}
    return {key: value for key, value in found.items() if key not in given}


def _tasks(row: Row) -> tuple[str, ...]:
    more = {"keywords": "keywords", "target-text": "captions"}
    return ("target-caption", *(task for task, key in more.items() if key in row))


PAIRS = Reader(
    about="images and target images, paired by name, by a CSV or in turn; with keywords and captions of the targets",
    settings={
        "images": Setting(PATH, required=True),
        "targets": Setting(PATH, required=True),
        "prompt": Setting(TEXT, required=True),
        "pairs": Setting(PATH),
        "keywords": Setting(PATH),
        "captions": Setting(PATH),
        "max_new_tokens": Setting(COUNT),
    },
    read=pairs,
    tasks=_tasks,
    find=_find,
)
