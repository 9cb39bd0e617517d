"""From a catalogue row, a path or a plugin to an Encoder."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import open_clip
from torch import nn

from bench import registry
from bench.errors import UsageError
from bench.models.encoders import catalogue, hub
from bench.models.encoders.catalogue import EncoderRow, PixelFacts
from bench.models.encoders.checkpoint import check_digest
from bench.models.encoders.convert import activation_of
from bench.models.encoders.encoder import Encoder, TextTower
from bench.models.encoders.formats import (
    LoadedClip,
    is_transformers_tower,
    known_architecture,
    open_clip_builtin,
    open_clip_folder,
    replace_tower,
    transformers_model,
    transformers_tower,
)

QUICK = "-quickgelu"  # how open_clip marks architectures with OpenAI's activation
_COMPARED = ("layers", "width", "patch_size", "timm_model_name")
Rows = Mapping[str, EncoderRow]


def load_encoder(name: str, suite: str = "mini", arch: str | None = None) -> Encoder:
    """Load an encoder by catalogue name, alias, plugin name, or path to a checkpoint.

    A path is one of
      - an open_clip folder (``open_clip_config.json`` beside the weights),
      - a transformers folder with a ``CLIPModel``,
      - a transformers folder with a ``CLIPVisionModel``, or an image tower's state dict (``.safetensors``, ``.pt``):
        its text tower is that of the suite's row "clip", or of the model that ``arch`` names.

    Args:
        name: what to load.
        suite: family of catalogue rows.
        arch: for a path: open_clip's architecture, "ViT-L-14-quickgelu"; or with the weights that an image tower was
            fine-tuned from, "ViT-B-32,laion2b_s34b_b79k", or a folder of that whole model, "ViT-B-32,models/mine".

    Raises:
        UsageError: unknown name, missing file, a file that is no checkpoint or does not fit the architecture,
            activation or preprocessing that do not fit the weights.
    """
    rows = catalogue.rows(suite)
    name = catalogue.aliases().get(name, name)
    if name in rows:
        return load_row(rows[name], rows)
    if name in registry.names("bench.encoders"):
        return cast(Encoder, registry.made("bench.encoders", name, Encoder))
    if Path(name).exists() or "/" in name or name.endswith((".pt", ".pth", ".bin", ".safetensors")):
        return _encoder(_from_path(Path(name), rows, arch))
    raise registry.unknown("encoder", name, known(suite))


def original_of(name: str, suite: str = "mini") -> str | None:
    """The encoder of the catalogue from which another was fine-tuned; None if it is an original itself.

    Raises:
        UsageError: the catalogue does not know, for it is no row of it.
    """
    rows = catalogue.rows(suite)
    if (row := rows.get(catalogue.aliases().get(name, name))) is None:
        raise UsageError(f"what encoder {name!r} was fine-tuned from is not known: it is no row of the catalogue")
    return row.base


def load_row(row: EncoderRow, rows: Rows) -> Encoder:
    """Load a catalogue row; ``rows`` are those that its ``base`` is looked up in.

    Raises:
        UsageError: as for `load_encoder`.
    """
    return _encoder(_from_row(row, rows))


def known(suite: str) -> list[str]:
    """Every encoder name a suite answers to."""
    return [*catalogue.rows(suite), *catalogue.aliases(), *registry.names("bench.encoders")]


def digest(module: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().float().contiguous()
        total.update(f"{name}{tuple(values.shape)}".encode())
        total.update(values.numpy().tobytes())
    return total.hexdigest()


def _encoder(loaded: LoadedClip) -> Encoder:
    visual, loaded.clip.visual = loaded.clip.visual, nn.Identity()
    return Encoder(visual, loaded.preprocessing, TextTower(loaded.clip, loaded.tokenizer))


# ---- Catalogue rows --------------------------------------------------------------------------------------------------


def _from_row(row: EncoderRow, rows: Rows) -> LoadedClip:
    if row.base is not None:
        if row.visual is None and not row.visual_path.is_file():
            raise UsageError(
                f"encoder {row.name!r} is not on this machine; download it: "
                f"curl -L --create-dirs -o {row.visual_path} {row.url}"
            )
        check_digest(row.visual_path, row.sha256)
        loaded = replace_tower(_from_row(rows[row.base], rows), row.visual_path)
    elif row.model is not None:
        loaded = _from_folder(Path(catalogue.resolve_path(row.model)))
    else:
        loaded = _from_hub(row)
    check_facts(row, loaded)
    return loaded


def _from_hub(row: EncoderRow) -> LoadedClip:
    weights = hub.weights_file(row)
    check_digest(weights, row.sha256)
    if row.pretrained is not None:
        return open_clip_builtin(str(row.architecture), weights, cast(PixelFacts, row.preprocessing))
    if row.format == "transformers":
        hub.companion(row, weights, "config.json")
        return transformers_model(weights.parent, row.preprocessing)
    hub.companion(row, weights, hub.OPEN_CLIP_CONFIG)
    hub.fetch_tokenizer(row, weights)
    return open_clip_folder(weights.parent, weights)


def check_facts(row: EncoderRow, loaded: LoadedClip) -> None:
    """Compare what a checkpoint says of itself with what its publisher says in the catalogue.

    Raises:
        UsageError: they differ in architecture, activation, image size, mean, std, interpolation or resize mode.
    """
    pixels, visual = loaded.preprocessing, loaded.clip.visual
    pairs: list[tuple[str, Any, Any]] = [("image size", pixels.size, row.image_size)]
    if (found := activation_of(visual)) is not None:
        pairs.append(("activation", found, row.activation))
    if row.preprocessing is not None:
        pairs += [
            ("mean", pixels.mean, row.preprocessing.mean),
            ("std", pixels.std, row.preprocessing.std),
            ("interpolation", pixels.interpolation, row.preprocessing.interpolation),
            ("resize mode", pixels.resize_mode, row.preprocessing.resize_mode),
        ]
    if row.architecture is not None and loaded.architecture:
        expected = known_architecture(row.architecture)
        pairs.append(("embedding width", loaded.architecture.get("embed_dim"), expected["embed_dim"]))
        ours, theirs = loaded.architecture["vision_cfg"], expected["vision_cfg"]
        pairs += [(key, ours.get(key), theirs[key]) for key in _COMPARED if key in theirs]
    for what, found, expected in pairs:
        if expected is not None and not _agree(found, expected):
            raise UsageError(
                f"encoder {row.name!r}: {loaded.source} says {what} {found}, but these weights were trained with "
                f"{expected}; correct that file, or download the checkpoint again"
            )


def _agree(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return all(math.isclose(f, e, abs_tol=1e-6) for f, e in zip(found, expected, strict=True))
    return bool(found == expected)


# ---- Paths -----------------------------------------------------------------------------------------------------------


def _from_path(path: Path, rows: Rows, arch: str | None) -> LoadedClip:
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"no such checkpoint: {path}")
        return replace_tower(_from_row(_base_of_path(path, rows, arch), rows), path)
    if is_transformers_tower(path):
        return transformers_tower(path, _from_row(_base_of_path(path, rows, arch), rows))
    return _matching(_from_folder(path), arch)


def _from_folder(path: Path) -> LoadedClip:
    """A folder of a whole model."""
    if (path / hub.OPEN_CLIP_CONFIG).is_file():
        return open_clip_folder(path)
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{path} is a folder without {hub.OPEN_CLIP_CONFIG} or config.json; give an open_clip or transformers "
            "folder, or a file"
        )
    return transformers_model(path)


def _matching(loaded: LoadedClip, arch: str | None) -> LoadedClip:
    """A folder says itself what it is; ``arch`` must agree."""
    if arch is not None:
        name = arch.partition(",")[0]
        check_facts(_facts(f"--arch {arch}", name), loaded)
    return loaded


def _facts(label: str, architecture: str) -> EncoderRow:
    """What open_clip's name of an architecture says; without its suffix, the folder's own activation holds."""
    config = known_architecture(architecture)
    return EncoderRow(label, architecture=architecture, activation="quick_gelu" if config.get("quick_gelu") else None)


def _base_of_path(path: Path, rows: Rows, arch: str | None) -> EncoderRow:
    """The row of the model whose text tower goes with an image tower.

    A state dict does not show its activation. It is that of the model it was fine-tuned from, so that model must be
    known: the suite's "clip", or open_clip's ``arch`` with a tag.
    """
    plain = rows["clip"]
    if arch is None:
        return plain
    name, _, tag = arch.partition(",")
    config = known_architecture(name)
    if tag and Path(tag).is_dir():
        return replace(_facts(f"--arch {arch}", name), model=tag)
    if tag:
        return _tagged(name, tag)
    own = plain.architecture
    if own == name:
        return plain
    if own == name + QUICK:
        others = [t for t in open_clip.list_pretrained_tags_by_model(name) if not _is_quick(name, t)]
        raise UsageError(
            f"{path} does not show which activation it was trained with: for weights fine-tuned from OpenAI's "
            f"(FARE, TeCoA) give --arch {own}; for others of {name}, with GELU, name the model that they were "
            f"fine-tuned from, for example --arch {name},{others[0] if others else 'TAG'}"
        )
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    what = f"width {config['embed_dim']}" if own is None else f"architecture {own}, not {name}"
    raise UsageError(
        f"{path}: the suite's text tower does not go with --arch {name} ({what}); name the model that it was "
        f"fine-tuned from, --arch {name},TAG, where TAG is a folder of the whole model or one of: {tags}"
    )


def _is_quick(name: str, tag: str) -> bool:
    return bool((open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu"))


def _tagged(name: str, tag: str) -> EncoderRow:
    """A row for one of open_clip's pretrained models; the tag knows the activation."""
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config or not config.get("hf_hub"):
        raise registry.unknown(f"tag of {name}", tag, open_clip.list_pretrained_tags_by_model(name))
    quick = _is_quick(name, tag)
    if name.endswith(QUICK) and not quick:
        raise UsageError(
            f"--arch {name},{tag}: these weights were trained with GELU; give --arch {name.removesuffix(QUICK)},{tag}"
        )
    full = name + QUICK if quick and not name.endswith(QUICK) else name
    repository, _, file = config["hf_hub"].rpartition("/")
    mode = config.get("resize_mode")
    pixels = PixelFacts(tuple(config["mean"]), tuple(config["std"]), config["interpolation"], mode)
    row = EncoderRow(f"{name},{tag}", hub=repository, pretrained=tag, architecture=full, preprocessing=pixels)
    return replace(row, weights=file or None, activation="quick_gelu" if quick else "gelu")
