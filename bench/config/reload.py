"""From a finished run back to the request that made it, so that its data and models can be loaded again."""

from pathlib import Path

from bench.config import RunConfig, load_suite
from bench.data.specs import Place
from bench.records import RunHeader


def config_of(
    header: RunHeader, *, data_root: Path | None = None, device: str = "auto", arch: str | None = None
) -> RunConfig:
    """The request behind a run, without its attack: what loads the run's data, encoder and model.

    Args:
        header: of the run.
        data_root: where the datasets' files lie now; where they lay then by default.
        device: where to compute.
        arch: open_clip architecture of an encoder given as a path; that of the run by default.

    Raises:
        UsageError: the run's suite is not known here.
    """
    suite = load_suite(header.suite)
    place = header.place
    plan = suite.tasks.get(header.task)
    whole = header.limit is None or plan is None
    return RunConfig(
        suite=header.suite,
        encoder=header.encoder,
        task=header.task,
        dataset=header.dataset,
        samples=header.n_samples if whole or plan is None else plan.samples,
        attack="none",
        norm=header.norm,
        eps=header.radii,
        seed=header.seed,
        limit=header.limit,
        device=device,
        data_root=data_root or header.data_root,
        protocol=header.protocol_name,
        precision=header.precision if header.half_verdicts else "float32",
        tower=header.tower,
        arch=arch or header.arch,
        place=Place(**{**place, "root": Path(place["root"])}) if place else None,
        vlm=header.model if header.model != suite.vlm else None,
    )
