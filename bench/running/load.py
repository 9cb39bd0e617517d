"""What a run works with, loaded: data, encoder, model and task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from attacks.presets import TARGET_IMAGE, TARGET_SAID, TARGET_TEXT, TASKLESS
from attacks.threat import Norm
from bench.config import RunConfig, load_suite
from bench.config.request import NATIVE
from bench.data.bank import Images, Pictures, ids_left_out, read_pictures
from bench.data.brought import digest as digest_of
from bench.data.brought import read_folder, refuse_surplus
from bench.data.images import Fingerprint
from bench.errors import UsageError
from bench.models.defences.chain import Defended
from bench.models.defences.load import load_chain
from bench.models.encoders.encoder import Encoder
from bench.models.encoders.load import digest, load_encoder, original_of
from bench.models.encoders.stored import compile_blocks
from bench.models.judges import load_judge
from bench.models.victims.load import is_black_box
from bench.models.victims.loaded import OnPixels
from bench.records import RunHeader, read_header
from bench.records.files import explained
from bench.records.shards import shards_in
from bench.running.brought import Brought, read_brought
from bench.running.data import load_dataset
from bench.running.endpoints import formats_of, repeats_of, session_of
from bench.running.ensemble import EncoderEnsemble, encoder_of, victim_of
from bench.running.header import header_of
from bench.running.plugins import task_class
from bench.running.targets import target_images, with_own_captions
from bench.running.units import threat_model
from bench.running.victims import chosen_of, load_for, sources_of, vlm_of
from tasks.base import Dataset, ImageTextEncoder, Sample, Task, Victim
from tasks.features import lacking
from tasks.protocol import PROTOCOLS


@dataclass(frozen=True)
class HalfPrecision:
    """The surrogate and its encoder, computing in half precision."""

    victim: Victim
    encoder: ImageTextEncoder | EncoderEnsemble


@dataclass(frozen=True)
class Setup:
    """Everything a run works with, loaded."""

    task: Task
    victim: Victim  # a `Defended` one where defences are asked for
    surrogate: Victim  # whose gradients the attack follows; the victim itself unless the attack is a transfer
    encoder: ImageTextEncoder | EncoderEnsemble  # of the surrogate
    images: Images  # indexed with rows: (b, 3, H, W) float32 in [0, 1], on the device
    header: RunHeader
    unreadable: Mapping[str, str]  # why a sample cannot be asked, by its id; its image is black
    half: "HalfPrecision | None" = None  # the surrogate in a half search precision
    deployed: Victim | None = None  # the victim as it answers 8-bit pictures, where that is another path
    brought: Brought | None = None  # adversarial images made elsewhere
    repeats: tuple[Victim, ...] = ()  # the victim asked again and again about the clean images
    targets: Images | None = None  # what samples are to be taken for
    session: int | None = None  # samples asked about at a time, clean and attacked; None: first all clean ones

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples to score, in order; sample i has image i."""
        return self.task.dataset.samples


@dataclass(frozen=True)
class _Bound:
    """An encoder, the model around it (the encoder itself where the task asks encoders), and it bound to the task.

    Attributes:
        encoder: what the model sees through.
        named: the encoder that the run names; None where the model keeps its own and none is named.
    """

    encoder: Any  # an `Encoder`, or a model's own tower
    model: Any
    victim: Victim
    named: Encoder | None = None


def prepare(config: RunConfig) -> Setup:
    """Load data, encoder and model of a run."""
    device = _device(config.device)
    task = load_task(config)
    target = _bound(task, config, device)
    judged = with_own_captions(task, target.victim, target.model.preprocess, device)
    sources = _sources(target, task, config, device)
    halves = [] if config.precision == "float32" else [_in_half_precision(one, task, config) for one in sources]
    original = _original(config, device)
    weights = dict(_digests(target, sources, task, config))
    if original is not None:
        weights["original"] = digest(original.visual)
    for part in (target, *sources, *halves) if config.compiled else ():
        _compile(part)
    on_pixels = target.model if isinstance(target.model, OnPixels) else None
    native = task.dataset.native_size and on_pixels is None
    pictures = _pictures(task, _at_native_size if native else _pixels(target, sources, config), config, device)
    brought = _brought(task, pictures.images, config)
    models = target.model, sources[0].model
    victims = chosen_of(config, *models, pictures.images.sizes) if task.model == "vlm" else None
    made = None if brought is None else brought.digest
    header = header_of(config, task, weights, pictures.fingerprint, device, victims, made)
    return Setup(
        judged,
        _defended(target, task, config, original),
        victim_of([one.victim for one in sources], config.weights),
        encoder_of([one.encoder for one in sources], config.weights),
        pictures.images,
        header,
        pictures.broken,
        _half(halves, config),
        None if on_pixels is None else task.bind(on_pixels.deployed()),
        brought,
        repeats_of(target.model, task, config),
        target_images(task, getattr(sources[0].encoder, "preprocess", target.model.preprocess), config, device),
        session_of(target.model),
    )


