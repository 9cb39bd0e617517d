"""From a request to runs: one encoder, one task, one dataset each. Never imports torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from attacks.adaptive import adaptive_steps
from attacks.presets import BROUGHT, AttackStep
from bench import registry
from bench.config.ball import ball, radii_order
from bench.config.black_box import as_black_box
from bench.config.brought import STEPS, check_brought, check_one_radius
from bench.config.choices import check_choices, check_judge
from bench.config.ensemble import JOINED, MEAN, sources, weights
from bench.config.naming import digest, encoder_names, file_name, lasting, lasting_victim, shortened, victim_file_name
from bench.config.request import ADAPTIVE, DEFAULT_PROTOCOL, NATIVE, NO_ATTACK, Options, Request
from bench.config.suite import Suite, TaskPlan, load_suite, preset
from bench.config.victims import Pair, asks_victims, victim_pairs
from bench.data.specs import Place, is_spec, parse, told_apart
from bench.errors import UsageError
from bench.models.victims import specs
from bench.records.shards import Shard
from tasks.protocol import PROTOCOLS, SEARCH_PRECISION, default_radii_order

TRANSFER = "transfer"  # the preset that makes sense on a surrogate only
ALL_TASKS = "all"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Options):
    """One run, resolved.

    Attributes:
        dataset: its name, in tables and in the directory's name.
        samples: how many the suite scores.
        eps: radii as in `Suite.eps`.
        vlm: vision-language model, with its settings behind a "?"; None for the suite's.
        surrogates: encoders that the attacks are made on, several for an ensemble; none for ``encoder`` itself.
        surrogate_vlm: vision-language model around them, where it is another; never without ``surrogates``.
        precision: of the search for adversarial images.
        radii_order: in which the radii are attacked; None where it makes no difference, or each counts by itself.
        chosen_order: what the first samples of an adaptive run chose, for a part of it that is run again; None: they
            choose.
        place: where the dataset lies, if the suite does not know it.
        spec: how the request named that place.
        shard: the part of the run's samples that this is about; None for all.
    """

    encoder: str
    task: str
    dataset: str
    samples: int
    attack: str
    norm: str
    eps: tuple[float, ...]
    seed: int
    vlm: str | None = None
    surrogates: tuple[str, ...] = ()
    surrogate_vlm: str | None = None
    precision: str = "float32"
    radii_order: str | None = None
    chosen_order: str | None = None
    place: Place | None = None
    spec: str | None = None
    shard: Shard | None = None

    @property
    def root(self) -> Path | None:
        """The folder that the paths of the dataset's row are relative to; None for an embedded dataset."""
        return self.data_root if self.place is None else self.place.root

    @property
    def request(self) -> Request:
        """The request for this run alone; it means the same in any working folder."""
        same = {f.name: getattr(self, f.name) for f in fields(Options)}
        folders = {name: None if same[name] is None else same[name].resolve() for name in ("images", "clean")}
        return Request(
            **same | {"suite": lasting(self.suite)} | folders,
            encoder=(lasting(self.encoder),),
            task=(self.task,),
            dataset=(self._lasting_dataset(),),
            eps=self.eps,
            norm=self.norm,
            attack=self.attack,
            seed=self.seed,
            vlm=() if self.vlm is None else (lasting_victim(self.vlm),),
            surrogate=tuple(map(lasting, self.surrogates)),
            surrogate_vlm=() if self.surrogate_vlm is None else (lasting_victim(self.surrogate_vlm),),
            precision=self.precision,
            radii_order=self.radii_order,
        )

    def _lasting_dataset(self) -> str:
        if self.place is None:
            return self.dataset
        return self.place.where if self.data_root is None or self.spec is None else self.spec

    @property
    def suite_name(self) -> str:
        """The suite's name, also where ``suite`` is the path of its file."""
        return load_suite(self.suite).name

    @property
    def steps(self) -> tuple[AttackStep, ...]:
        """The steps of the attack that the protocol has; none for a clean run."""
        if self.images is not None:
            return STEPS
        if self.attack == NO_ATTACK:
            return ()
        steps = self._plain_steps()
        return steps if not self.defence else self._adaptive(steps)

    def _plain_steps(self) -> tuple[AttackStep, ...]:
        """Those of an undefended victim."""
        chosen, protocol = preset(self.attack, load_suite(self.suite)), PROTOCOLS[self.protocol]
        if protocol.published_attacks and chosen.published:
            return chosen.published
        return tuple(step for step in chosen.steps if protocol.shortcuts or not step.shortcut)

    def _adaptive(self, steps: tuple[AttackStep, ...]) -> tuple[AttackStep, ...]:
        from bench.models.defences.load import load_chain  # torch, which resolving a request does without

        chain = load_chain(self.defence)
        return adaptive_steps(steps, randomised=chain.randomised, own_gradient=chain.own_gradient)

    @property
    def attack_name(self) -> str:
        """What the header and tables call the attack."""
        name = self.attack + (f"-from-{self.source}" if self.source else "")
        return ADAPTIVE + name if self.defence and self.attack != NO_ATTACK else name

    @property
    def surrogate(self) -> str | None:
        """The name of what the attacks are made on, with weights other than equal ones; None for ``encoder`` itself."""
        if self.ensemble in (None, MEAN):
            return JOINED.join(self.surrogates) or None
        return JOINED.join(f"{weight:.3g}*{name}" for weight, name in zip(self.weights, self.surrogates, strict=True))

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each surrogate's loss."""
        return weights(self.ensemble, len(self.surrogates)) if self.surrogates else (1.0,)

    @property
    def n_samples(self) -> int:
        """Samples to score."""
        return self.samples if self.limit is None else min(self.limit, self.samples)

    @property
    def source(self) -> str:
        """What the images are made on, in the attack's name: "" for the victim itself."""
        if self.surrogate is None:
            return ""
        return self.surrogate if self.surrogate_vlm is None else f"{self.surrogate}@{self.surrogate_vlm}"

    @property
    def folder(self) -> Path:
        """Where the records are written: the run's directory, or the shard's in it."""
        return self.directory if self.shard is None else self.shard.folder(self.directory)

    @property
    def directory(self) -> Path:
        """Where the records lie; runs that differ in anything that moves a score lie apart."""
        made_on = JOINED.join(map(file_name, self.surrogates))
        attack = self.attack + (f"-from-{made_on}" if made_on else "")
        attack += f"@{victim_file_name(self.surrogate_vlm)}" if self.surrogate_vlm else ""
        attack += "".join(f"-{one.replace('?', '-').replace('&', '-')}" for one in self.defence)
        radii = "+".join(f"{e:g}" for e in self.eps) if self.attack != NO_ATTACK else "clean"
        dataset = self.dataset if self.place is None else f"{self.dataset}-{digest(self.place.where)}"
        name = [file_name(self.encoder), dataset, attack, self.norm, radii, f"seed{self.seed}"]
        if self.protocol != DEFAULT_PROTOCOL:
            name.append(self.protocol)
        if self.precision != "float32":
            name.append(self.precision)
        if self.radii_order not in (None, default_radii_order(self.task)):
            name.append(self.radii_order)
        if self.compiled:
            name.append("compiled")
        if self.tower != "encoder":
            name.append(self.tower)
        if self.ensemble not in (None, MEAN):
            name.append(f"weights-{digest(repr(self.weights))}")
        if self.vlm is not None:
            name.append(victim_file_name(self.vlm))
        if self.judge is not None:
            name.append(f"judge-{victim_file_name(self.judge)}")
        if self.arch is not None:
            architecture, _, weights = self.arch.partition(",")
            name.append(f"{architecture},{file_name(weights)}" if "/" in weights else Path(self.arch).stem)
        if self.clean is not None:
            name.append(f"clean-{digest(str(self.clean.resolve()))}")
        if self.limit is not None:
            name.append(f"limit{self.limit}")
        return self.output / self.suite_name / self.task / shortened("_".join(name))


