"""The embedded datasets as files: in the official formats, where the suite's rows look for them."""

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from bench.config import load_suite
from bench.data.images import open_image
from bench.data.shards import CLASSNAMES
from bench.data.templates import TEMPLATES
from bench.errors import UsageError
from bench.mini.data import NAMES, SIZE, build
from bench.mini.world import COUNTS, WORLD_VERSION
from tasks.base import Dataset, Sample

MARKER = "mini-export.json"  # written last: a folder that lacks it is not a whole export
STAGE = "mini-export.incomplete"  # what is being written, until all of it is there
IMAGES_PER_SHARD = 10_000
_SPLIT = "val2014"


def export_mini(directory: Path, size: int | None = None, progress: bool = True) -> list[Path]:
    """Write every mini dataset in its official format.

    All is written to a folder aside and then moved to its place, so an export that was cut short leaves
    nothing that looks whole; giving the same command again replaces it, as it replaces an earlier export.

    Args:
        directory: where to write; new, empty, or holding an earlier export.
        size: samples per dataset; by default all of them.
        progress: show a progress bar.

    Returns:
        The datasets' folders.

    Raises:
        UsageError: ``directory`` holds something else, cannot be written, or ``size`` is below 1.
    """
    if size is not None and size < 1:
        raise UsageError(f"--size must be at least 1, got {size}")
    rows = {name: load_suite("mini").datasets[name] for name in NAMES}
    folders = {name: _folder(row) for name, row in rows.items()}
    _check_vacant(directory, set(folders.values()))
    stage = directory / STAGE
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        for name in tqdm(NAMES, desc="export", disable=None if progress else True):
            _WRITERS[str(rows[name]["format"])](build(name, size or SIZE), rows[name], stage)
        _move_in(stage, directory, folders.values())
        about = {
            "suite": "mini",
            "world_version": WORLD_VERSION,
            "size": size or SIZE,
            "datasets": list(NAMES),
        }
        _write_json(directory / MARKER, about)
        stage.rmdir()
    except OSError as error:
        raise UsageError(
            f"cannot write the export to {directory}: {error}; make room or choose another folder, "
            "then give the command again"
        ) from error
    return [directory / folder for folder in folders.values()]


def _folder(row: Mapping[str, Any]) -> str:
    """The dataset's own folder under the data root."""
    return str(row.get("folder") or Path(row["images"]).parts[0])


def _check_vacant(directory: Path, folders: set[str]) -> None:
    """Refuse to write where anything but an earlier export lies."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; choose a new folder to export to")
    found = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    ours = bool(found & {MARKER, STAGE})
    if strange := sorted(found - {MARKER, STAGE} - (folders if ours else set())):
        raise UsageError(
            f"{directory} holds other things than an earlier export, such as {strange[0]!r}; "
            "choose a new or empty folder"
        )


def _move_in(stage: Path, directory: Path, folders: Iterable[str]) -> None:
    """Put what is whole in its place; without the marker, and beside the stage, the export is not whole."""
    (directory / MARKER).unlink(missing_ok=True)
    for folder in folders:
        if (directory / folder).exists():
            shutil.rmtree(directory / folder)
        (stage / folder).rename(directory / folder)


def _write_json(path: Path, content: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _coco_name(image_id: str) -> str:
    return f"COCO_{_SPLIT}_{int(image_id):012d}.png"


def _save_images(dataset: Dataset, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in dataset.samples:
        open_image(sample.image).save(folder / _coco_name(sample.group))


def _write_captions(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """Karpathy's JSON, and beside it COCO's own; where the references are targets, what people say of the images."""
    _save_images(dataset, root / row["images"] / _SPLIT)
    captions = [sample.captions if "targets" in row else sample.references for sample in dataset.samples]
    sentences = [
        [_sentence(index, index * 100 + k, raw) for k, raw in enumerate(raws)] for index, raws in enumerate(captions)
    ]
    entries = [
        {
            "filepath": _SPLIT,
            "sentids": [sentence["sentid"] for sentence in sentences[index]],
            "filename": _coco_name(sample.group),
            "imgid": index,
            "split": "test",
            "sentences": sentences[index],
            "cocoid": int(sample.id),
        }
        for index, sample in enumerate(dataset.samples)
    ]
    _write_json(root / row["annotations"], {"images": entries, "dataset": dataset.name})
    if "targets" not in row:
        _write_json((root / row["annotations"]).parent / f"captions_{_SPLIT}.json", _coco_captions(dataset, sentences))


def _sentence(index: int, sentence_id: int, raw: str) -> dict[str, Any]:
    tokens = [token for token in raw.lower().split() if any(c.isalnum() for c in token)]
    return {"tokens": tokens, "raw": raw, "imgid": index, "sentid": sentence_id}


def _coco_captions(dataset: Dataset, sentences: list[list[dict[str, Any]]]) -> dict[str, Any]:
    pictures = []
    for sample in dataset.samples:
        image = open_image(sample.image)
        picture = {"file_name": _coco_name(sample.group), "height": image.height, "width": image.width}
        pictures.append({**picture, "id": int(sample.id)})
    annotations = [
        {"image_id": int(sample.id), "id": sentence["sentid"], "caption": sentence["raw"]}
        for sample, own in zip(dataset.samples, sentences, strict=True)
        for sentence in own
    ]
    return {"info": _info(dataset), "images": pictures, "licenses": [], "annotations": annotations}


def _write_questions(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """VQAv2's two files."""
    _save_images(dataset, root / row["images"])
    shared = {
        "info": _info(dataset),
        "license": {"url": "https://opensource.org/license/mit", "name": "MIT"},
        "data_type": "mscoco",
        "data_subtype": _SPLIT,
    }
    questions = [{"image_id": int(s.group), "question": s.prompt, "question_id": int(s.id)} for s in dataset.samples]
    _write_json(root / row["questions"], {**shared, "task_type": "Open-Ended", "questions": questions})
    annotations = [_annotation(sample) for sample in dataset.samples]
    _write_json(root / row["annotations"], {**shared, "annotations": annotations})


