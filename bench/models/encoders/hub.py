"""Files of Hugging Face repositories: this machine's cache first, the network only for what is missing (no torch)."""

import json
from pathlib import Path

from bench.errors import UsageError
from bench.models.encoders.catalogue import EncoderRow, resolve_path

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def weight_names(row: EncoderRow) -> tuple[str, ...]:
    """File names that a row's weights may have, the preferred one first."""
    if row.weights is not None:
        return (row.weights,)
    return TRANSFORMERS_WEIGHTS if row.format == "transformers" else OPEN_CLIP_WEIGHTS


def cached_weights(row: EncoderRow) -> Path | None:
    """The weights file of a row with a hub id, if it lies in the cache; never touches the network."""
    for revision in _revisions(row):
        for name in weight_names(row):
            if found := _cached(row, name, revision):
                return found
    return None


def on_disk(row: EncoderRow) -> Path | None:
    """Where the weights of a row lie on this machine, if they do; never touches the network."""
    if row.base is not None:
        return row.visual_path if row.visual_path.is_file() else None
    if row.model is not None:
        folder = Path(resolve_path(row.model))
        return folder if folder.is_dir() else None
    return cached_weights(row) if row.hub is not None else None


def weights_file(row: EncoderRow) -> Path:
    """The weights file of a row with a hub id, downloaded if it is missing.

    Raises:
        UsageError: it is neither in the cache nor can it be had; the message says how to fetch it.
    """
    return cached_weights(row) or _first(row, weight_names(row))


def companion(row: EncoderRow, weights: Path, name: str) -> Path:
    """Another file of the repository, of the same revision as ``weights``.

    Raises:
        UsageError: as for `weights_file`.
    """
    beside = weights.parent / name
    return beside if beside.is_file() else _first(row, (name,), revision=weights.parent.name)


def fetch_tokenizer(row: EncoderRow, weights: Path) -> None:
    """Have the tokenizer's files beside the configuration, if it asks for a tokenizer of the repository's own."""
    config = json.loads((weights.parent / OPEN_CLIP_CONFIG).read_text())
    if not config.get("model_cfg", {}).get("text_cfg", {}).get("hf_tokenizer_name"):
        return
    companion(row, weights, "tokenizer_config.json")
    vocabularies = ("tokenizer.json", "vocab.txt")
    if not any((weights.parent / name).is_file() for name in vocabularies):
        _first(row, vocabularies, revision=weights.parent.name)


def _revisions(row: EncoderRow) -> tuple[str | None, ...]:
    """Where to look: the pinned revision; with a checksum to verify against, whichever is the newest would do."""
    if row.revision is None:
        return (None,)
    return (row.revision, None) if row.sha256 is not None else (row.revision,)


def _cached(row: EncoderRow, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(row.hub), name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _first(row: EncoderRow, names: tuple[str, ...], revision: str | None = None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    problem: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(str(row.hub), name, revision=revision or row.revision))
        except LocalEntryNotFoundError as error:  # neither in the cache nor reachable
            problem = error
            break
        except EntryNotFoundError as error:  # the repository has no such file
            problem = error
        except (OSError, ValueError) as error:
            problem = error
            break
    raise UsageError(_advice(row, names, problem))


def _advice(row: EncoderRow, names: tuple[str, ...], problem: Exception | None) -> str:
    from huggingface_hub import constants

    pinned = f" --revision {row.revision}" if row.revision else ""
    reason = " ".join(str(problem).split())[:200]
    text = (
        f"encoder {row.name!r}: {' or '.join(names)} of the hub's {row.hub} is not in {constants.HF_HUB_CACHE} and "
        f"cannot be fetched ({reason}). Where there is a network, run `hf download {row.hub}{pinned}` (or "
        "`huggingface-cli download`), copy its cache here and let HF_HOME name it"
    )
    others = [p for p in _snapshots(row) if p.name != row.revision]
    if row.revision and others:
        return f"{text}; another revision lies in {others[0]}: to use that one, give the folder as --encoder"
    return f"{text}; or give a downloaded folder as --encoder"


def _snapshots(row: EncoderRow) -> list[Path]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{str(row.hub).replace('/', '--')}" / "snapshots"
    return sorted(folder.iterdir()) if folder.is_dir() else []
