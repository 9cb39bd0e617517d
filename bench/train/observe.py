"""TensorBoard events of a run."""

from collections.abc import Callable
from pathlib import Path

from tensorboardX import SummaryWriter


def tensorboard(directory: Path) -> tuple[Callable[[dict[str, float]], None], Callable[[], None]]:
    """A function that writes logged rows as scalars, and one that closes the file."""
    writer = SummaryWriter(str(directory))

    def observe(row: dict[str, float]) -> None:
        for key, value in row.items():
            if key != "step":
                writer.add_scalar(key.replace("eval_", "eval/"), value, int(row["step"]))
        writer.flush()

    return observe, writer.close