def _annotation(sample: Sample) -> dict[str, Any]:
    (common, _), *_ = Counter(sample.references).most_common(1)
    return {
        "question_type": " ".join(sample.prompt.split()[:2]),
        "multiple_choice_answer": common,
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": k}
            for k, answer in enumerate(sample.references, start=1)
        ],
        "image_id": int(sample.group),
        "answer_type": "yes/no" if common in ("yes", "no") else "number" if common in COUNTS else "other",
        "question_id": int(sample.id),
    }


def _write_yes_no(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """POPE's lines."""
    folder = root / row["images"]
    folder.mkdir(parents=True, exist_ok=True)
    for sample in dataset.samples:
        open_image(sample.image).save(folder / sample.group)
    lines = [
        {"question_id": int(s.id), "image": s.group, "text": s.prompt, "label": s.references[0]}
        for s in dataset.samples
    ]
    (root / row["questions"]).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _write_choices(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """ScienceQA's two files and its folder of images per problem."""
    for sample in dataset.samples:
        folder = root / row["images"] / "test" / sample.id
        folder.mkdir(parents=True, exist_ok=True)
        open_image(sample.image).save(folder / "image.png")
    problems = {sample.id: _problem(sample) for sample in dataset.samples}
    _write_json(root / row["problems"], problems)
    _write_json(root / row["splits"], {"test": list(problems)})


def _problem(sample: Sample) -> dict[str, Any]:
    return {
        "question": sample.prompt.split("\n")[0],
        "choices": list(sample.choices),
        "answer": sample.label,
        "hint": "",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade1",
        "subject": "natural science",
        "lecture": "",
        "solution": "",
        "split": "test",
    }


def _info(dataset: Dataset) -> dict[str, str]:
    return {"description": f"{dataset.name}, a procedural miniature", "version": str(WORLD_VERSION)}


def _write_pairs(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """Two folders of images with the same names, and what the targets show."""
    captions, keywords = [], []
    for sample in dataset.samples:
        assert sample.target is not None
        for key, picture in (("images", sample.image), ("targets", sample.target.image)):
            path = root / row[key] / f"{sample.id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            open_image(picture).save(path)
        captions.append({"image": f"{sample.id}.png", "caption": sample.target.text})
        keywords.append({"image": f"{sample.id}.png", "keywords": list(sample.target.keywords)})
    _write_json(root / row["captions"], captions)
    _write_json(root / row["keywords"], keywords)


def _write_shards(dataset: Dataset, row: Mapping[str, Any], root: Path) -> None:
    """Class names, templates and tar shards; the same bytes every time."""
    base = root / row["folder"]
    (base / "test").mkdir(parents=True)
    (base / CLASSNAMES).write_text("\n".join(dataset.classnames) + "\n", encoding="utf-8")
    (base / TEMPLATES).write_text("\n".join(dataset.templates) + "\n", encoding="utf-8")
    starts = range(0, len(dataset.samples), IMAGES_PER_SHARD)
    (base / "test" / "nshards.txt").write_text(f"{len(starts)}\n", encoding="utf-8")
    for number, start in enumerate(starts):
        with tarfile.open(base / "test" / f"{number}.tar", "w") as tar:
            for sample in dataset.samples[start : start + IMAGES_PER_SHARD]:
                _add(tar, f"{sample.id}.png", _png(open_image(sample.image)))
                _add(tar, f"{sample.id}.cls", str(dataset.classnames.index(sample.references[0])).encode())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


_WRITERS: Mapping[str, Callable[[Dataset, Mapping[str, Any], Path], None]] = {
    "karpathy": _write_captions,
    "vqa": _write_questions,
    "webdataset": _write_shards,
    "pope": _write_yes_no,
    "scienceqa": _write_choices,
    "pairs": _write_pairs,
}