def _pictures(
    task: Task, preprocess: Callable[[Image.Image], Tensor], config: RunConfig, device: torch.device
) -> Pictures:
    """The clean images: the dataset's own, or those of a folder."""
    dataset = task.dataset
    if config.clean is not None:
        pixels = read_folder(config.clean, dataset.samples, formats=formats_of(config))
        if pixels.shape[-1] != pixels.shape[-2] and not is_black_box(vlm_of(config)):
            height, width = pixels.shape[-2:]
            raise UsageError(f"{config.clean}: the images are {width} x {height} pixels, and the victim takes squares")
        return Pictures(Images(pixels, device), {}, f"{Fingerprint(dataset).hexdigest()} with {digest_of(pixels)}")
    return read_pictures(
        dataset,
        preprocess,
        device,
        upright=PROTOCOLS[config.protocol].upright,
        left_out=_left_out(config),
    )


def _brought(task: Task, clean: Images, config: RunConfig) -> Brought | None:
    """The adversarial images made elsewhere, if there are any."""
    if config.images is None:
        return None
    (radius,) = config.eps
    threat = threat_model(cast(Norm, config.norm), radius)
    brought = read_brought(config.images, task.dataset.samples, clean, threat, formats_of(config))
    for folder in (config.images, config.clean) if config.limit is None else ():
        if folder is not None:
            refuse_surplus(folder, task.dataset.samples)
    return brought


def _at_native_size(picture: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1] of a picture for a model that resizes squares alone."""
    width, height = picture.size
    if width != height:
        raise UsageError(
            f"an image is {width} x {height} pixels; only square ones can be attacked at native resolution: remove "
            "native_size from the dataset's row"
        )
    pixels: Tensor = to_tensor(picture)
    return pixels


def _original(config: RunConfig, device: torch.device) -> Encoder | None:
    """What the encoder was fine-tuned from, where a defence looks with that; None where it is an original itself.

    Raises:
        UsageError: that is not known.
    """
    if not load_chain(config.defence).needs_original:
        return None
    suite = load_suite(config.suite).encoders
    try:
        name = original_of(config.encoder, suite)
    except UsageError as error:
        raise UsageError(f"{error}, and a defence looks with that: leave it out, or use ttc?tau_of=own") from error
    return None if name is None else load_encoder(name, suite).to(device)


def _defended(target: "_Bound", task: Task, config: RunConfig, original: Encoder | None) -> Victim:
    """The victim behind the defences that are asked for."""
    if not config.defence:
        return target.victim
    if isinstance(target.model, OnPixels):
        raise UsageError("--defence does not stand before a model that is attacked in its own pixels; leave it out")
    chain = load_chain(config.defence)
    if task.model != "encoder":
        chain.check_images()
    return Defended.around(target.victim, task, target.encoder, chain, original)


def load_task(config: RunConfig) -> Task:
    """The task with its dataset.

    Raises:
        UsageError: the dataset cannot be read, or does not suit the task; or the attack does not.
    """
    dataset = load_dataset(config)
    chosen = task_class(config.task)
    _check_fits(chosen, config, dataset)
    task = _judged(chosen, dataset, config)
    if config.steps:
        _check_attack(task, config, dataset.samples[0])
    return task


def _judged(chosen: type[Task], dataset: Dataset, config: RunConfig) -> Task:
    """The task, with a judge if it takes one."""
    default = getattr(chosen, "judge", None)
    if default is None:
        return chosen(dataset, PROTOCOLS[config.protocol])
    judge = load_judge(config.judge or default, load_suite(config.suite).encoders)
    return cast(Task, cast(Any, chosen)(dataset, PROTOCOLS[config.protocol], judge))


def _check_fits(chosen: type[Task], config: RunConfig, dataset: Dataset) -> None:
    """Refuse samples that a task cannot ask."""
    if not dataset.samples:
        raise UsageError(f"dataset {config.dataset!r} holds no samples")
    if reason := chosen.fits(dataset):
        raise UsageError(f"dataset {config.dataset!r} does not suit task {config.task!r}: it {reason}")


def _check_attack(task: Task, config: RunConfig, sample: Sample) -> None:
    """Refuse an attack of unknown kinds, or one that was made for another task, before anything is computed."""
    from bench.running.kinds import check_steps  # attack code, which what verifies a run does without

    check_steps(config.steps)
    for step in config.steps:
        if missing := lacking(step.goal, sample):
            raise UsageError(
                f"attack {config.attack!r} needs {missing} for each sample, and dataset {config.dataset!r} has none; "
                "take a dataset of pairs, such as mini-pairs or --dataset pairs:FOLDER"
            )
        if config.defence and step.goal in (TARGET_IMAGE, TARGET_TEXT, TARGET_SAID):
            raise UsageError(
                f"attack {config.attack!r} leads to a target, which no adaptive protocol does: leave --defence out"
            )
        if step.goal in ("best", *TASKLESS):
            continue
        try:
            task.applies(step.goal, sample)
        except ValueError as error:
            raise UsageError(f"attack {config.attack!r} does not fit task {config.task!r}: {error}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].partition(". ")[0]
        raise UsageError(f"device {name!r} cannot be used: {why}; try --device cpu") from error
    return device


def _bound(task: Task, config: RunConfig, device: torch.device) -> _Bound:
    named = _encoder(config.encoder, task, config)
    if named is not None:
        named = named.to(device)
    if task.model == "encoder":
        assert named is not None, "an encoder is there, or _encoder raises"
        return _Bound(named, named, task.bind(named), named)
    model = load_for(config, config.task, None if config.tower == NATIVE else named, device)
    model.make_room(config.batch_size)
    return _Bound(model.encoder, model, task.bind(model), named)


def _sources(target: _Bound, task: Task, config: RunConfig, device: torch.device) -> list[_Bound]:
    """What the attack follows: the target itself, or surrogates; of an endpoint's, only their view of the image."""
    if not config.surrogates:
        return [target]
    if config.surrogate_vlm is not None or not is_black_box(vlm_of(config)):
        return [_bound(task, one, device) for one in sources_of(config)]
    rows = load_suite(config.suite).encoders
    encoders = [load_encoder(name, rows, config.arch).to(device) for name in config.surrogates]
    return [_Bound(named, named, target.victim, named) for named in encoders]


