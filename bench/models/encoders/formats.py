"""The checkpoint formats: each function reads one of them from disk into an open_clip model with its preprocessing."""

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.utils import logging as bars

from bench.errors import UsageError
from bench.models.encoders.catalogue import PixelFacts
from bench.models.encoders.checkpoint import (
    check_file,
    check_sizes,
    load_fitting,
    read_state_dict,
    tower_alone,
    weights_files,
)
from bench.models.encoders.convert import activation_of, to_open_clip, to_open_clip_tower
from bench.models.encoders.hub import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from bench.models.encoders.pixel_configs import of_open_clip, of_transformers, square
from bench.models.encoders.pixels import Preprocessing
from bench.progress import no_bars_in_logs
from bench.trust import code as trust

_OPENAI_VOCABULARY = 49408


@dataclass
class LoadedClip:
    """An open_clip model, weights in place, and how its pixels and texts are prepared.

    Attributes:
        clip: image tower under ``visual``, text tower beside it.
        source: the file or folder that error messages name.
        architecture: open_clip's configuration, for comparison with the catalogue.
    """

    clip: Any
    tokenizer: Any
    preprocessing: Preprocessing
    source: str
    architecture: dict[str, Any]


# ---- open_clip's formats ---------------------------------------------------------------------------------------------


def open_clip_folder(folder: Path, weights: Path | None = None) -> LoadedClip:
    """A folder with ``open_clip_config.json`` and the weights of a whole model.

    Raises:
        UsageError: the configuration or the weights are missing, damaged or do not fit each other.
    """
    identifier = f"local-dir:{folder}"
    options = trust.check_open_clip(identifier)
    config = _json(folder / OPEN_CLIP_CONFIG)
    if not all(isinstance(config.get(key), dict) for key in ("model_cfg", "preprocess_cfg")):
        raise UsageError(f"{folder / OPEN_CLIP_CONFIG} lacks model_cfg or preprocess_cfg; both are needed")
    check_sizes(config["model_cfg"], folder / OPEN_CLIP_CONFIG)
    weights = weights or _existing(folder, OPEN_CLIP_WEIGHTS)
    check_file(weights)  # before the model is built, which takes a while
    state = read_state_dict(weights)
    _check_not_larger(identifier, state, folder / OPEN_CLIP_CONFIG)
    clip = _built(identifier, f"{folder / OPEN_CLIP_CONFIG}")
    load_whole(clip, state, weights)
    preprocessing = of_open_clip(config["preprocess_cfg"], clip.visual.image_size, folder / OPEN_CLIP_CONFIG)
    tokenizer = _tokenizer(identifier, options, str(folder))
    return LoadedClip(clip, tokenizer, preprocessing, str(folder / OPEN_CLIP_CONFIG), config["model_cfg"])


def open_clip_builtin(architecture: str, weights: Path, facts: PixelFacts) -> LoadedClip:
    """A model of open_clip's own list, with weights from a file.

    Raises:
        UsageError: an unknown architecture, or a file that does not fit it.
    """
    config = known_architecture(architecture)
    options = trust.check_open_clip(architecture)
    clip = _built(architecture, f"architecture {architecture!r}")
    load_whole(clip, read_state_dict(weights), weights)
    size = square(clip.visual.image_size, architecture)
    preprocessing = Preprocessing(size, facts.mean, facts.std, facts.interpolation, facts.resize_mode or "shortest")
    return LoadedClip(clip, _tokenizer(architecture, options, architecture), preprocessing, str(weights), config)


def _tokenizer(identifier: str, options: dict[str, Any], what: str) -> Any:
    """The tokenizer of one of open_clip's identifiers."""
    try:
        return open_clip.get_tokenizer(identifier, **options)
    except Exception as error:  # tokenizers raise anything at all on damaged files
        raise UsageError(
            f"{what} holds no tokenizer that can be read, nor is one in the hub's cache: {trust.reason(error)}; "
            "download tokenizer.json and tokenizer_config.json with the weights"
        ) from error


def known_architecture(name: str) -> dict[str, Any]:
    """The configuration of one of open_clip's architectures.

    Raises:
        UsageError: there is none of that name; the nearest are suggested.
    """
    from bench import registry

    if name not in open_clip.list_models():
        raise registry.unknown("architecture", name, open_clip.list_models())
    return dict(open_clip.get_model_config(name))


