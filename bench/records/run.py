"""A run as it lies on disk."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.records import columns
from bench.records.header import RunHeader
from bench.records.types import Record

Read = Callable[[Iterable[int] | None], list[Record]]
"""Reads a run's records: those of the lines given, or all."""


class Run:
    """A run that was read: its header, and its records as objects or as columns, each made when it is asked for.

    Attributes:
        directory: Where it lies.
        header: Where its numbers come from.
        scores: What `bench.records.worst.scores_at` has computed of it, by radius.
    """

    def __init__(
        self,
        directory: Path,
        header: RunHeader,
        records: Sequence[Record] | Read,
        known: columns.Columns | None = None,
    ) -> None:
        """A run.

        Args:
            directory: see `Run`.
            header: see `Run`.
            records: its records, or what reads them when they are asked for.
            known: its columns, where they have been read.
        """
        self.directory, self.header = directory, header
        self.scores: dict[float, dict[str, float]] = {}
        self._given, self._known = records, known

    @cached_property
    def records(self) -> list[Record]:
        """Its records, in the order in which they were written."""
        return self._given(None) if callable(self._given) else list(self._given)

    @cached_property
    def columns(self) -> columns.Columns:
        """What tables and gates ask of its records."""
        return self._known if self._known is not None else columns.of_records(self.records)

    def let_go(self) -> None:
        """Forget its records where they can be read again, as they are when they are next asked for."""
        if callable(self._given):
            _ = self.columns  # which may be made of them
            self.__dict__.pop("records", None)

    def records_of(self, samples: Collection[str]) -> list[Record]:
        """The records of some samples, without reading the others where that can be."""
        if not callable(self._given) or "records" in self.__dict__:
            return [record for record in self.records if record.sample_id in samples]
        if not samples:
            return []
        places = [place for place, sample in enumerate(self.columns.samples) if sample in samples]
        return self._given(np.flatnonzero(np.isin(self.columns.sample, places)).tolist())