def _pixels(target: _Bound, sources: Sequence[_Bound], config: RunConfig) -> Callable[[Image.Image], Tensor]:
    """How the victim sees a picture: where the attack's images come from others, those must see the very same."""
    seen: Callable[[Image.Image], Tensor] = target.model.preprocess
    if sources[0] is target:
        return seen

    def same(picture: Image.Image) -> Tensor:
        pixels = seen(picture)
        for source in sources:
            others = source.model.preprocess(picture)
            if pixels.shape != others.shape or not torch.equal(pixels, others):
                sizes = [f"{shape[2]} x {shape[1]}" for shape in (others.shape, pixels.shape)]
                raise UsageError(
                    f"images made on {config.source} cannot be shown to the victim: the two crop, pad or resize a "
                    f"picture otherwise ({sizes[0]} and {sizes[1]} pixels); choose two that see the same pixels, such "
                    "as the same image tower and image_aspect_ratio in both"
                )
        return pixels

    return same


def _encoder(name: str, task: Task, config: RunConfig) -> Encoder | None:
    """The encoder of this name; None where a model keeps its own and none is named."""
    if config.tower != NATIVE or name != NATIVE:
        return load_encoder(name, load_suite(config.suite).encoders, config.arch)
    if task.model == "encoder":
        raise UsageError(f"task {config.task!r} asks an encoder, not a vision-language model: give --encoder")
    return None


def _in_half_precision(source: _Bound, task: Task, config: RunConfig) -> _Bound:
    """What the attack follows, in a half search precision."""
    model = source.model.at(config.precision)
    return _Bound(model.encoder if task.model == "vlm" else model, model, task.bind(model))


def _half(halves: Sequence[_Bound], config: RunConfig) -> HalfPrecision | None:
    if not halves:
        return None
    victim = victim_of([one.victim for one in halves], config.weights)
    return HalfPrecision(victim, encoder_of([one.encoder for one in halves], config.weights))


def _compile(used: _Bound) -> None:
    for part in (used.encoder, used.model):
        compile_blocks(part)


def _digests(target: _Bound, sources: Sequence[_Bound], task: Task, config: RunConfig) -> Iterator[tuple[str, str]]:
    """What the header says of the weights."""
    if target.named is not None:
        yield "encoder", digest(target.named.visual)
        yield "text", digest(target.named.text)
    for name, source in zip(config.surrogates, sources, strict=False):  # none: the target itself is the source
        if source.named is not None:
            yield "surrogate" if len(sources) == 1 else f"surrogate {name}", digest(source.named.visual)
    if task.model == "vlm":
        yield from target.model.digests().items()
    if (judge := getattr(task, "compare", None)) is not None:
        yield from judge.digests().items()
    if config.surrogate_vlm is not None:
        yield from ((f"surrogate {part}", found) for part, found in sources[0].model.digests().items())


def _left_out(config: RunConfig) -> frozenset[str]:
    """Samples whose pictures were broken when a run, or its first shard, began: they may have been fixed since."""
    begun = [] if config.shard is None else [shard.folder(config.directory) for shard in shards_in(config.directory)]
    for directory in (config.folder, *begun):
        with explained("read", directory):
            there = (directory / "run.json").is_file()
        if there:
            return ids_left_out(read_header(directory).dataset_fingerprint)
    return frozenset()
