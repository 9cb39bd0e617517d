"""TensorBoard's event files."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from bench.sinks.base import Subject
from bench.trust.places import inside, no_links
from bench.trust.text import for_markdown

DEFAULT_PLACE = "runs/tensorboard"


class TensorBoard:
    """Scalars, and the settings as a table, in a folder per run or training below a place.

    What an interrupted training takes again, or a run that is sent again, replaces what was written before.
    """

    def __init__(self, place: str) -> None:
        self._place = Path(place or DEFAULT_PLACE)
        self._writers: list[SummaryWriter] = []

    def begin(self, subject: Subject) -> None:
        """Take note; the first numbers open the file, for they say from which step on it replaces others."""
        self._subject = subject

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write scalars."""
        if not self._writers:
            folder = str(no_links(inside(self._place, self._subject.name, "the name"), self._place))
            suffix = f".{time.time_ns()}"  # else two files of one second are one, and lose what the first held
            self._writers.append(SummaryWriter(folder, purge_step=step, filename_suffix=suffix))
            self._writers[0].add_text("settings", self._settings(), step)
        for name, value in numbers.items():
            self._writers[0].add_scalar(name, value, step)
        self._writers[0].flush()

    def close(self) -> None:
        """Close the file."""
        for writer in self._writers:
            writer.close()

    def _settings(self) -> str:
        facts = [f"| {for_markdown(k)} | {for_markdown(str(v))} |" for k, v in self._subject.settings.items()]
        return "\n".join(["| setting | |", "| --- | --- |", *facts])
