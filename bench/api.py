"""The library behind the command line: `run` carries out what `bench run` asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.cells import measured
from bench.config import RunConfig, resolve, resolve_all
from bench.config.facts import SUITE_FACTS
from bench.records import Record, Run, load_run
from bench.tables import layouts
from bench.tables.plot import score_against_radius
from bench.tables.rows import frame, rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Result:
    """Finished runs, as they lie on disk."""

    runs: tuple[Run, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-able dict per run and radius, with value, 95 % interval and n; see `bench.tables.rows.rows`."""
        return rows(measured(self.runs))

    def table(self) -> "pd.DataFrame":
        """A row per run and radius, and per average over zero-shot datasets; names and numbers in columns.

        The columns are encoder, task, dataset, attack, radius (0 for clean), value, low and high (95 % interval), n,
        partial (bool) and checks (the sanity checks that failed, comma-separated).
        """
        return frame(layouts.flat.measures(self.runs, SUITE_FACTS))

    def plot(self) -> "Figure":
        """Score against radius, a panel per task and dataset and a line per encoder, as a matplotlib figure."""
        return score_against_radius(layouts.build("flat", self.runs, SUITE_FACTS))

    @property
    def records(self) -> list[Record]:
        """Every record of every run."""
        return [record for run in self.runs for record in run.records]


def run(
    *,
    encoder: str | Sequence[str],
    task: str | Sequence[str],
    suite: str = "mini",
    eps: str | float | Sequence[str | float] | None = None,
    norm: str | None = None,
    attack: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    surrogate: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    output: str | Path = "results/runs",
    data_root: str | Path | None = None,
    save_adversarial: bool = False,
    dataset: str | Sequence[str] | None = None,
    protocol: str = "strict",
    precision: str = "float32",
    compiled: bool = False,
    tower: str = "encoder",
    arch: str | None = None,
    vlm: str | None = None,
    force: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> Result:
    """Evaluate encoders on tasks, clean and under attack, resuming what is recorded already.

    Args:
        encoder: catalogue name, alias, plugin name or path to a checkpoint; several as a list or comma-separated.
        task: task name; several likewise; "all" for every task of the suite.
        suite: which models, data and sample counts.
        eps: radii in 1/255 for l-inf, in plain units of pixels in [0, 1] for l2; the suite's by default.
        norm: "linf" or "l2"; the suite's by default.
        attack: preset name, or "none"; the suite's choice for each task by default.
        limit: score only the first so many samples; such runs carry a banner and enter no committed table.
        seed: of all random starts; the suite's by default.
        surrogate: make the adversarial images on this encoder and score them on ``encoder`` (transfer); several
            give a run for every pair.
        batch_size: samples attacked at once; None adapts to memory. Never changes a result.
        device: "auto", "cpu", "cuda", ...
        output: where run directories go.
        data_root: folder with the datasets' files; None for those embedded in the package.
        save_adversarial: keep the worst image of each sample and radius.
        dataset: only these datasets of the task; or others by where they lie, see `bench.data.specs.parse`.
        protocol: "strict", or "paper" for the choices of the paper's released code.
        precision: "float32", or "bf16" or "fp16" to search for adversarial images in half precision; verdicts stay in
            float32 (but see `tasks.protocol.PAPER`).
        compiled: let torch.compile have the models' blocks. It takes minutes before the first step; meant for long
            attacks on large models on a GPU. Rounding may turn a close verdict, hence the run lies apart.
        tower: "encoder", or "native" for the tower that the vision-language model came with.
        arch: open_clip architecture of an ``encoder`` given as a path.
        vlm: folder or hub id of the vision-language model; the suite's by default.
        force: begin anew beside a run that cannot be resumed.
        jobs: runs carried out at once; None for one a core on the CPU, one at a time elsewhere.
        progress: show progress bars on stderr.

    Raises:
        UsageError: an unknown name, a bad radius, a file that is missing or is not what it should be.
        RecordsError: a run directory is in use, holds another run, or cannot be written.
    """
    configs = resolve(
        encoder=encoder, task=task, suite=suite, eps=eps, norm=norm, attack=attack, limit=limit, seed=seed,
        surrogate=surrogate, batch_size=batch_size, device=device, output=Path(output),
        data_root=None if data_root is None else Path(data_root), save_adversarial=save_adversarial,
        dataset=dataset, protocol=protocol, precision=precision, compiled=compiled, tower=tower, arch=arch, vlm=vlm,
        force=force,
    )  # fmt: skip
    return _carried_out(configs, jobs, progress)


def run_all(
    *, suite: str = "mini", output: str | Path = "results/runs", data_root: str | Path | None = None,
    jobs: int | None = None, progress: bool = True, **options: Any,
) -> Result:  # fmt: skip
    """Carry out every run behind a suite's tables, resuming what is recorded already.

    Args:
        suite: whose runs; its file lists them.
        output: as of `run`, like the following.
        data_root: folder with the datasets' files.
        jobs: runs carried out at once.
        progress: show progress bars on stderr.
        options: others of `run`, except those that choose runs: encoder, task, dataset, surrogate, attack, eps.

    Raises:
        UsageError: as of `run`; or the suite does not say which runs its tables hold.
        RecordsError: as of `run`.
    """
    root = None if data_root is None else Path(data_root)
    return _carried_out(resolve_all(suite, output=Path(output), data_root=root, **options), jobs, progress)


def _carried_out(configs: list[RunConfig], jobs: int | None, progress: bool) -> Result:
    return Result(tuple(load_run(directory) for directory in _execute(configs, jobs, progress)))


def _execute(configs: list[RunConfig], jobs: int | None, progress: bool) -> list[Path]:
    from bench.running.engines import execute_all

    return execute_all(configs, jobs=jobs, progress=progress)