# ---- Resolving -------------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A dataset that was asked for: its name, and for one that the suite does not know what was said of its place."""

    name: str
    place: Place | None = None
    spec: str | None = None


class _Cell(NamedTuple):
    """What one run is about."""

    encoder: str
    task: str
    dataset: _Asked
    vlm: str | None
    surrogates: tuple[str, ...]
    surrogate_vlm: str | None


def resolve(request: Request) -> list[RunConfig]:
    """All runs that a request stands for, encoder by encoder.

    Raises:
        UsageError: an unknown name (the nearest known one is suggested), a bad radius, or something asked for that
            no run would do.
    """
    suite = load_suite(request.suite)
    request = as_black_box(request, suite)
    if not request.encoder and not request.surrogate and request.vlm:
        request = replace(request, tower=NATIVE)
    check_choices(request, suite)
    check_brought(request)
    request = replace(request, dataset=tuple(told_apart(request.dataset, request.data_root)))
    tasks = {task: _datasets(task, request, suite) for task in _tasks(request, suite)}
    _check_taken(request, suite, tasks)
    check_judge(request, tasks)
    encoders = encoder_names(request.encoder, suite) or [NATIVE]
    if request.surrogate_vlm and not any(map(asks_victims, tasks)):
        raise UsageError(f"--surrogate-vlm: task {', '.join(tasks)} asks no vision-language model; use --surrogate")
    made_on = sources(encoder_names(request.surrogate, suite), request)
    return [
        _run(_with_source(encoder, task, dataset, pair, surrogates, suite), request, suite)
        for encoder in encoders
        for task, datasets in tasks.items()
        for pair in victim_pairs(task, request, suite)
        for dataset, surrogates in product(datasets, made_on)
    ]


