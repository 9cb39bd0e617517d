"""Which radius of a run is attacked first, where the run is to choose.

Largest first, a sample that is left as it was there is spared all smaller radii; one that is broken there has cost what
smallest first would have saved, where the smaller radius breaks it too. Which is more, the first samples of the run
tell: they are attacked at the largest radius before all others, in a run in one piece and in each of its shards, so
that the choice depends on neither batch size nor shards nor resume.
"""

from collections.abc import Sequence

from bench.records import CLEAN
from bench.records.inferred import is_unchanged
from bench.running.history import History
from tasks.base import Sample, Task
from tasks.protocol import ASCENDING, DESCENDING

FIRST = 16  # samples that tell


def chosen_order(history: History, samples: Sequence[Sample], radius: float, task: Task) -> str:
    """Descending if more gradients were spent on samples that were left as they were than on broken ones.

    Args:
        history: in which the samples were attacked at the radius.
        samples: the first of the run.
        radius: the largest one.
        task: tells which samples are broken.
    """
    unchanged = broken = 0
    for sample in samples:
        records = history.of(sample.id)
        attacks = [record for record in records if record.step != CLEAN and record.radius == radius]
        spent = sum(record.evaluations for record in attacks)
        if is_unchanged(records, radius):
            unchanged += spent
        elif any(record.choice is not None and task.broken(record.choice, sample) for record in attacks):
            broken += spent
    return DESCENDING if unchanged > broken else ASCENDING
