"""TensorBoard events of a run."""

from collections.abc import Callable
from pathlib import Path

from tensorboardX import SummaryWriter


def tensorboard(directory: Path) -> tuple[Callable[[dict[str, float]], None], Callable[[], None]]:
    """A function that writes logged rows as scalars, and one that closes the file.

    Rows of an interrupted run that are taken again replace those that it wrote.
    """
    writers: list[SummaryWriter] = []

    def observe(row: dict[str, float]) -> None:
        step = int(row["step"])
        if not writers:
            writers.append(SummaryWriter(str(directory), purge_step=step))
        for key, value in row.items():
            if key != "step":
                writers[0].add_scalar(key.replace("eval_", "eval/"), value, step)
        writers[0].flush()

    def close() -> None:
        for writer in writers:
            writer.close()

    return observe, close