def _with_source(
    encoder: str, task: str, dataset: _Asked, pair: Pair, surrogates: tuple[str, ...], suite: Suite
) -> _Cell:
    """What one run is about; images that another victim was to make are plain ones where it is the same victim."""
    victim, source = pair
    if source is None:
        return _Cell(encoder, task, dataset, victim, surrogates, None)
    own = specs.parse(victim or suite.vlm).identity == specs.parse(source).identity
    maker = surrogates or (encoder,)
    if own:
        return _Cell(encoder, task, dataset, victim, () if maker == (encoder,) else maker, None)
    return _Cell(encoder, task, dataset, victim, maker, source)


def resolve_all(request: Request) -> list[RunConfig]:
    """All runs behind a suite's tables, as its `runs` name them; the rest as the request says.

    Raises:
        UsageError: there is no such suite, or it names no runs; and as of `resolve`.
    """
    if not (rows := load_suite(request.suite).runs):
        raise UsageError(f"suite {request.suite!r} does not say which runs its tables hold; name encoders and tasks")
    configs = [config for row in rows for config in resolve(_with(request, row))]
    return list({config.directory: config for config in configs}.values())  # rows may have runs in common


def _with(request: Request, row: Mapping[str, str]) -> Request:
    chosen = Request.of(**row)
    return replace(request, **{name: getattr(chosen, name) for name in row})


def _tasks(request: Request, suite: Suite) -> list[str]:
    if request.task == (ALL_TASKS,):
        return list(suite.tasks)
    for name in request.task:
        if name not in registry.names("bench.tasks"):
            raise registry.unknown("task", name, [*registry.names("bench.tasks"), ALL_TASKS])
    return list(request.task)


def _plan(task: str, suite: Suite) -> TaskPlan:
    """What the suite says of a task; else what a third-party task says for itself, as its class attribute ``plan``."""
    if task in suite.tasks:
        return suite.tasks[task]
    if task not in registry.plugins("bench.tasks"):
        raise UsageError(f"suite {suite.name!r} has no datasets for task {task!r}")
    plan = registry.attribute("bench.tasks", task, "plan")
    if not isinstance(plan, TaskPlan):
        raise UsageError(f"the plugin task {task!r} needs a class attribute plan = bench.config.TaskPlan(...)")
    return plan