def load_whole(clip: Any, state: dict[str, Tensor], weights: Path) -> None:
    """Load the weights of both towers, in today's layout or that of before open_clip had text towers of their own.

    Raises:
        UsageError: see `load_fitting`.
    """
    if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and getattr(clip, name, None) is not None:
            state[name] = state[name].reshape(getattr(clip, name).shape)
    load_fitting(clip, state, weights, "the model that its configuration describes")


def load_file(clip: Any, weights: Path) -> None:
    """Load a file into an open_clip model: weights of the image tower alone, or of the whole model.

    Raises:
        UsageError: see `read_state_dict` and `load_fitting`.
    """
    state = read_state_dict(weights)
    if tower := tower_alone(state):
        load_fitting(clip.visual, tower, weights, "the image tower")
    else:
        load_whole(clip, state, weights)


def replace_tower(base: LoadedClip, weights: Path) -> LoadedClip:
    """``base`` with the image tower of a state dict: of the tower alone, or of a whole model.

    Raises:
        UsageError: see `read_state_dict` and `load_fitting`.
    """
    load_file(base.clip, weights)
    return LoadedClip(base.clip, base.tokenizer, base.preprocessing, str(weights), base.architecture)


@contextmanager
def _without_warning() -> Iterator[None]:
    """open_clip warns that a model begins with random weights; here its weights come right afterwards."""
    root = logging.getLogger()

    def about_other_things(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    root.addFilter(about_other_things)
    try:
        yield
    finally:
        root.removeFilter(about_other_things)


def _check_not_larger(identifier: str, state: dict[str, Tensor], config: Path) -> None:
    """Refuse a configuration of a model much larger than its weights before memory is taken for it."""
    try:
        with torch.device("meta"):
            model = _built(identifier, str(config), device="meta")
    except UsageError:
        return  # some of timm's models cannot be built without memory; what is wrong is said when it is built
    parameters = sum(parameter.numel() for parameter in model.parameters())
    held = sum(tensor.numel() for tensor in state.values())
    if parameters > 2 * held:
        raise UsageError(
            f"{config} describes {parameters} parameters, its weights are {held}; they are not of one model"
        )


def _built(identifier: str, what: str, device: str = "cpu") -> Any:
    try:
        with _without_warning(), trust.never_asking():
            return open_clip.create_model(identifier, load_weights=False, pretrained_text=False, device=device)
    except Exception as error:  # open_clip raises anything at all on a damaged configuration
        raise UsageError(f"open_clip {open_clip.__version__} cannot build {what}: {trust.reason(error)}") from error


# ---- transformers' formats -------------------------------------------------------------------------------------------


def transformers_model(folder: Path, facts: PixelFacts | None = None) -> LoadedClip:
    """A folder with a ``CLIPModel``; ``facts`` stands in for a preprocessor_config.json that is not there.

    Raises:
        UsageError: files are missing or damaged, or the model has parts that open_clip does not know.
    """
    trust.check(folder)
    weights_files(folder)
    model = _pretrained(CLIPModel, folder)
    clip = to_open_clip(model)
    preprocessing = _transformers_preprocessing(folder, model.config.vision_config.image_size, facts)
    source = str(folder / "config.json")
    return LoadedClip(clip, _transformers_tokenizer(folder, model.config.text_config), preprocessing, source, {})


def transformers_tower(folder: Path, base: LoadedClip) -> LoadedClip:
    """``base`` with the image tower of a ``CLIPVisionModel`` folder.

    A tower that was saved without its projection is given that of ``base``.

    Raises:
        UsageError: files are missing or damaged, or the tower's embeddings do not fit the text tower's.
    """
    trust.check(folder)
    weights_files(folder)
    architectures = _json(folder / "config.json").get("architectures") or []
    projected = "CLIPVisionModelWithProjection" in (architectures if isinstance(architectures, list) else [])
    model = _pretrained(CLIPVisionModelWithProjection if projected else CLIPVisionModel, folder)
    proj = base.clip.visual.proj.detach() if hasattr(base.clip.visual, "proj") else None
    visual = to_open_clip_tower(model, proj)
    expected = base.clip.visual.output_dim if hasattr(base.clip.visual, "output_dim") else None
    if visual.output_dim != expected:
        raise UsageError(
            f"{folder}: embeddings of width {visual.output_dim} do not fit the text tower's {expected}; "
            "name the model that it was fine-tuned from: --arch ARCHITECTURE,TAG (or a folder)"
        )
    if activation_of(visual) != activation_of(base.clip.visual):
        raise UsageError(
            f"{folder / 'config.json'} says activation {activation_of(visual)}, the CLIP whose text tower goes with it "
            f"has {activation_of(base.clip.visual)}; name the model that it was fine-tuned from: "
            "--arch ARCHITECTURE,TAG"
        )
    pixels = base.preprocessing
    facts = PixelFacts(pixels.mean, pixels.std, pixels.interpolation)
    preprocessing = _transformers_preprocessing(folder, model.config.image_size, facts)
    base.clip.visual = visual
    return LoadedClip(base.clip, base.tokenizer, preprocessing, str(folder / "config.json"), base.architecture)


def is_transformers_tower(folder: Path) -> bool:
    """Whether a transformers folder holds an image tower alone."""
    if (folder / OPEN_CLIP_CONFIG).is_file() or not (folder / "config.json").is_file():
        return False
    return "vision" in str(_json(folder / "config.json").get("model_type", ""))


def _pretrained(kind: Any, folder: Path) -> Any:
    expected = kind.config_class.model_type
    config = _json(folder / "config.json")
    found = config.get("model_type")
    check_sizes(config, folder / "config.json")
    if found != expected:
        siglip = "; of a SigLIP, timm's repository on the hub is read" if "siglip" in str(found) else ""
        raise UsageError(f"{folder / 'config.json'} describes a {found!r} model, not a {expected!r} one{siglip}")
    try:
        with transformers_bars():
            # which class reads the folder is known here, and some releases refuse an odd list of them
            settings = kind.config_class.from_dict({k: v for k, v in config.items() if k != "architectures"})
            model, report = kind.from_pretrained(
                folder, config=settings, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises anything at all on damaged files
        raise UsageError(f"{folder} holds no {kind.__name__} that can be read: {trust.reason(error)}") from error
    absent = sorted(n for n in report["missing_keys"] if "position_ids" not in n)
    foreign = sorted(map(str, report.get("mismatched_keys") or []))
    if absent or foreign:
        raise UsageError(f"{folder} does not fit its config.json: missing {absent[:3]}, of another shape {foreign[:2]}")
    refuse_nan(model, folder)
    return model.eval()


def transformers_bars() -> AbstractContextManager[None]:
    """Transformers' bar of the weights loaded so far is kept off logs."""
    return no_bars_in_logs(bars.is_progress_bar_enabled(), bars.disable_progress_bar, bars.enable_progress_bar)


def refuse_nan(module: nn.Module, source: object) -> None:
    """Refuse weights that are not finite.

    Raises:
        UsageError: some are NaN or infinite.
    """
    if bad := [name for name, value in module.state_dict().items() if not _finite(value)]:
        raise UsageError(f"{source} holds NaN or infinite weights in {bad[:3]}; the checkpoint is damaged")


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def _transformers_preprocessing(folder: Path, size: int, facts: PixelFacts | None) -> Preprocessing:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        if facts is None:
            raise UsageError(
                f"{folder} has no preprocessor_config.json, so its mean and std are unknown; copy that of the model "
                "that it was fine-tuned from into the folder"
            )
        return Preprocessing(size, facts.mean, facts.std, facts.interpolation, crop="transformers")
    return of_transformers(_json(path), size, path)


def _transformers_tokenizer(folder: Path, config: Any) -> Any:
    """The folder's own tokenizer; for OpenAI's vocabulary, open_clip's copy of it."""
    length = config.max_position_embeddings
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        try:
            return HFTokenizer(str(folder), context_length=length, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{folder} holds no tokenizer that can be read: {trust.reason(error)}") from error
    if config.vocab_size != _OPENAI_VOCABULARY:
        raise UsageError(f"{folder} has no tokenizer.json, and its vocabulary of {config.vocab_size} is not OpenAI's")
    return open_clip.SimpleTokenizer(context_length=length)


# ---- Shared ----------------------------------------------------------------------------------------------------------


def _existing(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            check_file(folder / name)
            return folder / name
    raise UsageError(f"{folder} holds no weights; expected {' or '.join(names)}")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON (an HTML page or a git-lfs pointer?): {trust.reason(error)}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object")
    return found
