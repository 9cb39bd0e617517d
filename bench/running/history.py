"""What a run has recorded so far, sample by sample, so that nothing is looked for in all records at each batch."""

from collections.abc import Callable, Collection, Iterable

from bench.records import Record, RunHeader
from bench.records.types import CLEAN, Key
from bench.records.worst import worst_choices, worst_scores


class History:
    """The records of a run in order.

    Attributes:
        records: all of them.
        done: keys of the records that are settled: what is not done again.
    """

    def __init__(self, header: RunHeader, records: Iterable[Record]) -> None:
        self.header = header
        self.records: list[Record] = []
        self.done: set[Key] = set()
        self._by_sample: dict[str, list[Record]] = {}
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        """Take in what was recorded."""
        for record in records:
            self.records.append(record)
            self._by_sample.setdefault(record.sample_id, []).append(record)
            if record.settled:
                self.done.add(record.key)

    def of(self, sample_id: str) -> list[Record]:
        """A sample's records, in order."""
        return self._by_sample.get(sample_id, [])

    def scores(self, radius: float, samples: Iterable[str] | None = None) -> dict[str, float]:
        """What samples (default: all) are left with at a radius; those whose attacks there all failed are absent."""
        return worst_scores(self.header, self._records(samples), radius)

    def sound_choices(
        self, radius: float, samples: Iterable[str] | None = None, steps: Collection[str] | None = None
    ) -> dict[str, float]:
        """What tells whether samples are broken, by all that went well: a step that failed may be taken again.

        Args:
            radius: radius as recorded.
            samples: default: all.
            steps: if given, only what these did counts, beside the clean answers.
        """
        records = [r for r in self._records(samples) if r.error is None]
        if steps is not None:
            records = [r for r in records if r.step == CLEAN or r.step in steps]
        return worst_choices(self.header, records, radius)

    def _records(self, samples: Iterable[str] | None) -> list[Record]:
        return self.records if samples is None else [record for key in samples for record in self.of(key)]


class Tally:
    """How samples stand at a radius: kept up as they are attacked, so that no batch looks at all of them.

    Args:
        history: the run's records.
        radius: as recorded.
        broken: whether a sample of this id is broken at a score.
    """

    def __init__(self, history: History, radius: float, broken: Callable[[str, float], bool]) -> None:
        self._history, self._radius, self._broken = history, radius, broken
        self._scores: dict[str, float] = {}
        self._robust: set[str] = set()
        self._sum = 0.0

    def update(self, samples: Collection[str]) -> None:
        """Look at some samples again."""
        for key in samples:
            self._sum -= self._scores.pop(key, 0.0)
            self._robust.discard(key)
        for key, score in self._history.scores(self._radius, samples).items():
            self._scores[key] = score
            self._sum += score
            if not self._broken(key, score):
                self._robust.add(key)

    def words(self, metric: str) -> str:
        """How the run is doing, such as "12 of 40 robust, accuracy 53.2"; nothing before anything is scored."""
        if not self._scores:
            return ""
        count = len(self._scores)
        return f"{len(self._robust)} of {count} robust, {metric} {self._sum / count:.1f}"
