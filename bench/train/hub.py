"""A trained encoder as a folder for the Hugging Face hub: its files, and a card with its scores as a model-index."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, get_token

from bench.analysis.cells import Measure, averaged, measured
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.records import Run
from bench.records.files import explained, unlinked
from bench.records.worst import eps_label
from bench.sinks.base import without_secrets
from bench.train import card
from bench.train.base import CONFIG
from bench.train.checkpoint import refuse_links
from bench.train.export import MODEL, TRANSFORMERS

NOT_UPLOADED = {card.TRAINING}  # JSON of a run directory that is no part of the model
HUB_PREFIX = "hf-hub:"
TAGS = ["clip", "adversarial-robustness", "robust-vlm-bench", "arxiv:2402.12336"]
TASK_TYPES = {"class": "zero-shot-image-classification"}  # the hub's names, by the kind of answer
CAPTION, QUESTION = "image-to-text", "visual-question-answering"


class Uploader(Protocol):
    """What of `huggingface_hub.HfApi` is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Make a repository."""

    def upload_folder(self, *, repo_id: str, folder_path: str | Path, commit_message: str) -> Any:
        """Upload all files of a folder in one commit."""


def make_folder(
    trained: Path, output: Path, results: Path | None = None, *, repo: str | None = None, licence: str | None = None
) -> Path:
    """Write a folder that is ready for upload.

    Args:
        trained: run directory of a finished `bench train OBJECTIVE`.
        output: a folder to make; one of an earlier time is brought up to date.
        results: recorded runs of `bench run`; the whole ones on these very weights enter the model-index.
        repo: OWNER/NAME on the hub, for the card's instructions.
        licence: the hub's name of the weights' licence, such as "mit".

    Raises:
        UsageError: that is no finished training, or the output folder holds other files.
        RecordsError: the folder cannot be written.
    """
    for name in (card.TRAINING, CONFIG, MODEL):
        if not (trained / name).is_file():
            raise UsageError(f"{trained} is not the folder of a finished training run: it has no {name}")
    refuse_links(trained)
    facts = _without_places(card.read_facts(trained))
    runs = [] if results is None else card.runs_of(facts["digest"], results)
    text = _text([*card.sections(facts, trained), *([card.scores_table(runs)] if runs else [])], repo)
    data = _metadata(facts, index_of(runs), licence)
    card.draw_curves(card.read_metrics(trained / card.METRICS), trained / card.CURVES)
    _copy(trained, output)
    with explained("write", output):
        ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(unlinked(output / card.CARD, output))
    return output


def upload(folder: Path, repo: str, *, private: bool = True, api: Uploader | None = None) -> str:
    """Upload a folder to the hub and return its address.

    Args:
        folder: as `make_folder` wrote it.
        repo: OWNER/NAME.
        private: whether a repository that is made is the owner's alone.
        api: what uploads; None for huggingface_hub, with the token that it finds.

    Raises:
        UsageError: there is no token, or the hub refuses.
    """
    try:
        api = api or _api()
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload from robust-vlm-bench")
    except UsageError:
        raise
    except Exception as error:  # of the network, the hub, or for a name that is none
        what = without_secrets(" ".join(str(error).split()))
        raise UsageError(f"{folder} is ready, but was not uploaded to {repo}: {what}") from error
    return f"https://huggingface.co/{repo}"


def _api() -> Uploader:
    if (token := get_token()) is None:
        raise UsageError("there is no token for the Hugging Face hub: give `hf auth login`, or set HF_TOKEN")
    api: Uploader = HfApi(token=token)
    return api


def index_of(runs: Sequence[Run]) -> list[EvalResult]:
    """The model-index: one result per number that may be quoted; not of partial runs, nor where a check failed."""
    whole = [run for run in runs if not run.header.partial]
    return [_result(one) for one in (*measured(whole), *averaged(whole, SUITE_FACTS)) if one.whole and not one.doubts]


def _result(one: Measure) -> EvalResult:
    header, estimate = one.header, one.estimate
    place = f"{header.attack}, {header.norm}, {eps_label(one.radius, header.norm)}" if one.radius else "clean"
    around = f" in {Path(header.model).name}" if header.model else ""
    told: dict[str, Any] = {"low": estimate.low, "high": estimate.high, "n": estimate.n}
    told |= {"protocol": header.protocol_name}
    if one.radius:
        told |= {"attack": header.attack, "norm": header.norm, "radius": one.radius, "precision": header.precision}
    return EvalResult(
        task_type=TASK_TYPES.get(header.answer_kind, CAPTION if header.is_cider or header.worst == "max" else QUESTION),
        task_name=f"{header.task}{around}",
        dataset_type=one.dataset,
        dataset_name=f"{one.dataset} (suite {header.suite}, {header.n_samples} samples)",
        dataset_config=f"{header.task}{around}",
        metric_type=one.metric.partition("(")[0].strip().lower().replace(" ", "_"),
        metric_name=f"{one.metric}, {place}",
        metric_value=estimate.value,
        metric_args=told,
    )


def _metadata(facts: Mapping[str, Any], index: list[EvalResult], licence: str | None) -> ModelCardData:
    arch = str(facts["arch"])
    return ModelCardData(
        model_name=str(facts["name"]),
        base_model=arch.removeprefix(HUB_PREFIX) if arch.startswith(HUB_PREFIX) else None,
        library_name="open_clip",
        pipeline_tag="zero-shot-image-classification",
        license=licence,
        tags=TAGS,
        eval_results=index or None,
    )


def _without_places(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a training, of paths on this machine the last part alone."""
    found = dict(facts)
    for name in ("arch", "weights", "data"):
        text = str(found.get(name, ""))
        kind, colon, place = text.rpartition(":")
        if "/" in place and not text.startswith((HUB_PREFIX, "hf:")):
            found[name] = f"{kind}{colon}{Path(place).name}"
    return found


def _copy(trained: Path, output: Path) -> None:
    """Copy what is uploaded: the model, its tokenizer, the transformers folder, the curves. No pickle is among it."""
    files = [file for file in trained.glob("*.json") if file.name not in NOT_UPLOADED]
    files += [trained / MODEL, trained / card.CURVES, *sorted((trained / TRANSFORMERS).glob("*"))]
    names = {file.relative_to(trained) for file in files}
    present = {file.relative_to(output) for file in output.rglob("*") if file.is_file()} if output.exists() else set()
    if surplus := sorted(present - names - {Path(card.CARD)}):
        raise UsageError(f"{output} holds other files, such as {surplus[0]}; give another --output")
    with explained("write", output):
        for name in names:
            target = unlinked(output / name, output)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(trained / name, target)


def _text(sections: Iterable[str], repo: str | None) -> str:
    name = repo or "OWNER/NAME"
    use = (
        "## Use\n\n```python\nimport open_clip\n\n"
        f'model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{name}")\n```\n\n'
        "`clip_vision_model/` (ViTs) loads with `transformers.CLIPVisionModel`. With robust-vlm-bench:\n\n"
        f"    hf download {name} --local-dir model && bench run --encoder ./model --task zeroshot"
    )
    return "\n\n".join((*sections, use)) + "\n"