def _datasets(task: str, request: Request, suite: Suite) -> list[_Asked]:
    """The datasets on which a task is run: the plan's, or those that were asked for and that suit the task.

    A task of which all datasets are optional is no part of "all", and has them if it is asked for by name.
    """
    plan = _plan(task, suite)
    if not request.dataset:
        by_name = plan.optional if request.task != (ALL_TASKS,) else ()
        return [_Asked(name) for name in plan.datasets or by_name]
    chosen = []
    for one in request.dataset:
        if is_spec(one):
            place = parse(one, request.data_root, plan.defaults)
            chosen += [_Asked(place.name, place, one)] if place.suits(task) else []
        elif one in (*plan.datasets, *plan.optional):
            chosen.append(_Asked(one))
    return chosen


def _check_taken(request: Request, suite: Suite, tasks: Mapping[str, Sequence[_Asked]]) -> None:
    """Refuse datasets that no task takes, and tasks that were named but take none of the datasets."""
    taken = {dataset.spec or dataset.name for datasets in tasks.values() for dataset in datasets}
    for one in request.dataset:
        if one not in taken:
            raise _not_taken(one, suite, tasks)
    for task, datasets in tasks.items():
        if not datasets and request.task != (ALL_TASKS,):
            if not request.dataset:
                raise UsageError(
                    f"suite {suite.name!r} has no dataset of its own for task {task!r}: name one by --dataset"
                )
            asked = ", ".join(request.dataset)
            raise UsageError(f"task {task!r} asks none of --dataset {asked}; leave it out, or name a dataset for it")


def _not_taken(dataset: str, suite: Suite, tasks: Iterable[str]) -> UsageError:
    asked = ", ".join(tasks)
    known = [name for plan in suite.tasks.values() for name in (*plan.datasets, *plan.optional)]
    if not is_spec(dataset) and dataset not in known:
        return registry.unknown("dataset", dataset, known)
    return UsageError(
        f"no task asked for ({asked}) has dataset {dataset!r}, or its format does not suit them; see "
        f"`bench list datasets --suite {suite.name}`"
    )


def _run(cell: _Cell, request: Request, suite: Suite) -> RunConfig:
    plan, place = _plan(cell.task, suite), cell.dataset.place
    row = suite.datasets.get(cell.dataset.name, {}) if place is None else place.row
    norm, radii = ball(request, suite)
    if request.images is not None:
        check_one_radius(radii)
    attack = (request.attack or BROUGHT) if request.images else _attack(plan.attack, cell, request, suite)
    return RunConfig(
        **{f.name: getattr(request, f.name) for f in fields(Options)},
        encoder=cell.encoder,
        task=cell.task,
        dataset=cell.dataset.name,
        samples=row.get("samples", plan.samples),
        attack=attack,
        norm=norm,
        eps=radii,
        seed=suite.seed if request.seed is None else request.seed,
        vlm=cell.vlm,
        surrogates=cell.surrogates,
        surrogate_vlm=cell.surrogate_vlm,
        precision=_precision(request, cell.task),
        place=place,
        spec=cell.dataset.spec,
        radii_order=radii_order(request, suite, cell.task, attack, radii, on_itself=not cell.surrogates),
    )


def _precision(request: Request, task: str) -> str:
    by_protocol = "float32" if request.defence else SEARCH_PRECISION.get((request.protocol, task), "float32")
    return request.precision or by_protocol


def _attack(usual: str, cell: _Cell, request: Request, suite: Suite) -> str:
    name = request.attack or usual
    if name != NO_ATTACK:
        preset(name, suite)
    if name == TRANSFER and not cell.surrogates and not request.surrogate_vlm:
        raise UsageError("attack 'transfer' needs --surrogate, the encoder on which the images are made")
    return name
