"""The images that a run is evaluated on and never trains on."""

from collections.abc import Callable
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models.encoders.encoder import Encoder
from bench.train.batch import Batch, check_labels
from bench.train.distributed import World
from bench.train.evaluate import HeldOut
from bench.train.job import TrainingJob
from bench.train.log import say
from bench.train.sources import IndexedSource, Raw, Source, open_source
from bench.train.stream import ImageStream

LARGEST_SHARE = 0.05  # of the data
Evaluate = Callable[[int], dict[str, float]]


def split(source: Source, job: TrainingJob) -> tuple[Source, list[Raw]]:
    """The source to train on and the held-out images, none of which is trained on.

    Raises:
        UsageError: the held-out images have a source of their own, and it cannot be opened or has other classes.
    """
    if job.eval_images == 0:
        return source, []
    if job.eval_data is not None:
        other = open_source(job.eval_data)
        if None not in (source.classes, other.classes) and source.classes != other.classes:
            raise UsageError(f"the classes of {other.name} are not those of {source.name}, in the same order")
        singles = other.batches(job.seed, 0, 1, 0)
        return source, [raw for (raw,) in islice(singles, job.eval_images)]
    if not isinstance(source, IndexedSource):
        say("no evaluation while training: images are not held out of shards; give --eval-data")
        return source, []
    return source.split(min(job.eval_images, int(len(source) * LARGEST_SHARE)), job.seed)


def evaluation(
    tower: Encoder,
    original: Encoder,
    raws: list[Raw],
    stream: ImageStream,
    job: TrainingJob,
    *,
    classes: Tensor | None,
    world: World,
) -> Evaluate | None:
    """Evaluation on the held-out images that can be read; None if there are none.

    Every process evaluates the same images, so that none waits; rank 0's figures are written.

    Args:
        tower: that is trained.
        original: what it is compared with.
        raws: the held-out images.
        stream: decodes them, and names those that cannot be read.
        job: radius and batch.
        classes: class weights, for objectives with labels.
        world: the processes that train together.
    """
    found = stream.readable(raws)
    if not found:
        return None
    images = torch.stack([image for image, _ in found])
    labels: Tensor | None = None
    if classes is not None and all(raw.label is not None for _, raw in found):
        labels = torch.tensor([raw.label for _, raw in found])
        check_labels(Batch(images, labels, [raw.id for _, raw in found]), job.objective, classes)
    size = job.micro_batch or max(1, job.batch // world.size)
    held_out = HeldOut(images, job.eps / 255, batch=size, labels=labels, classes=classes)
    return partial(_evaluate, held_out, tower, original)


def _evaluate(held_out: HeldOut, tower: nn.Module, original: nn.Module, done: int) -> dict[str, float]:
    trained = [p for p in tower.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    figures = held_out.evaluate(tower, original)
    for parameter in trained:
        parameter.requires_grad_(True)
    return figures
