"""How high the official VQA accuracy can go where few people answered a question."""

from collections.abc import Sequence

from tasks.base import Sample

ENOUGH = 4  # an answer is right if three others than the one it is compared with gave it too


def ceiling(answers: int) -> float:
    """The highest VQA accuracy in percent that a question with so many annotators allows.

    >>> [round(ceiling(count), 1) for count in (1, 2, 3, 4, 10)]
    [0.0, 33.3, 66.7, 100.0, 100.0]
    """
    return 100 * min(1, (answers - 1) / (ENOUGH - 1))


def annotator_notes(samples: Sequence[Sample]) -> tuple[str, ...]:
    """What to say of questions that too few people answered."""
    few = sum(len(sample.references) < ENOUGH for sample in samples)
    if not few:
        return ()
    highest = sum(ceiling(len(sample.references)) for sample in samples) / len(samples)
    return (
        f"{few} of {len(samples)} questions have fewer than {ENOUGH} annotators' answers; the VQA accuracy compares an "
        f"answer with all of them but one, so that on this dataset it cannot exceed {highest:.1f} %, unless its row "
        'says scoring = "exact", which is for questions with one right answer',
    )
