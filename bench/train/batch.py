"""A batch of training images, and the check that its labels are those of classes."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from bench.train.checkpoint import TrainingError


class Batch(NamedTuple):
    """This process's images (b, 3, H, W) float32 in [0, 1], labels (b,) or None, and what to call the images."""

    images: Tensor
    labels: Tensor | None = None
    ids: Sequence[str] = ()


def check_labels(batch: Batch, objective: str, classes: Tensor | None) -> None:
    """That every image has the number of a class.

    Raises:
        TrainingError: naming the image that has not.
    """
    names = names_of(batch)
    if batch.labels is None:
        raise TrainingError(f"{objective} needs a label of every image, and not all of these have one: {listed(names)}")
    count = 0 if classes is None else classes.shape[1]
    for name, label in zip(names, batch.labels.tolist(), strict=True):
        if not 0 <= label < count:
            raise TrainingError(
                f"{name} has label {label}, but there are {count} classes (0 to {count - 1}); --classnames takes a "
                "name per line, in the order of the labels"
            )


def names_of(batch: Batch) -> list[str]:
    """What to call its images."""
    return [*batch.ids] or [f"number {i} of the batch" for i in range(len(batch.images))]


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
