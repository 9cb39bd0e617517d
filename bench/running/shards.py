"""A run in shards of samples: which there are, and what joins them.

Each shard loads what the run loads and has its header; it attacks and records its own samples only. A metric over the
whole dataset (CIDEr's document frequencies) sees all samples in each shard; what is said of all records together, the
sanity checks on the finished run, is computed when the shards are joined.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from attacks.checks import SanityCheck
from bench.config import RunConfig
from bench.errors import UsageError
from bench.records import Record, RunHeader
from bench.records.files import explained
from bench.records.joining import clear_joined, join_shards
from bench.records.shards import Shard, shards_in
from bench.running.history import History
from bench.running.plugins import blaming_plugins
from bench.trust.places import no_links


def split(config: RunConfig) -> list[RunConfig]:
    """The parts in which a run is to be carried out: its shards, or itself.

    A run goes on as it was begun: in one piece, or in as many shards as there are, whatever is asked for now. No shard
    is empty.

    Raises:
        UsageError: a run is to be forced and split at once, or a folder in the output folder is a link.
        RecordsError: its directory holds shards that do not belong together.
    """
    with explained("create", config.output):
        run = no_links(config.directory, config.output)
    begun = shards_in(run)
    if (run / "run.json").exists():
        if begun:
            clear_joined(run, begun)
        return [config]
    count = begun[0].count if begun else min(config.shards or 1, config.n_samples)
    if count == 1:
        return [config]
    if config.force:
        raise UsageError(f"--force cannot begin shards beside others: choose another --output, or delete {run}")
    return [replace(config, shard=Shard(number, count)) for number in range(count)]


def begin_joining() -> None:
    """Import what `join` needs, which takes seconds: while workers begin, not when they have ended."""
    import_module("bench.running.ending")
    import_module("bench.running.load")


def join(parts: Sequence[RunConfig]) -> Path:
    """Make one run of its finished shards; returns its directory.

    Raises:
        RecordsError: as of `bench.records.joining.join_shards`.
        UsageError: the dataset cannot be read any more.
    """
    from bench.running.ending import checks_of, failures  # see `begin_joining`
    from bench.running.load import load_task

    config = replace(parts[0], shard=None)
    with blaming_plugins():
        task = load_task(config)

    def conclude(header: RunHeader, records: list[Record]) -> tuple[RunHeader, list[Record]]:
        history = History(header, records)
        in_order = [record for sample in task.dataset.samples for record in history.of(sample.id)]
        status = "failed" if failures(history, task) else "complete"
        checks = checks_of(config, task, history, [SanityCheck(**check) for check in header.checks])
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        return replace(header, status=status, checks=checks, ended=ended), in_order

    join_shards(config.directory, [part.shard for part in parts if part.shard is not None], conclude)
    return config.directory
